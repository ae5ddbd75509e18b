"""Several modules behind one port: which one a call is for, what they share, and what they keep apart."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from trio.testing import MockClock

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.errors import ModuleDefinitionError, SettingError, SetupFileError
from dk_trio.extensions import MODULE_ID
from dk_trio.module import SetupModel, TrioModule
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleInputRequest,
    GetModuleSetupRequest,
    ModuleServiceStub,
    ModuleStatus,
)
from dk_trio.services import DefaultSetup
from dk_trio.services.setup import SetupVersion
from dk_trio.settings import ModuleSettings, ServicesSettings, TaskSettings

from .sample import Input, Message, Output, module_class, module_with
from .served import outputs_of, served

GO = {"protocol": "message", "text": "x"}


def named(name: str, handle: Any = None, **attributes: Any) -> Any:
    """A module that answers with its own name, and with the prefix of its setup."""

    async def say(self: Any, data: Message, setup: Any, context: Any) -> None:
        await context.send(Message(text=f"{setup.prefix}{name}"))

    return module_with(handle or say, name=name, metadata={"module_id": f"modules:{name}"}, **attributes)


@asynccontextmanager
async def two(**arguments: Any) -> AsyncIterator[tuple[ModuleServer, ModuleClient]]:
    async with served(named("left"), named("right"), **arguments) as found:
        yield found


def for_(module_id: str) -> dict[str, Any]:
    return {"metadata": [(MODULE_ID, module_id)]}


async def said(client: ModuleClient, **arguments: Any) -> str:
    (_, answer, _) = await outputs_of(client, GO, **arguments)
    text: str = answer["root"]["text"]
    return text


async def refused(client: ModuleClient, **arguments: Any) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await outputs_of(client, GO, **arguments)
    return caught.value


@pytest.mark.parametrize("module_id", ["modules:right", "right"])
async def test_metadata_say_which_module_is_meant(autojump_clock: MockClock, module_id: str) -> None:
    async with two() as (_, client):
        assert await said(client, **for_(module_id)) == "right"


async def test_the_default_setup_of_a_module_leads_to_it(autojump_clock: MockClock) -> None:
    async with two() as (_, client):
        assert await said(client, setup_id="setups:right") == "right"
        assert await said(client, setup_id="left") == "left"


async def test_a_setup_of_a_file_leads_to_its_module(autojump_clock: MockClock, tmp_path: Path) -> None:
    path = tmp_path / "right.json"
    path.write_text(json.dumps({"setups:loud": {"prefix": "!"}}))
    async with two(setup_file={"modules:right": path}) as (_, client):
        assert await said(client, setup_id="setups:loud") == "!right"


async def test_a_setup_that_was_configured_leads_to_its_module(autojump_clock: MockClock) -> None:
    async with two() as (server, client):
        server.modules["right"].setups.put(
            SetupVersion(id="setup_versions:1", setup_id="mine", content={"prefix": "#"})
        )
        assert await said(client, setup_id="setups:mine") == "#right"


async def test_a_stored_setup_leads_to_its_module(autojump_clock: MockClock) -> None:
    async with two() as (server, client):
        await _store(server, "setups:stored", "modules:right", "%")
        assert await said(client, setup_id="setups:stored") == "%right"


async def test_a_setup_of_a_module_that_is_elsewhere_is_not_found(autojump_clock: MockClock) -> None:
    async with two() as (server, client):
        await _store(server, "setups:other", "modules:far", "")
        error = await refused(client, setup_id="setups:other")
        assert error.status is Status.NOT_FOUND
        assert error.message is not None
        assert "'modules:far', which is not served here: served here are modules:left, modules:right" in error.message


async def test_a_call_that_fits_no_module_is_told_what_to_send(autojump_clock: MockClock) -> None:
    async with two() as (_, client):
        error = await refused(client, setup_id="setups:unheard")
        assert error.status is Status.INVALID_ARGUMENT
        assert error.message == (
            "Setup 'setups:unheard' is known for no module, and served here are modules:left, modules:right. Send the "
            "module's id as metadata dk-trio-module-id (`dk-trio call --module`), or a setup of one of them, such as "
            "setups:left."
        )
        # An explicit call with that setup gets the default of its module, and does not make the setup that module's.
        assert await said(client, setup_id="setups:unheard", **for_("left")) == "left"
        assert (await refused(client, setup_id="setups:unheard")).status is Status.INVALID_ARGUMENT


async def test_what_to_send_is_no_setup_that_there_is_not(autojump_clock: MockClock) -> None:
    async with two(strict_setup=True) as (_, client):
        error = await refused(client, setup_id="setups:left")
        assert error.status is Status.INVALID_ARGUMENT
        assert str(error.message).endswith("(`dk-trio call --module`), or a setup of one of them.")


async def test_a_setup_of_two_modules_is_ambiguous(autojump_clock: MockClock) -> None:
    async with two() as (server, client):
        for module in server.modules.values():
            module.setups.put(SetupVersion(id="setup_versions:1", setup_id="both", content={}))
        error = await refused(client, setup_id="setups:both")
        assert error.status is Status.INVALID_ARGUMENT
        assert "one of modules:left and of modules:right" in str(error.message)


async def test_one_module_is_meant_whatever_the_metadata_say(autojump_clock: MockClock) -> None:
    async with served(named("left")) as (_, client):  # a registry may know it by another id
        assert await said(client, **for_("modules:far")) == "left"


async def test_metadata_that_name_another_module_are_refused(autojump_clock: MockClock) -> None:
    async with two() as (_, client):
        error = await refused(client, **for_("modules:far"))
        assert error.status is Status.NOT_FOUND
        assert "'modules:far' is not served here: served here are modules:left" in str(error.message)


async def test_schemas_by_the_module_id_of_the_request(autojump_clock: MockClock) -> None:
    class Other(SetupModel):
        suffix: str = ""

    right = module_class(TrioModule[Input, Output, Other], name="right", run=_run, metadata={"module_id": "right"})
    async with served(named("left"), right) as (_, client):
        stub = ModuleServiceStub(client.channel)

        async def keys(module_id: str, **arguments: Any) -> set[str]:
            reply = await stub.get_module_setup(GetModuleSetupRequest(module_id=module_id), **arguments)
            assert reply.setup_schema is not None
            return {"prefix", "suffix"} & {*reply.setup_schema.to_dict()["properties"]}

        assert await keys("left") == await keys("", metadata={MODULE_ID: "left"}) == {"prefix"}
        assert await keys("modules:right") == {"suffix"}
        for module_id, status in (("", Status.INVALID_ARGUMENT), ("modules:far", Status.NOT_FOUND)):
            with pytest.raises(GRPCError) as caught:
                await keys(module_id)
            assert caught.value.status is status


async def _run(self: Any, input_data: Any, setup_data: Any) -> None:
    pass


async def _store(server: ModuleServer, setup_id: str, module_id: str, prefix: str) -> None:
    setups = DefaultSetup(platform=server.platform)
    await setups.create_setup(name="s", module_id=module_id, setup_id=setup_id, content={"prefix": prefix})


async def test_one_module_takes_schemas_for_any_id_as_ever(autojump_clock: MockClock) -> None:
    async with served(named("left")) as (_, client):
        reply = await ModuleServiceStub(client.channel).get_module_input(GetModuleInputRequest(module_id="modules:far"))
        assert reply.success


async def test_jobs_of_all_modules_are_found_by_their_ids(autojump_clock: MockClock) -> None:
    async def waits(self: Any, data: Any, setup: Any, context: Any) -> None:
        await trio.sleep_forever()

    async with (
        served(named("left", waits), named("right", waits)) as (server, client),
        client.start(GO, **for_("left")) as left,
        client.start(GO, **for_("right")) as right,
    ):
        ids = {(await anext(outputs))["root"]["job_id"] for outputs in (left, right)}
        assert (await client.jobs()).keys() == ids
        assert {session.module_name for session in server.jobs} == {"left", "right"}
        for job_id in ids:
            assert await client.status(job_id) is ModuleStatus.PROCESSING
            await client.stop(job_id)
        for outputs in (left, right):
            with pytest.raises(GRPCError) as caught:
                await anext(outputs)
            assert caught.value.status is Status.CANCELLED


async def test_slots_are_shared(autojump_clock: MockClock) -> None:
    freed = trio.Event()

    async def waits(self: Any, data: Any, setup: Any, context: Any) -> None:
        await freed.wait()

    settings = replace(Settings(), tasks=TaskSettings(max_concurrent_tasks=1))
    async with (
        served(named("left", waits), named("right"), settings=settings) as (server, client),
        client.start(GO, **for_("left")) as left,
        trio.open_nursery() as nursery,
    ):
        await anext(left)
        nursery.start_soon(lambda: said(client, **for_("right")))
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().jobs.queued == 1
        freed.set()
        assert [output async for output in left]


async def test_one_module_calls_the_other_in_its_process(autojump_clock: MockClock) -> None:
    async def asks(self: Any, data: Any, setup: Any, context: Any) -> None:
        other = await context.registry.discover_by_id("modules:right")
        schemas = await context.communication.get_module_schemas(other.address, other.port)
        # The own caller's metadata, which name this module, go along and do not lead back to it.
        async with context.communication.start_module(
            other.address, other.port, GO, "setups:any", "missions:m", metadata=context.request_metadata
        ) as answers:
            texts = [answer["output"]["root"].get("text") async for answer in answers]
        await context.send(Message(text=f"{texts[-1]}, {len(schemas)} schemas"))

    async with served(named("left", asks), named("right")) as (_, client):
        assert await said(client, **for_("left")) == "right, 5 schemas"


def test_two_modules_with_one_id_are_refused() -> None:
    with pytest.raises(ModuleDefinitionError, match=r"\.left and .*\.left have the same id, 'modules:left'"):
        ModuleServer(named("left"), named("left"))


def test_the_variable_with_the_id_of_one_module_is_refused_for_two() -> None:
    settings = replace(Settings(), module=ModuleSettings(module_id="mine"))
    with pytest.raises(
        SettingError, match="DIGITALKIN_MODULE_ID='mine' is the id of one module, and several are served"
    ):
        ModuleServer(named("left"), named("right"), settings=settings)


def test_a_setup_file_must_say_for_which_module_it_is(tmp_path: Path) -> None:
    path = tmp_path / "setups.json"
    path.write_text("{}")
    with pytest.raises(SetupFileError, match="names no module, and there are several: left, right"):
        ModuleServer(named("left"), named("right"), setup_file=path)
    with pytest.raises(SetupFileError, match=r"for the module 'far', which is not served\."):
        ModuleServer(named("left"), named("right"), setup_file={"modules:far": path})


def test_modules_that_are_served_together_share_a_directory_that_has_their_names(tmp_path: Path) -> None:
    settings = replace(Settings(), services=ServicesSettings(data_dir=tmp_path))
    assert ModuleServer(named("right"), named("left"), settings=settings).platform.directory == tmp_path / "left+right"
    assert ModuleServer(named("right"), settings=settings).platform.directory == tmp_path / "right"
    many = [named(f"module-{number:04}") for number in range(40)]
    directory = ModuleServer(*many, settings=settings).platform.directory
    assert directory is not None
    assert len(directory.name) < 120


async def test_a_drain_ends_the_jobs_of_all_modules(autojump_clock: MockClock) -> None:
    async def waits(self: Any, data: Any, setup: Any, context: Any) -> None:
        await trio.sleep_forever()

    ended: list[Status] = []
    begun, go_on = trio.open_memory_channel[None](2)

    async def call(client: ModuleClient, name: str) -> None:
        try:
            async with client.start(GO, **for_(name)) as outputs:
                await anext(outputs)
                begun.send_nowait(None)
                await anext(outputs)
        except GRPCError as error:
            ended.append(error.status)

    async with (
        served(named("left", waits), named("right", waits)) as (server, client),
        trio.open_nursery() as nursery,
    ):
        for name in ("left", "right"):
            nursery.start_soon(call, client, name)
            await go_on.receive()
        assert await server.drain(1) == []
    assert ended == [Status.UNAVAILABLE] * 2
