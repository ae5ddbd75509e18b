"""One RPC on the server: grpclib's server stream, on Trio.

A `ServerCall` is the wire's stream and the handler's view of it in one object, so that the path of a message has no
hop: what the wire cuts out of the input is what `recv_message` parses, and what `send_message` serialises is framed at
once. A message that fits windows and high-water mark is sent without parking the task; a real checkpoint follows every
`YIELD_EVERY` messages, a cancellation check each time.

The handler runs in a cancel scope whose deadline is the client's. Deadline, reset by the client and loss of the
connection all cancel that scope, and the handler sees one thing only: `trio.Cancelled` at its next checkpoint.

A client that reads nothing blocks its sender, for `send_timeout`. Only a send that has to park pays for that with a
cancel scope. The time runs from the last octet that got further, for which no sender is woken: the wire moves what a
window lets out by itself. So `pump` notes when that was, and a wait that has expired looks there before it gives up.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import trio
from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from multidict import MultiDict
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from dk_trio.wire import HIGH_WATER, ErrorCode, MessageFault, RequestHead, ServerConnection, Stream
from dk_trio.wire.compression import ENCODINGS
from dk_trio.wire.compression import compress as compress_body
from dk_trio.wire.connection import LARGEST_SENT_FRAME
from dk_trio.wire.metadata import decode_metadata, encode_metadata

from .deadline import Deadline
from .details import encode_status_details, short_message
from .transport import YIELD_EVERY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from .options import ServerOptions
    from .peer import Peer
    from .transport import Transport

    MetadataLike = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]


class ClientStalled(trio.TooSlowError):
    """Nothing of the call got further for `send_timeout`; a handler that lets it pass ends with DEADLINE_EXCEEDED."""


class ServerCall(Stream):
    """What a handler gets: the surface of `grpclib.server.Stream`.

    Every method that waits is a checkpoint and may raise `trio.Cancelled`; one that sends or receives then has either
    done all of its work or none. (A message whose sending was cut off half-way is finished before the next one.) After
    the client has gone, sending raises `grpclib.exceptions.StreamTerminatedError` to a handler that is shielded.
    """

    __slots__ = (
        "_budget",
        "_call_metadata",
        "_cancelled",
        "_compression",
        "_finished",
        "_headers_sent",
        "_message_sent",
        "_moved_at",
        "_plain",
        "_reader",
        "_received",
        "_streaming",
        "_torn",
        "_writers",
        "deadline_at",
        "handler",
        "head",
        "options",
        "scope",
        "send_timeout",
        "shut_down",
        "status",
        "transport",
    )

    connection: ServerConnection

    def __init__(
        self,
        transport: Transport,
        stream_id: int,
        head: RequestHead,
        handler: Handler,
        options: ServerOptions,
    ) -> None:
        super().__init__(transport.connection, stream_id)
        self.transport = transport
        self.head = head
        self.handler = handler
        self.options = options
        self.scope: trio.CancelScope | None = None
        """The scope that the handler runs in; None once it has ended."""
        self.deadline_at = inf
        """When the client's deadline passes, in seconds of `trio.current_time`."""
        self.shut_down = False  # the server has cut the call because it stops
        self.status: Status | None = None  # what the client was told, by whoever ended the call
        self.send_timeout = inf
        """Seconds that a send may wait while nothing of the call gets further; set by the handler, for later sends.

        Past it the send raises `trio.TooSlowError`; a message that still waits when the handler has returned ends the
        call with DEADLINE_EXCEEDED, and so does the exception if the handler lets it out. Progress is what the client's
        windows let out, or, when its transport is full, one write (up to 320 KiB) that was taken whole. So a client
        that reads slowly is not cut off, however long a message takes.
        """
        self._call_metadata: MultiDict[str | bytes] | None = None
        self._compression: str | None = None
        """What messages are compressed with. None: not decided, and once the headers are sent, not at all."""
        self._headers_sent = False
        self._plain = False
        """Messages need no look before they are framed: headers sent, no compression, no size limit within a frame."""
        self._streaming: bool = handler.cardinality.server_streaming
        self._received = False
        self._message_sent = False
        self._finished = False
        self._cancelled = False
        self._budget = YIELD_EVERY
        self._reader: Task | None = None
        self._writers: dict[Task, None] | None = None
        self._moved_at = -inf
        """When something of a message that waited got further, in seconds of `trio.current_time`."""
        self._torn = False  # the call has ended inside a message

    def __repr__(self) -> str:
        state = "finished" if self._finished else "reset" if self.reset_code is not None else "open"
        return f"<ServerCall {self.head.path} stream {self.id} {state}>"

    # -- what the client said ---------------------------------------------------------------------------------------

    @property
    def metadata(self) -> MultiDict[str | bytes]:
        """Request metadata; values of `-bin` names are bytes. Raises `GRPCError` (INTERNAL) when they cannot be."""
        metadata = self._call_metadata
        if metadata is None:
            try:
                metadata = self._call_metadata = decode_metadata(self.head.fields)
            except ValueError as error:
                raise GRPCError(Status.INTERNAL, str(error)) from error
        return metadata

    @property
    def deadline(self) -> Deadline | None:
        """The client's deadline, None without one. The handler's scope already carries it."""
        return None if self.head.timeout is None else Deadline.at(self.deadline_at)

    @property
    def user_agent(self) -> str | None:
        """The client's user-agent."""
        return self.head.user_agent

    @property
    def peer(self) -> Peer:
        """Who is at the other end of the connection."""
        return self.transport.peer

    # -- hooks of the wire ------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        """Wake the reader."""
        reader = self._reader
        if reader is not None:
            self._reader = None
            reschedule(reader)

    def on_writable(self) -> None:
        """Wake the senders; the first to run gets the window."""
        writers = self._writers
        if writers:
            self._writers = None
            for task in writers:
                reschedule(task)

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        """The client has gone: cancel the handler."""
        if self.scope is not None:
            self.scope.cancel(reason=f"{reason} ({code})")
        self.on_readable()
        self.on_writable()

    def cut(self) -> None:
        """The server stops: cancel the handler, the client gets UNAVAILABLE."""
        self.shut_down = True
        if self.scope is not None:
            self.scope.cancel(reason="the server is shutting down")

    # -- receiving --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> ServerCall:
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def recv_message(self) -> Any:
        """The next request message, None after the last.

        Raises `GRPCError` for a message that cannot be delivered: too large (RESOURCE_EXHAUSTED), badly framed,
        compressed or encoded (INTERNAL), missing although the method takes exactly one (UNIMPLEMENTED). Only one task
        may wait here; a second gets `trio.BusyResourceError`.
        """
        budget = self._budget = self._budget - 1
        if budget <= 0:
            self._budget = YIELD_EVERY
            await checkpoint()
        else:
            await checkpoint_if_cancelled()
        try:
            while True:
                data = self.next_message()
                if data is not None:
                    break
                if self.fault is not None:
                    raise self.fault
                if self.remote_ended:
                    if self._received or self.handler.cardinality.client_streaming:
                        return None
                    text = "the request ended without a message, this method takes one"
                    raise GRPCError(Status.UNIMPLEMENTED, text)  # gRPC's status codes: cardinality violation
                if self.reset_code is not None:
                    ours = self._finished or self._cancelled
                    raise StreamTerminatedError("the call has ended" if ours else "the client has gone")
                await self._wait_readable()
        except MessageFault as fault:
            raise GRPCError(fault.status, fault.message) from None
        self._received = True
        if self.connection.out:
            self.transport.wake()
        request_type = self.handler.request_type
        try:
            return request_type.FromString(data)
        except Exception as error:  # boundary: whatever the codec of this message type raises for bad bytes
            raise GRPCError(Status.INTERNAL, f"request is not a {request_type.__name__}: {error}") from error

    async def _wait_readable(self) -> None:
        if self._reader is not None:
            raise trio.BusyResourceError("another task is receiving from this call")
        self.starve()
        if self.connection.out:
            self.transport.wake()

        def abort(_: RaiseCancelT) -> Abort:
            self._reader = None
            return Abort.SUCCEEDED

        self._reader = current_task()
        await wait_task_rescheduled(abort)
        self.starving = False

    # -- sending ----------------------------------------------------------------------------------------------------

    def set_compression(self, encoding: str) -> None:
        """Choose what this call's messages are compressed with, before anything was sent.

        An encoding that the client does not accept is replaced by identity.
        """
        if encoding not in ENCODINGS:
            raise ValueError(f"compression is {encoding!r}, it must be one of {', '.join(ENCODINGS)}")
        if self._headers_sent:
            raise ProtocolError("the response headers, which name the compression, were already sent")
        self._compression = encoding if encoding in self.head.accept_encodings else "identity"

    async def send_initial_metadata(self, *, metadata: MetadataLike | None = None) -> None:
        """Send the response headers now instead of with the first message."""
        if self._headers_sent:
            raise ProtocolError("the initial metadata was already sent")
        await checkpoint_if_cancelled()
        self._queue_response(metadata)
        self.transport.wake()

    def _queue_response(self, metadata: MetadataLike | None = None) -> None:
        encoding = self._compression
        if encoding is None:
            encoding = self.options.compression
            if encoding != "identity":
                self.set_compression(encoding)
                encoding = self._compression
        fields = [] if metadata is None else encode_metadata(metadata)
        self._headers_sent = True
        if encoding is None or encoding == "identity":
            self._compression = None
            self._plain = self.options.max_send_message_bytes >= LARGEST_SENT_FRAME
        else:
            fields.append((b"grpc-encoding", encoding.encode()))
        if fields:
            self.queue_headers(self.connection.response_block(fields))
        else:
            self.connection.queue_response(self)

    async def send_message(self, message: Any, *, compress: bool = True) -> None:
        """Send one response message; waits while the client's window or the transport is full.

        `compress=False` sends this message as it is in a call whose messages are compressed otherwise. Raises
        `trio.TooSlowError` when it waits for `send_timeout`.
        """
        if not self._plain:
            self._prepare()
        data = message.SerializeToString()
        if self._plain and self.try_message(data):
            self._plain = self._streaming
            self._message_sent = True
            transport = self.transport
            if transport.sleeper is not None:
                transport.wake()
            budget = self._budget = self._budget - 1
            if budget <= 0:
                self._budget = YIELD_EVERY
                await checkpoint()
            else:
                await checkpoint_if_cancelled()
            return
        await self._send_slowly(data, compress=compress)

    def _prepare(self) -> None:
        """Send the response headers before the first message; refuse a second one of a unary method."""
        if not self._headers_sent:
            self._queue_response()
        elif self._message_sent and not self._streaming:
            raise ProtocolError("the only response message of this method was already sent")

    async def _send_slowly(self, data: bytes, *, compress: bool) -> None:
        compressed = False
        if len(data) > self.options.max_send_message_bytes:
            limit = self.options.max_send_message_bytes
            text = f"response of {len(data)} bytes is over the limit of {limit} bytes (max_send_message_bytes)"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
        self._message_sent = True
        self._plain = self._plain and self._streaming
        if self._compression is not None and compress:
            data = compress_body(self._compression, data)
            compressed = True
        while self._pending is not None:
            await self.flush()
        if not self.queue_message(data, compressed=compressed):
            await self.flush()
            return
        if self.local_ended:
            await self._refuse_send()
        self.transport.wake()
        await checkpoint()

    async def flush(self) -> None:
        """Wait until the message under way is queued whole. Raises `trio.TooSlowError`, see `send_timeout`."""
        self.transport.wake()
        await checkpoint()
        while not self.pump():
            self.transport.wake()
            await self._wait_for_room()
        self.transport.wake()
        if self._torn or self.reset_code is not None:
            await self._refuse_send()

    def pump(self) -> bool:
        """Queue what is possible of the message under way, and note whether that was anything."""
        start = self._pending_start
        whole = super().pump()
        if self._pending_start != start:
            # The time of what was received last: it is this moment when the wire calls, which alone matters. A sender
            # that calls does not wait.
            self._moved_at = self.transport.moved_at = self.connection.now
        return whole

    async def _wait_for_room(self) -> None:
        """Park until more of the message under way may be possible, for `send_timeout` without progress at most."""
        drained: Callable[[], Awaitable[None]] = lambda: self.transport.drained(self.unsent)  # noqa: E731
        park = drained if self.connection.out_size >= HIGH_WATER else self._wait_writable
        timeout = self.send_timeout
        if timeout == inf:
            await park()
            return
        since = trio.current_time()
        while True:
            with trio.move_on_at(since + timeout) as scope:
                await park()
            if not scope.cancelled_caught or (park is not drained and self not in self.connection.blocked):
                return  # in the second case the window has opened at this very moment, and wakes nobody again
            # With its own window open the call waits for its turn at the connection's, so other calls count, too.
            moved_at = self._moved_at if self.send_window <= 0 else self.transport.moved_at
            if moved_at <= since:
                raise ClientStalled(f"the client has read nothing for {timeout:g} s")
            since = moved_at

    async def _wait_writable(self) -> None:
        task = current_task()
        writers = self._writers
        if writers is None:
            writers = self._writers = {}
        writers[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            writers.pop(task, None)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    async def _refuse_send(self) -> None:
        await checkpoint()
        if self._finished or self._cancelled:
            raise ProtocolError("the call has ended, nothing can be sent any more")
        raise StreamTerminatedError("the client has gone")

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """End the call. Without it the call ends when the handler returns (OK) or raises.

        `status_details` is a sequence of messages for grpc-status-details-bin (google.rpc.Status).
        """
        if self._finished:
            raise ProtocolError("the trailing metadata was already sent")
        if status is Status.OK and not self._message_sent and not self._streaming:
            raise ProtocolError("an OK response of this method needs one message before its trailers")
        await checkpoint_if_cancelled()
        while status is Status.OK and self.sending:
            await self.flush()
        self.finish(status, status_message, status_details, metadata)

    async def cancel(self) -> None:
        """Reset the stream: the client sees CANCELLED. Nothing can be sent afterwards."""
        if self._cancelled:
            raise ProtocolError("the call was already cancelled")
        await checkpoint_if_cancelled()
        self._cancelled = True
        self.reset(ErrorCode.CANCEL)
        self._release()

    def succeed(self) -> None:
        """The handler has returned: end the call with OK. Never waits."""
        if self._headers_sent and not self._finished:
            self._finished = True
            self.status = Status.OK
            self.connection.queue_ok(self)
            self.transport.wake()
        else:
            self.finish(Status.OK)

    def finish(
        self,
        status: Status,
        message: str | None = None,
        details: Any = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """Queue the trailers, if the stream is still there and they were not sent before. Never waits."""
        if self._finished:
            return
        connection = self.connection
        if not self.local_ended:
            fields = [] if metadata is None else encode_metadata(metadata)
            if details:
                message = None if message is None else short_message(message)
                fields.append(encode_status_details(status, message, details))
            block = connection.trailers_block(status, message, fields, only=not self._headers_sent)
            self.status = status
            self.queue_headers(block, end=True)
            self._torn = self.sending
        self._finished = True
        connection.finish(self)
        self._release()

    def _release(self) -> None:
        """Nothing comes or goes any more: drop what waits, and wake whoever waits for it in another task."""
        self._pending = None
        self.on_readable()
        self.on_writable()
        self.transport.wake()

    @property
    def done(self) -> bool:
        """True when there is nothing left to tell the client."""
        return self._finished or self._cancelled or self.reset_code is not None

    @property
    def answered(self) -> bool:
        """True when an OK status would be complete: the one message of a unary method was sent."""
        return self._message_sent or self._streaming
