"""What others may do around each job of a server: measure it, trace it, profile it.

A server without hooks does none of this work; one with them calls each in the order given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a provider, which has the access log and no jobs, does not load what modules are made of
    from dk_trio.lifecycle import Outcome, State
    from dk_trio.module import RequestMetadata, SessionIds


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
    """A hook does nothing but what a subclass makes it do. What it raises is a defect, and the job's failure."""

    def around(self, job: Job) -> AbstractContextManager[object]:
        """Entered in the task of the author's code, around initialize, handler and cleanup; left in any case."""
        return nullcontext()

    def ended(self, job: Job) -> None:
        """The job has its outcome, also when admission has refused it. Must not wait."""


def around_of(hooks: Iterable[JobHook]) -> Callable[[Job], AbstractContextManager[object]] | None:
    """One context manager of all hooks that have one; None when none has, so that nothing is entered for nothing."""
    entered = [hook.around for hook in hooks if type(hook).around is not JobHook.around]
    if len(entered) < 2:
        return entered[0] if entered else None
    return lambda job: _all(entered, job)


def ended_of(hooks: Iterable[JobHook]) -> Sequence[Callable[[Job], None]]:
    """What is to be called at each job's end."""
    return [hook.ended for hook in hooks if type(hook).ended is not JobHook.ended]


def _all(entered: Iterable[Callable[[Job], AbstractContextManager[object]]], job: Job) -> ExitStack:
    with ExitStack() as stack:
        for around in entered:
            stack.enter_context(around(job))
        return stack.pop_all()
