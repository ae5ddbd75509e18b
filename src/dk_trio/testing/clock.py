"""Virtual time: a clock that jumps to what happens next, so that an hour of waiting is a test of milliseconds.

    run(main, seed=7)  # `trio.run` in virtual time, the same again for the same seed

With pytest-trio, name the fixture `virtual_clock` as an argument of the test.

Trio's `MockClock(autojump_threshold=0)` jumps too. This one differs where that hurts: it stands still while a thread of
`trio.to_thread` works, whose end no deadline may overtake, and it fails when every task waits for ever, where the other
goes round and round without an end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from math import inf
from random import Random
from typing import Final, NoReturn, TypeVar, TypeVarTuple
from weakref import WeakSet

import trio
import trio.testing

from dk_trio import chance

ResultT = TypeVar("ResultT")
ArgumentsT = TypeVarTuple("ArgumentsT")

BEGINNING: Final = 1_767_225_600.0
"""When runs of `run` begin, in seconds since 1970: on the first of January 2026."""

THREAD_PATIENCE: Final = 60.0
"""Seconds of real time that the clock stands still for threads, all waits of a run together. Then it jumps: a test that
hangs in a thread gets to its deadlines."""

_LOOK_AGAIN: Final = 0.0005  # real seconds until it is looked again whether a thread has ended


class DeadlockError(trio.TrioInternalError):
    """Every task of the run waits for ever. Says which there are, and where each waits.

    It derives from Trio's own error because Trio lets only that end a run whose tasks cannot be cancelled.
    """


def virtual_clock() -> trio.testing.MockClock:
    """A clock for `trio.run` that jumps whenever nothing can run, and fails when there is nothing to jump to.

    While threads of `trio.to_thread.run_sync` work it does not jump: what they take is no virtual time at all. A socket
    whose other end is outside of the run cannot be told from one that is idle, so tests with sockets want a real clock.

    Raises:
        DeadlockError: Out of the run, when no task has anything to wait for. It is raised where the run's main task
            waits, so that blocks are left and cleaned up; where that does not help, in every task; at last, out of
            Trio itself.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    patience = THREAD_PATIENCE
    before = WeakSet(threading.enumerate())
    struck: list[trio.lowlevel.Task] = []

    def jump_or_fail() -> None:
        nonlocal patience
        if trio.testing.active_thread_count() and patience > 0:
            time.sleep(_LOOK_AGAIN)
            patience -= _LOOK_AGAIN
            return
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        deadline = runner.deadlines.next_deadline()
        if deadline < inf:
            clock.jump(max(0.0, deadline - clock.current_time()))
        else:
            error = DeadlockError(f"every task waits for ever:{task_tree()}{_unheeded(threads_since(before))}")
            main = runner.main_task
            assert main is not None
            # The tasks that it is raised in, more of them each time.
            more = [task for task in ([main] if not struck else tasks_below(main)) if task not in struck]
            if not more:
                raise error
            struck.extend(more)
            for task in more:
                _raise_in(task, error)

    clock._autojump = jump_or_fail  # type: ignore[method-assign]
    return clock


def _raise_in(task: trio.lowlevel.Task, error: Exception) -> None:
    """Raise an error where a task waits, as Trio does with KeyboardInterrupt; no shield keeps it off."""

    def raise_it() -> NoReturn:
        raise error

    if task._abort_func is not None:
        task._attempt_abort(raise_it)


def tasks_below(task: trio.lowlevel.Task) -> list[trio.lowlevel.Task]:
    """A task, and all that are in its nurseries, outermost first."""
    tasks = [task]
    for each in tasks:  # it grows meanwhile
        tasks += [child for nursery in each.child_nurseries for child in nursery.child_tasks]
    return tasks


def task_tree() -> str:
    """The tasks of the run as text, each below the nursery that it cannot outlive, with the place where it waits."""
    from dk_trio.observe.task_tree import Surveyor, lines

    return "\n" + "\n".join(lines(Surveyor().survey_now()))


def threads_since(before: WeakSet[threading.Thread]) -> list[threading.Thread]:
    """Threads that there were not before, without those that Trio keeps for its next use."""
    idle = {worker._thread for worker in list(trio._core._thread_cache.THREAD_CACHE._idle_workers)}
    return [thread for thread in threading.enumerate() if thread not in before and thread not in idle]


def _unheeded(threads: list[threading.Thread]) -> str:
    if not threads:
        return ""
    names = ", ".join(thread.name for thread in threads)
    return f"\nthreads of others, for which this clock does not wait: {names}; use trio.to_thread, or the real clock"


def needs_trio(what: str) -> None:
    """Say what to do about it when this is called where Trio does not run.

    Args:
        what: What needs it.

    Raises:
        RuntimeError: Trio does not run here.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            f"{what} needs Trio, which does not run here: let pytest-trio run the test (`trio_mode = true`, or "
            "@pytest.mark.trio; never with `asyncio_mode = auto`), or call it in `dk_trio.testing.run`"
        )


def seed_scheduler(seed: int) -> None:
    """Let this decide from now on in which order tasks run that could run at the same time, in this process.

    Another seed is another interleaving; the same one gives the same again. Trio decides by chance otherwise.
    """
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)


def run(async_fn: Callable[[*ArgumentsT], Awaitable[ResultT]], *args: *ArgumentsT, seed: int = 0) -> ResultT:
    """`trio.run` in virtual time, repeatable: the seed decides the order of tasks, ids and jitter.

    The time of day begins at the same moment each time. What decides by itself, such as a `Random()` of the code that
    is run, is not reached. The scheduler is afterwards as it was.

    Args:
        async_fn: What to run.
        args: Its arguments.
        seed: Decides what is left to chance.

    Raises:
        DeadlockError: Every task waited for ever.
    """
    scheduler = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    seed_scheduler(seed)
    try:
        clock = virtual_clock()
        with chance.decided_by(Random(seed), lambda: BEGINNING + clock.current_time()):  # noqa: S311
            return trio.run(async_fn, *args, clock=clock)
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before[0]  # type: ignore[misc]
        scheduler._r.setstate(before[1])
