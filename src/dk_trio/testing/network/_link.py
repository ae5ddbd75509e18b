"""One direction of a connection: bytes that are under way, and bytes that have arrived and were not read.

No task moves them. What is sent gets its time of arrival at once; whoever receives sleeps until then in a cancel scope
whose deadline a later event may move. So a segment costs one entry in a queue and at most one wake-up, and an idle
connection costs nothing.

What is counted against the buffer is what was sent and not yet read, as with a socket's two buffers and its window.
That the reader has made room is known to the sender at once; that the reader is gone takes the way back.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from math import inf
from random import Random
from typing import Final

import trio

from ._conditions import Conditions

SEGMENT: Final = 16 * 1024
"""Bytes that travel together, at most: with several of them in a buffer, one is sent while another is read."""


class Mark(IntEnum):
    """What is sent besides bytes. Of two that end a link the greater one counts."""

    OPEN = 0
    """A step of the handshake."""
    EOF = 1
    """Nothing more will be sent."""
    CLOSED = 2
    """Nothing more will be sent, nor read."""
    RESET = 3
    """As `CLOSED`; what was under way is lost."""


class Link:
    """Carries bytes from one end of a connection to the other.

    Args:
        source: The host that sends.
        destination: The host that receives.
        seed: Decides all that is drawn for this link.

    Attributes:
        back: The other direction.
        conditions: How bytes travel from now on.
        held: Nothing arrives; it waits until this ends.
        corrupting: Share of the segments that get a flipped bit.
        corrupted: Segments that got one.
        sent: Bytes taken from the sender so far.
        buffered: Those which were not read.
        opened: The handshake has arrived.
        ready: What has arrived and was not read.
        end: The mark that comes after that, `OPEN` if none has arrived.
        deaf: Nobody reads any more.
    """

    back: Link

    def __init__(self, source: str, destination: str, seed: str) -> None:
        self.source = source
        self.destination = destination
        self.conditions = Conditions()
        self.held = False
        self.corrupting = 0.0
        self.corrupted = 0
        self.sent = self.buffered = 0
        self.opened = False
        self.end = Mark.OPEN
        self.ready: deque[bytes | memoryview] = deque()
        self._seed = seed
        self._random: Random | None = None
        self._flight: deque[tuple[float, bytes | Mark]] = deque()
        self._free_at = self._last_at = -inf
        self._finished = Mark.OPEN
        self.deaf = False
        self._receiver: trio.CancelScope | None = None
        self._sender: trio.CancelScope | None = None

    # -- the sender's end -------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self.conditions.buffer - self.buffered

    def put(self, data: memoryview) -> int:
        """Send as much as there is room for; how many bytes that were."""
        size = min(len(data), self.room)
        if size <= 0:
            return 0
        self.sent += size
        self.buffered += size
        if self.deaf or self._finished:
            return size  # it meets nobody, which the sender hears when the mark on the way back arrives
        now = trio.current_time()
        longest = self.conditions.slice_max
        start = 0
        while start < size:
            end = min(size, start + (SEGMENT if longest is None else self._draw().randint(1, longest)))
            self._dispatch(bytes(data[start:end]), now)
            start = end
        self._arm()
        return size

    def finish(self, mark: Mark) -> None:
        """Send nothing more but this mark, behind all that is under way; a reset takes its place."""
        if mark <= self._finished:
            return
        self._finished = mark
        if self.deaf:
            return
        if mark is Mark.RESET:
            self._drop_flight()
        self._dispatch(mark, trio.current_time())
        self._arm()

    async def room_made(self) -> None:
        """Wait until half of the buffer is free, the peer's end is known to be closed, or `wake_sender`."""
        with trio.CancelScope(deadline=self.back.breaks_at) as self._sender:
            try:
                await trio.sleep_forever()
            finally:
                self._sender = None

    def wake_sender(self) -> None:
        """End `room_made`."""
        if self._sender is not None:
            self._sender.cancel()

    # -- the receiver's end -----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Take in what has arrived by now."""
        if self.held:
            return
        flight = self._flight
        now = trio.current_time()
        while flight and flight[0][0] <= now:
            what = flight.popleft()[1]
            if isinstance(what, bytes):
                self.ready.append(what)
            elif what is Mark.OPEN:
                self.opened = True
            else:
                self.end = what

    def take(self, limit: int | None) -> bytes:
        """Read from what is ready, which is not empty."""
        ready = self.ready
        data = ready.popleft()
        if ready and self.conditions.slice_max is None:
            pieces = [data]
            size = len(data)
            while ready and (limit is None or size < limit):
                size += len(ready[0])
                pieces.append(ready.popleft())
            data = b"".join(pieces)
        if limit is not None and len(data) > limit:
            ready.appendleft(memoryview(data)[limit:])
            data = data[:limit]
        self.buffered -= len(data)
        if self.room >= self.conditions.buffer // 2:
            self.wake_sender()
        return bytes(data)

    async def arrival(self) -> None:
        """Wait until something arrives, or `deafen`."""
        with trio.CancelScope(deadline=self.arrives_at) as self._receiver:
            try:
                await trio.sleep_forever()
            finally:
                self._receiver = None

    async def handshake(self) -> bool:
        """Send a step of the handshake and wait until it has arrived; whether it has, for it may meet a reset."""
        self._dispatch(Mark.OPEN, trio.current_time())
        while True:
            self.settle()
            if self.opened or self.end:
                return self.opened
            await self.arrival()

    def deafen(self) -> None:
        """Read nothing more: what is there, and what comes, is lost."""
        self.deaf = True
        self._flight.clear()
        self.ready.clear()
        if self._receiver is not None:
            self._receiver.cancel()

    # -- faults -----------------------------------------------------------------------------------------------------

    def hold(self, held: bool) -> None:
        """Let nothing arrive, or let arrive what has waited, no sooner than if it were sent now."""
        if held is self.held:
            return
        self.settle()
        self.held = held
        if not held and self._flight:
            earliest = trio.current_time() + self.conditions.latency
            self._flight = deque((max(at, earliest), what) for at, what in self._flight)
            self._last_at = max(self._last_at, earliest)
        self._arm()

    # -- times ------------------------------------------------------------------------------------------------------

    @property
    def arrives_at(self) -> float:
        """When the next thing arrives."""
        return inf if self.held or not self._flight else self._flight[0][0]

    @property
    def breaks_at(self) -> float:
        """When this link tells its receiver that it need not send any more either."""
        if self.held or not self._flight or self._flight[-1][1] not in {Mark.CLOSED, Mark.RESET}:
            return inf
        return self._flight[-1][0]

    def _arm(self) -> None:
        if self._receiver is not None:
            self._receiver.deadline = self.arrives_at
        if self.back._sender is not None:
            self.back._sender.deadline = self.breaks_at

    def _dispatch(self, what: bytes | Mark, now: float) -> None:
        conditions = self.conditions
        delay = conditions.latency
        if conditions.jitter:
            delay += conditions.jitter * self._draw().random()
        self._free_at = max(now, self._free_at)
        if isinstance(what, bytes):
            self._free_at += len(what) / conditions.bandwidth
            if self.corrupting and self._draw().random() < self.corrupting:
                what = self._flipped(what)
        self._last_at = max(self._last_at, self._free_at + delay)
        self._flight.append((self._last_at, what))

    def _flipped(self, data: bytes) -> bytes:
        self.corrupted += 1
        bit = self._draw().randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        return bytes(flipped)

    def _drop_flight(self) -> None:
        self.settle()
        self.buffered -= sum(len(what) for _, what in self._flight if isinstance(what, bytes))
        self._flight.clear()
        self._free_at = self._last_at = -inf

    def _draw(self) -> Random:
        if self._random is None:
            self._random = Random(self._seed)  # noqa: S311 - a str seeds by its SHA-512, in every process alike
        return self._random
