"""The loop, watched: how late it is, and the stack that blocked it.

Trio runs one task at a time, so code that does not reach an await keeps everybody waiting: other jobs, health checks,
deadlines. A task here looks at its clock every `EVERY` seconds; what it is late by is the lag of the loop. That costs
four wakeups a second, and tells that the loop was blocked, but only afterwards, when nobody knows by what.

Therefore a thread knows when the task's next look is due. When that is overdue by the threshold, it takes the stack of
the loop's thread as it stands at that moment, and the task that runs there, with the ids that it works for. The warning
comes when the loop runs again and its duration is known, once for each stall; a stall that goes on for `ENDLESS`
seconds is told while it does, since it may have no end.

Code that holds the interpreter's lock all the time (a C extension, one huge regular expression) keeps the thread
waiting, too: the stack is then that of the moment in which it lets go. A process that the system did not run looks like
one that was blocked.

In virtual time nothing blocks and a thread has no place: then there is none, and only the lag is told. Without a
threshold nobody watches at all.
"""

from __future__ import annotations

import linecache
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import Final

import trio

from dk_trio.boundary import unwrapped
from dk_trio.frames import authors_frame, place
from dk_trio.log_context import CURRENT

_log = logging.getLogger("dk_trio.stalls")

EVERY: Final = 0.25
"""Seconds between two looks."""

RECENT: Final = 40
"""Looks that `LoopStatistics.recent` covers: ten seconds, which is what a scraper or an eye misses."""

KEPT: Final = 20
"""Stalls that are kept. One takes a few kB."""

ENDLESS: Final = 10.0
"""Seconds after which a stall that still goes on is told."""

STACK_MAX: Final = 40
"""Lines of a stack that are kept, the innermost ones."""

_JOBS_TOLD: Final = 3
_JOIN_WITHIN: Final = 1.0  # seconds; the thread has nothing that takes longer
_LOOK_AGAIN: Final = 0.25  # seconds between two looks of the thread at a stall that it has caught


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """One time in which the loop did not run.

    Attributes:
        at: When it was noticed, in seconds since the epoch.
        duration: Seconds for which it lasted at least.
        task: Name of the task that ran then; empty when it is not known.
        ids: What that task works for, see `dk_trio.log_context`.
        where: The innermost line of an author's code; empty when there was none.
        stack: Lines from the innermost one on; empty when the stack could not be taken.
    """

    at: float
    duration: float
    task: str = ""
    ids: Mapping[str, str]
    where: str = ""
    stack: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStatistics:
    """A snapshot of how well the loop keeps its times. Seconds.

    Attributes:
        lag: What the last look was late by.
        recent: The most in the last ten seconds.
        longest: The most since the watch was opened.
        stalls: Times at which the lag was above the threshold.
        last_stalls: The last of them, oldest first.
    """

    lag: float = 0.0
    recent: float = 0.0
    longest: float = 0.0
    stalls: int = 0
    last_stalls: tuple[Stall, ...] = ()


class StallWatch:
    """Watches the loop that it is opened on.

    Args:
        threshold: Seconds above which a lag is a stall; 0: nothing is one, no lag is told, and nobody watches.
        jobs: Whoever may have done it, for the log; None where there are no modules.
    """

    def __init__(self, threshold: float = 1.0, *, jobs: Callable[[], Sequence[object]] | None = None) -> None:
        self._threshold = threshold
        self._jobs = jobs
        self._lags: deque[float] = deque([0.0], maxlen=RECENT)
        self._longest = 0.0
        self._count = 0
        self._stalls: deque[Stall] = deque(maxlen=KEPT)
        # Written by the loop and read by the thread: the number of the look that comes next, and when it is due.
        self._next = (0, 0.0)
        # Written by the thread and read by the loop: the look that it found overdue, and what ran meanwhile.
        self._caught: tuple[int, Stall] | None = None

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<StallWatch {now.recent * 1000:.0f} ms late, {now.stalls} stalls>"

    def statistics(self) -> LoopStatistics:
        """How late the loop is, and was."""
        return LoopStatistics(
            lag=self._lags[-1],
            recent=max(self._lags),
            longest=self._longest,
            stalls=self._count,
            last_stalls=tuple(self._stalls),
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Watch for the length of the block."""
        if not self._threshold:
            yield
            return
        async with unwrapped(), trio.open_nursery() as nursery:
            nursery.start_soon(self._look, self._expect(), name="the watch over the loop")
            with self._thread():
                yield
            nursery.cancel_scope.cancel()

    # -- on the loop --------------------------------------------------------------------------------------------------

    def _expect(self) -> float:
        """Note when the next look is due; returns that on Trio's clock."""
        self._next = (self._next[0] + 1, time.perf_counter() + EVERY)
        return trio.current_time() + EVERY

    async def _look(self, due: float) -> None:
        while True:
            await trio.sleep_until(due)
            late = max(0.0, trio.current_time() - due)
            self._lags.append(late)
            self._longest = max(self._longest, late)
            if late > self._threshold:
                self._tell(late)
            due = self._expect()

    def _tell(self, late: float) -> None:
        caught = self._caught
        if caught is not None and caught[0] == self._next[0]:
            stall = replace(caught[1], duration=late)
        else:
            stall = Stall(at=time.time(), duration=late, ids={})
        self._count += 1
        self._stalls.append(stall)
        if self._jobs is None:
            _log.warning("the event loop was blocked for at least %.1f s%s", late, _told(stall))
            return
        jobs = self._jobs()
        _log.warning(
            "the event loop was blocked for at least %.1f s: code of a module did not reach an await. Blocking "
            "calls belong into trio.to_thread.run_sync, long loops need a checkpoint. Jobs running: %d, %r%s",
            late,
            len(jobs),
            list(jobs[:_JOBS_TOLD]),
            _told(stall),
        )

    # -- in the thread ------------------------------------------------------------------------------------------------

    @contextmanager
    def _thread(self) -> Iterator[None]:
        if type(trio.lowlevel.current_clock()).__name__ != "SystemClock":
            yield
            return
        stop = threading.Event()
        arguments = (threading.get_ident(), stop)
        thread = threading.Thread(target=self._watch, args=arguments, name="dk-trio stall watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_JOIN_WITHIN)

    def _watch(self, loop: int, stop: threading.Event) -> None:
        pause = 0.0
        told = 0
        while not stop.wait(pause):
            number, due = self._next
            overdue = time.perf_counter() - due
            if overdue < self._threshold:
                pause = self._threshold - overdue
                continue
            pause = _LOOK_AGAIN
            if self._caught is None or self._caught[0] != number:
                stall = _catch(loop, overdue)
                if self._next[0] == number:  # or else it was over, and what ran then is not to blame
                    self._caught = (number, stall)
            elif overdue > ENDLESS and told != number:
                told = number
                stall = _catch(loop, overdue)  # as it stands now
                _log.error("the event loop is blocked, for %.1f s by now, and serves nobody%s", overdue, _told(stall))


def _catch(loop: int, overdue: float) -> Stall:
    """What runs on the loop's thread at this moment."""
    frames = []
    task: trio.lowlevel.Task | None = None
    frame: FrameType | None = sys._current_frames().get(loop)
    while frame is not None:
        if frame.f_code.co_name == "unrolled_run" and frame.f_globals.get("__name__") == "trio._core._run":
            running = frame.f_locals.get("task")
            task = running if isinstance(running, trio.lowlevel.Task) else None
            break
        # An instruction may have no line, whatever the type says; an import is at one when its thread waits for a lock.
        frames.append((frame, frame.f_lineno or frame.f_code.co_firstlineno))
        frame = frame.f_back
    author = authors_frame(reversed(frames))
    with suppress(KeyError):  # it has no lock: another thread, which found the same file edited, has removed its lines
        linecache.checkcache()
    return Stall(
        at=time.time(),
        duration=overdue,
        task="" if task is None else task.name,
        ids={} if task is None else task.context.get(CURRENT) or {},
        where="" if author is None else place(*author, source=True),
        stack=tuple(place(*each, source=True) for each in frames[:STACK_MAX]),
    )


def _told(stall: Stall) -> str:
    """A stall for the log, in lines of their own."""
    if not stall.stack:
        return ""
    ids = ", ".join(f"{name} {value}" for name, value in stall.ids.items())
    whose = f"{stall.task or 'the loop itself'}{f' ({ids})' if ids else ''}"
    lines = [f"It stood at {stall.where or stall.stack[0]}", f"in {whose}; the stack, innermost first:", *stall.stack]
    return "\n  ".join(["", *lines])


def stacks_of_threads() -> Iterator[str]:
    """The stacks of all threads of this process, as tracebacks; for a process that answers nothing else."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"Thread {names.get(ident, ident)} (most recent call last):\n" + "".join(traceback.format_stack(frame))
