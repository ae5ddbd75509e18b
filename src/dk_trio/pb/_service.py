"""Base classes of generated services and stubs, without an event loop.

betterproto2 generates services and stubs in grpclib's style on top of ``betterproto2.grpclib``, which imports asyncio
and, for bidirectional calls, starts asyncio tasks. These two classes take its place: they neither start tasks nor know
what runs them. Everything that needs a task or a socket is asked of the channel:

- ``channel.request(route, cardinality, request_type, response_type, timeout=, deadline=, metadata=)`` gives an async
  context manager whose value is a stream with grpclib's client surface. Leaving it normally waits for the trailers and
  raises ``grpclib.GRPCError`` unless they say OK; leaving it with an exception cancels the call.
- ``stream.feed(messages)`` (not a coroutine) sends the messages of an iterable or async iterable and half-closes, in
  a task that belongs to the channel; a failure of the iterable fails the call.
- ``call.unary(message)``, which a channel may leave out, makes a whole unary call at once and returns the response.
- ``stream.abandon()`` (not a coroutine) cancels the call at once, without waiting for anything; calling it again, or
  after the call has ended, does nothing.

Both classes can also stand in front of stock betterproto2 code, which then works under Trio as well::

    class EchoStub(ServiceStub, generated.EchoStub): ...
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from grpclib.const import Cardinality

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MetadataLike", "ResponseIterator", "ServiceBase", "ServiceStub"]

MetadataLike = Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]]
Messages = AsyncIterable[Any] | Iterable[Any]
ResponseT = TypeVar("ResponseT")


class ResponseIterator(AsyncIterator[ResponseT]):
    """The responses of one streaming call; the call begins with the first ``__anext__``.

    A class and not an async generator, because the generated stubs iterate over it inside a generator of their own and
    do not close it: an inner generator would then be finalised by the event loop at some later time, while this object
    is freed together with the outer generator and cancels its call at that moment.

    Ends with ``StopAsyncIteration`` after status OK and raises ``grpclib.GRPCError`` after any other. Cancelling
    ``__anext__`` cancels the call.
    """

    def __init__(self, call: Any, start: Callable[[Any], Any]) -> None:
        self._call = call
        self._start = start
        self._stream: Any = None
        self._done = False

    def __repr__(self) -> str:
        state = "done" if self._done else "new" if self._stream is None else "open"
        return f"<{type(self).__name__} {state} {self._stream!r}>"

    def __aiter__(self) -> ResponseIterator[ResponseT]:
        return self

    async def __anext__(self) -> ResponseT:
        if self._done:
            raise StopAsyncIteration
        stream = self._stream
        if stream is None:
            try:
                stream = self._stream = await self._call.__aenter__()
            except BaseException:
                self._done = True
                raise
            try:
                await self._start(stream)
            except BaseException as error:
                await self._leave(error)
                raise
        try:
            message: ResponseT | None = await stream.recv_message()
        except BaseException as error:
            await self._leave(error)
            raise
        if message is None:
            await self._leave(None)
            raise StopAsyncIteration
        return message

    async def _leave(self, error: BaseException | None) -> None:
        self._done = True
        traceback: TracebackType | None = error.__traceback__ if error is not None else None
        await self._call.__aexit__(type(error) if error is not None else None, error, traceback)

    async def aclose(self) -> None:
        """Cancel the call if it is still open. Does not wait for the peer, and raises nothing."""
        self._abandon()

    def _abandon(self) -> None:
        if not self._done:
            self._done = True
            if self._stream is not None:
                self._stream.abandon()

    def __del__(self) -> None:
        self._abandon()


class ServiceStub:
    """Base class of generated stubs.

    Args:
        channel: what carries the calls; see the module's docstring for what it must offer.
        timeout: seconds, for every call that gives none of its own; None is no limit.
        deadline: the same as a point in time (an object of grpclib's ``Deadline`` shape).
        metadata: sent with every call that gives none of its own.
    """

    def __init__(
        self,
        channel: Any,
        *,
        timeout: float | None = None,
        deadline: Any = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        self.channel = channel
        self.timeout = timeout
        self.deadline = deadline
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.channel!r}>"

    def _request(
        self,
        route: str,
        cardinality: Cardinality,
        request_type: type,
        response_type: type,
        timeout: float | None,
        deadline: Any,
        metadata: MetadataLike | None,
    ) -> Any:
        return self.channel.request(
            route,
            cardinality,
            request_type,
            response_type,
            timeout=self.timeout if timeout is None else timeout,
            deadline=self.deadline if deadline is None else deadline,
            metadata=self.metadata if metadata is None else metadata,
        )

    async def _unary_unary(
        self,
        route: str,
        request: Any,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any = None,
        metadata: MetadataLike | None = None,
    ) -> ResponseT:
        call = self.channel.request(
            route,
            Cardinality.UNARY_UNARY,
            type(request),
            response_type,
            timeout=self.timeout if timeout is None else timeout,
            deadline=self.deadline if deadline is None else deadline,
            metadata=self.metadata if metadata is None else metadata,
        )
        try:
            unary = call.unary
        except AttributeError:  # a channel with grpclib's interface alone
            response: ResponseT | None
            async with call as stream:
                await stream.send_message(request, end=True)
                response = await stream.recv_message()
        else:
            response = await unary(request)
        # Without a response the trailers carry an error, which leaving the context has raised.
        assert response is not None
        return response

    def _unary_stream(
        self,
        route: str,
        request: Any,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any = None,
        metadata: MetadataLike | None = None,
    ) -> ResponseIterator[ResponseT]:
        call = self._request(route, Cardinality.UNARY_STREAM, type(request), response_type, timeout, deadline, metadata)

        async def start(stream: Any) -> None:
            await stream.send_message(request, end=True)

        return ResponseIterator(call, start)

    async def _stream_unary(
        self,
        route: str,
        request_iterator: Messages,
        request_type: type,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any = None,
        metadata: MetadataLike | None = None,
    ) -> ResponseT:
        call = self._request(route, Cardinality.STREAM_UNARY, request_type, response_type, timeout, deadline, metadata)
        async with call as stream:
            await stream.send_request()
            # Not sent from here: a server may answer before it has read everything, and then the iterator, which may
            # be waiting for something else, must not keep the caller from its answer.
            stream.feed(request_iterator)
            response: ResponseT | None = await stream.recv_message()
        assert response is not None
        return response

    def _stream_stream(
        self,
        route: str,
        request_iterator: Messages,
        request_type: type,
        response_type: type[ResponseT],
        *,
        timeout: float | None = None,
        deadline: Any = None,
        metadata: MetadataLike | None = None,
    ) -> ResponseIterator[ResponseT]:
        call = self._request(route, Cardinality.STREAM_STREAM, request_type, response_type, timeout, deadline, metadata)

        async def start(stream: Any) -> None:
            await stream.send_request()
            stream.feed(request_iterator)

        return ResponseIterator(call, start)


class ServiceBase:
    """Base class of generated services."""

    async def _call_rpc_handler_server_stream(self, handler: Callable[[Any], Any], stream: Any, request: Any) -> None:
        """Send what a server-streaming handler yields.

        The handler is closed before this returns or raises, so when the call is cancelled its ``finally`` blocks run
        inside the call and not when the garbage collector comes by.
        """
        responses = handler(request)
        if not isinstance(responses, AsyncIterable):
            # A handler without a ``yield`` is a coroutine. It still has to run: it may raise, or hand back an iterable.
            responses = await responses
            if responses is None:
                return
        if not hasattr(responses, "aclose"):
            async for response in responses:
                await stream.send_message(response)
            return
        async with aclosing(responses):
            async for response in responses:
                await stream.send_message(response)
