"""Authors who do not let themselves be cancelled: the caller is told in time, the log names the place."""

import random
import threading
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio.errors import SessionEndedError
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus
from dk_trio.session import ABANDON_AFTER, Session

from .ends import WAIT
from .sample import Message, module_with, session_of
from .served import DAY
from .sinners import sinners, stubborn, waits

GRACE = SessionOptions().cleanup_grace
PATIENCE = GRACE + ABANDON_AFTER


async def test_swallowing_once_and_returning_at_once_is_forgiven(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def swallows(context: Any) -> None:
        with pytest.raises(trio.Cancelled):
            await trio.sleep_forever()

    async with sinners(swallows, ends={Reason.STOP_MODULE: 1}) as world:
        job = await world.sin_until_stopped()
        assert (job.status, job.protocols) == (Status.CANCELLED, ["module_start_info"])
        assert "StopModule was called" in job.message
        await trio.sleep(100)  # nobody complains later, either
    assert caplog.text == ""


async def test_swallowing_once_and_going_on_for_a_while_is_told(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def swallows(context: Any) -> None:
        with pytest.raises(trio.Cancelled):
            await trio.sleep_forever()
        with trio.CancelScope(shield=True):
            await trio.sleep(3)

    async with sinners(swallows, ends={Reason.STOP_MODULE: 1}) as world:
        assert (await world.sin_until_stopped()).status is Status.CANCELLED
    assert "its code went on for 3.0 s after it was cancelled: it catches trio.Cancelled" in caplog.text


async def test_swallowing_for_ever(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    repents = trio.Event()

    async def swallows(context: Any) -> None:
        await stubborn(context, repents)

    async with sinners(swallows, ends={Reason.STOP_MODULE: 1}) as world:
        began = trio.current_time()
        job = await world.sin_until_stopped(after=5)
        # The caller has its status, although the code goes on.
        assert trio.current_time() - began == pytest.approx(5 + PATIENCE, abs=0.1)
        assert job.status is Status.CANCELLED
        assert "was stopped: StopModule was called" in job.message
        assert f"its code goes on {PATIENCE:g} s after it was cancelled" in caplog.text
        assert "in stubborn" in caplog.text  # the function that does it
        await trio.sleep(1000)
        assert world.running == 1  # it has its slot, since it runs
        assert await world.status_of(job) is ModuleStatus.PROCESSING
        assert world.hooks == ["initialize"]
        repents.set()
        await trio.sleep(2)
        assert world.running == 0
        assert await world.status_of(job) is ModuleStatus.STOPPED
        assert world.hooks == ["initialize", "cleanup"]
    assert caplog.text.count("goes on") == 1
    assert "failed" not in caplog.text


async def test_swallowing_without_a_pause(mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that is always runnable: the clock cannot jump by itself, so it is pushed."""
    repents = False

    async def spins(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        for _ in range(10_000):  # at last, so that a test that fails ends
            if repents:
                return
            with pytest.raises(trio.Cancelled):
                await trio.sleep_forever()

    told: list[Any] = []
    jobs = Jobs()
    session = session_of(module_with(spins), WAIT, [], abandon=told.append, on_cancelled=jobs.expect_end)
    async with trio.open_nursery() as watching, trio.open_nursery() as nursery:
        watching.start_soon(jobs.watch)
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()
        session.stop(Reason.STOP_MODULE, "asked")
        for _ in range(int(PATIENCE) + 2):
            mock_clock.jump(1)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
        assert [error.code for error in told] == ["JOB_STOPPED"]
        assert "in spins" in caplog.text
        assert session.outcome is None
        repents = True
        watching.cancel_scope.cancel()
    assert session.outcome is not None
    assert session.outcome.reason is Reason.STOP_MODULE


async def test_what_is_sent_after_the_caller_was_told_goes_nowhere(autojump_clock: object) -> None:
    delivered: list[Any] = []
    told: list[Any] = []
    raised: list[BaseException] = []

    async def goes_on(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
            await context.send(Message(text="while it may still be right"))
            await trio.sleep(100)
            with pytest.raises(SessionEndedError, match="has ended; this output has nowhere to go") as caught:
                await context.send(Message(text="too late"))
            raised.append(caught.value)

    jobs = Jobs()
    session = session_of(module_with(goes_on), WAIT, delivered, abandon=told.append, on_cancelled=jobs.expect_end)
    with trio.fail_after(DAY):
        async with trio.open_nursery() as watching:
            watching.start_soon(jobs.watch)
            with trio.move_on_after(1):
                await session.run()
            watching.cancel_scope.cancel()
    assert [error.code for error in told] == ["CALLER_GONE"]
    assert len(delivered) == 2
    assert len(raised) == 1


async def shielded(context: Any) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(1000)


async def shielded_in_a_child(context: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shielded, context)


@pytest.mark.parametrize("sin", [shielded, shielded_in_a_child])
async def test_a_shield_without_a_bound(autojump_clock: object, caplog: pytest.LogCaptureFixture, sin: Any) -> None:
    async with sinners(sin, ends={Reason.STOP_MODULE: 1}) as world:
        began = trio.current_time()
        assert (await world.sin_until_stopped()).status is Status.CANCELLED
        assert trio.current_time() - began == pytest.approx(5 + PATIENCE, abs=0.1)
        assert world.running == 1
        await trio.sleep(1000)
        assert world.running == 0
    assert "in shielded)" in caplog.text  # where it really waits, also when that is a child's task


async def test_a_thread_that_cannot_be_left(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    async def in_a_thread(context: Any) -> None:
        await trio.to_thread.run_sync(done.wait)

    async with sinners(in_a_thread, ends={Reason.STOP_MODULE: 1}) as world:
        try:
            assert (await world.sin_until_stopped()).status is Status.CANCELLED
            assert "it waits for a thread" in caplog.text
            assert "in in_a_thread" in caplog.text
            assert world.running == 1
        finally:
            done.set()
        await world.freed()


@pytest.mark.parametrize("way", ["caller leaves", "deadline"])
async def test_going_on_although_the_caller_is_gone(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    async def sends_under_a_shield(context: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
            with pytest.raises(SessionEndedError):
                await context.send(Message(text="is anybody there?"))

    gone = way == "caller leaves"
    reason = Reason.CLIENT_GONE if gone else Reason.DEADLINE
    async with sinners(sends_under_a_shield, ends={reason: 1}) as world:
        job = await world.begin(timeout=None if gone else 5)
        if gone:
            job.caller.cancel()
        await job.ended.wait()
        assert job.status is (None if gone else Status.DEADLINE_EXCEEDED)
        assert world.running == 1
        await trio.sleep(120)
        assert world.running == 0
    assert "goes on" in caplog.text
    assert "failed" not in caplog.text


async def test_many_who_go_on_do_not_stop_a_newcomer(autojump_clock: object) -> None:
    repents = trio.Event()

    async def swallows(context: Any) -> None:
        if context.session.mission_id == "missions:newcomer":
            await context.send(Message(text="well done"))
        else:
            await stubborn(context, repents)

    async with sinners(swallows, ends={Reason.STOP_MODULE: 20, Reason.COMPLETED: 1}) as world:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(world.sin_until_stopped)
        assert world.running == 20
        job = await world.sin(mission_id="missions:newcomer")
        assert job.protocols == ["module_start_info", "message", "end_of_stream"]
        repents.set()
        await trio.sleep(2)


@pytest.mark.parametrize("end", ["success", "failure", "stop", "caller leaves", "deadline"])
async def test_a_cleanup_without_end_is_cut(autojump_clock: object, caplog: pytest.LogCaptureFixture, end: str) -> None:
    """After the handler's own end COMPLETION_TIMEOUT bounds it, after a cancellation the shorter grace."""

    async def sin(context: Any) -> None:
        if end == "failure":
            raise ValueError("first")
        if end != "success":
            await trio.sleep_forever()

    reason, status, bound = {
        "success": (Reason.TIMEOUT, Status.DEADLINE_EXCEEDED, 70),
        "failure": (Reason.FAILED, Status.INTERNAL, 70),
        "stop": (Reason.STOP_MODULE, Status.CANCELLED, 5 + GRACE),
        "caller leaves": (Reason.CLIENT_GONE, None, 5 + GRACE),
        "deadline": (Reason.DEADLINE, Status.DEADLINE_EXCEEDED, 5 + GRACE),
    }[end]
    options = SessionOptions(completion_timeout=70)
    async with sinners(sin, cleanup=waits, ends={reason: 1}, session_options=options) as world:
        began = trio.current_time()
        job = await world.begin(timeout=5 if end == "deadline" else None)
        await trio.sleep(5)
        if end == "stop":
            await world.client.stop(job.job_id)
        elif end == "caller leaves":
            job.caller.cancel()
        await world.freed()
        assert trio.current_time() - began == pytest.approx(bound, abs=0.2)
        await job.ended.wait()
        assert job.status is status
        if end == "success":
            assert "DIGITALKIN_COMPLETION_TIMEOUT" in job.message
        if end == "failure":
            assert job.message == "ValueError: first"
    assert "cleanup took longer than" in caplog.text


async def test_a_cleanup_that_will_not_be_cut(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    repents = trio.Event()

    async def swallows(context: Any) -> None:
        await stubborn(context, repents)

    options = SessionOptions(completion_timeout=70)
    async with sinners(cleanup=swallows, ends={Reason.TIMEOUT: 1}, session_options=options) as world:
        began = trio.current_time()
        job = await world.sin()
        assert job.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - began == pytest.approx(70 + PATIENCE, abs=0.1)
        assert world.running == 1
        repents.set()
        await trio.sleep(2)
    assert "in stubborn" in caplog.text


async def test_a_caller_who_leaves_during_a_long_cleanup_shortens_it(autojump_clock: object) -> None:
    async with sinners(cleanup=waits, ends={Reason.CLIENT_GONE: 1}) as world:
        job = await world.begin()
        await trio.sleep(100)  # of the 300 s that it has after a success
        assert world.running == 1
        job.caller.cancel()
        await trio.sleep(GRACE - 1)
        assert world.running == 1
        await trio.sleep(2)
        assert world.running == 0


async def test_a_short_completion_time_is_not_lengthened_by_a_cancellation(autojump_clock: object) -> None:
    options = SessionOptions(completion_timeout=7)
    async with sinners(cleanup=waits, ends={Reason.CLIENT_GONE: 1}, session_options=options) as world:
        job = await world.begin()
        await trio.sleep(5)
        job.caller.cancel()
        await trio.sleep(2.5)
        assert world.running == 0


@pytest.mark.parametrize("seed", range(8))
async def test_what_comes_first_is_the_reason_whoever_runs_first(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The scheduler decides whether the author's task or its supervisor learns first of a cancellation."""
    monkeypatch.setattr(trio._core._run, "_r", random.Random(seed))

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("because it was cancelled")

    async def cleanup(self: Any) -> None:
        await trio.sleep(8)

    now = trio.current_time()

    def interruption() -> Reason:  # as the servicer's: of two reasons it may see only the later one
        return Reason.CLIENT_GONE if trio.current_time() < now + 4 else Reason.DEADLINE

    cases: list[tuple[Session, Reason]] = []
    with trio.fail_after(DAY):
        for execution_timeout, reason in [(None, Reason.CLIENT_GONE), (3, Reason.TIMEOUT), (6, Reason.CLIENT_GONE)]:
            now = trio.current_time()
            session = session_of(
                module_with(handle, cleanup=cleanup),
                WAIT,
                [],
                interruption=interruption,
                options=SessionOptions(execution_timeout=execution_timeout),
            )
            with trio.move_on_after(3.5):
                await session.run()
            cases.append((session, reason))
    for session, reason in cases:
        assert session.outcome is not None
        assert session.outcome.reason is reason
