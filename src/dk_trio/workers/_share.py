"""What a parent knows of a worker's load, and who gets the next connection. Times are arguments; nothing waits here.

A connection counts from the moment it is handed over: a worker tells only later how many it has, and a hundred that
come at once must not all go to the one that was idle before. Workers take what they are handed in order and tell each
one, so what a worker has not taken is known exactly, and goes to another when it dies: nobody has read a byte of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Any, Final, Generic, Protocol, TypeVar

SILENT_AFTER: Final = 3.0
"""Seconds without a word after which a worker gets no connections: six heartbeats."""
UNTAKEN: Final = 64
"""Connections that a worker may have before it and not taken: as many wait at most when it is suddenly stopped."""

T = TypeVar("T")


class Share(Generic[T]):
    """One worker's part of the load. `T` is a connection."""

    def __init__(self) -> None:
        self.serving = False
        """It takes connections: it is ready, and does not drain."""
        self.blocked = False
        """It has no room for another connection; until it says something."""
        self.heard_at = -inf
        self.connections = 0
        self.rpcs = 0
        self.order = 0
        """Grows with each connection that anybody is given: of equals the one that has waited longest is next."""
        self._taken = self._lost = 0
        self._untaken: deque[T] = deque()

    def __repr__(self) -> str:
        state = "serving" if self.serving else "not serving"
        return f"<Share {state}, {self.connections} connections, {len(self._untaken)} untaken, {self.rpcs} RPCs>"

    def silent(self, now: float) -> bool:
        """Whether it has not been heard for so long that it cannot be well."""
        return now - self.heard_at > SILENT_AFTER

    def open(self, now: float) -> bool:
        """Whether it may be given a connection."""
        return self.serving and not self.blocked and not self.silent(now) and len(self._untaken) < UNTAKEN

    @property
    def load(self) -> tuple[int, int, int]:
        """What workers are compared by, the least loaded first."""
        return self.connections + len(self._untaken), self.rpcs, self.order

    def handed(self, connection: T, order: int) -> None:
        """It was given a connection."""
        self._untaken.append(connection)
        self.order = order

    def heard(self, now: float, *, taken: int, lost: int, connections: int, rpcs: int) -> tuple[list[T], list[T]]:
        """It has told its load, and how many connections it has taken and lost since it began.

        Returns:
            The connections that it has taken since the last time, and those that were lost for want of a descriptor.
        """
        self.heard_at = now
        self.connections = connections
        self.rpcs = rpcs
        self.blocked = lost > self._lost
        took = [self._untaken.popleft() for _ in range(min(taken - self._taken, len(self._untaken)))]
        back = [self._untaken.popleft() for _ in range(min(lost - self._lost, len(self._untaken)))]
        self._taken, self._lost = taken, lost
        return took, back

    def left(self) -> list[T]:
        """Give up the connections that it has not taken, and will not."""
        self.serving = False
        untaken = [*self._untaken]
        self._untaken.clear()
        return untaken


class Bearer(Protocol):
    """Whoever bears a share of the load."""

    share: Share[Any]


B = TypeVar("B", bound=Bearer)


def least_loaded(bearers: Iterable[B], now: float) -> B | None:
    """Who gets the next connection; None when nobody may."""
    return min((one for one in bearers if one.share.open(now)), key=lambda one: one.share.load, default=None)
