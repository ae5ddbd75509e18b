"""What a served job has in its context: what the page of features names and no other test asks a server for."""

from typing import Any

import pytest
import trio.testing
from tests.module.sample import module_with
from tests.module.served import outputs_of, served

from dk_trio import ModuleContext, Settings
from dk_trio.services import BaseStrategy, ServicesStrategy
from dk_trio.services.setup import SetupVersion


async def said_by(
    told: Any,
    *,
    environ: dict[str, str] | None = None,
    strategies: dict[str, ServicesStrategy] | None = None,
    params: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """What a handler, in a server with these variables and arguments, tells of its context."""

    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        await context.send({"protocol": "message", "said": await told(context)})

    module = module_with(handle)
    module.services_config_strategies = strategies or {}
    module.services_config_params = params or {}
    async with served(module, settings=Settings.from_environment(environ or {}), **server or {}) as (_, client):
        outputs = await outputs_of(client, {}, protocol="message", **arguments)
    return outputs[1]["root"]["said"]


async def test_the_session_has_its_ids_and_the_time_zone_of_the_server(autojump_clock: trio.testing.MockClock) -> None:
    async def told(context: ModuleContext) -> dict[str, str]:
        return {"zone": context.session.timezone.key, **context.session.current_ids()}

    ids = {"mission_id": "missions:m", "setup_id": "setups:s"}
    said = await said_by(told, environ={"DIGITALKIN_TIMEZONE": "Asia/Tokyo"}, **ids)
    assert said["zone"] == "Asia/Tokyo"
    assert said.items() >= ids.items()
    assert said.keys() == {"zone", "job_id", "setup_version_id", *ids}
    assert (await said_by(told))["zone"] == "Europe/Paris"


async def test_the_context_has_ten_services(autojump_clock: trio.testing.MockClock) -> None:
    names = "agent communication cost filesystem identity registry snapshot storage task_manager user_profile".split()

    async def told(context: ModuleContext) -> dict[str, str]:
        return {name: type(getattr(context, name)).__name__ for name in names}

    said = await said_by(told, params={"storage": {"config": {}}, "cost": {"config": {}}})
    assert {name: kind for name, kind in said.items() if name != "task_manager"} == {
        name: f"Default{name.title().replace('_', '')}" for name in names if name != "task_manager"
    }
    assert said["task_manager"] == "LocalSignals"


async def test_schemas_of_a_module_by_its_id(autojump_clock: trio.testing.MockClock) -> None:
    async def told(context: ModuleContext) -> dict[str, Any]:
        (own,) = await context.registry.search()
        schemas = await context.get_module_schemas_by_id(own.module_id, llm_format=True)
        return {name: sorted(schema) for name, schema in schemas.items()}

    said = await said_by(told)
    assert said.keys() == {"input", "output", "setup", "secret", "cost"}
    assert said["input"] == ["json_schema"]


@pytest.mark.parametrize(("mode", "kind"), [("local", "Here"), ("remote", "There")])
async def test_the_mode_chooses_between_two_strategies(
    mode: str, kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    class Setups:
        async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
            return SetupVersion(setup_id=setup_id, id="setup_versions:v", content={})

    async def nobody() -> trio.abc.Stream:
        raise OSError("no provider is needed for this")

    class Here(BaseStrategy): ...

    class There(BaseStrategy): ...

    async def told(context: ModuleContext) -> str:
        return type(context.identity).__name__

    pair = ServicesStrategy(local=Here, remote=There)
    server = {"setups": Setups()} | ({"provider": nobody} if mode == "remote" else {})
    assert await said_by(told, environ={"SERVICE_MODE": mode}, strategies={"identity": pair}, server=server) == kind
