"""A connection in memory that breaks after an exact number of bytes, in one of the ways in which connections break.

Two directions, each of them counts what has passed. When the chosen direction has carried its last byte:

* ``reset``: both ends are broken. Its receiver still reads what has passed; what was on its way back is lost.
* ``fin``: its receiver finds the end of the stream there. What is sent behind is taken and thrown away, and the other
  direction works on: a middlebox that has forgotten one half.
* ``blackhole``: nothing passes any more in either direction, nobody is told, and closing is not seen either.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import trio

How = Literal["reset", "fin", "blackhole"]
FAULTS: tuple[How, ...] = ("reset", "fin", "blackhole")


class Direction:
    """Bytes one way."""

    def __init__(self, link: Link, limit: float) -> None:
        self.carried = bytearray()
        self.limit = limit
        self.ended = self.broken = self.swallows = False
        self._link = link
        self._waiting = bytearray()
        self._changed = trio.Event()

    @property
    def passed(self) -> int:
        """Octets that have come through."""
        return len(self.carried)

    def put(self, octets: bytes | bytearray | memoryview) -> None:
        if self.broken:
            raise trio.BrokenResourceError("the connection is broken")
        if self.swallows:
            return
        piece = octets[: int(min(self.limit - self.passed, len(octets)))]
        self._waiting += piece
        self.carried += piece
        self.change()
        if self.passed == self.limit:
            self._link.strike(self)
            if self.broken and len(piece) < len(octets):
                raise trio.BrokenResourceError("the connection is broken")

    async def get(self, size: int | None) -> bytearray:
        while not (self._waiting or self.ended or self.broken):
            await self._changed.wait()
        if self.broken and not self._waiting:
            raise trio.BrokenResourceError("the connection is broken")
        found = self._waiting[:size]
        del self._waiting[: len(found)]
        return found

    def lose(self) -> None:
        self._waiting.clear()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class End(trio.abc.HalfCloseableStream):
    """One end, as a socket: one receiver and one sender at a time, closing wakes both."""

    def __init__(self, link: Link, out: Direction, into: Direction) -> None:
        self._link, self._out, self._into = link, out, into
        self._closed = trio.Event()
        self._sends = trio._util.ConflictDetector("another task sends")
        self._receives = trio._util.ConflictDetector("another task receives")

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sends:
            self._check()
            await trio.lowlevel.checkpoint()
            self._check()
            self._out.put(data)

    async def wait_send_all_might_not_block(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        with self._receives:
            self._check()
            await trio.lowlevel.checkpoint()
            self._check()
            found = await self._into.get(max_bytes)
            self._check()
            return found

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        if not self.closed:
            self._closed.set()
            self._link.close(self._out, self._into)
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this end was closed")


class Link:
    """A connection. ``limits`` are bytes from the client and from the server; the first that is reached strikes.

    Attributes:
        struck: When, in the run's time; None while nothing has happened.
    """

    def __init__(self, how: How = "reset", *, from_client: float = inf, from_server: float = inf) -> None:
        self.how = how
        self.struck: float | None = None
        self.up, self.down = Direction(self, from_client), Direction(self, from_server)
        self.client, self.server = End(self, self.up, self.down), End(self, self.down, self.up)
        for direction in (self.up, self.down):
            if not direction.limit:
                self.strike(direction)

    def strike(self, struck: Direction) -> None:
        if self.struck is not None:
            return
        self.struck = trio.current_time()
        other = self.down if struck is self.up else self.up
        if self.how == "fin":
            struck.ended = struck.swallows = True
        elif self.how == "blackhole":
            struck.swallows = other.swallows = True
        else:
            struck.broken = other.broken = True
            other.lose()
        struck.change()
        other.change()

    def close(self, out: Direction, into: Direction) -> None:
        """One end was closed: the other reads what is there and then the end, and what it sends breaks."""
        into.change()
        if self.how == "blackhole" and self.struck is not None:
            return
        out.ended = True
        into.broken = into.broken or not into.swallows
        into.lose()
        out.change()


def seams(octets: bytes | bytearray, *, preface: int = 0, step: int = 16) -> list[int]:
    """Offsets in HTTP/2 traffic that differ in kind: around each frame's header and gRPC prefix, and some between.

    Args:
        octets: Whole frames, behind `preface` octets.
        preface: How many octets of something else come first.
        step: Every how many octets there is one in any case.
    """
    found = {0, preface, len(octets), *range(0, len(octets), step)}
    at = preface
    while at < len(octets):
        end = at + 9 + int.from_bytes(octets[at : at + 3], "big")
        found.update(range(at, min(at + 15, end)), (end - 1, end))
        at = end
    return sorted(found)
