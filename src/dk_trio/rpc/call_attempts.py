"""The life of one client call below its interface: it begins, begins again after a failure, and ends, once.

Attempts. Until the server has answered, everything that was sent is kept, up to a limit. When an attempt fails,
whoever finds out first, reader or sender, runs `_recover`: it asks the retry policy, waits, opens another stream
and sends everything again; the other one waits for that. So the buffer is only touched by one task at a time.

The end. Trailers with OK complete the call. Everything else goes through `fail`: a final status of the server, the
deadline, a broken reply, a request iterator that raised, `cancel`, `abandon`, the exit of the `async with` by an
exception. Both free the stream at once; what the server has not ended by then is reset with CANCEL, so that its
handler is cancelled too.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from multidict import MultiDict
from trio.lowlevel import checkpoint_if_cancelled

from dk_trio.wire.metadata import encode_metadata, encode_timeout

from .attempt import Attempt
from .call_status import CallFailure
from .retry import PREVIOUS_ATTEMPTS_HEADER, Attempts, RetryPolicy
from .transport import YIELD_EVERY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dk_trio.wire.metadata import MetadataLike

    from .channel import Channel
    from .client_connection import ClientLink
    from .deadline_queue import Entry
    from .interceptors import CallInfo, InterceptorStack


class AttemptedCall:
    """State and transitions of a call; `ClientCall` adds what a caller sees."""

    # What most calls never touch is a default of the class: a call is made for each request, and a store costs time.
    _attempt: Attempt | None = None
    _attempts: Attempts | None = None
    _budget = YIELD_EVERY
    _cancelled = False
    _done = False
    """Completed or failed: no stream, timer or task is left."""
    _doubtful = False
    """An attempt before the last one may have been processed."""
    _ended = False
    """No further request message comes."""
    _error: BaseException | None = None
    _error_raised = False
    _feeding: trio.CancelScope | None = None
    _fields: tuple[tuple[bytes, bytes], ...] = ()
    _info: CallInfo | None = None
    _initial_metadata: MultiDict[str | bytes] | None = None
    _initial_read = False
    _interceptors: InterceptorStack | None = None
    _limit = inf
    """What servers are told: the deadline, or an earlier one of the cancel scopes around the start of the call. It is
    taken down there, as the next attempt may begin in another task."""
    _may_repeat: Callable[[], Awaitable[bool]] | None = None
    _policy: RetryPolicy | None = None
    """Of this call alone; None follows the channel's."""
    _received = 0
    _recovering: trio.Event | None = None
    _retries = 0
    _scope: trio.CancelScope | None = None
    """Around what `_recover` waits for; `fail` cancels it."""
    _sent_bytes = 0
    """Bytes of the request messages so far, and one for each message."""
    _started = False
    _timer: Entry | None = None
    _trailing_metadata: MultiDict[str | bytes] | None = None

    def __init__(
        self,
        channel: Channel,
        path: str,
        cardinality: Cardinality,
        send_type: type[Any],
        recv_type: type[Any],
        deadline: float,
        metadata: MetadataLike | None,
        wait_for_ready: bool,
        compression: str,
    ) -> None:
        self._channel = channel
        self.path = path
        self._cardinality = cardinality
        self._send_type = send_type
        self._recv_type = recv_type
        self._deadline = deadline
        self._metadata = metadata
        self._wait_for_ready = wait_for_ready
        self._compression = compression
        self._sent: list[tuple[bytes, bool]] | None = []
        """Messages to send again, and whether they are compressed; None once the call is committed."""

    # -- begin ------------------------------------------------------------------------------------------------------

    async def _start(self, *, end: bool) -> Attempt:
        """Send the request headers on a connection, waiting for one if need be. The caller wakes its writer."""
        await checkpoint_if_cancelled()
        link = self._begin()
        self._ended = end
        if link is not None:
            return self._open(link)
        return await self._connect()

    async def _connect(self) -> Attempt:
        """The first attempt, when no connection was at hand."""
        await self._recover(None)
        assert self._attempt is not None
        return self._attempt

    def _begin(self) -> ClientLink | None:
        """Enter the call into its channel, and choose a connection if one is at hand."""
        channel = self._channel
        if channel.closed:
            raise trio.ClosedResourceError(f"{channel!r}: a channel carries calls only inside its 'async with'")
        metadata: MetadataLike | Mapping[str, str | bytes] | None
        metadata = self._metadata if self._info is None else self._info.metadata
        if metadata:
            self._fields = tuple(encode_metadata(metadata))
        if self._compression != "identity":
            self._fields = (*self._fields, (b"grpc-encoding", self._compression.encode()))
        self._started = True
        channel.started += 1
        channel.calls[self] = None
        self._limit = trio.current_effective_deadline()
        if self._deadline != inf:
            self._limit = min(self._limit, self._deadline)
            self._timer = channel.deadlines.add(self._deadline, self)
        return channel.try_pick()

    def _open(self, link: ClientLink) -> Attempt:
        """Begin an attempt on a connection that has room."""
        deadline = self._limit
        timeout = None
        if deadline != inf:
            remaining = deadline - trio.current_time()
            if remaining <= 0 and deadline == self._deadline:
                self.expire()
                self._raise()
            timeout = encode_timeout(remaining)
        fields = self._fields
        if self._attempts is not None and self._attempts.made > 1:
            fields = (*fields, (PREVIOUS_ATTEMPTS_HEADER, b"%d" % (self._attempts.made - 1)))
        attempt = Attempt(link)
        # With messages to send again, the end goes with the last of them.
        end = self._ended and not self._sent
        link.wire.open(attempt, self.path, timeout=timeout, metadata=fields, end=end)
        self._attempt = attempt
        if self._info is not None:
            self._info.peer = link.peer
        return attempt

    def _note_sent(self, data: bytes, *, compressed: bool) -> None:
        """Keep a message for the next attempt, as long as the call is not committed."""
        # One more than its size, so that this also counts empty messages.
        self._sent_bytes += len(data) + 1
        if self._sent is not None:
            if self._sent_bytes > (self._policy or self._channel.retry_policy).buffer_bytes:
                self._sent = None
            else:
                self._sent.append((data, compressed))

    # -- begin again ------------------------------------------------------------------------------------------------

    async def _settle(self, attempt: Attempt) -> None:
        """An attempt is over and read out: complete the call, begin another attempt, or raise what it failed with."""
        if self._recovering is not None:
            await self._recovering.wait()
            return
        failure = attempt.outcome()
        if failure is None:
            if not self._cardinality.server_streaming and self._received + len(attempt.messages) != 1:
                # gRPC "Status codes": response cardinality violation.
                text = f"the server sent {self._received + len(attempt.messages)} messages instead of one"
                self.fail(GRPCError(Status.UNIMPLEMENTED, text))
                self._raise()
            self._complete()
            return
        if failure.status is Status.CANCELLED and trio.current_time() >= self._deadline:
            # The server saw the deadline first (gRPC PROTOCOL-HTTP2, "Client Cancellation").
            self.expire()
            self._raise()
        attempt.release()
        await self._recover(failure)

    async def _recover(self, failure: CallFailure | None) -> None:
        """Begin another attempt after `failure`; None stands for the first attempt.

        Raises what the call fails with. When cancelled, the attempt that failed stays in place for the next try.
        """
        self._recovering = trio.Event()
        try:
            with trio.CancelScope() as self._scope:
                while True:
                    if failure is not None and not await self._may_retry(failure):
                        self.fail(failure.error())
                        break
                    try:
                        link = await self._channel.pick(wait_for_ready=self._wait_for_ready)
                    except GRPCError as error:
                        failure = CallFailure(error.status, error.message, connected=False)
                        continue
                    if self._done:  # at the same moment: leave the place to the next in line
                        self._channel.on_room()
                        break
                    self._open(link)
                    failure = await self._replay()
                    if failure is None:
                        break
        finally:
            self._scope = None
            self._recovering.set()
            self._recovering = None
        if self._error is not None:
            self._raise()

    async def _may_retry(self, failure: CallFailure) -> bool:
        """Decide, and wait until the next attempt is due."""
        channel = self._channel
        policy = self._policy or channel.retry_policy
        if self._sent is None or (self._attempt is not None and self._attempt.answered):
            if failure.status in policy.statuses:
                channel.retry_budget.failed()
            return False
        attempts = self._attempts
        if attempts is None:
            attempts = self._attempts = Attempts(policy, channel.retry_budget, channel.random)
        if not (failure.refused and attempts.after_refusal(left_the_client=failure.left_the_client)):
            unsure = None if failure.unprocessed else self._may_repeat
            if unsure is not None and not (attempts.left_for(failure.status) and await unsure()):
                if failure.status in policy.statuses:
                    channel.retry_budget.failed()
                return False
            delay = attempts.after_failure(
                failure.status,
                failure.pushback,
                now=trio.current_time(),
                deadline=self._limit,
                connected=failure.connected,
                retry_delay=failure.retry_delay,
            )
            if delay is None:
                return False
            await trio.sleep(delay)
            # Asked again, as late as can be: what holds for one connection need not hold for the next.
            if unsure is not None and not await unsure():
                return False
            self._doubtful = self._doubtful or not failure.unprocessed
        self._retries += 1
        channel.retries += 1
        return True

    async def _replay(self) -> CallFailure | None:
        """Send on the new attempt what the old one was sent; its failure if it fails meanwhile."""
        attempt = self._attempt
        assert attempt is not None
        messages = self._sent or ()
        left = len(messages)
        for data, compressed in messages:
            left -= 1
            if not attempt.queue_message(data, compressed=compressed, end=self._ended and not left):
                await self._pump(attempt)
            if attempt.failure is not None:
                return attempt.failure
        attempt.link.transport.wake()
        return None

    async def _pump(self, attempt: Attempt) -> None:
        """Wait until the message under way is queued whole, or the attempt is over."""
        transport = attempt.link.transport
        while not attempt.pump():
            transport.wake()
            if attempt.over:
                return
            await attempt.wait_writable()
        transport.wake()

    # -- end --------------------------------------------------------------------------------------------------------

    def _complete(self) -> None:
        """The status is OK."""
        channel = self._channel
        channel.succeeded += 1
        if channel.throttled:
            channel.retry_budget.succeeded()
        self._close()

    def fail(self, error: BaseException) -> None:
        """End the call with `error`, which whoever uses it gets; nothing happens after its end."""
        if self._done:
            return
        self._error = error
        self._channel.failed += 1
        self._close()
        if self._scope is not None:
            self._scope.cancel()

    def expire(self) -> None:
        """The deadline has passed."""
        self.fail(GRPCError(Status.DEADLINE_EXCEEDED, "the deadline of the call has passed"))

    def _close(self) -> None:
        self._done = True
        self._sent = None
        channel = self._channel
        channel.calls.pop(self, None)
        if self._timer is not None:
            channel.deadlines.drop(self._timer)
            self._timer = None
        if self._feeding is not None:
            self._feeding.cancel()
        attempt = self._attempt
        if attempt is not None:
            if not (attempt.remote_ended and attempt.local_ended):
                attempt.release()
            attempt.wake()

    def _raise(self) -> NoReturn:
        assert self._error is not None
        self._error_raised = True
        raise self._error

    def _refuse_send(self) -> NoReturn:
        if self._error is not None:
            self._raise()
        raise StreamTerminatedError("the server has ended the call, it reads no further messages")
