"""Admission: how many tasks run, how many wait, and in which order. Two limiters, and nothing that is counted twice.

With a queue (`max_queued_tasks` above 0) there are two phases, as in the tuning guide:

    arrival -> gate (slots + queue)  bounded wait, then QueueFullError: a full queue does not empty in a few seconds
            -> slot                  patient: whoever passed the gate was promised a slot
            -> body, holding both

The legacy mode has slots alone, and a bounded wait for one, then NoFreeSlotError. Which wait that is,
`TaskSettings.slot_wait` says: for both modes there is one rule here.

What it guarantees:

- Running tasks <= slots; admitted tasks <= slots + queue. A `trio.CapacityLimiter` is handed from the task that leaves
  to the first that waits, so there is no moment in which a newcomer could take a token over somebody's head.
- Capacity does not leak, whatever raises or is cancelled. Tokens are held inside `async with admit()` and nowhere else,
  giving them back never waits, and trio's `acquire` either raises without a token or returns with one.
- The order is that of arrival. Trio runs the tasks that it wakes in random order, so tasks that pass the gate together
  would reach the slot shuffled, or behind a newcomer. Therefore one task at a time waits at the gate. It holds the
  door, a FIFO lock where all others wait, until it joins the line for a slot, in the same scheduler pass; and a
  newcomer does not pass a door that is locked.
- A task that need not wait passes without a scheduler pass; it only looks whether it was cancelled.

What runs and what waits is read from the limiters. Counters exist for what is over; nothing is decided by them.

Not here: priorities (somebody would starve), and rates per caller (this knows no callers).
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import inf
from types import TracebackType

import trio

from dk_trio import buggify
from dk_trio.errors import NoFreeSlotError, QueueFullError
from dk_trio.settings import SlotWait, TaskSettings

_log = logging.getLogger("dk_trio.admission")

# Fewer free slots than one in five are worth a warning, the existing SDK's number; at most one in so many seconds.
_LOW_ONE_IN = 5
WARNING_INTERVAL = 30.0

# Bounds of `retry_after` in seconds. A caller that comes back sooner costs more than it gains, and after a minute an
# estimate is worth no more than a look. The middle one is told before any task has ended.
RETRY_AFTER_MIN = 1.0
RETRY_AFTER_UNKNOWN = 10.0
RETRY_AFTER_MAX = 60.0

# Ends of tasks that the estimate looks back upon are as many as there are slots, so that tasks which began and end
# together do not look like a fast server; but 8 kB are enough.
_ENDS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """A snapshot of an admission. A task that came either waits, or was started, rejected or abandoned."""

    slots: int
    """Tasks that may run at the same time."""
    running: int
    """Tasks that hold a slot now."""
    queue: int
    """Tasks that may wait for a slot; 0 in the legacy mode, where time bounds them and not a number."""
    queued: int
    """Tasks that wait for a slot now."""
    at_gate: int
    """Tasks that wait for a place now, because slots and queue are full; 0 in the legacy mode."""
    admitted: int
    """Tasks that hold a place now: those that run and, with a queue, those that wait in it."""
    started: int
    """Tasks that were given a slot, since the admission was made; so are the following."""
    rejected_by_gate: int
    rejected_by_slot: int
    abandoned: int
    """Tasks that were cancelled while they waited."""
    longest_wait: float
    """Seconds from arrival to slot, the longest of the started tasks."""
    total_wait: float
    """Seconds from arrival to slot, the sum of the started tasks."""


class Admission:
    """Gate and slots of one server.

        async with admission.admit():
            ...  # at most `max_concurrent_tasks` tasks are here

    Args:
        settings: Sizes and waits; the defaults when None.
    """

    def __init__(self, settings: TaskSettings | None = None) -> None:
        self._settings = settings = settings or TaskSettings()
        slots, queue = settings.max_concurrent_tasks, settings.max_queued_tasks
        self._slot = trio.CapacityLimiter(slots)
        self._gate = trio.CapacityLimiter(slots + queue) if queue else None
        self._door = trio.StrictFIFOLock()
        self._low_at = slots * (_LOW_ONE_IN - 1) // _LOW_ONE_IN + 1
        self._warned_at = float("-inf")
        # When the last tasks ended; before the first of them, when the first one began.
        self._ends: deque[float] = deque(maxlen=1 + min(slots, _ENDS_MAX))
        self._started = self._rejected_by_gate = self._rejected_by_slot = self._abandoned = 0
        self._longest_wait = self._total_wait = 0.0

    def __repr__(self) -> str:
        now = self.statistics()
        if not now.queue:
            return f"<Admission {now.running}/{now.slots} running, {now.queued} waiting>"
        return (
            f"<Admission {now.running}/{now.slots} running, {now.queued}/{now.queue} queued, {now.at_gate} at the gate>"
        )

    def statistics(self) -> AdmissionStatistics:
        """What is going on, and what has been."""
        gate = self._gate
        return AdmissionStatistics(
            slots=self._settings.max_concurrent_tasks,
            running=self._slot.borrowed_tokens,
            queue=self._settings.max_queued_tasks,
            queued=self._slot.statistics().tasks_waiting,
            at_gate=self._at_gate(),
            admitted=(gate or self._slot).borrowed_tokens,
            started=self._started,
            rejected_by_gate=self._rejected_by_gate,
            rejected_by_slot=self._rejected_by_slot,
            abandoned=self._abandoned,
            longest_wait=self._longest_wait,
            total_wait=self._total_wait,
        )

    def admit(self, *, nested: bool = False) -> AbstractAsyncContextManager[None]:
        """A place and a slot for the current task, for the length of an `async with`. For one use.

        Leaving never waits. A cancellation while waiting gives back what was held.

        Args:
            nested: Somebody who has a slot waits for this task. If all who have slots did so, patience would be for
                ever: it waits in the queue for `admission_timeout` at most.

        Raises:
            QueueFullError: On entering: slots and queue stayed full for `admission_timeout`.
            NoFreeSlotError: On entering: no slot became free within `TaskSettings.slot_wait`.
            RuntimeError: On entering: the task holds a slot of this admission already.
        """
        return _Admitted(self, nested)

    async def _acquire(self, task: trio.lowlevel.Task, nested: bool) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        came = trio.current_time()
        gate = self._gate
        try:
            await buggify.at("admission.acquire")
            if gate is not None:
                await self._pass_gate(gate, task, came)
            try:
                await self._take_slot(task, came, nested)
            except BaseException:
                if gate is not None:
                    gate.release_on_behalf_of(task)
                raise
        except trio.Cancelled:
            self._abandoned += 1
            raise
        now = trio.current_time()
        if not self._ends:
            self._ends.append(now)
        self._started += 1
        self._total_wait += now - came
        self._longest_wait = max(self._longest_wait, now - came)

    def _release(self, task: trio.lowlevel.Task) -> None:
        self._slot.release_on_behalf_of(task)
        if self._gate is not None:
            self._gate.release_on_behalf_of(task)
        self._ends.append(trio.current_time())

    async def _pass_gate(self, gate: trio.CapacityLimiter, task: trio.lowlevel.Task, came: float) -> None:
        if not self._door.locked():
            try:
                gate.acquire_on_behalf_of_nowait(task)
                return
            except trio.WouldBlock:
                pass
        timeout = self._settings.admission_timeout
        if timeout:
            with trio.move_on_after(timeout):
                async with self._door:
                    await gate.acquire_on_behalf_of(task)
                return
        self._rejected_by_gate += 1
        raise self._queue_full(trio.current_time() - came)

    async def _take_slot(self, task: trio.lowlevel.Task, came: float, nested: bool) -> None:
        try:
            self._slot.acquire_on_behalf_of_nowait(task)
        except trio.WouldBlock:
            pass
        else:
            if self._slot.borrowed_tokens == self._low_at:  # a slot that is handed over does not change the number
                self._warn_low()
            return
        wait = self._settings.slot_wait
        if nested and wait.seconds == inf:
            wait = SlotWait(self._settings.admission_timeout, "DIGITALKIN_ADMISSION_TIMEOUT")
        if wait.seconds:
            with trio.move_on_after(wait.seconds):
                await self._slot.acquire_on_behalf_of(task)
                return
        self._rejected_by_slot += 1
        raise self._no_free_slot(trio.current_time() - came, wait, nested)

    def _at_gate(self) -> int:
        """Those at the door, and the one that holds it."""
        door = self._door.statistics()
        return door.tasks_waiting + door.locked

    # --- what is said ------------------------------------------------------------------------------------------------

    def _queue_full(self, waited: float) -> QueueFullError:
        settings = self._settings
        retry_after = self._retry_after(self._at_gate())
        return QueueFullError(
            f"Every slot (DIGITALKIN_MAX_CONCURRENT_TASKS={settings.max_concurrent_tasks}) and every place in the "
            f"queue (DIGITALKIN_MAX_QUEUED_TASKS={settings.max_queued_tasks}) is taken, and none became free within "
            f"{settings.admission_timeout:g} s (DIGITALKIN_ADMISSION_TIMEOUT).",
            hint=f"Retry in about {retry_after:.0f} s, or raise DIGITALKIN_MAX_QUEUED_TASKS.",
            limit="DIGITALKIN_MAX_QUEUED_TASKS",
            size=settings.max_queued_tasks,
            waited=waited,
            retry_after=retry_after,
        )

    def _no_free_slot(self, waited: float, wait: SlotWait, nested: bool) -> NoFreeSlotError:
        settings = self._settings
        seconds, variable = wait
        retry_after = self._retry_after(self._slot.statistics().tasks_waiting)
        refused = f"none became free within {seconds:g} s ({variable})"
        if not settings.max_queued_tasks and settings.backpressure_strategy == "reject":
            refused = f"{variable}=reject does not wait for one"
        remedy = "set DIGITALKIN_MAX_QUEUED_TASKS, so that a burst waits in a queue"
        if nested:
            refused += "; the job that waits for this one has a slot itself"
            remedy = "raise DIGITALKIN_MAX_CONCURRENT_TASKS, so that jobs fit beside those which call them"
        elif settings.max_queued_tasks:
            remedy = f"unset {variable}, so that a queued task waits as long as it takes"
        return NoFreeSlotError(
            f"Every slot (DIGITALKIN_MAX_CONCURRENT_TASKS={settings.max_concurrent_tasks}) is taken, and {refused}.",
            hint=f"Retry in about {retry_after:.0f} s, or {remedy}.",
            limit="DIGITALKIN_MAX_CONCURRENT_TASKS",
            size=settings.max_concurrent_tasks,
            waited=waited,
            retry_after=retry_after,
        )

    def _retry_after(self, waiting: int) -> float:
        """Seconds until those who wait and one more are served, if tasks go on to end as fast as the last ones did."""
        ends = len(self._ends) - 1
        if ends < 1:
            return RETRY_AFTER_UNKNOWN
        estimate = (waiting + 1) * (trio.current_time() - self._ends[0]) / ends
        return min(max(estimate, RETRY_AFTER_MIN), RETRY_AFTER_MAX)

    def _warn_low(self) -> None:
        now = trio.current_time()
        if now - self._warned_at < WARNING_INTERVAL:
            return
        self._warned_at = now
        slots, queue = self._settings.max_concurrent_tasks, self._settings.max_queued_tasks
        seconds, variable = self._settings.slot_wait
        then = f"up to {queue} tasks wait in the queue (DIGITALKIN_MAX_QUEUED_TASKS)"
        if not queue:
            when = f"after {seconds:g} s" if seconds else "at once"
            then = f"tasks are refused {when} ({variable}); DIGITALKIN_MAX_QUEUED_TASKS gives them a queue"
        _log.warning(
            "Free slots: %d of %d. When there is none, %s. For more slots, raise DIGITALKIN_MAX_CONCURRENT_TASKS.",
            slots - self._slot.borrowed_tokens,
            slots,
            then,
        )


class _Admitted:
    """What `admit` gives: the borrower of both tokens is the task that enters, whoever leaves."""

    __slots__ = ("_admission", "_nested", "_task")

    def __init__(self, admission: Admission, nested: bool) -> None:
        self._admission = admission
        self._nested = nested
        self._task: trio.lowlevel.Task | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> None:
        if self._task is not None:
            raise RuntimeError("admit() is for one use; call it again")
        self._task = trio.lowlevel.current_task()
        await self._admission._acquire(self._task, self._nested)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._admission._release(self._task)
