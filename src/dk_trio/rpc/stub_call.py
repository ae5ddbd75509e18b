"""What generated stubs need of a call beyond grpclib's interface (`pb._service`).

`unary` makes a whole unary call with half the steps, `feed` sends what an iterable yields from a task of the channel,
`abandon` drops the call from where nothing can be awaited, a finaliser for instance.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any, cast

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from trio.lowlevel import checkpoint_if_cancelled

from .client_call import ClientCall


class StubCall(ClientCall):
    """What `Channel.request` makes."""

    async def unary(self, message: Any) -> Any:
        """The whole of a unary call: what entering, `send_message`, `recv_message` and leaving do, and raise."""
        channel = self._channel
        if channel.interceptors or self._compression != "identity":
            async with self:
                await self.send_message(message, end=True)
                reply = await self.recv_message()
            return reply  # noqa: RET504  (leaving the call may raise)
        # Spelled out where it could be said with other methods of the class: at this rate each call of one shows.
        try:
            data = self._serialize(message)
            await checkpoint_if_cancelled()
            link = self._begin()
            attempt = self._open(link) if link is not None else await self._connect()
            self._ended = True
            size = self._sent_bytes = len(data) + 1
            self._sent = [(data, False)] if size <= (self._policy or channel.retry_policy).buffer_bytes else None
            if attempt.queue_message(data, end=True):
                attempt.link.transport.wake()
                await attempt.wait_readable()  # without a look first: nothing can have come since the stream was opened
            else:
                await self._pump(attempt)
            # One wait for message and status. A server that sends more than one message is dealt with below.
            messages = attempt.messages
            # An error of our own (the deadline, a channel that closes) is not the attempt's; a retry takes another one.
            while self._error is None and self._recovering is None and not attempt.over and len(messages) < 2:
                await attempt.wait_readable()
            trailers = attempt.trailers
            if trailers is not None and trailers.status is Status.OK and len(messages) == 1 and attempt.fault is None:
                reply = self._decode(self._take(attempt))
                self._complete()
                return reply
            reply = await self.recv_message()
            await self._leave(None)
        except BaseException as error:
            await self._leave(error)
            raise
        return reply

    def abandon(self) -> None:
        """Cancel the call as soon as Trio can, without waiting; for finalisers, which run at any time in any thread.

        Calling it again, or after the end of the call, does nothing.
        """
        if self._done and self._interceptors is None:
            return
        try:
            self._channel.token.run_sync_soon(self._abandon)
        except trio.RunFinishedError:
            return

    def _abandon(self) -> None:
        ending: BaseException | None = GRPCError(Status.CANCELLED, "the caller left the call")
        if self._done:
            ending = self._error  # which is what it has ended with before; None: well
        elif self._started:
            self.fail(GRPCError(Status.CANCELLED, "the caller left the call"))
        interceptors = self._interceptors
        if interceptors is not None and not self._channel.closed:
            self._interceptors = None

            async def leave() -> None:
                try:
                    await interceptors.__aexit__(None if ending is None else type(ending), ending, None)
                except GRPCError:
                    return  # raised again by them; there is nobody left to tell

            self._channel.nursery.start_soon(leave)

    def feed(self, messages: AsyncIterable[Any] | Iterable[Any]) -> None:
        """Send what an iterable yields, and end the request stream, in a task of the channel.

        The task is cancelled when the call ends, and then closes an async generator. An exception of the iterable
        fails the call and is what its caller gets.
        """
        if self._feeding is not None:
            raise ProtocolError("the request stream is being fed already")
        self._feeding = trio.CancelScope()
        if self._done:
            self._feeding.cancel()
        self._channel.nursery.start_soon(self._feed, messages, self._feeding, name=f"requests of {self.path}")

    async def _feed(self, messages: AsyncIterable[Any] | Iterable[Any], scope: trio.CancelScope) -> None:
        with scope:
            try:
                if not isinstance(messages, AsyncIterable):
                    for message in messages:
                        await self.send_message(message)
                elif hasattr(messages, "aclose"):
                    async with aclosing(cast(Any, messages)):
                        async for message in messages:
                            await self.send_message(message)
                else:
                    async for message in messages:
                        await self.send_message(message)
                await self.end()
            except StreamTerminatedError:
                return  # the server has ended the call; its reader sees how
            except Exception as error:  # noqa: BLE001  boundary: the caller's iterable; it fails the call
                self.fail(error)
