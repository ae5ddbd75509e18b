"""The two ends of a connection, and who accepts them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import TracebackType

import trio
from trio.lowlevel import checkpoint

from ._link import Link, Mark


class Turn:
    """For one task at a time."""

    __slots__ = ("_name", "_taken")

    def __init__(self, name: str) -> None:
        self._name = name
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(f"another task is {self._name} this stream")
        self._taken = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._taken = False


class NetworkStream(trio.abc.HalfCloseableStream):
    """One end of a connection through a `Network`; behaves as a `trio.SocketStream` does.

    Attributes:
        host: Where this end is.
        peer: The host at the other end.
        number: Of the connection, among those that the one host has opened to the other.
    """

    def __init__(
        self, incoming: Link, outgoing: Link, number: int, *, ended: Callable[[NetworkStream], object]
    ) -> None:
        self.host = outgoing.source
        self.peer = outgoing.destination
        self.number = number
        self.closed = False
        """Whether it was closed at this end."""
        self.dead = False
        """Whether it was closed at this end, by its owner or because its host is no more."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._ended = ended
        self._no_more = False
        self._sending = Turn("sending to")
        self._receiving = Turn("receiving from")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "dead" if self.dead else "open"
        if state == "open" and self._incoming.end >= Mark.CLOSED:
            state = "cut"
        return f"<NetworkStream {self.host} to {self.peer} #{self.number} {state}>"

    @property
    def corrupted(self) -> bool:
        """Whether the network has changed a byte of this connection, in either direction."""
        return bool(self._incoming.corrupted or self._outgoing.corrupted)

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent any more, through no doing of its owner, as far as is known here."""
        if not self.dead:
            self._incoming.settle()
        return not self.closed and (self.dead or self._incoming.end >= Mark.CLOSED)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of the data; waits while the connection's buffer is full.

        Cancelled, it has sent an unknown part.

        Raises:
            trio.BrokenResourceError: The connection was cut, or the peer has closed it, as far as is known here.
            trio.ClosedResourceError: This end was closed, or `send_eof` was called.
            trio.BusyResourceError: Another task is sending.
        """
        with self._sending:
            await checkpoint()
            rest = memoryview(data).cast("B")
            self._check_sending()
            while rest := rest[self._outgoing.put(rest) :]:
                await self._outgoing.room_made()
                self._check_sending()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for some bytes; raises what `send_all` raises."""
        with self._sending:
            await checkpoint()
            self._check_sending()
            while self._outgoing.room <= 0:
                await self._outgoing.room_made()
                self._check_sending()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; the peer may go on sending.

        Raises:
            trio.BrokenResourceError: As `send_all`.
            trio.ClosedResourceError: This end was closed.
            trio.BusyResourceError: Another task is sending.
        """
        with self._sending:
            await checkpoint()
            if not self._no_more:
                self._check_sending()
                self._no_more = True
                self._outgoing.finish(Mark.EOF)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; empty when the peer sends no more. Cancelled, it has lost none.

        Args:
            max_bytes: How many at most; None for what is there.

        Raises:
            trio.BrokenResourceError: The connection was cut.
            trio.ClosedResourceError: This end was closed, now or before.
            trio.BusyResourceError: Another task is receiving.
            ValueError: `max_bytes` is below 1.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            link = self._incoming
            link.settle()
            if self.dead or link.ready or link.end:
                await checkpoint()
            while True:
                self._check_open()
                if link.ready:
                    return link.take(max_bytes)
                if link.end is Mark.RESET:
                    raise trio.BrokenResourceError(f"{self!r}: reset by the peer or on the way")
                if link.end:
                    return b""
                await link.arrival()
                link.settle()

    async def aclose(self) -> None:
        """Close this end. What was sent still arrives; what arrives here is lost. A checkpoint."""
        if not self.closed:
            self.closed = True
            self.die(Mark.CLOSED)
        await checkpoint()

    def die(self, mark: Mark) -> None:
        """End it as the system does for its process, with this mark for the peer."""
        if not self.dead:
            self.dead = True
            self._outgoing.finish(mark)
            self._incoming.deafen()
            self._outgoing.wake_sender()
        self._ended(self)

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError(f"{self!r}")
        if self.dead:
            raise trio.BrokenResourceError(f"{self!r}: its host is down")

    def _check_sending(self) -> None:
        self._check_open()
        if self._no_more:
            raise trio.ClosedResourceError(f"{self!r}: send_eof was called")
        if self.broken:
            raise trio.BrokenResourceError(f"{self!r}: closed by the peer, or cut")


class NetworkListener(trio.abc.Listener[NetworkStream]):
    """Accepts connections to one host of a `Network`.

    Attributes:
        host: The host's name.
    """

    def __init__(
        self,
        host: str,
        incoming: trio.MemoryReceiveChannel[NetworkStream],
        *,
        accepted: Callable[[NetworkStream], object],
        closed: Callable[[NetworkListener], object],
    ) -> None:
        self.host = host
        self._incoming = incoming
        self._accepted = accepted
        self._closed = closed

    def __repr__(self) -> str:
        return f"<NetworkListener {self.host}>"

    async def accept(self) -> NetworkStream:
        """Wait for the next connection.

        Raises:
            trio.ClosedResourceError: The listener was closed, now or before.
        """
        stream = await self._incoming.receive()
        self._accepted(stream)
        return stream

    async def aclose(self) -> None:
        """Accept no more: connections that wait are reset, later ones are refused. A checkpoint."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """As `aclose`."""
        self._closed(self)
        while True:
            try:
                self._incoming.receive_nowait().die(Mark.RESET)
            except (trio.WouldBlock, trio.ClosedResourceError, trio.EndOfChannel):
                break
        self._incoming.close()
