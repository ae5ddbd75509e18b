"""One signal, and the protocol of whatever carries signals."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

from dk_trio import chance

NO_REASON: Final = "none"
"""The `cancellation_reason` of a signal that ends nothing."""


class SignalAction(enum.StrEnum):
    """What a signal says; the text is what travels (reference, 5.4)."""

    START = "start"
    STOP = "stop"
    CANCEL = "cancel"
    ACK_START = "ack_start"
    ACK_CANCEL = "ack_cancel"
    ACK_STOP = "ack_stop"


def _now() -> datetime:
    return chance.utc_now()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One message about one job, in either direction.

    Attributes:
        task_id: The job's id.
        action: `start`, `stop` and the acknowledgements go out; `cancel` and `stop` come in.
        cancellation_reason: Why the job has ended, in the words of the existing SDK; "none" while it has not.
        created_at: The sender's wall clock, in UTC.
        payload: JSON values beside it: `reason` (ours, finer than `cancellation_reason`) and `error_message`.
    """

    task_id: str
    mission_id: str = ""
    setup_id: str = ""
    setup_version_id: str = ""
    action: SignalAction
    cancellation_reason: str = NO_REASON
    created_at: datetime = field(default_factory=_now)
    payload: Mapping[str, Any] = field(default_factory=dict)


OnSignal: TypeAlias = Callable[[Signal], None]


class SignalExchange(Protocol):
    """What carries signals for the sessions of one server."""

    @property
    def observed(self) -> bool:
        """Whether anybody would get what is published. When nobody does, a session makes no signal at all."""
        ...

    def listen(self, job_id: str, on_signal: OnSignal) -> AbstractContextManager[None]:
        """Call `on_signal` for every signal to this job, for the length of the block.

        It is called in the task that brings the signal and must not wait. There is no queue in between that could
        lose a cancel, and no task that would have to run before it takes effect.
        """
        ...

    def publish(self, signal: Signal) -> None:
        """Tell the platform. Never waits and never raises for an outage: a job does not depend on being watched."""
        ...
