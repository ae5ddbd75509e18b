"""Moves bytes between a trio stream and a wire connection: one task reads, one task writes. Both roles.

The writer sleeps while nothing is queued. The first to queue something wakes it, and it runs in the next scheduler
pass, so whatever the other runnable tasks of this pass queue goes out with the same call: writes coalesce by
themselves. Nobody else ever touches the stream, so a cancelled sender cannot tear a frame.

Back-pressure upwards: a sender that finds `HIGH_WATER` bytes queued waits in `drained` until the writer has handed
over what it took. The reader never waits for the writer; what a peer can make us queue by sending is bounded by
`Limits.output_bytes`.
"""

from __future__ import annotations

from math import inf
from typing import Final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, checkpoint, current_task, reschedule, wait_task_rescheduled

from dk_trio.wire import HIGH_WATER, Connection

from .peer import Peer

READ_SIZE: Final = 64 * 1024
"""Bytes asked for at once: four of the largest frames, and below what a hostile peer could make one parse cost."""
FLUSH_TIMEOUT: Final = 1.0
"""Seconds that a connection which ends may still write (GOAWAY, last trailers) before it is cut."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds for the closing handshake of TLS, then the socket is closed without it."""
SMALLEST_SEND: Final = 64
"""Bytes that a message is taken for at least: its frame, and the trailers that may follow it."""
YIELD_EVERY: Final = 32
"""Messages that may pass without a real checkpoint. A checkpoint costs as much as framing a message; thirty-two make
it small while no other task waits longer than about 100 µs."""


class Transport:
    """The I/O of one connection. Run `write` and `read` as two tasks; `wake` after anything was queued."""

    __slots__ = (
        "_draining",
        "_finished",
        "_stream",
        "broken",
        "connection",
        "failure",
        "moved_at",
        "peer",
        "received",
        "sent",
        "sleeper",
    )

    def __init__(self, stream: trio.abc.Stream, connection: Connection, *, peer: Peer | None = None) -> None:
        self.connection = connection
        self.peer = peer or Peer(stream)
        self._stream = stream
        self.sleeper: Task | None = None
        """The writer while it sleeps; None says that `wake` has nothing to do."""
        self._draining: dict[Task, int] = {}
        self._finished = False
        self.moved_at = -inf
        """When something of a message that waited got further, in any call of a server; `trio.current_time`."""
        self.broken = False
        """A write has failed or was cut off half-way: nothing more can be written."""
        self.received = self.sent = 0
        """Bytes so far."""
        self.failure: BaseException | None = None
        """What reading has ended with, where that says more than that the connection is gone: an alert of TLS."""

    def __repr__(self) -> str:
        return f"<Transport {self._stream!r} {self.connection!r}>"

    @property
    def stream(self) -> trio.abc.Stream:
        """The stream underneath."""
        return self._stream

    def wake(self) -> None:
        """Something was queued: let the writer run in the next scheduler pass."""
        writer = self.sleeper
        if writer is not None:
            self.sleeper = None
            reschedule(writer)

    def finish(self) -> None:
        """Let `write` return once everything queued has been written."""
        self._finished = True
        self.wake()

    async def drained(self, size: int = 0) -> None:
        """Wait until the writer has handed over what it took, and there may be room for `size` bytes. A checkpoint."""
        task = current_task()
        waiting = self._draining
        waiting[task] = size

        def abort(_: RaiseCancelT) -> Abort:
            waiting.pop(task, None)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def release(self, room: float = inf) -> None:
        """Wake those who wait in `drained`, first come first served, as far as `room` bytes go.

        To wake thousands for whom there is no room would cost more than what they send.
        """
        waiting = self._draining
        while waiting and room > 0:
            task = next(iter(waiting))
            room -= waiting.pop(task) + SMALLEST_SEND
            reschedule(task)

    async def write(self) -> None:
        """Write what is queued, for ever, or until `finish`. Raises what the stream's `send_all` raises."""
        connection = self.connection
        send_all = self._stream.send_all
        while True:
            if not connection.out:
                if self._finished:
                    return
                if self._draining:  # those who were woken had nothing to send after all
                    self.release(HIGH_WATER)
                    await checkpoint()
                else:
                    await self._sleep()
                continue
            data = connection.take()
            self.sent += len(data)
            try:
                await send_all(data)
            except BaseException:
                self.broken = True
                self.release()
                raise
            if self._draining:
                self.release(HIGH_WATER)

    async def write_rest(self) -> None:
        """Write what is still queued, after `write` has ended. A stream that is broken or closed takes nothing."""
        if self.connection.out and not self.broken:
            try:
                await self._stream.send_all(self.connection.take())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.broken = True

    async def _sleep(self) -> None:
        def abort(_: RaiseCancelT) -> Abort:
            self.sleeper = None
            return Abort.SUCCEEDED

        self.sleeper = current_task()
        await wait_task_rescheduled(abort)

    async def read(self) -> None:
        """Feed the connection until the peer closes its side or is gone.

        Raises `wire.PeerError` for a connection error; GOAWAY is queued then.
        """
        connection = self.connection
        receive_some = self._stream.receive_some
        receive = connection.receive
        current_time = trio.current_time
        while True:
            try:
                data = await receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.failure = error.__cause__
                return
            if not data:
                return
            self.received += len(data)
            try:
                receive(bytes(data), current_time())
            finally:
                if connection.out and self.sleeper is not None:
                    self.wake()
