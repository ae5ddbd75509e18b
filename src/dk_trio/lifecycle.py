"""The life of a job as tables: the states that it goes through, and the reasons for which it ends.

Pure data. The session walks the states and settles on one reason; what that reason means to each observer (the caller's
status, GetModuleStatus, the STOP signal) is one row of `OUTCOMES` and nowhere else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dk_trio.errors import (
    AdmissionError,
    CallerGoneError,
    DkTrioError,
    JobCancelledError,
    JobDeadlineError,
    JobStoppedError,
    JobTimeoutError,
    ModuleFailedError,
    ShutdownError,
)
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus


class State(enum.Enum):
    """Where a job is in its life (guides: Module Lifecycle)."""

    CREATED = "created"
    """Known and waiting for admission."""
    STARTING = "starting"
    """Admitted; `initialize` has not returned."""
    RUNNING = "running"
    """The trigger's handler runs."""
    STOPPING = "stopping"
    """The handler is over, `cleanup` runs."""
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    __hash__ = object.__hash__  # members are single objects; enum's own hash is Python code, and every job uses it


TRANSITIONS: Mapping[State, frozenset[State]] = {
    # Refused by admission, or cancelled while it waited.
    State.CREATED: frozenset({State.STARTING, State.FAILED, State.CANCELLED}),
    # Straight to an end only when `initialize` has not begun, so that there is nothing to clean up.
    State.STARTING: frozenset({State.RUNNING, State.STOPPING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED, State.FAILED, State.CANCELLED}),
    State.STOPPED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

PROGRESS: Mapping[State, ModuleStatus] = {
    State.CREATED: ModuleStatus.STARTING,
    State.STARTING: ModuleStatus.STARTING,
    State.RUNNING: ModuleStatus.PROCESSING,
    State.STOPPING: ModuleStatus.PROCESSING,
}
"""What GetModuleStatus says of a job that has not ended; of one that has, its row in `OUTCOMES` says it."""


class Reason(enum.Enum):
    """Why a job has ended: exactly one for each job, the first that came."""

    COMPLETED = "completed"
    SIGNAL_CANCEL = "signal_cancel"
    SIGNAL_STOP = "signal_stop"
    STOP_MODULE = "stop_module"
    CLIENT_GONE = "client_gone"
    DEADLINE = "deadline"
    """The caller's own deadline."""
    TIMEOUT = "timeout"
    """A time of ours: completion, stream drain, execution."""
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    REFUSED = "refused"
    """By admission: the job never ran."""

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Row:
    """What one reason means.

    Attributes:
        state: The job's last state.
        error: The kind of error that the caller gets, and with it the gRPC status; None for OK.
        module_status: What GetModuleStatus answers.
        signal: `cancellation_reason` of the STOP signal, in the words that existing peers know (reference, 5.4).
    """

    state: State
    error: type[DkTrioError] | None
    module_status: ModuleStatus
    signal: str


OUTCOMES: Mapping[Reason, Row] = {
    Reason.COMPLETED: Row(State.STOPPED, None, ModuleStatus.SUCCESS, "completed"),
    Reason.SIGNAL_CANCEL: Row(State.CANCELLED, JobCancelledError, ModuleStatus.CANCELED, "signal_service_cancel"),
    Reason.SIGNAL_STOP: Row(State.CANCELLED, JobStoppedError, ModuleStatus.STOPPED, "signal_service_stop"),
    Reason.STOP_MODULE: Row(State.CANCELLED, JobStoppedError, ModuleStatus.STOPPED, "signal_service_stop"),
    Reason.CLIENT_GONE: Row(State.CANCELLED, CallerGoneError, ModuleStatus.CANCELED, "unknown"),
    Reason.DEADLINE: Row(State.CANCELLED, JobDeadlineError, ModuleStatus.EXPIRED, "timeout"),
    Reason.TIMEOUT: Row(State.CANCELLED, JobTimeoutError, ModuleStatus.EXPIRED, "timeout"),
    Reason.SHUTDOWN: Row(State.CANCELLED, ShutdownError, ModuleStatus.CANCELED, "shutdown"),
    Reason.FAILED: Row(State.FAILED, ModuleFailedError, ModuleStatus.FAILED, "failure_cleanup"),
    Reason.REFUSED: Row(State.FAILED, AdmissionError, ModuleStatus.FAILED, "none"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job has ended.

    Attributes:
        reason: The one reason.
        error: What the caller gets; None when the job has completed. Of a kind of its row, or of the author's choice
            when the author's code has raised a `DkTrioError` on purpose.
        waited: Seconds between the job's creation and its slot; all of its life when it never had one.
        ran: Seconds between its slot and its end.
    """

    reason: Reason
    error: DkTrioError | None
    waited: float
    ran: float

    @property
    def row(self) -> Row:
        """What the reason means."""
        return OUTCOMES[self.reason]


FLUSH_GRACE: Final = 2.0
"""Seconds that are left for writing what waits to be written, also when `cleanup` has used up all of its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Times of a session, in seconds.

    Attributes:
        completion_timeout: What follows the handler's end, `cleanup` and `end_of_stream`, may take this long.
        cleanup_grace: `cleanup` of a cancelled job may take this long. Ten: a third of the 30 s that Kubernetes gives
            a pod to end, so that a drain and a cleanup fit together.
        execution_timeout: A job may run this long once it has its slot; None: as long as it likes.
    """

    completion_timeout: float = 300.0
    cleanup_grace: float = 10.0
    execution_timeout: float | None = None
