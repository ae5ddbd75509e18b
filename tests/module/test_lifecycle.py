"""The tables of a job's life, and that sessions live by them: each end tells every observer the same story."""

import itertools
from typing import Any

import pytest
from grpclib.const import Status

from dk_trio.errors import AdmissionError, JobEndedError, ModuleFailedError
from dk_trio.lifecycle import OUTCOMES, PROGRESS, TRANSITIONS, Outcome, Reason, State
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus
from dk_trio.session import Session

from .ends import end_by
from .sample import module_with, send_one, session_of

PAIRS = list(itertools.product(State, State))
TERMINAL = {State.STOPPED, State.FAILED, State.CANCELLED}

# Written out a second time, on purpose: this is what other programs rely on.
LEGAL = {
    "created": "starting failed cancelled",
    "starting": "running stopping failed cancelled",
    "running": "stopping",
    "stopping": "stopped failed cancelled",
    "stopped": "",
    "failed": "",
    "cancelled": "",
}
# The caller's status, GetModuleStatus, cancellation_reason of the STOP signal.
TOLD = {
    Reason.COMPLETED: (State.STOPPED, Status.OK, ModuleStatus.SUCCESS, "completed"),
    Reason.SIGNAL_CANCEL: (State.CANCELLED, Status.CANCELLED, ModuleStatus.CANCELED, "signal_service_cancel"),
    Reason.SIGNAL_STOP: (State.CANCELLED, Status.CANCELLED, ModuleStatus.STOPPED, "signal_service_stop"),
    Reason.STOP_MODULE: (State.CANCELLED, Status.CANCELLED, ModuleStatus.STOPPED, "signal_service_stop"),
    Reason.CLIENT_GONE: (State.CANCELLED, Status.CANCELLED, ModuleStatus.CANCELED, "unknown"),
    Reason.DEADLINE: (State.CANCELLED, Status.DEADLINE_EXCEEDED, ModuleStatus.EXPIRED, "timeout"),
    Reason.TIMEOUT: (State.CANCELLED, Status.DEADLINE_EXCEEDED, ModuleStatus.EXPIRED, "timeout"),
    Reason.SHUTDOWN: (State.CANCELLED, Status.UNAVAILABLE, ModuleStatus.CANCELED, "shutdown"),
    Reason.FAILED: (State.FAILED, Status.INTERNAL, ModuleStatus.FAILED, "failure_cleanup"),
    Reason.REFUSED: (State.FAILED, Status.RESOURCE_EXHAUSTED, ModuleStatus.FAILED, "none"),
}
# The words that peers of the existing SDK know (reference, 5.4).
KNOWN_WORDS = set(
    "none completed success_cleanup failure_cleanup signal_service_cancel signal_service_stop grpc_setup_unavailable "
    "grpc_service_error timeout shutdown unknown".split()
)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_transitions(before: State, after: State) -> None:
    assert (after in TRANSITIONS[before]) == (after.value in LEGAL[before.value].split())


@pytest.mark.parametrize(("before", "after"), PAIRS)
async def test_a_session_refuses_what_the_table_does_not_have(
    autojump_clock: object, before: State, after: State
) -> None:
    session = session_of(module_with(send_one), {"protocol": "message"}, [])
    session.state = before
    if after in TRANSITIONS[before]:
        session._enter(after)
        assert session.state is after
    else:
        with pytest.raises(RuntimeError, match=f"cannot become {after.value}"):
            session._enter(after)
        assert session.state is before


def test_terminal_states_have_no_way_out_and_every_other_state_reaches_one() -> None:
    assert {state for state in State if not TRANSITIONS[state]} == TERMINAL
    assert {row.state for row in OUTCOMES.values()} == TERMINAL
    for state in State:
        reached = {state}
        for _ in State:
            reached |= {after for before in reached for after in TRANSITIONS[before]}
        assert reached & TERMINAL
    assert set(PROGRESS) == set(State) - TERMINAL


def test_every_reason_has_a_row_and_the_row_says_what_is_told() -> None:
    assert set(OUTCOMES) == set(Reason) == set(TOLD)
    for reason, row in OUTCOMES.items():
        status = Status.OK if row.error is None else row.error.status
        assert (row.state, status, row.module_status, row.signal) == TOLD[reason]
        assert row.signal in KNOWN_WORDS


def test_each_reason_has_an_error_of_its_family() -> None:
    families: dict[Reason, Any] = {Reason.FAILED: ModuleFailedError, Reason.REFUSED: AdmissionError}
    for reason, row in OUTCOMES.items():
        if row.error is not None:
            assert issubclass(row.error, families.get(reason, JobEndedError))
        assert Outcome(reason=reason, error=None, waited=0, ran=0).row is row


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_observer_of_an_end_is_told_the_same(autojump_clock: object, reason: Reason) -> None:
    end = await end_by(reason)
    _, status, module_status, word = TOLD[reason]
    if reason is Reason.CLIENT_GONE:
        status = None  # there is nobody
    assert end.job.status is status
    if reason is Reason.REFUSED:  # it has no job
        assert end.job.job_id == ""
        assert end.signals == []
    else:
        assert end.module_status is module_status
        assert end.signals[-1].cancellation_reason == word
        assert end.signals[-1].payload["reason"] == reason.value
    assert end.server.statistics().jobs.ended[reason] == 1
    assert end.server.statistics().rpc.rpcs == 0
    assert end.server.statistics().admission.running == 0


@pytest.mark.parametrize("reason", list(Reason))
async def test_a_job_walks_its_states_in_order(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    walks: dict[str, list[State]] = {}
    enter = Session._enter

    def recording(session: Session, state: State) -> None:
        enter(session, state)
        walks.setdefault(session.ids.job_id, [State.CREATED]).append(state)

    monkeypatch.setattr(Session, "_enter", recording)
    end = await end_by(reason)
    if reason is Reason.REFUSED:
        assert [State.CREATED, State.FAILED] in walks.values()
    else:
        assert walks[end.job.job_id] == [
            State.CREATED,
            State.STARTING,
            State.RUNNING,
            State.STOPPING,
            OUTCOMES[reason].state,
        ]
