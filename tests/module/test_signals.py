"""Signals: what a job publishes of itself, once each, and what `cancel` and `stop` do to it."""

from datetime import UTC
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio import Settings
from dk_trio.admission import Admission
from dk_trio.lifecycle import OUTCOMES, Reason, State
from dk_trio.session import Session
from dk_trio.settings import TaskSettings
from dk_trio.signals import LocalSignals, Signal, SignalAction

from .ends import WAIT, Job, begin, does_as_told, end_by
from .sample import module_with, protocols_of, session_of
from .served import DAY, served

ROOT = {"protocol": "message"}
CANCEL = Signal(task_id="j1", action=SignalAction.CANCEL)
STOP = Signal(task_id="j1", action=SignalAction.STOP)


async def sleeps(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await trio.sleep_forever()


def actions(signals: list[Signal], job_id: str = "j1") -> list[str]:
    return [signal.action.value for signal in signals if signal.task_id == job_id]


# --- the exchange ------------------------------------------------------------------------------------------------


def test_a_signal_reaches_the_job_that_it_names() -> None:
    exchange = LocalSignals()
    one, two = [], []
    with exchange.listen("j1", one.append), exchange.listen("j2", two.append):
        assert repr(exchange) == "<LocalSignals 2 jobs, 0 observers>"
        assert exchange.send(CANCEL)
        assert (one, two) == ([CANCEL], [])
        assert not exchange.send(Signal(task_id="j3", action=SignalAction.CANCEL))
    assert not exchange.send(CANCEL)
    assert one == [CANCEL]


def test_a_job_has_one_listener() -> None:
    exchange, heard = LocalSignals(), []
    with exchange.listen("j1", heard.append):
        with pytest.raises(ValueError, match="job j1 is being listened for already"), exchange.listen("j1", print):
            pass
        assert exchange.send(STOP)  # the first still listens
    assert heard == [STOP]
    with exchange.listen("j1", heard.append):
        pass


def test_observers_see_what_is_published_for_the_length_of_their_block() -> None:
    exchange = LocalSignals()
    one, two = [], []
    exchange.publish(STOP)
    with exchange.observe(one.append):
        with exchange.observe(two.append):
            exchange.publish(STOP)
        exchange.publish(CANCEL)
    exchange.publish(CANCEL)
    assert (one, two) == ([STOP, CANCEL], [STOP])
    assert repr(exchange) == "<LocalSignals 0 jobs, 0 observers>"


def test_an_observer_is_not_sent_what_is_for_a_job() -> None:
    exchange, seen = LocalSignals(), []
    with exchange.observe(seen.append), exchange.listen("j1", lambda signal: None):
        exchange.send(CANCEL)
    assert seen == []


def test_a_signal_tells_its_time_in_utc() -> None:
    assert CANCEL.created_at.tzinfo is UTC
    assert (CANCEL.cancellation_reason, CANCEL.payload) == ("none", {})
    assert CANCEL.action == "cancel"


# --- what a job publishes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
async def test_start_and_stop_go_out_once(autojump_clock: object, reason: Reason) -> None:
    end = await end_by(reason)
    published = [signal for signal in end.signals if not signal.action.value.startswith("ack_")]
    if reason is Reason.REFUSED:
        assert published == []
        return
    start, stop = published
    assert (start.action, stop.action) == (SignalAction.START, SignalAction.STOP)
    assert start.cancellation_reason == "none"
    assert start.payload == {}
    assert stop.cancellation_reason == OUTCOMES[reason].signal
    assert stop.payload["reason"] == reason.value
    assert ("error_message" in stop.payload) == (reason is not Reason.COMPLETED)
    assert start.created_at <= stop.created_at
    for signal in published:
        assert signal.task_id == end.job.job_id
        assert (signal.mission_id, signal.setup_version_id) == ("missions:default", "setup_versions:default")


async def test_stop_is_published_when_everything_of_the_job_is_over(autojump_clock: object) -> None:
    exchange = LocalSignals()
    log: list[str] = []

    async def cleanup(self: Any) -> None:
        await trio.sleep(5)
        log.append("cleanup")

    outputs: list[Any] = []
    session = session_of(module_with(does_as_told, cleanup=cleanup), ROOT, outputs, signals=exchange)

    def observer(signal: Signal) -> None:
        log.append(signal.action.value)
        if signal.action is SignalAction.STOP:
            assert session.outcome is not None
            assert session.state is State.STOPPED
            assert protocols_of(outputs)[-1] == "end_of_stream"

    with trio.fail_after(DAY), exchange.observe(observer):
        await session.run()
    assert log == ["start", "cleanup", "stop"]


async def test_the_error_of_a_failed_job_is_in_its_stop(autojump_clock: object) -> None:
    stop = (await end_by(Reason.FAILED)).signals[-1]
    assert stop.payload == {"reason": "failed", "error_message": "ValueError: as told"}


async def test_the_text_is_the_same_for_the_caller_and_in_the_stop(autojump_clock: object) -> None:
    end = await end_by(Reason.SIGNAL_CANCEL)
    assert end.signals[-1].payload["error_message"] == end.job.message == end.job.failure["message"]
    assert end.job.message == f"Job {end.job.job_id} was stopped: a cancel signal came."


# --- what a job is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "reason", "published"),
    [
        (CANCEL, Reason.SIGNAL_CANCEL, ["start", "ack_cancel", "stop"]),
        (STOP, Reason.SIGNAL_STOP, ["start", "ack_stop", "stop"]),
    ],
)
async def test_the_cancel_has_taken_effect_before_it_is_acknowledged(
    autojump_clock: object, signal: Signal, reason: Reason, published: list[str]
) -> None:
    exchange, seen = LocalSignals(), []
    session = session_of(module_with(sleeps), ROOT, [], signals=exchange)

    def observer(signal: Signal) -> None:
        seen.append(signal)
        if signal.action.value.startswith("ack_"):
            assert session._cancelled()
            assert signal.cancellation_reason == OUTCOMES[reason].signal

    with trio.fail_after(DAY), exchange.observe(observer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await trio.testing.wait_all_tasks_blocked()
            assert exchange.send(signal)
            assert actions(seen) == published[:-1]  # in this very step: nothing had to be waited for
            assert repr(session) == f"<Session j1 of Sample, running: {reason.value}>"
    assert session.outcome is not None
    assert session.outcome.reason is reason
    assert actions(seen) == published


async def run_and(session: Session, act: Any) -> Reason:
    """Run a session and call `act` when it waits."""
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await trio.testing.wait_all_tasks_blocked()
            act()
    assert session.outcome is not None
    return session.outcome.reason


@pytest.mark.parametrize(("first", "second"), [(CANCEL, STOP), (STOP, CANCEL), (CANCEL, CANCEL)])
async def test_the_first_of_two_signals_counts(autojump_clock: object, first: Signal, second: Signal) -> None:
    exchange, seen = LocalSignals(), []
    session = session_of(module_with(sleeps), ROOT, [], signals=exchange)

    def both() -> None:
        assert exchange.send(first)
        assert exchange.send(second)

    with exchange.observe(seen.append):
        reason = await run_and(session, both)
    assert reason is (Reason.SIGNAL_CANCEL if first is CANCEL else Reason.SIGNAL_STOP)
    assert actions(seen) == ["start", f"ack_{first.action.value}", "stop"]


@pytest.mark.parametrize("action", sorted(set(SignalAction) - {SignalAction.CANCEL, SignalAction.STOP}))
async def test_other_signals_are_ignored(autojump_clock: object, action: SignalAction) -> None:
    exchange = LocalSignals()
    session = session_of(module_with(sleeps), ROOT, [], signals=exchange)

    def echo() -> None:
        assert exchange.send(Signal(task_id="j1", action=action))
        assert not session._cancelled()
        session.stop(Reason.SHUTDOWN, "enough")

    assert await run_and(session, echo) is Reason.SHUTDOWN


async def test_an_action_that_is_not_known_is_ignored(autojump_clock: object) -> None:
    exchange = LocalSignals()
    session = session_of(module_with(sleeps), ROOT, [], signals=exchange)
    unknown: Any = "pause"

    def pause() -> None:
        assert exchange.send(Signal(task_id="j1", action=unknown))
        session.stop(Reason.SHUTDOWN, "enough")

    assert await run_and(session, pause) is Reason.SHUTDOWN


async def test_a_queued_job_can_be_cancelled(autojump_clock: object) -> None:
    exchange, seen, outputs = LocalSignals(), [], []
    admission = Admission(TaskSettings(max_concurrent_tasks=1, max_queued_tasks=5))
    session = session_of(module_with(sleeps), ROOT, outputs, signals=exchange, admission=admission)
    with trio.fail_after(DAY), exchange.observe(seen.append):
        async with admission.admit():
            assert await run_and(session, partial(exchange.send, CANCEL)) is Reason.SIGNAL_CANCEL
            assert (admission.statistics().queued, admission.statistics().admitted) == (0, 1)
    assert session.state is State.CANCELLED
    assert outputs == []
    assert actions(seen) == ["ack_cancel"]  # it was never started, so it has not stopped either
    assert session.outcome is not None
    assert session.outcome.ran == 0
    assert admission.statistics().admitted == 0


async def test_signals_to_a_queued_a_running_and_an_ended_job(autojump_clock: object) -> None:
    settings = Settings.from_environment({"DIGITALKIN_MAX_CONCURRENT_TASKS": "1", "DIGITALKIN_MAX_QUEUED_TASKS": "1"})
    async with served(module_with(does_as_told), settings=settings) as (server, client), trio.open_nursery() as nursery:
        running, queued = await begin(nursery, client, WAIT), Job()
        nursery.start_soon(queued.run, client, WAIT)
        await trio.testing.wait_all_tasks_blocked()
        queued_id = next(session.ids.job_id for session in server._servicer.jobs if not session.running)
        assert server.signals.send(Signal(task_id=queued_id, action=SignalAction.CANCEL))
        await queued.ended.wait()
        assert (queued.status, queued.protocols) == (Status.CANCELLED, [])
        assert server.signals.send(Signal(task_id=running.job_id, action=SignalAction.STOP))
        await running.ended.wait()
        assert (running.status, running.protocols) == (Status.CANCELLED, ["module_start_info", "message"])
        for job_id in (queued_id, running.job_id):
            assert not server.signals.send(Signal(task_id=job_id, action=SignalAction.CANCEL))


async def test_an_observer_may_cancel_the_job_that_starts(autojump_clock: object) -> None:
    exchange, seen, outputs = LocalSignals(), [], []

    def observer(signal: Signal) -> None:
        seen.append(signal)
        if signal.action is SignalAction.START:
            assert exchange.send(CANCEL)

    session = session_of(module_with(sleeps), ROOT, outputs, signals=exchange)
    with trio.fail_after(DAY), exchange.observe(observer):
        outcome = await session.run()
    assert outcome.reason is Reason.SIGNAL_CANCEL
    assert actions(seen) == ["start", "ack_cancel", "stop"]
    assert "end_of_stream" not in protocols_of(outputs)


async def test_a_signal_during_cleanup_changes_neither_reason_nor_acknowledges(autojump_clock: object) -> None:
    exchange, seen = LocalSignals(), []

    async def cleanup(self: Any) -> None:
        await trio.sleep(3)
        assert exchange.send(CANCEL)
        await trio.sleep(3)

    session = session_of(module_with(does_as_told, cleanup=cleanup), ROOT | {"text": "fail"}, [], signals=exchange)
    with trio.fail_after(DAY), exchange.observe(seen.append):
        outcome = await session.run()
    assert outcome.reason is Reason.FAILED
    assert actions(seen) == ["start", "stop"]
