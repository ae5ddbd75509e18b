"""One call, seen from its caller: grpclib's client stream, on Trio.

A call runs in its caller's task and keeps no cancel scope open between its methods, so it may live in a generator.
The deadline is kept by the channel's `DeadlineQueue`, which calls `expire`. A cancel scope around the caller is not
watched at all: Trio raises `Cancelled` at the caller's next checkpoint, and leaving the `async with` resets the stream.

Sending. A message that fits is framed without parking the task: a cancellation check each time, a real checkpoint
every `YIELD_EVERY` messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError
from multidict import MultiDict
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from dk_trio.wire import MessageFault
from dk_trio.wire.compression import compress as compress_body
from dk_trio.wire.metadata import decode_metadata

from .call_attempts import AttemptedCall
from .interceptors import CallInfo, InterceptorStack
from .transport import YIELD_EVERY

if TYPE_CHECKING:
    from types import TracebackType

    from .attempt import Attempt
    from .peer import Peer


class ClientCall(AttemptedCall):
    """The surface of `grpclib.client.Stream`; made by `Channel.request`, entered with `async with`.

    One task may receive while another one sends. Leaving the `async with` normally waits for the trailers, discards
    replies that were not read, and raises `GRPCError` for a status other than OK, unless it was raised before. Leaving
    it by an exception, `trio.Cancelled` too, resets the stream without waiting.
    """

    def __repr__(self) -> str:
        state = "done" if self._done else "open" if self._started else "new"
        return f"<ClientCall {self.path} {state}>"

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def peer(self) -> Peer | None:
        """Who the call went to; None before the request was sent."""
        return None if self._attempt is None else self._attempt.link.peer

    @property
    def initial_metadata(self) -> MultiDict[str | bytes] | None:
        """Metadata of the response headers, None before they were received; empty in a trailers-only response."""
        attempt = self._attempt
        if attempt is None or self._initial_metadata is not None:
            return self._initial_metadata
        if self._initial_read or (self._done and attempt.answered):
            fields = [] if attempt.head is None or not attempt.answered else attempt.head.fields
            self._initial_metadata = _received_metadata(fields)
        return self._initial_metadata

    @property
    def trailing_metadata(self) -> MultiDict[str | bytes] | None:
        """Metadata of the trailers, None before they were received."""
        attempt = self._attempt
        if self._trailing_metadata is None and self._done and attempt is not None and attempt.trailers is not None:
            self._trailing_metadata = _received_metadata(attempt.trailers.fields)
        return self._trailing_metadata

    @property
    def attempts(self) -> int:
        """How often the call was tried until now, those attempts included that found no connection."""
        return 1 + self._retries

    @property
    def unprocessed(self) -> bool:
        """Whether no server has done anything for the call, surely; asked after it has failed.

        True when nothing of it was sent, and when the server refused it before any processing (REFUSED_STREAM, GOAWAY).
        After a status of the server, a lost connection, or a deadline that passed on the way it is False: the server
        may have done the work.
        """
        if self._doubtful:
            return False
        attempt = self._attempt
        return attempt is None or (attempt.failure is not None and attempt.failure.refused)

    @property
    def message_compressed(self) -> bool:
        """Whether the message received last had come compressed."""
        return self._attempt is not None and self._attempt.message_compressed

    # -- lifetime ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        interceptors = self._channel.interceptors
        if interceptors:
            self._info = CallInfo(
                path=self.path,
                cardinality=self._cardinality,
                metadata=MultiDict(self._metadata or ()),
                deadline=min(self._deadline, trio.current_effective_deadline()),
                peer=None,
                side="client",
                target=self._channel.target,
                private=self._channel.private,
            )
            stack = InterceptorStack(interceptors, self._info)
            await stack.__aenter__()
            self._interceptors = stack
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interceptors = self._interceptors
        if interceptors is None:
            if error is not None or not self._complete_if_ok():
                await self._leave(error)
            return
        self._interceptors = None
        # The interceptors see what the call ends with: the caller's exception, or the one that leaving raises.
        try:
            await self._leave(error)
        except BaseException as failure:
            await interceptors.__aexit__(type(failure), failure, failure.__traceback__)
            raise
        await interceptors.__aexit__(kind, error, traceback)

    def _complete_if_ok(self) -> bool:
        """Complete a call whose end is here, read out, and plainly good: what leaving finds nearly always."""
        attempt = self._attempt
        if attempt is None or self._done or attempt.messages or attempt.fault is not None:
            return False
        trailers = attempt.trailers
        if trailers is None or trailers.status is not Status.OK:
            return False
        if self._received != 1 and not self._cardinality.server_streaming:
            return False
        self._complete()
        return True

    async def _leave(self, error: BaseException | None) -> None:
        if not self._started:
            return
        try:
            if error is None:
                if not self._done:
                    await self.recv_trailing_metadata()
                elif self._error is not None and not self._error_raised and not self._cancelled:
                    self._raise()
        finally:
            if not self._done:
                self.fail(GRPCError(Status.CANCELLED, "the caller left the call"))

    # -- sending ----------------------------------------------------------------------------------------------------

    async def send_request(self, *, end: bool = False) -> None:
        """Send the request headers; waits for a connection, and for room on it.

        `end` says that no message follows, which only a method with a request stream allows.

        Raises:
            GRPCError: UNAVAILABLE, DEADLINE_EXCEEDED, and whatever an attempt may fail with.
            ProtocolError: the request was sent before, or `end` with a unary request.
            ValueError, TypeError: metadata that cannot be sent.
        """
        if self._started:
            raise ProtocolError("Request is already sent")
        if end and not self._cardinality.client_streaming:
            raise ProtocolError("Unary request requires a message to be sent before ending outgoing stream")
        attempt = await self._start(end=end)
        attempt.link.transport.wake()

    async def send_message(self, message: Any, *, end: bool = False, compress: bool | None = None) -> None:
        """Send one request message, and the request headers if they were not sent.

        Waits while the server's window or the transport is full. A message whose sending was cut off half-way by a
        cancellation is finished before the next one.

        Args:
            message: an instance of the request type.
            end: no message follows. Implied by a unary request.
            compress: whether this message is compressed; None does as the call's compression says.

        Raises:
            GRPCError: the call has failed, or the message is larger than `max_send_message_bytes`.
            StreamTerminatedError: the server has ended the call with OK before it read this message.
            ProtocolError: a second message of a unary request, or one after the end.
        """
        if not self._cardinality.client_streaming:
            if self._sent_bytes:
                raise ProtocolError("Message was already sent")
            end = True
        elif self._ended:
            raise ProtocolError("Stream is ended")
        data = self._serialize(message)
        compressed = False
        if compress is not False and (compress or self._compression != "identity"):
            if self._compression == "identity":
                raise ValueError("compress=True needs a call with compression='gzip' or 'deflate'")
            data = compress_body(self._compression, data)
            compressed = True
        if self._started:
            await checkpoint_if_cancelled()
            attempt = await self._writable_attempt()
        else:
            attempt = await self._start(end=False)
        self._note_sent(data, compressed=compressed)
        if end:
            self._ended = True
        if not attempt.queue_message(data, compressed=compressed, end=end):
            await self._pump(attempt)
            return
        attempt.link.transport.wake()
        self._budget -= 1
        if self._budget <= 0:
            self._budget = YIELD_EVERY
            await checkpoint()

    def _serialize(self, message: Any) -> bytes:
        if not isinstance(message, self._send_type):
            raise TypeError(f"Message must be of type {self._send_type!r}, not {type(message)!r}")
        data: bytes = message.SerializeToString()
        limit = self._channel.options.max_send_message_bytes
        if len(data) > limit:
            text = f"request of {len(data)} bytes is over the limit of {limit} bytes (max_send_message_bytes)"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
        return data

    async def _writable_attempt(self) -> Attempt:
        """The attempt to send on, with nothing half-sent on it; raises when there is none any more."""
        while True:
            if self._recovering is not None:
                await self._recovering.wait()
            attempt = self._attempt
            if self._done or attempt is None:
                self._refuse_send()
            if attempt.over:
                await self._settle(attempt)
                continue
            if not attempt.sending:
                return attempt
            if attempt.writer is not None:
                raise trio.BusyResourceError("another task is sending on this call")
            await self._pump(attempt)

    async def end(self) -> None:
        """End the request stream.

        Raises ProtocolError before the request, or its one message, was sent, and when it was ended already.
        """
        if not self._started:
            raise ProtocolError("Request was not sent")
        if not self._cardinality.client_streaming:
            if not self._sent_bytes:
                raise ProtocolError("Unary request requires a single message to be sent")
            await checkpoint_if_cancelled()
            return
        if self._ended:
            raise ProtocolError("Stream was already ended")
        await checkpoint_if_cancelled()
        attempt = await self._writable_attempt()
        self._ended = True
        attempt.queue_end()
        attempt.link.transport.wake()

    async def cancel(self) -> None:
        """Cancel the call: the server is told at once. Leaving the `async with` raises nothing then."""
        if not self._started:
            raise ProtocolError("Request was not sent yet")
        if self._cancelled:
            raise ProtocolError("Stream was already cancelled")
        await checkpoint_if_cancelled()
        self._cancelled = True
        self.fail(GRPCError(Status.CANCELLED, "the call was cancelled by its caller"))

    # -- receiving --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> ClientCall:
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def recv_initial_metadata(self) -> None:
        """Wait for the response headers; `initial_metadata` has them then.

        Raises GRPCError when the call fails before they come, ProtocolError when they were received before.
        """
        if not self._started:
            raise ProtocolError("Request was not sent yet")
        if self._initial_read:
            raise ProtocolError("Initial metadata was already received")
        await checkpoint_if_cancelled()
        while True:
            attempt = await self._readable_attempt()
            if attempt.answered and (attempt.head is None or attempt.head.fault is None):
                break
            if attempt.over:
                if not self._done:
                    await self._settle(attempt)
                if self._done:
                    break
                continue
            attempt.wants_head = True
            await self._wait_readable(attempt)
            attempt.wants_head = False
        self._initial_read = True
        self._sent = None

    async def recv_message(self) -> Any:
        """The next reply message, None after the last.

        Raises GRPCError for a status other than OK, once the messages before it were read, and for a message that
        cannot be delivered: too large (RESOURCE_EXHAUSTED) or not to be decoded (INTERNAL). One task may wait here.
        """
        if not self._started:
            raise ProtocolError("Request was not sent yet")
        attempt = self._attempt
        if attempt is None or self._error is not None or attempt.messages or attempt.over:
            # Otherwise this waits, which is a checkpoint.
            self._budget -= 1
            if self._budget <= 0:
                self._budget = YIELD_EVERY
                await checkpoint()
            else:
                await checkpoint_if_cancelled()
        while True:
            if attempt is None or self._error is not None or self._recovering is not None:
                attempt = await self._readable_attempt()
            if attempt.messages and (attempt.head is None or attempt.head.fault is None):
                break
            if attempt.over:
                if not self._done:
                    await self._settle(attempt)
                if self._done:
                    self._initial_read = True
                    return None
            elif attempt.reader is None:
                await attempt.wait_readable()
            else:
                raise trio.BusyResourceError("another task is receiving from this call")
            attempt = self._attempt
        self._initial_read = True
        self._sent = None
        self._received += 1
        data = self._take(attempt)
        if attempt.connection.out:
            attempt.link.transport.wake()
        return self._decode(data)

    async def recv_trailing_metadata(self) -> None:
        """Wait for the status of the call, discarding replies that were not read; `trailing_metadata` is set then.

        Raises GRPCError for a status other than OK, ProtocolError when the request stream was not ended.
        """
        if not self._started:
            raise ProtocolError("Request was not sent yet")
        await checkpoint_if_cancelled()
        while True:
            attempt = await self._readable_attempt()
            while attempt.messages and not self._done:
                self._received += 1
                self._take(attempt)
            if attempt.over:
                if not self._done:
                    await self._settle(attempt)
                if self._done:
                    break
                continue
            if not self._ended and self._feeding is None:
                raise ProtocolError("Outgoing stream was not ended")
            await self._wait_readable(attempt)
        self._initial_read = True

    async def _readable_attempt(self) -> Attempt:
        while self._recovering is not None:
            await self._recovering.wait()
        if self._error is not None:
            self._raise()
        assert self._attempt is not None
        return self._attempt

    async def _wait_readable(self, attempt: Attempt) -> None:
        if attempt.reader is not None:
            raise trio.BusyResourceError("another task is receiving from this call")
        await attempt.wait_readable()

    def _decode(self, data: bytes) -> Any:
        try:
            return self._recv_type.FromString(data)
        except Exception as cause:  # boundary: whatever the codec of this message type raises for bad bytes
            error = GRPCError(Status.INTERNAL, f"reply is not a {self._recv_type.__name__}: {cause}")
            self.fail(error)
            self._error_raised = True
            raise error from cause

    def _take(self, attempt: Attempt) -> bytes:
        """The next message of an attempt that has one."""
        try:
            data = attempt.next_message()
        except MessageFault as fault:
            self.fail(GRPCError(fault.status, fault.message))
            self._raise()
        assert data is not None
        return data


def _received_metadata(fields: list[tuple[str, str]]) -> MultiDict[str | bytes]:
    try:
        return decode_metadata(fields)
    except ValueError as error:
        raise GRPCError(Status.INTERNAL, f"the response is broken: {error}") from error
