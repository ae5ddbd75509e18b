"""The in-process exchange: signals of one server, without a platform beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from ._signal import OnSignal, Signal

_log = logging.getLogger("dk_trio.signals")


class LocalSignals:
    """Carries signals within a process. Does not wait anywhere; not for use from other threads."""

    def __init__(self) -> None:
        self._listeners: dict[str, OnSignal] = {}
        self._observers: list[OnSignal] = []

    def __repr__(self) -> str:
        return f"<LocalSignals {len(self._listeners)} jobs, {len(self._observers)} observers>"

    @property
    def observed(self) -> bool:
        """Whether there is an observer."""
        return bool(self._observers)

    def listen(self, job_id: str, on_signal: OnSignal) -> AbstractContextManager[None]:
        """See `SignalExchange.listen`. One listener for a job."""
        return _Listening(self._listeners, job_id, on_signal)

    def publish(self, signal: Signal) -> None:
        """Hand a signal of a job to the observers. What one of them raises is logged."""
        for observer in self._observers:
            try:
                observer(signal)
            except Exception:  # noqa: BLE001  boundary: whoever watches a job must not end it
                _log.exception("an observer of signals failed at %s of job %s", signal.action, signal.task_id)

    def send(self, signal: Signal) -> bool:
        """Deliver a signal to the job that it names. A `cancel` or `stop` has taken effect when this returns.

        Returns:
            False when no such job is here: it has ended, or never was.
        """
        listener = self._listeners.get(signal.task_id)
        if listener is None:
            return False
        listener(signal)
        return True

    @contextmanager
    def observe(self, observer: OnSignal) -> Iterator[None]:
        """Call `observer` for every signal that a job publishes, for the length of the block. It must not wait."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)


class _Listening:
    """A class and not a generator: every job enters one."""

    __slots__ = ("_job_id", "_listeners", "_on_signal")

    def __init__(self, listeners: dict[str, OnSignal], job_id: str, on_signal: OnSignal) -> None:
        self._listeners = listeners
        self._job_id = job_id
        self._on_signal = on_signal

    def __enter__(self) -> None:
        if self._job_id in self._listeners:
            raise ValueError(f"job {self._job_id} is being listened for already")
        self._listeners[self._job_id] = self._on_signal

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._listeners[self._job_id]
