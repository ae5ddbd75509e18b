"""FakeProvider: what it keeps, how it goes away, and which calls of it fail; all of it in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from grpclib import GRPCError, Status
from tests.module.remote_kit import doze, echo, keep, module, wait
from tests.module.served import outputs_of

from dk_trio import Settings, rpc
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupVersionRequest,
    GetSetupRequest,
    SearchSetupVersionsRequest,
    SetupServiceStub,
)
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import ListRecordsRequest, StorageServiceStub
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import (
    GetSignalsRequest,
    SendSignalsRequest,
    Task,
    TaskManagerServiceStub,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import ProviderOptions
from dk_trio.testing import FakeProvider, serve_in_memory

HOUR = 3600.0


@asynccontextmanager
async def called(provider: FakeProvider, **options: Any) -> AsyncIterator[rpc.Channel]:
    """A channel of a client that does not try twice."""
    arguments = rpc.ChannelOptions(retry=rpc.RetryPolicy(max_attempts=1), **options)
    async with rpc.open_channel("memory", connect=provider.connect, options=arguments) as channel:
        yield channel


async def test_one_that_is_not_open_says_how_it_is_opened(autojump_clock: object) -> None:
    provider = FakeProvider()
    for use in (provider.connect, partial(provider.put_setup, {}, module_id="m"), partial(provider.records, "notes")):
        with pytest.raises(RuntimeError, match="write `async with FakeProvider"):
            await use()


async def test_one_that_was_left_is_away(autojump_clock: object) -> None:
    async with FakeProvider() as provider:
        pass
    with pytest.raises(ConnectionRefusedError, match="was left"):
        await provider.connect()


async def test_a_connection_that_was_just_made_is_cut_like_others(autojump_clock: object) -> None:
    async with FakeProvider() as provider:
        stream = await provider.connect()
        async with provider.outage():
            assert await stream.receive_some(1) == b""


async def test_a_job_runs_with_the_setup_that_was_put(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    sample = module(echo)
    async with FakeProvider() as provider:
        assert await provider.put_setup({"prefix": "> "}, module_id=sample) == "setups:default"
        assert (
            await provider.put_setup({"prefix": "# "}, module_id="modules:sample", setup_id="other") == "setups:other"
        )
        async with serve_in_memory(sample, provider=provider) as served:
            first = await outputs_of(served.client, {"text": "hi"}, protocol="message")
            second = await outputs_of(served.client, {"text": "hi"}, protocol="message", setup_id="setups:other")
            await provider.put_setup({"prefix": "! "}, module_id=sample)
            await trio.sleep(Settings().lifecycle.setup_cache_ttl + 1)
            third = await outputs_of(served.client, {"text": "hi"}, protocol="message")
    assert [outputs[1]["root"]["text"] for outputs in (first, second, third)] == ["> hi", "# hi", "! hi"]
    assert "breaks a rule" not in caplog.text


async def test_what_jobs_store_can_be_looked_at(autojump_clock: object) -> None:
    sample = module(keep)
    async with FakeProvider() as provider, serve_in_memory(sample, provider=provider) as served:
        await provider.put_setup({}, module_id=sample)
        for text in ("b", "a"):
            await outputs_of(served.client, {"text": text}, protocol="message")
        assert await provider.records("notes") == {"b": {"text": "b"}, "a": {"text": "a"}}
        assert await provider.records("notes", mission_id="missions:other") == {}


@pytest.mark.parametrize("action", ["cancel", "stop"])
async def test_a_signal_ends_a_job(autojump_clock: object, action: Any, caplog: pytest.LogCaptureFixture) -> None:
    sample = module(wait)
    async with FakeProvider() as provider, serve_in_memory(sample, provider=provider) as served:
        await provider.put_setup({}, module_id=sample)
        async with served.client.start({}, protocol="message") as outputs:
            await anext(outputs)
            await anext(outputs)
            await trio.sleep(1)  # its start is told
            await provider.signal(outputs.job_id, action)
            with pytest.raises(GRPCError) as caught:
                await anext(outputs)
            assert caught.value.status is Status.CANCELLED
        await trio.sleep(3 * HOUR)  # longer than the store keeps what has ended
        assert [signal.action for signal in provider.signals] == ["start", action, f"ack_{action}", "stop"]
        assert {signal.task_id for signal in provider.signals} == {outputs.job_id}
    assert "breaks a rule" not in caplog.text


async def test_nobody_is_asked_for_something_else(autojump_clock: object) -> None:
    async with FakeProvider() as provider:
        with pytest.raises(ValueError, match="a job is asked to cancel or to stop, not to 'kill'"):
            await provider.signal("j", "kill")  # type: ignore[arg-type]
        assert provider.signals == []


async def test_a_signal_that_comes_twice_is_there_once(autojump_clock: object) -> None:
    async with FakeProvider() as provider:
        for _ in range(2):
            await provider.signal("a", "cancel")
            await provider.signal("b", "cancel")
        assert [signal.task_id for signal in provider.signals] == ["a", "b"]


# --- away ------------------------------------------------------------------------------------------------------------


async def test_an_outage_cuts_refuses_and_ends(autojump_clock: object) -> None:
    async with FakeProvider() as provider, called(provider) as channel:
        stub = SetupServiceStub(channel)
        await provider.put_setup({}, module_id="modules:m")
        await stub.get_setup(GetSetupRequest(setup_id="setups:default"))
        async with provider.outage():
            assert "away" in repr(provider)
            with pytest.raises(ConnectionRefusedError, match=r"an outage\(\) of its test"):
                await provider.connect()
            with pytest.raises(GRPCError) as caught:
                await stub.get_setup(GetSetupRequest(setup_id="setups:default"))
            assert caught.value.status is Status.UNAVAILABLE
            await provider.put_setup({"a": 1}, module_id="modules:m")  # the test's own calls are not away
        await trio.sleep(60)
        found = await stub.get_setup(GetSetupRequest(setup_id="setups:default"))
        assert found.setup is not None
        assert provider.calls["GetSetup"] == 2


async def test_a_cut_breaks_a_call_that_is_held(autojump_clock: object) -> None:
    async with FakeProvider() as provider, called(provider) as channel, trio.open_nursery() as nursery:
        found: list[Status] = []

        async def poll() -> None:
            with pytest.raises(GRPCError) as caught:
                await TaskManagerServiceStub(channel).get_signals(GetSignalsRequest(task_ids=["j"]))
            found.append(caught.value.status)

        nursery.start_soon(poll)
        await trio.sleep(1)
        assert "1 connections" in repr(provider)
        await provider.cut()
        assert "0 connections" in repr(provider)
        await trio.testing.wait_all_tasks_blocked()
        assert found == [Status.UNAVAILABLE]


async def test_a_hanging_provider_takes_connections_and_goes_on_later(autojump_clock: object) -> None:
    async with (
        FakeProvider() as provider,
        called(provider) as channel,
        called(provider) as another,
        trio.open_nursery() as nursery,
    ):
        stub = SetupServiceStub(channel)
        await provider.put_setup({}, module_id="modules:m")
        await stub.get_setup(GetSetupRequest(setup_id="setups:default"))
        answered: list[float] = []

        async def ask(stub: SetupServiceStub) -> None:
            await stub.get_setup(GetSetupRequest(setup_id="setups:default"))
            answered.append(trio.current_time())

        async with provider.outage(hang=True):
            assert "hanging" in repr(provider)
            with pytest.raises(GRPCError) as caught:
                await stub.get_setup(GetSetupRequest(setup_id="setups:default"), timeout=5)
            assert caught.value.status is Status.DEADLINE_EXCEEDED
            nursery.start_soon(ask, stub)
            nursery.start_soon(ask, SetupServiceStub(another))
            began = trio.current_time()
            await trio.sleep(10)
            assert answered == []
            async with provider.outage(hang=True):
                pass
            await trio.sleep(5)
            assert answered == []
            assert provider.calls["GetSetup"] == 1
        await trio.testing.wait_all_tasks_blocked()
        assert answered == [began + 15] * 2


async def test_an_outage_ends_with_its_block_however_that_ends(autojump_clock: object) -> None:
    async with FakeProvider() as provider:
        for hang in (False, True):
            with trio.move_on_after(5):
                async with provider.outage(hang=hang):
                    await trio.sleep_forever()
            async with called(provider) as channel:
                await TaskManagerServiceStub(channel).send_signals(SendSignalsRequest(tasks=[]), timeout=5)


async def test_a_job_goes_on_over_an_outage(autojump_clock: object) -> None:
    sample = module(doze)
    async with FakeProvider() as provider, serve_in_memory(sample, provider=provider) as served:
        await provider.put_setup({}, module_id=sample)
        async with served.client.start({"count": 60}, protocol="message") as outputs:
            await anext(outputs)
            async with provider.outage():
                await trio.sleep(30)
                assert provider.signals == []
            assert [output["root"]["protocol"] async for output in outputs] == ["message", "end_of_stream"]
        await trio.sleep(60)
        assert [signal.action for signal in provider.signals] == ["start", "stop"]


# --- failing ---------------------------------------------------------------------------------------------------------


async def test_calls_fail_as_often_as_was_said(autojump_clock: object) -> None:
    async with FakeProvider() as provider, called(provider) as channel:
        await provider.put_setup({}, module_id="modules:m")
        provider.fail("GetSetup", Status.INTERNAL, times=2)
        provider.fail("GetSetup", Status.PERMISSION_DENIED, message="not you")
        provider.fail("DeleteSetup", Status.UNAVAILABLE, times=None)
        found: list[tuple[Status, str | None]] = []
        for _ in range(4):
            try:
                await SetupServiceStub(channel).get_setup(GetSetupRequest(setup_id="setups:default"))
            except GRPCError as error:
                found.append((error.status, error.message))
        told = "GetSetup fails: this is a fail() of its test"
        assert found == [(Status.INTERNAL, told)] * 2 + [(Status.PERMISSION_DENIED, "not you")]
        assert provider.calls == {"GetSetup": 4}
        await provider.put_setup({}, module_id="modules:m")  # which deletes: the test's own calls do not fail


async def test_a_reply_that_is_lost_is_to_what_was_done(autojump_clock: object) -> None:
    async with FakeProvider() as provider, called(provider) as channel:
        await provider.put_setup({}, module_id="modules:m")
        provider.lose_reply("CreateSetupVersion")
        with pytest.raises(GRPCError) as caught:
            await SetupServiceStub(channel).create_setup_version(
                CreateSetupVersionRequest(setup_id="setups:default", version="2", content=Struct.from_dict({}))
            )
        assert caught.value.status is Status.UNAVAILABLE
        reply = await SetupServiceStub(provider.channel).search_setup_versions(
            SearchSetupVersionsRequest(setup_id="setups:default")
        )
        assert [version.version for version in reply.setup_versions] == ["1", "2"]


async def test_what_a_job_writes_is_written_once_although_its_reply_is_lost(autojump_clock: object) -> None:
    sample = module(keep)
    async with FakeProvider() as provider, serve_in_memory(sample, provider=provider) as served:
        await provider.put_setup({}, module_id=sample)
        provider.lose_reply("StoreRecord", times=2)
        result = await served.run_job({"text": "a"}, protocol="message")
        assert result.ok, result.error
        assert provider.calls["StoreRecord"] == 3
        assert await provider.records("notes") == {"a": {"text": "a"}}


async def test_calls_are_delayed_until_they_are_healed(autojump_clock: object) -> None:
    async with FakeProvider() as provider, called(provider) as channel:
        await provider.put_setup({}, module_id="modules:m")
        provider.delay("GetSetup", 5)
        took: list[float] = []
        for _ in range(2):
            began = trio.current_time()
            await SetupServiceStub(channel).get_setup(GetSetupRequest(setup_id="setups:default"))
            took.append(trio.current_time() - began)
            provider.fail("GetSetup", Status.INTERNAL, times=None)
            provider.heal()
        assert took == [5, 0]


async def test_a_fault_names_what_there_is() -> None:
    provider = FakeProvider()
    with pytest.raises(ValueError, match="no method 'get_setup'; did you mean 'GetSetup'"):
        provider.fail("get_setup", Status.INTERNAL)
    with pytest.raises(ValueError, match="no method 'Xyzzy'; it has AddCost, "):
        provider.delay("Xyzzy", 1)
    with pytest.raises(ValueError, match="no method 'Get'"):
        provider.lose_reply("Get")
    with pytest.raises(ValueError, match="a call cannot be delayed by -1 s"):
        provider.delay("GetSetup", -1)
    with pytest.raises(ValueError, match="a call cannot fail with OK"):
        provider.fail("GetSetup", Status.OK)


# --- time ------------------------------------------------------------------------------------------------------------


async def test_its_wall_clock_goes_with_the_tests(autojump_clock: object) -> None:
    async with FakeProvider() as provider:
        await provider.signal("a", "cancel")
        await trio.sleep(HOUR)
        await provider.signal("b", "cancel")
        first, second = (signal.created_at for signal in provider.signals)
        assert first is not None
        assert second is not None
        assert (second - first).total_seconds() == pytest.approx(HOUR)


async def test_so_do_the_dates_of_what_is_stored(autojump_clock: object) -> None:
    sample = module(keep)
    async with FakeProvider() as provider, serve_in_memory(sample, provider=provider) as served:
        await provider.put_setup({}, module_id=sample)
        for text in ("a", "b"):
            await served.run_job({"text": text}, protocol="message")
            await trio.sleep(HOUR)
        reply = await StorageServiceStub(provider.channel).list_records(
            ListRecordsRequest(context="missions:default", collection="notes")
        )
        first, second = (record.creation_date for record in reply.records)
        assert first is not None
        assert second is not None
        assert (second - first).total_seconds() == pytest.approx(HOUR, abs=1)


@pytest.mark.parametrize("arguments", [{"now": lambda: 5.0}, {"options": ProviderOptions(now=lambda: 5.0)}])
async def test_a_wall_clock_can_be_given(autojump_clock: object, arguments: Any) -> None:
    async with FakeProvider(**arguments) as provider, called(provider) as channel:
        await TaskManagerServiceStub(channel).send_signals(
            SendSignalsRequest(tasks=[Task(task_id="j", action="start", cancellation_reason="none")])
        )
        (signal,) = provider.signals
        assert signal.created_at is not None
        assert signal.created_at.timestamp() == provider.now() == 5.0


async def test_what_a_block_raises_comes_out_as_it_is(autojump_clock: object) -> None:
    with pytest.raises(LookupError) as caught:
        async with FakeProvider() as provider, serve_in_memory(module(echo), provider=provider):
            raise LookupError
    assert len(caught.traceback) == 1  # who reads it has one line to look at
