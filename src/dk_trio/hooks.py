"""What others may do around each job of a server: measure it, trace it, profile it.

A server without hooks does none of this work; one with them calls each in the order given. A hook that raises is told
in the log and else left out: no job fails, nor changes its end, because of whoever looks at it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a provider, which has the access log and no jobs, does not load what modules are made of
    from dk_trio.lifecycle import Outcome, State
    from dk_trio.module import RequestMetadata, SessionIds


_log = logging.getLogger("dk_trio.hooks")


class Job(Protocol):
    """What a hook may look at. Times are `trio.current_time`'s, in seconds."""

    state: State
    outcome: Outcome | None
    """None until the job has ended."""
    outputs: int
    """Messages that the stream has taken so far."""

    @property
    def ids(self) -> SessionIds:
        """The job's ids."""
        ...

    @property
    def module_name(self) -> str:
        """Name of the module."""
        ...

    @property
    def protocol(self) -> str:
        """Protocol of the input; empty when it names none."""
        ...

    @property
    def request_metadata(self) -> RequestMetadata:
        """The caller's metadata."""
        ...

    @property
    def created_at(self) -> float:
        """When the job asked for admission."""
        ...

    @property
    def admitted_at(self) -> float:
        """When it got its slot; inf before, and when it never got one."""
        ...


class JobHook:
    """A hook does nothing but what a subclass makes it do. What it raises is a defect of its own, and is logged."""

    def around(self, job: Job) -> AbstractContextManager[object]:
        """Entered in the task of the author's code, around initialize, handler and cleanup; left in any case."""
        return nullcontext()

    def ended(self, job: Job) -> None:
        """The job has its outcome, also when admission has refused it. Must not wait."""


def around_of(hooks: Iterable[JobHook]) -> Callable[[Job], AbstractContextManager[object]] | None:
    """One context manager of all hooks that have one; None when none has, so that nothing is entered for nothing."""
    around = [hook for hook in hooks if type(hook).around is not JobHook.around]
    return (lambda job: _Around(around, job)) if around else None


def ended_of(hooks: Iterable[JobHook]) -> Callable[[Job], None] | None:
    """What is to be called at each job's end; None when no hook wants to know."""
    told = [hook for hook in hooks if type(hook).ended is not JobHook.ended]

    def ended(job: Job) -> None:
        for hook in told:
            try:
                hook.ended(job)
            except Exception:  # noqa: BLE001  boundary: a job has ended as it has, whatever a hook makes of it
                _log.exception("job %s: %r could not be told of its end", job.ids.job_id, hook)

    return ended if told else None


class _Around:
    """The hooks of one job, left in reverse. None of them can raise, nor swallow what the job raises."""

    __slots__ = ("_entered", "_hooks", "_job")

    def __init__(self, hooks: Iterable[JobHook], job: Job) -> None:
        self._hooks = hooks
        self._job = job
        self._entered: list[tuple[JobHook, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for hook in self._hooks:
            try:
                manager = hook.around(self._job)
                manager.__enter__()
            except Exception:  # noqa: BLE001  boundary: the job runs without it
                _log.exception("job %s runs without %r, which does not start", self._job.ids.job_id, hook)
            else:
                self._entered.append((hook, manager))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._entered:
            hook, manager = self._entered.pop()
            try:
                manager.__exit__(kind, error, trace)
            except Exception as own:  # noqa: BLE001  boundary: the job has ended as it has
                if own is not error:
                    _log.exception("job %s: %r has failed at its end", self._job.ids.job_id, hook)
