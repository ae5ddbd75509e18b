"""Defects 16 to 28 of the existing SDK: cleanup that does not run or runs twice, failures that look well, leaks."""

import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.cli.processes import serving as process_of
from tests.module.remote_kit import REMOTE
from tests.module.remote_kit import module as remote_module
from tests.module.sample import Message
from tests.module.service_kit import configure, told_of
from tests.module.service_kit import start as start_raw
from tests.regressions import defect
from tests.regressions.kit import LIMIT, answer, assert_idle, begin, call, serving, tick, wait
from tests.tools.neighbours import Process, process, tool_module

from dk_trio import ModuleServer, chance
from dk_trio.module import ModuleContext
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthStub
from dk_trio.rpc.health import READINESS
from dk_trio.server import DEFAULT_GRACE
from dk_trio.services.local.storage import DefaultStorage
from dk_trio.services.strategy import ServicesStrategy
from dk_trio.signals import Signal, SignalAction
from dk_trio.testing.provider import FakeProvider

AT_ONCE = 0.05
"""Seconds of virtual time: messages between two ends in memory take none, batching of signals a little."""


class Author:
    """Hooks of a module that note when they run, and fail or dawdle where they are told to."""

    def __init__(self, *, fails: str = "", cleanup_s: float = 0) -> None:
        self.fails = fails
        self.cleanup_s = cleanup_s
        self.events: list[str] = []

    @property
    def hooks(self) -> dict[str, Any]:
        author = self

        async def initialize(self: Any, context: ModuleContext, setup: Any) -> None:
            author.events.append("initialize")
            author.fail_in("initialize")

        async def cleanup(self: Any) -> None:
            author.events.append("cleanup")
            await trio.sleep(author.cleanup_s)
            author.events.append("cleaned up")

        async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
            try:
                await context.send(Message())
                author.fail_in("handler")
                await trio.sleep(data.count)
            finally:
                author.events.append("handled")

        return {"handle": handle, "initialize": initialize, "cleanup": cleanup}

    def fail_in(self, place: str) -> None:
        if self.fails == place:
            raise ValueError(f"the {place} fails")


@defect(16)
@pytest.mark.parametrize("fails", ["initialize", "handler"])
async def test_cleanup_runs_after_a_failure(autojump_clock: object, fails: str) -> None:
    author = Author(fails=fails)
    async with serving(**author.hooks) as memory:
        seen = await call(memory.client)
    assert seen.status is Status.INTERNAL
    handled = ["handled"] if fails == "handler" else []
    assert author.events == ["initialize", *handled, "cleanup", "cleaned up"]


@defect(17)
async def test_cleanup_runs_once_on_stop_module_and_after_the_handler(autojump_clock: object) -> None:
    author = Author(cleanup_s=1)
    async with serving(**author.hooks) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client, count=1000)
        await memory.client.stop(seen.job_id)
        await memory.client.stop(seen.job_id)  # its cleanup has begun
        await seen.ended.wait()
    assert seen.status is Status.CANCELLED
    assert author.events == ["initialize", "handled", "cleanup", "cleaned up"]


@defect(17)
async def test_a_configuration_is_not_cleaned_up_after(autojump_clock: object) -> None:
    """It was never initialised."""
    author = Author()
    async with serving(**author.hooks) as memory:
        await configure(memory.client)
    assert author.events == []


@defect(18)
@pytest.mark.parametrize("how", ["leaves", "StopModule", "fails"])
async def test_cleanup_of_a_job_that_did_not_complete_can_store(autojump_clock: object, how: str) -> None:
    from pydantic import BaseModel

    class Note(BaseModel):
        text: str

    class Closing(DefaultStorage):
        async def close(self) -> None:
            events.append("closed")
            await super().close()

    async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
        if data.text == "read":
            record = await context.storage.read("notes", "last words")
            await context.send(Message(text=record.data.text))
            return
        assert context.storage
        await context.send(Message())
        if how == "fails":
            raise ValueError("as told")
        await trio.sleep_forever()

    async def cleanup(self: Any, context: ModuleContext) -> None:
        if "stored" in events:
            return
        await trio.sleep(1)
        await context.storage.store("notes", "last words", {"text": "kept"})
        events.append("stored")

    events: list[str] = []
    params = {"storage": {"config": {"notes": Note}}}
    strategies = {"storage": ServicesStrategy(local=Closing)}
    async with serving(
        handle, cleanup=cleanup, services_config_params=params, services_config_strategies=strategies
    ) as memory:
        async with trio.open_nursery() as nursery:
            seen = await begin(nursery, memory.client)
            if how == "leaves":
                seen.caller.cancel()
            elif how == "StopModule":
                await memory.client.stop(seen.job_id)
            await seen.ended.wait()
        await trio.sleep(2)
        assert events == ["stored", "closed"]
        assert (await call(memory.client, text="read")).whole


@defect(19)
@pytest.mark.parametrize("fails", ["initialize", "handler"])
async def test_a_failure_is_one_to_everybody_who_looks(autojump_clock: object, fails: str) -> None:
    """The caller's status, the message in the stream, and the STOP signal with the author's words."""
    author = Author(fails=fails)
    async with FakeProvider() as provider, serving(provider=provider, **author.hooks) as memory:
        told = await start_raw(memory.client)
        await trio.sleep(1)
        start, stop = provider.signals
    assert told.status is Status.INTERNAL
    assert f"the {fails} fails" in told.message
    assert told.successes[-1] is False
    assert "end_of_stream" not in told.protocols
    assert told.failure is not None
    assert told.failure["message"] == told.message
    assert (start.action, stop.action, stop.cancellation_reason) == ("start", "stop", "failure_cleanup")
    assert stop.payload is not None
    assert f"the {fails} fails" in stop.payload.to_dict()["error_message"]


@defect(20)
async def test_a_configuration_that_fails_says_so_at_once(autojump_clock: object) -> None:
    """After 30 s of silence the caller was told that the module did not respond."""

    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        raise ValueError("the model is not there")

    async with serving(answer, run_config_setup=run_config_setup) as memory:
        told = await told_of(configure(memory.client))
    assert (told.status, told.seconds) == (Status.INTERNAL, 0)
    assert "the model is not there" in told.message


@defect(20)
async def test_a_configuration_is_bounded_and_takes_a_slot(autojump_clock: object) -> None:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        await trio.sleep_forever()

    variables = {"MAX_CONCURRENT_TASKS": 1, "CONFIG_SETUP_TIMEOUT": 7}
    async with (
        serving(answer, run_config_setup=run_config_setup, variables=variables) as memory,
        trio.open_nursery() as nursery,
    ):

        async def job() -> None:
            await trio.sleep(1)
            assert memory.server.statistics().admission.running == 1
            assert (await call(memory.client)).whole
            assert trio.current_time() == pytest.approx(7, abs=AT_ONCE)

        nursery.start_soon(job)
        told = await told_of(configure(memory.client))
        assert (told.status, told.seconds) == (Status.DEADLINE_EXCEEDED, 7)


@defect(21)
async def test_references_to_channels_are_given_back(autojump_clock: object) -> None:
    """Seven jobs, each of which calls another module three times and uses every service: from 1 to 7 they grew."""

    async def tool(input_data: Any, context: ModuleContext) -> None:
        await context.send({"protocol": "found"})

    async with process() as here, here.serving(tool_module(tool)):
        for _ in range(7):
            job = here.job.communication
            for _ in range(3):
                async for _ in job.call_module("tool.memory", 0, *SEARCH):
                    pass
            await job.close()
            now = here.channels.statistics()
            assert (now.leases, now.opened) == (0, 1)


@defect(21)
async def test_jobs_of_a_provider_share_its_channels(autojump_clock: object) -> None:
    async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
        await context.registry.search("nobody")
        await context.storage.list("notes")
        await context.send(Message())

    from pydantic import BaseModel

    params = {"storage": {"config": {"notes": BaseModel}}}
    connections = []
    async with (
        FakeProvider() as provider,
        serving(handle, provider=provider, services_config_params=params) as memory,
    ):
        for _ in range(7):
            seen = await call(memory.client)
            assert seen.whole, seen.message
            now = memory.server.statistics().channels
            connections.append((now.leases, now.opened))
    assert len(set(connections)) == 1


@defect(22)
async def test_a_refused_job_makes_no_instance(autojump_clock: object) -> None:
    made: list[object] = []

    def init(self: object) -> None:
        made.append(self)

    variables = {"MAX_CONCURRENT_TASKS": 1, "BACKPRESSURE_STRATEGY": "reject"}
    async with serving(wait, __init__=init, variables=variables) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client)
        for _ in range(20):
            assert (await call(memory.client)).status is Status.RESOURCE_EXHAUSTED
        assert len(made) == 1
        await memory.client.stop(seen.job_id)


@defect(22)
async def test_a_job_leaves_no_temporary_directory(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dk_trio.services.filesystem import UploadFileData

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
        file = UploadFileData(
            content=b"text", name=f"{data.count}.txt", file_type="DOCUMENT", content_type="text/plain"
        )
        uploaded, _, failed = await context.filesystem.upload_files([file])
        assert len(uploaded) == 1, failed
        await context.send(Message())

    async with serving(handle) as memory:
        for number in range(3):
            seen = await call(memory.client, count=number)
            assert seen.whole, seen.message
        assert list(tmp_path.iterdir()) == []


@defect(23)
@pytest.mark.parametrize("queue", [0, 4])
@pytest.mark.parametrize("fails", ["__init__", "initialize"])
async def test_a_job_that_cannot_be_made_gives_its_slot_back(autojump_clock: object, fails: str, queue: int) -> None:
    broken = True

    def init(self: Any) -> None:
        if fails == "__init__" and broken:
            raise ValueError("no")

    async def initialize(self: Any, context: Any, setup: Any) -> None:
        if broken:
            raise ValueError("no")

    variables = {"MAX_CONCURRENT_TASKS": 2, "MAX_QUEUED_TASKS": queue}
    async with serving(answer, __init__=init, initialize=initialize, variables=variables) as memory:
        for _ in range(20):
            assert (await call(memory.client)).status is Status.INTERNAL
        assert_idle(memory.server)
        broken = False
        assert (await call(memory.client)).whole


@defect(23)
async def test_a_duplicate_id_does_not_touch_the_job_that_has_it(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = chance.new_uuid()
    async with serving(tick) as memory, trio.open_nursery() as nursery:
        monkeypatch.setattr(chance, "new_uuid", lambda: same)
        first = await begin(nursery, memory.client, count=100)
        second = await call(memory.client, count=1)
        assert second.status is not Status.OK
        assert list(await memory.client.jobs()) == [first.job_id]
        await first.ended.wait()
        assert first.counts == list(range(100))
        assert first.whole


@defect(24)
async def test_a_cleanup_takes_capacity_for_its_grace_at_most(autojump_clock: object) -> None:
    """It is the author's code, which runs: so it has its slot. But not for longer than `cleanup_grace`."""
    author = Author(cleanup_s=1000)
    async with (
        serving(variables={"MAX_CONCURRENT_TASKS": 1}, **author.hooks) as memory,
        trio.open_nursery() as nursery,
    ):
        seen = await begin(nursery, memory.client, count=1000)
        await memory.client.stop(seen.job_id)
        author.cleanup_s = 0
        assert (await call(memory.client)).whole
        assert trio.current_time() == pytest.approx(10, abs=AT_ONCE)


@defect(24)
async def test_what_a_job_has_left_to_send_takes_no_capacity(autojump_clock: object) -> None:
    """Its last message waits for a reader that has stopped; its slot does not."""
    text = "x" * 8000

    async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
        for number in range(200):
            sent.append(number)
            with trio.move_on_after(1):
                await context.send(Message(count=number, text=text))

    sent: list[int] = []
    async with serving(handle, variables={"MAX_CONCURRENT_TASKS": 1}) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client, pause=290)
        await trio.sleep(280)
        assert memory.server.statistics().admission.running == 0
        assert len(sent) == 200
        assert not seen.ended.is_set()
        assert memory.server.statistics().jobs.running == 1
        seen.caller.cancel()


@defect(25)
async def test_a_server_that_stops_takes_nothing_new_says_so_and_lets_jobs_end(autojump_clock: object) -> None:
    async with serving(tick) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client, count=50)
        late = await begin(nursery, memory.client, count=1000)
        health = HealthStub(memory.client.channel)
        states = health.watch(HealthCheckRequest(service=READINESS))
        assert (await anext(states)).status.name == "SERVING"
        nursery.start_soon(memory.server.drain, DEFAULT_GRACE)
        await trio.sleep(0.01)
        assert (await anext(states)).status.name == "NOT_SERVING"
        with pytest.raises(GRPCError):
            await anext(states)
        assert (await call(memory.client)).status is Status.UNAVAILABLE
        await seen.ended.wait()
        assert seen.whole
        await late.ended.wait()
        assert late.status is Status.UNAVAILABLE
        assert late.ended_at == pytest.approx(DEFAULT_GRACE, abs=AT_ONCE)


@defect(25)
async def test_sigterm_drains(tmp_path: Path) -> None:
    """A process of its own: the signal is the subject. Its job ends well, and the process with 0."""
    from tests.cli.test_shutdown import UNRULY, work

    from dk_trio import ModuleClient

    release = tmp_path / "release"
    async with process_of(UNRULY) as running, ModuleClient.connect(running.address) as client:
        async with client.start(work(until=str(release))) as outputs:
            roots = [await anext(outputs), await anext(outputs)]
            running.process.send_signal(signal.SIGTERM)
            await running.wait_for("SIGTERM: draining, 1 running")
            release.touch()
            roots += [output async for output in outputs]
        assert roots[-1]["root"]["protocol"] == "end_of_stream"
        assert await running.wait() == 0


@defect(26)
async def test_a_server_stays_registered_and_takes_it_back(autojump_clock: object) -> None:
    with trio.fail_after(LIMIT):
        async with FakeProvider() as provider:
            server = ModuleServer(remote_module(answer), settings=REMOTE, provider=provider.connect)
            async with server.running(host="sample.mesh", port=1, listeners=[]):
                await trio.sleep(300)
                assert 25 <= provider.calls["Heartbeat"] <= 35
                assert provider.calls["RegisterModule"] == 1
                await server.drain(0)
                assert provider.calls["DeregisterModule"] == 1


@defect(26)
async def test_a_server_is_not_ready_before_the_registry_knows_it(autojump_clock: object) -> None:
    """A probe said yes to a registry that was dead."""
    with trio.fail_after(LIMIT):
        async with FakeProvider() as provider, provider.outage():
            server = ModuleServer(remote_module(answer), settings=REMOTE, provider=provider.connect)
            async with server.running(host="sample.mesh", port=1, listeners=[]):
                await trio.sleep(60)
                assert not server.health.statistics().services[READINESS]


@defect(27)
async def test_who_listens_for_signals_may_stay_longer_than_the_job(autojump_clock: object) -> None:
    async with FakeProvider() as provider, serving(tick, provider=provider) as memory, trio.open_nursery() as nursery:
        seen = await begin(nursery, memory.client, count=5)
        signals = memory.server.signals
        with signals.subscribe(seen.job_id) as subscription:
            await seen.ended.wait()
            await trio.sleep(1)
            assert seen.whole
            signals.send(Signal(task_id=seen.job_id, action=SignalAction.CANCEL))
            assert (await anext(subscription)).action is SignalAction.CANCEL
        assert not signals.send(Signal(task_id=seen.job_id, action=SignalAction.CANCEL))
        assert (await call(memory.client, count=1)).whole


@defect(28)
async def test_a_job_has_an_execution_time(autojump_clock: object) -> None:
    async with serving(wait, variables={"EXECUTION_TIMEOUT": 20}) as memory:
        seen = await call(memory.client)
    assert (seen.status, seen.ended_at) == (Status.DEADLINE_EXCEEDED, 20)
    assert "DIGITALKIN_EXECUTION_TIMEOUT" in seen.message


@defect(28)
@pytest.mark.parametrize(("own", "timeout", "expected"), [(20, None, 20), (20, 50, 20), (None, 30, 30)])
async def test_deadlines_travel_to_the_module_that_is_called(
    autojump_clock: object, own: float | None, timeout: float | None, expected: float
) -> None:
    """The caller's own deadline, and the timeout of `call_module`: the nearer one."""
    told: list[float] = []
    ended: list[float] = []

    async def tool(input_data: Any, context: ModuleContext) -> None:
        told.append(round(trio.current_effective_deadline() - trio.current_time()))
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with process() as here, here.serving(tool_module(tool)):

        async def handle(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
            await call_tool(here, timeout)

        async with serving(handle) as memory:
            seen = await call(memory.client, timeout=own)
    assert seen.status is Status.DEADLINE_EXCEEDED
    assert told == [expected]
    assert ended == [pytest.approx(expected, abs=1)]


SEARCH = ({"protocol": "search", "query": "cats"}, "setups:tool", "missions:m")


async def call_tool(here: Process, timeout: float | None) -> None:
    async for _ in here.job.communication.call_module("tool.memory", 0, *SEARCH, timeout=timeout):
        pass
