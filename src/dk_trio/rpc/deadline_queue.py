"""The deadlines of all calls of a channel: one heap and one task instead of a cancel scope around each wait.

A call's waits happen in its caller's task, often inside a generator that must not hold a scope open across a `yield`;
and a deadline has to end the call even while its caller is busy elsewhere. So deadlines are kept here. Setting one is a
push on a heap, and dropping one marks its entry; marked entries are swept out when they outnumber the others.
"""

from __future__ import annotations

import heapq
from itertools import count
from math import inf
from typing import Protocol

import trio

SWEEP_ABOVE = 64
"""Dropped entries that are always tolerated: below it a sweep costs more than the memory is worth."""


class Expiring(Protocol):
    """What can be given a deadline."""

    def expire(self) -> None:
        """The deadline has passed. Called once, from the queue's task; must not wait."""


class Entry:
    """One deadline in a queue."""

    __slots__ = ("order", "target", "when")

    def __init__(self, when: float, order: int, target: Expiring) -> None:
        self.when = when
        self.order = order
        self.target: Expiring | None = target

    def __lt__(self, other: Entry) -> bool:
        if self.when == other.when:
            return self.order < other.order
        return self.when < other.when


class DeadlineQueue:
    """Deadlines on `trio.current_time`'s clock; equal ones expire in the order in which they were added."""

    __slots__ = ("_dropped", "_heap", "_order", "_scope")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._order = count()
        self._dropped = 0
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<DeadlineQueue {len(self)} pending>"

    def __len__(self) -> int:
        return len(self._heap) - self._dropped

    def add(self, when: float, target: Expiring) -> Entry:
        """Call `target.expire()` at `when`, unless the entry is dropped before."""
        entry = Entry(when, next(self._order), target)
        heapq.heappush(self._heap, entry)
        self._scope.deadline = min(self._scope.deadline, when)
        return entry

    def drop(self, entry: Entry) -> None:
        """Forget a deadline; nothing happens for one that has expired."""
        if entry.target is None:
            return
        entry.target = None
        self._dropped += 1
        if self._dropped > SWEEP_ABOVE and self._dropped * 2 > len(self._heap):
            self._heap = [kept for kept in self._heap if kept.target is not None]
            heapq.heapify(self._heap)
            self._dropped = 0

    async def run(self) -> None:
        """Expire deadlines until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._expire_due()) as self._scope:
                await trio.sleep_forever()

    def _expire_due(self) -> float:
        """Expire what is due and return the next deadline."""
        now = trio.current_time()
        while self._heap:
            entry = self._heap[0]
            target = entry.target
            if target is not None and entry.when > now:
                return entry.when
            heapq.heappop(self._heap)
            if target is None:
                self._dropped -= 1
            else:
                entry.target = None
                target.expire()
        return inf
