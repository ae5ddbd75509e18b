"""Connections on their way from the parent, which accepts them, to a worker, which serves them.

The parent sends one byte with the descriptor (SCM_RIGHTS) over a Unix socket. The worker reads one byte at a time:
a read that covers several would merge their descriptors.
"""

from __future__ import annotations

import array
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

import trio

_log = logging.getLogger("dk_trio.workers")

FULL_PAUSE: Final = 0.5
"""Seconds that a worker without room for another descriptor takes no connection."""

# Descriptors must not reach children that the author's code starts. Where the flag is missing, they are closed in time
# by the inheritance rules of Python's own process functions.
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def hand(channel: socket.socket, connection: trio.SocketStream) -> bool:
    """Give a connection to the worker at the other end; False when there is no room, or no worker any more.

    The caller's own descriptor stays open.
    """
    try:
        socket.send_fds(channel, [b"."], [connection.socket.fileno()])
    except OSError:
        return False
    return True


class HandedStream(trio.abc.Stream):
    """A connection that was handed over, which tells when it is closed."""

    def __init__(self, stream: trio.SocketStream, closed: Callable[[], None]) -> None:
        self.transport_stream = stream  # as TLS has it: what asks for the peer's address looks here
        self._closed: Callable[[], None] | None = closed

    def __repr__(self) -> str:
        return f"<HandedStream {self.transport_stream!r}>"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.transport_stream.receive_some(max_bytes)

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        if self._closed is not None:
            self._closed()
            self._closed = None
        await self.transport_stream.aclose()


class HandedListener(trio.abc.Listener[trio.abc.Stream]):
    """Takes connections from the parent.

    Args:
        channel: The worker's end.
        changed: Called after each change of the attributes. Must not wait.

    Attributes:
        taken: Connections taken so far.
        lost: Connections so far for which there was no descriptor; the parent still has them.
        connections: Of those taken, open now.
        closed: No more are taken.
    """

    def __init__(self, channel: socket.socket, changed: Callable[[], object]) -> None:
        self._channel = channel
        self._changed = changed
        self.taken = self.lost = self.connections = 0
        self.closed = False

    async def accept(self) -> trio.abc.Stream:
        """The next connection.

        Raises:
            trio.ClosedResourceError: The listener was closed.
        """
        told = False
        while True:
            if self.closed:
                raise trio.ClosedResourceError("this listener is closed")
            await trio.lowlevel.wait_readable(self._channel)
            try:
                byte, descriptors = _receive(self._channel)
            except BlockingIOError:
                continue
            if not byte:
                await trio.sleep_forever()  # the parent is gone, and its control line tells what to do about it
            if descriptors:
                self.taken += 1
                self.connections += 1
                self._changed()
                connection = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptors[0]))
                return HandedStream(trio.SocketStream(connection), self._one_less)
            self.lost += 1
            self._changed()
            if not told:
                told = True
                _log.error("this worker has no room for another file descriptor (ulimit -n): connections go to others")
            await trio.sleep(FULL_PAUSE)

    def _one_less(self) -> None:
        self.connections -= 1
        self._changed()

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            trio.lowlevel.notify_closing(self._channel)
            self._channel.close()
            self._changed()
        await trio.lowlevel.checkpoint()


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One byte and its descriptor. `socket.recv_fds` would leave out the flag that closes it on exec."""
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    byte, ancillary, _, _ = channel.recvmsg(1, room, _CLOSE_ON_EXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return byte, [*descriptors]
