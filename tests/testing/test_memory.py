"""A server over memory: its clients, its connections, its setups, and what an author is told who made a mistake."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib import GRPCError, Status
from tests.module.sample import Message, module_class, module_with, send_one

from dk_trio import Settings
from dk_trio.errors import ModuleDefinitionError
from dk_trio.services.local.setup import LocalSetup
from dk_trio.services.setup import SetupVersion
from dk_trio.settings import ServicesSettings, TaskSettings
from dk_trio.testing import DeadlockError, FakeProvider, run, run_job, serve_in_memory


async def test_a_job_runs_and_the_names_of_all_are_told(virtual_clock: trio.testing.MockClock) -> None:
    async with serve_in_memory(module_with(send_one)) as served:
        async with served.client.start({"text": "hi"}, protocol="message") as outputs:
            got = [output["root"] async for output in outputs]
        assert repr(served).startswith("<MemoryServer <ModuleServer Sample, ")
        assert repr(served).endswith(", 1 connections>")
    assert [root["protocol"] for root in got] == ["module_start_info", "message", "end_of_stream"]
    assert served.connections == 0
    with pytest.raises(OSError, match="Sample is not served any more"):
        await served.connect()


async def test_each_client_has_its_own_connection(virtual_clock: trio.testing.MockClock) -> None:
    async with serve_in_memory(module_with(send_one)) as served:
        await served.client.input_schema()
        async with served.another_client() as other:
            await other.input_schema()
            assert served.connections == 2
        await trio.testing.wait_all_tasks_blocked()
        assert served.connections == 1


async def test_a_raw_stream_speaks_http2(virtual_clock: trio.testing.MockClock) -> None:
    async with serve_in_memory(module_with(send_one)) as served:
        stream = await served.connect()
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        assert (await stream.receive_some())[3] == 4  # SETTINGS
        await stream.aclose()


async def test_several_modules_are_served_at_once(virtual_clock: trio.testing.MockClock) -> None:
    modules = [module_with(send_one, metadata={"module_id": f"modules:{name}"}) for name in ("one", "two")]
    async with serve_in_memory(*modules) as served:
        assert list(served.server.modules) == ["one", "two"]


@pytest.mark.parametrize("setup_id", ["setups:loud", "loud"])
async def test_setups_are_given_by_id(setup_id: str, virtual_clock: trio.testing.MockClock) -> None:
    async with serve_in_memory(module_with(send_one), setups={setup_id: {"prefix": "!"}}) as served:
        result = await served.run_job({"text": "hi"}, protocol="message", setup_id="setups:loud")
        unknown = await served.run_job({"text": "hi"}, protocol="message")
    assert [message.text for message in result.typed(Message)] == ["!hi"]
    assert (unknown.status, "known: loud" in unknown.error) == (Status.NOT_FOUND, True)


async def test_setups_may_come_from_a_source(virtual_clock: trio.testing.MockClock) -> None:
    version = SetupVersion(id="v", setup_id="s", content={"prefix": "?"})
    result = await run_job(
        module_with(send_one), {"text": "hi"}, protocol="message", setups=LocalSetup({"default": version})
    )
    assert result.outputs[0]["text"] == "?hi"


async def test_nothing_is_kept_on_disk_unless_it_is_said_where(tmp_path: Path) -> None:
    async def keep(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.snapshot.create({"text": input_data.text}, "state")

    module = module_with(keep)
    kept, settings = tmp_path / "kept", Settings(services=ServicesSettings(data_dir=tmp_path / "never"))
    for data_dir, there in ((None, []), (kept, [kept])):
        result = await run_job(module, {"text": "hi"}, protocol="message", settings=settings, data_dir=data_dir)
        assert result.ok, result.error
        assert list(tmp_path.iterdir()) == there


async def test_a_provider_may_be_what_opens_streams_to_one(virtual_clock: trio.testing.MockClock) -> None:
    module = module_with(send_one, metadata={"module_id": "modules:sample"})
    async with FakeProvider() as provider:
        await provider.put_setup({"prefix": "> "}, module_id=module)
        for given in (provider, provider.connect):
            result = await run_job(module, {"text": "hi"}, protocol="message", provider=given)
            assert [message.text for message in result.typed(Message)] == ["> hi"]


async def test_arguments_of_the_server_and_settings_arrive(virtual_clock: trio.testing.MockClock) -> None:
    settings = Settings(tasks=TaskSettings(max_concurrent_tasks=7))
    async with serve_in_memory(module_with(send_one), settings=settings, strict_setup=True) as served:
        assert served.server.statistics().admission.slots == 7
        result = await served.run_job({"text": "hi"}, protocol="message")
    assert result.status is Status.NOT_FOUND


async def test_a_module_that_is_not_complete_is_told_as_by_the_server() -> None:
    with pytest.raises(ModuleDefinitionError, match="Untold has no triggers and no run method") as caught:
        async with serve_in_memory(module_class(name="Untold")):
            pass
    assert caught.value.__notes__ == ["Register a handler with @Untold.register, or override run()."]


async def test_what_the_block_raises_comes_out_as_it_is(virtual_clock: trio.testing.MockClock) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with serve_in_memory(module_with(send_one)):
            raise LookupError("mine")
    with pytest.raises(GRPCError):
        async with serve_in_memory(module_with(send_one)) as served, served.client.start({"protocol": "x"}) as outputs:
            await anext(outputs)


async def test_a_block_that_is_not_over_in_time_says_where_it_waits(virtual_clock: trio.testing.MockClock) -> None:
    async def hang(self: Any, *_: Any) -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    with pytest.raises(trio.TooSlowError, match="not over after 90 s") as caught:
        async with serve_in_memory(module_with(hang), time_limit=90) as served:
            await served.run_job({"text": "hi"}, protocol="message")
    assert trio.current_time() - began == 90
    assert "test_memory.py" in str(caught.value)
    assert "in test_a_block_that_is_not_over_in_time_says_where_it_waits.<locals>.hang" in str(caught.value)


def test_without_a_limit_a_deadlock_is_told() -> None:
    async def main() -> None:
        async with serve_in_memory(module_with(send_one), time_limit=float("inf")):
            await trio.sleep_forever()

    with pytest.raises(DeadlockError, match="every task waits for ever"):
        run(main)


async def test_a_cut_breaks_every_connection(virtual_clock: trio.testing.MockClock) -> None:
    async with serve_in_memory(module_with(send_one)) as served:
        assert served.cut() == 0
        await served.client.input_schema()
        stream = await served.connect()
        await trio.testing.wait_all_tasks_blocked()
        assert served.cut() == 2
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"PRI")
        await trio.testing.wait_all_tasks_blocked()
        assert served.server.statistics().rpc.connections == 0
        await served.client.input_schema()
        assert served.connections == 1
