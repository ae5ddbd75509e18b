"""What authors of modules are told, for the headings of the troubleshooting page: each function produces one text."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import shouter
import trio
from grpclib import GRPCError
from tests.module.sample import module_with
from tests.module.served import outputs_of, served

from dk_trio import CostConfig, DataModel, ModuleContext, ModuleDiscoverer, SetupModel, TrioModule, tool_reference_input
from dk_trio.errors import DkTrioError
from dk_trio.module import ModuleDefinition
from dk_trio.services import LocalPlatform


def refused_definition(module: type[TrioModule]) -> str:
    with pytest.raises(DkTrioError) as caught:
        ModuleDefinition.of(module)
    return re.sub(r"[^\s(]+\.py:\d+", "module.py:12", caught.value.message)


def no_triggers() -> str:
    class Shouter(TrioModule[DataModel, DataModel, SetupModel]): ...

    return refused_definition(Shouter)


def broken_trigger_file() -> str:
    package = Path.cwd() / "shouting"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "loud_trigger.py").write_text("import dk_trio\n\nraise KeyError('volume')\n")

    class Shouter(TrioModule[DataModel, DataModel, SetupModel]):
        triggers_discoverer = ModuleDiscoverer(packages=["shouting"])

    with pytest.MonkeyPatch.context() as patch, pytest.raises(DkTrioError) as caught:
        patch.syspath_prepend(Path.cwd())
        ModuleDefinition.of(Shouter)
    return caught.value.message.replace(f"{Path.cwd()}/", "")


async def status_of_job(told: Any, *, data: dict[str, Any] | None = None, **attributes: Any) -> str:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        await told(context)

    module = module_with(handle)
    for name, value in attributes.items():
        setattr(module, name, value)
    async with served(module) as (_, client):
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {"root": {"protocol": "message"}, **(data or {})})
    return f"{caught.value.status.name}: {caught.value.message}".replace("Sample", "Shouter")


async def service_without_parameters() -> str:
    async def told(context: ModuleContext) -> None:
        await context.storage.list("notes")

    return await status_of_job(told)


async def cost_limit() -> str:
    async def told(context: ModuleContext) -> None:
        for _ in range(2):
            await context.cost.add("tokens", "token", 300)

    price = CostConfig(cost_name="token", cost_type="TOKEN_INPUT", unit="token", rate=0.01)
    limit = {"limit_type": "amount", "max_value": 5}
    params = {"cost": {"config": {"token": price}}}
    return await status_of_job(told, data={"cost_limits": [limit]}, services_config_params=params)


async def refusal_logged() -> str:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    log, handler = logging.getLogger("dk_trio.servicer"), Handler()
    log.addHandler(handler)
    try:
        async with served(shouter.Shouter) as (_, client):
            with pytest.raises(GRPCError):
                await outputs_of(client, {"root": {"protocol": "shout"}}, setup_id="setups:s", mission_id="missions:m")
    finally:
        log.removeHandler(handler)
    [line] = lines
    return line


async def tool_that_is_not_there() -> str:
    class Tools(SetupModel):
        tools: tool_reference_input()

    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None: ...

    module = module_with(handle)
    module.setup_format = Tools
    async with served(module) as (_, client):
        with pytest.raises(GRPCError) as caught:
            selected = {"setupId": "setups:search", "triggers": {"search": True}}
            await client.config_setup({"tools": [selected]})
    return f"{caught.value.status.name}: {caught.value.message}"


def directory_in_use() -> str:
    """On a clock and in a loop of its own: what is on disk is written by a thread, which virtual time does not know."""

    async def ask_twice() -> str:
        folder = Path.cwd() / ".dk-trio"
        with trio.fail_after(30):
            async with LocalPlatform(folder).opened() as first, LocalPlatform(folder).opened() as second:
                await first.database.open()
                with pytest.raises(DkTrioError) as caught:
                    await second.database.open()
        return re.sub(r"process \d+", "process 4711", caught.value.message.replace(f"{Path.cwd()}/", ""))

    with ThreadPoolExecutor() as executor:
        return executor.submit(trio.run, ask_twice).result()
