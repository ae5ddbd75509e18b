"""The signals of one job: what it tells, and what others may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from dk_trio.lifecycle import OUTCOMES, Reason
from dk_trio.module import SessionIds
from dk_trio.signals import Signal, SignalAction, SignalExchange

ASKED: Final[Mapping[SignalAction, Reason]] = {
    SignalAction.CANCEL: Reason.SIGNAL_CANCEL,
    SignalAction.STOP: Reason.SIGNAL_STOP,
}
"""For which reason a job ends when a signal from outside asks it to; other signals ask for nothing."""

# How a job answers who has asked it to end. StopModule asks for the same as a stop, so it is told as one.
_ANSWERS: Final[Mapping[Reason, SignalAction]] = {
    Reason.SIGNAL_CANCEL: SignalAction.ACK_CANCEL,
    Reason.SIGNAL_STOP: SignalAction.ACK_STOP,
    Reason.STOP_MODULE: SignalAction.ACK_STOP,
}


class JobSignals:
    """The signals of one job."""

    __slots__ = ("_exchange", "_ids")

    def __init__(self, exchange: SignalExchange, ids: SessionIds) -> None:
        self._exchange = exchange
        self._ids = ids

    def heard_by(self, on_signal: Callable[[Signal], None]) -> AbstractContextManager[None]:
        """Call `on_signal` for every signal to the job, for the length of the block."""
        return self._exchange.listen(self._ids.job_id, on_signal)

    def start(self) -> None:
        """The job has its slot."""
        self._tell(SignalAction.START)

    def answer(self, reason: Reason) -> None:
        """The job ends because somebody has asked it to; for other reasons there is nobody to answer."""
        if reason in _ANSWERS:
            self._tell(_ANSWERS[reason], OUTCOMES[reason].signal)

    def stop(self, reason: Reason, error_message: str | None) -> None:
        """The job has ended."""
        if not self._exchange.observed:
            return
        payload = {"reason": reason.value}
        if error_message is not None:
            payload["error_message"] = error_message
        self._tell(SignalAction.STOP, OUTCOMES[reason].signal, payload)

    def _tell(self, action: SignalAction, why: str = "none", payload: dict[str, Any] | None = None) -> None:
        if not self._exchange.observed:
            return
        ids = self._ids
        self._exchange.publish(
            Signal(
                task_id=ids.job_id,
                mission_id=ids.mission_id,
                setup_id=ids.setup_id,
                setup_version_id=ids.setup_version_id,
                action=action,
                cancellation_reason=why,
                payload=payload or {},
            )
        )
