"""One try of a call on one connection: the wire's stream, the tasks that wait on it, and how it failed.

A call (`client_call`) has one attempt, or several one after the other when it is retried. The attempt notes what the
wire tells it and wakes; it decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grpclib.const import Status
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from dk_trio.wire import HIGH_WATER, ClientStream

from .call_status import CallFailure, failure_by_reset, failure_of_ended, failure_of_head

if TYPE_CHECKING:
    from .client_connection import ClientLink


LAST_STREAM_ID: Final = 0x7FFF_FFFF - 2
"""With this many used, a connection is given up for a new one (RFC 9113 section 5.1.1)."""


class Attempt(ClientStream):
    """A stream of a `ClientLink`. One task may wait to read and one to write."""

    __slots__ = ("_taken", "failure", "link", "reader", "wants_head", "writer")

    def __init__(self, link: ClientLink) -> None:
        wire = link.wire
        stream_id = wire.next_stream_id
        super().__init__(wire, stream_id)
        self.link = link
        self.reader: Task | None = None
        self.writer: Task | None = None
        self.wants_head = False
        """The reader waits for the response headers, not for a message."""
        self.failure: CallFailure | None = None
        """How the stream was cut off; None while it was not, even if the server has sent a bad status."""
        self._taken = wire.taken
        if stream_id > LAST_STREAM_ID:
            link.retire()

    def __repr__(self) -> str:
        return f"<Attempt stream {self.id} on {self.link!r}>"

    # -- hooks of the wire ------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        """Wake the reader, if there is what it waits for, and at the end the writer too."""
        if self.remote_ended:
            self.wake()
            return
        reader = self.reader
        if reader is None:
            return
        head = self.head
        if self.messages or self.wants_head or self.fault is not None or (head is not None and head.fault is not None):
            self.reader = None
            reschedule(reader)

    def on_writable(self) -> None:
        """Wake the writer."""
        writer = self.writer
        if writer is not None:
            self.writer = None
            reschedule(writer)

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        """Note the failure. After the trailers a reset only frees the stream: the status is known."""
        if self.trailers is None and self.failure is None:
            lost = self.link.lost
            if lost is not None or self.link.wire.error is not None:
                unsent = self._taken == self.link.wire.taken
                text = lost if lost is not None else f"the server broke HTTP/2: {reason}"
                self.failure = CallFailure(Status.UNAVAILABLE, text, refused=unsent, left_the_client=not unsent)
            else:
                self.failure = failure_by_reset(code, reason, remote=remote)
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        reader = self.reader
        if reader is not None:
            self.reader = None
            reschedule(reader)
        writer = self.writer
        if writer is not None:
            self.writer = None
            reschedule(writer)

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """True when nothing but messages that are already here can still come."""
        if self.remote_ended or self.failure is not None or self.fault is not None:
            return True
        return self.head is not None and self.head.fault is not None

    @property
    def answered(self) -> bool:
        """True when the server has sent response headers, which commits the call (gRFC A6)."""
        return self.head is not None and self.head is not self.trailers

    def outcome(self) -> CallFailure | None:
        """How it ended, once `over`; None for status OK."""
        if self.trailers is None:
            if self.failure is not None:
                return self.failure
            if self.head is not None:
                failure = failure_of_head(self.head)
                if failure is not None:
                    return failure
        if self.fault is not None:
            return CallFailure(self.fault.status, self.fault.message)
        return failure_of_ended(self)

    def release(self) -> None:
        """Free the stream; the server is told with RST_STREAM if it has not ended, or we have not."""
        if self.remote_ended and self.local_ended:
            return
        self.link.wire.finish(self)
        self.link.transport.wake()

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def wait_readable(self) -> None:
        """Park until something can be read or the stream is over. May return early."""
        self.starve()
        if self.connection.out:
            self.link.transport.wake()

        def abort(_: RaiseCancelT) -> Abort:
            self.reader = None
            return Abort.SUCCEEDED

        self.reader = current_task()
        await wait_task_rescheduled(abort)
        self.starving = False

    async def wait_writable(self) -> None:
        """Park until windows and transport may let more of the message under way through. May return early."""
        link = self.link
        if link.wire.out_size >= HIGH_WATER:
            await link.transport.drained()
            return

        def abort(_: RaiseCancelT) -> Abort:
            self.writer = None
            return Abort.SUCCEEDED

        self.writer = current_task()
        await wait_task_rescheduled(abort)
