"""A module that runs only with a setup that was configured, and says on stdout each time that it configures one.

Served by tests in a process of its own. The form's `act` tells `run_config_setup` to `raise` or to `sleep`; a job with
the text `wait` ends when it is ended.
"""

from typing import Literal

import trio

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TrioModule


class Message(DataTrigger):
    protocol: Literal["message"] = "message"
    text: str = ""


class Setup(SetupModel):
    prefix: str
    act: str = ""


class Configured(TrioModule[DataModel[Message], DataModel[Message], Setup]):
    name = "configured"

    async def run(self, input_data: DataModel[Message], setup_data: Setup, context: ModuleContext) -> None:
        await context.send(Message(text=setup_data.prefix + input_data.root.text))
        if input_data.root.text == "wait":
            await trio.sleep_forever()

    async def run_config_setup(self, context: ModuleContext, config_setup_data: Setup) -> Setup:
        print(f"configuring {context.session.setup_id}", flush=True)
        if config_setup_data.act == "raise":
            raise ValueError("no such model")
        if config_setup_data.act == "sleep":
            await trio.sleep_forever()
        return config_setup_data.model_copy(update={"prefix": config_setup_data.prefix.upper()})
