"""Group commit: writes that wait are taken together, run in one transaction, and their callers woken after it.

A caller who is cancelled withdraws a write that was not begun; one that was begun ends first. So `Cancelled` always
means that nothing was written.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import outcome
import trio

from dk_trio.errors import StorageServiceError

from .work import T, Work

# Writes in one transaction: enough that the sync to disk is a small part of the cost of each, few enough that nobody
# waits for more than some milliseconds of the statements of others.
BATCH_MAX: Final = 256

# Writes that wait. A task has one at a time, so their callers bound them already; this bounds how many batches stand
# before a write, and how many records are kept in memory for a disk that has become slow. Further callers wait in turn.
QUEUE_MAX: Final = 4 * BATCH_MAX

Transact: TypeAlias = Callable[[Sequence[Callable[[], Work[Any]]]], Awaitable[list[outcome.Outcome[Any]]]]


@dataclass(slots=True, eq=False)
class _Write:
    work: Callable[[], Work[Any]]
    task: trio.lowlevel.Task


class Writes:
    """Writes that wait for their transaction, and the task that runs them while there are any.

    Args:
        transact: Runs works in one transaction and gives the result of each in their order. Does not raise. It runs
            under a shield without a deadline, so it must end by itself.
    """

    def __init__(self, transact: Transact) -> None:
        self._transact = transact
        self._queue: deque[_Write] = deque()
        self._room = trio.Semaphore(QUEUE_MAX, max_value=QUEUE_MAX)
        self._draining = False
        self.written = self.failed = self.withdrawn = 0

    @property
    def queued(self) -> int:
        """Writes that wait for their transaction to begin."""
        return len(self._queue)

    @property
    def blocked(self) -> int:
        """Callers that wait for room."""
        return self._room.statistics().tasks_waiting

    async def run(self, nursery: trio.Nursery, context: contextvars.Context, work: Callable[[], Work[T]]) -> T:
        """What `work` returned, after the commit.

        Args:
            nursery: Where the task that runs the writes may live.
            context: Of that task: it would inherit the context of the first writer otherwise.
            work: Makes the unit of work.
        """
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            await self._room.acquire()
        try:
            return await self._queued(nursery, context, work)
        finally:
            self._room.release()

    async def _queued(self, nursery: trio.Nursery, context: contextvars.Context, work: Callable[[], Work[T]]) -> T:
        item = _Write(work, trio.lowlevel.current_task())
        self._queue.append(item)
        if not self._draining:
            self._draining = True
            context.run(nursery.start_soon, self._drain)

        def withdraw(_: object) -> trio.lowlevel.Abort:
            try:
                self._queue.remove(item)
            except ValueError:
                return trio.lowlevel.Abort.FAILED  # begun
            self.withdrawn += 1
            return trio.lowlevel.Abort.SUCCEEDED

        # The cell for the result is ours: raised from it, an exception would not hold the frames of the drain.
        result: outcome.Outcome[T] = await trio.lowlevel.wait_task_rescheduled(withdraw)
        return self.told(result)

    def told(self, result: outcome.Outcome[T]) -> T:
        """Count a write that has ended, and return or raise its result."""
        if isinstance(result, outcome.Error):
            self.failed += 1
        else:
            self.written += 1
        value: T = result.unwrap()
        return value

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Those that wait fail, each with an error of its own; none of them was begun."""
        while self._queue:
            trio.lowlevel.reschedule(self._queue.popleft().task, outcome.Value(outcome.Error(error())))

    async def _drain(self) -> None:
        batch: list[_Write] = []
        try:
            with trio.CancelScope(shield=True):
                while self._queue:
                    batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
                    results = await self._transact([item.work for item in batch])
                    while results:
                        trio.lowlevel.reschedule(batch.pop().task, outcome.Value(results.pop()))
        finally:
            self._draining = False
            # Something is left only when the interpreter ends, or `transact` is wrong: nobody waits for ever then.
            for item in batch:
                trio.lowlevel.reschedule(item.task, outcome.Value(outcome.Error(_ended())))
            self.refuse(_ended)


def _ended() -> StorageServiceError:
    return StorageServiceError("The writer of the database ended before this was written.")
