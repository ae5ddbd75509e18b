"""The times of a job: which of them applies when, what the caller is told, and what GetModuleStatus says afterwards."""

from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.rpc.wire_client import WireClient

from dk_trio import Settings
from dk_trio.client import START_MODULE
from dk_trio.errors import JobTimeoutError, SessionEndedError
from dk_trio.lifecycle import Outcome, Reason, SessionOptions
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus, StartModuleRequest
from dk_trio.pb.google.protobuf import Struct
from dk_trio.session import Session

from .ends import GO, WAIT, Job, begin, does_as_told
from .sample import Message, module_with, protocols_of, session_of
from .served import DAY, served

LARGE = "x" * 2_000_000  # more than the window of our own client


class Stalled:
    """Delivers what comes before `after` outputs, then is a reader that reads nothing for 300 s."""

    def __init__(self, after: int = 1) -> None:
        self.after = after
        self.delivered: list[dict[str, Any]] = []

    async def __call__(self, output: dict[str, Any]) -> None:
        if len(self.delivered) >= self.after:
            await trio.sleep(300)
            raise trio.TooSlowError("the client has read nothing for 300 s")
        self.delivered.append(output)
        await trio.lowlevel.checkpoint()


async def outcome_of(session: Session) -> Outcome:
    with trio.fail_after(DAY):
        return await session.run()


async def sends(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send(Message(text="one"))


async def sends_and_catches(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    try:
        await context.send(Message(text="one"))
    except Exception:  # noqa: BLE001  what authors write
        await context.send(Message(text="in place of one"))


async def sends_in_children(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(context.send, Message(text="one"))


# --- a reader that reads nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("handle", [sends, sends_and_catches, sends_in_children])
async def test_a_stalled_reader_cancels_the_author_inside_of_send(autojump_clock: object, handle: Any) -> None:
    cleaned: list[float] = []

    async def cleanup(self: Any) -> None:
        cleaned.append(trio.current_time())

    stalled = Stalled()
    began = trio.current_time()
    session = session_of(module_with(handle, cleanup=cleanup), WAIT, [], deliver=stalled)
    outcome = await outcome_of(session)
    assert outcome.reason is Reason.TIMEOUT
    assert isinstance(outcome.error, JobTimeoutError)
    assert "was cancelled: the client has read nothing for 300 s" in outcome.error.message
    assert "DIGITALKIN_STREAM_DRAIN_TIMEOUT" in outcome.error.hint
    assert cleaned == [pytest.approx(began + 300)]
    assert protocols_of(stalled.delivered) == ["module_start_info"]


async def test_a_reader_that_stalls_before_the_last_message(autojump_clock: object) -> None:
    stalled = Stalled(after=2)
    outcome = await outcome_of(session_of(module_with(sends), WAIT, [], deliver=stalled))
    assert outcome.reason is Reason.TIMEOUT  # not COMPLETED: the caller never got `end_of_stream`
    assert protocols_of(stalled.delivered) == ["module_start_info", "message"]


@pytest.mark.parametrize("text", ["go", "fail"])
async def test_a_reader_that_stalls_when_cleanup_sends(autojump_clock: object, text: str) -> None:
    raised: list[BaseException] = []

    async def cleanup(self: Any, context: Any) -> None:
        with pytest.raises(SessionEndedError, match="has no reader any more") as caught:
            await context.send(Message(text="goodbye"))
        raised.append(caught.value)

    stalled = Stalled(after=2)
    options = SessionOptions(completion_timeout=1000)
    session = session_of(
        module_with(does_as_told, cleanup=cleanup), WAIT | {"text": text}, [], deliver=stalled, options=options
    )
    outcome = await outcome_of(session)
    assert outcome.reason is (Reason.TIMEOUT if text == "go" else Reason.FAILED)
    assert len(raised) == 1


async def test_a_stalled_reader_is_told_and_so_is_who_asks(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Message(text=LARGE))

    settings = Settings.from_environment({"DIGITALKIN_STREAM_DRAIN_TIMEOUT": "40"})
    signals: list[Any] = []
    async with served(module_with(handle), settings=settings) as (server, client):
        with server.signals.observe(signals.append):
            async with client.start(GO) as outputs:
                await anext(outputs)
                await trio.sleep(39)
                assert server._servicer.jobs.status(outputs.job_id) is ModuleStatus.PROCESSING
                await trio.sleep(2)
                assert server._servicer.jobs.status(outputs.job_id) is ModuleStatus.EXPIRED
                with pytest.raises(GRPCError, match="the client has read nothing for 40 s") as caught:
                    async for _ in outputs:
                        pass
                assert caught.value.status is Status.DEADLINE_EXCEEDED
                assert "DIGITALKIN_STREAM_DRAIN_TIMEOUT" in str(caught.value.message)
        assert (signals[-1].cancellation_reason, signals[-1].payload["reason"]) == ("timeout", "timeout")
        assert server.statistics().jobs.ended == {Reason.TIMEOUT: 1}
        assert server.statistics().rpc.rpcs == 0


@pytest.mark.parametrize("drain", ["40", "0.3"])
async def test_the_failure_of_a_job_whose_reader_stalls(autojump_clock: object, drain: str) -> None:
    """The message that says why waits a moment for room; the status needs none, and is not that of the wait."""

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        while True:  # until the window is full
            with trio.move_on_after(0.1) as scope:
                await context.send(Message(text="x" * 10_000))
            if scope.cancelled_caught:
                raise ValueError("enough")

    settings = Settings.from_environment({"DIGITALKIN_STREAM_DRAIN_TIMEOUT": drain})
    async with served(module_with(handle), settings=settings) as (server, client), client.start(GO) as outputs:
        await anext(outputs)
        await trio.sleep(5)
        assert server.statistics().rpc.rpcs == 0
        assert server.statistics().jobs.ended == {Reason.FAILED: 1}
        with pytest.raises(GRPCError, match="ValueError: enough") as caught:
            async for _ in outputs:
                pass
        assert caught.value.status is Status.INTERNAL


@pytest.mark.parametrize("room", [0, 3])
async def test_the_last_words_do_not_replace_the_status(autojump_clock: object, room: int) -> None:
    """A window that the first message has (nearly) filled, and less time to drain than the last words have."""

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        raise ValueError("enough")

    async def first_message(window: int) -> tuple[bytes, Any]:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(server.serve_stream, theirs)
        client = WireClient(ours, stream_window=window)
        await client.flush()
        nursery.start_soon(client.read)
        call = await client.call(START_MODULE, StartModuleRequest(input=Struct.from_dict({"root": GO})))
        await trio.sleep(5)
        return await call.receive_bytes(), (await call.status())

    settings = Settings.from_environment({"DIGITALKIN_STREAM_DRAIN_TIMEOUT": "0.3"})
    async with served(module_with(handle), settings=settings) as (server, _), trio.open_nursery() as nursery:
        message, _ = await first_message(50_000)
        filled = len(message) + 5 + room
        _, status = await first_message(filled)
        assert status == (Status.INTERNAL, "ValueError: enough")
        nursery.cancel_scope.cancel()


# --- execution and completion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["initialize", "handler"])
async def test_execution_time(autojump_clock: object, where: str) -> None:
    async def initialize(self: Any, context: Any, setup_data: Any) -> None:
        if where == "initialize":
            await trio.sleep_forever()

    outputs: list[Any] = []
    options = SessionOptions(execution_timeout=60)
    began = trio.current_time()
    session = session_of(module_with(does_as_told, initialize=initialize), WAIT, outputs, options=options)
    outcome = await outcome_of(session)
    assert trio.current_time() == pytest.approx(began + 60)
    assert (outcome.reason, outcome.ran) == (Reason.TIMEOUT, pytest.approx(60))
    assert outcome.error is not None
    assert "it ran for 60 s (DIGITALKIN_EXECUTION_TIMEOUT)" in outcome.error.message


async def test_execution_time_does_not_cut_what_follows_the_handler(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep(100)

    async def deliver(output: dict[str, Any]) -> None:
        if output["root"]["protocol"] == "end_of_stream":
            await trio.sleep(100)

    options = SessionOptions(execution_timeout=60, completion_timeout=300)
    session = session_of(module_with(does_as_told, cleanup=cleanup), GO, [], deliver=deliver, options=options)
    assert (await outcome_of(session)).reason is Reason.COMPLETED


async def test_execution_time_begins_with_the_slot(autojump_clock: object) -> None:
    settings = Settings.from_environment(
        {
            "DIGITALKIN_EXECUTION_TIMEOUT": "60",
            "DIGITALKIN_MAX_CONCURRENT_TASKS": "1",
            "DIGITALKIN_MAX_QUEUED_TASKS": "1",
        }
    )
    async with served(module_with(does_as_told), settings=settings) as (server, client), trio.open_nursery() as nursery:
        began = trio.current_time()
        first, second = await begin(nursery, client, WAIT), Job()
        nursery.start_soon(second.run, client, WAIT)
        await first.ended.wait()
        await second.ended.wait()
        assert trio.current_time() == pytest.approx(began + 120, abs=1)
        assert (first.status, second.status) == (Status.DEADLINE_EXCEEDED, Status.DEADLINE_EXCEEDED)
        assert "DIGITALKIN_EXECUTION_TIMEOUT" in second.message
        assert second.failure["short_description"] == "Job timed out"
        assert server._servicer.jobs.status(second.job_id) is ModuleStatus.EXPIRED


async def test_completion_time_is_one_for_cleanup_and_the_last_message(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep(50)

    async def deliver(output: dict[str, Any]) -> None:
        if output["root"]["protocol"] == "end_of_stream":
            await trio.sleep(50)

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await trio.sleep(1000)  # which has nothing to do with it

    for timeout, reason in [(99, Reason.TIMEOUT), (101, Reason.COMPLETED)]:
        options = SessionOptions(completion_timeout=timeout)
        began = trio.current_time()
        session = session_of(module_with(handle, cleanup=cleanup), GO, [], deliver=deliver, options=options)
        outcome = await outcome_of(session)
        assert outcome.reason is reason
        assert trio.current_time() == pytest.approx(began + 1000 + min(timeout, 100))


async def test_completion_time_without_a_cleanup(autojump_clock: object) -> None:
    async def deliver(output: dict[str, Any]) -> None:
        if output["root"]["protocol"] == "end_of_stream":
            await trio.sleep_forever()

    options = SessionOptions(completion_timeout=30)
    outcome = await outcome_of(session_of(module_with(does_as_told), GO, [], deliver=deliver, options=options))
    assert outcome.reason is Reason.TIMEOUT
    assert outcome.error is not None
    assert "it took 30 s for cleanup and end_of_stream (DIGITALKIN_COMPLETION_TIMEOUT)" in outcome.error.message


async def test_completion_time_through_the_stack(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep(DAY)

    settings = Settings.from_environment({"DIGITALKIN_COMPLETION_TIMEOUT": "25"})
    async with served(module_with(does_as_told, cleanup=cleanup), settings=settings) as (server, client):
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            job = await begin(nursery, client, GO)
            await job.ended.wait()
        assert trio.current_time() == pytest.approx(began + 25, abs=0.1)
        assert job.status is Status.DEADLINE_EXCEEDED
        assert job.protocols == ["module_start_info", "message"]
        assert "DIGITALKIN_COMPLETION_TIMEOUT" in job.message
        assert server._servicer.jobs.status(job.job_id) is ModuleStatus.EXPIRED


# --- the caller's own deadline -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["queue", "initialize", "handler", "cleanup"])
async def test_the_callers_deadline_ends_a_job_in_every_phase(autojump_clock: object, phase: str) -> None:
    async def initialize(self: Any, context: Any, setup_data: Any) -> None:
        if phase == "initialize" and context.session.mission_id == "missions:m":
            await trio.sleep_forever()

    async def cleanup(self: Any, context: Any) -> None:
        if phase == "cleanup" and context.session.mission_id == "missions:m":
            await trio.sleep(DAY)

    settings = Settings.from_environment({"DIGITALKIN_MAX_CONCURRENT_TASKS": "1", "DIGITALKIN_MAX_QUEUED_TASKS": "1"})
    module = module_with(does_as_told, initialize=initialize, cleanup=cleanup)
    async with served(module, settings=settings) as (server, client), trio.open_nursery() as nursery:
        if phase == "queue":
            await begin(nursery, client, WAIT)
        job, began = Job(), trio.current_time()
        await job.run(client, GO if phase == "cleanup" else WAIT, timeout=20, mission_id="missions:m")
        assert job.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == pytest.approx(began + 20, abs=0.1)
        await trio.sleep(11)
        now = server.statistics()
        assert now.jobs.ended == {Reason.DEADLINE: 1}
        assert now.admission.admitted == (1 if phase == "queue" else 0)
        if phase != "queue":
            assert server._servicer.jobs.status(job.job_id) is ModuleStatus.EXPIRED
        nursery.cancel_scope.cancel()


async def test_of_several_times_the_first_counts(autojump_clock: object) -> None:
    settings = Settings.from_environment({"DIGITALKIN_EXECUTION_TIMEOUT": "30"})
    async with served(module_with(does_as_told), settings=settings) as (server, client), trio.open_nursery() as nursery:
        early = await begin(nursery, client, WAIT, timeout=20)
        late = await begin(nursery, client, WAIT, timeout=40)
        await late.ended.wait()
        assert early.status is late.status is Status.DEADLINE_EXCEEDED
        assert "DIGITALKIN_EXECUTION_TIMEOUT" in late.message
        assert server.statistics().jobs.ended == {Reason.DEADLINE: 1, Reason.TIMEOUT: 1}
