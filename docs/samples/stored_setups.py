"""A program that stores a setup of the module that it serves, and gives it another version."""

from dk_trio import ModuleServer
from dk_trio.services import DefaultSetup


async def store(server: ModuleServer) -> None:
    """Inside of `async with server.running(...)`."""
    setups = DefaultSetup(platform=server.platform)
    await setups.create_setup(
        setup_id="setups:french", name="French", module_id="polyglot", content={"language": "fr", "word": "bonjour"}
    )
    evening = await setups.create_setup_version(
        "setups:french", version="evening", content={"language": "fr", "word": "bonsoir"}
    )
    await setups.update_setup("setups:french", current_setup_version_id=evening.id)
