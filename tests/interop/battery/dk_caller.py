"""dk_trio's channel as a `Caller`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from tests._pb.grpc import testing

from dk_trio import rpc
from dk_trio.pb.google.rpc import Status as StatusMessage

from .caller import METHODS, SERVICE, Failure, Metadata, Reply, by_key

CALL_TIMEOUT = 20.0  # seconds, for calls that name none
CARDINALITY = {
    (False, False): Cardinality.UNARY_UNARY,
    (False, True): Cardinality.UNARY_STREAM,
    (True, False): Cardinality.STREAM_UNARY,
    (True, True): Cardinality.STREAM_STREAM,
}


def failure_of(error: GRPCError) -> Failure:
    """Translate GRPCError; its details become the bytes of google.rpc.Status again."""
    details = None
    if error.details is not None:
        status = StatusMessage(code=error.status.value, message=error.message or "", details=error.details)
        details = bytes(status)
    return Failure(error.status.name, error.message or "", details)


class DkCall:
    """A `rpc.ClientCall` that says Failure."""

    def __init__(self, stream: rpc.ClientCall, client_streams: bool) -> None:
        self.stream = stream
        self._client_streams = client_streams
        self._sent = False

    async def send(self, message: Any, *, compressed: bool | None = None) -> None:
        self._sent = True
        try:
            await self.stream.send_message(message, compress=compressed)
        except GRPCError as error:
            raise failure_of(error) from None
        except StreamTerminatedError:
            return  # the server has said OK early; `receive` sees it

    async def end(self) -> None:
        if self._sent:
            await self.stream.end()
        else:
            self._sent = True
            await self.stream.send_request(end=True)

    async def receive(self) -> Any:
        try:
            return await self.stream.recv_message()
        except GRPCError as error:
            raise failure_of(error) from None

    async def headers(self) -> dict[str, list[str | bytes]]:
        if self.stream.initial_metadata is None:
            await self.stream.recv_initial_metadata()
        return by_key(self.stream.initial_metadata.items())

    async def trailers(self) -> dict[str, list[str | bytes]]:
        return by_key(self.stream.trailing_metadata.items())

    async def cancel(self) -> None:
        if not self._sent:
            self._sent = True
            await self.stream.send_request()
        await self.stream.cancel()


class DkCaller:
    """A channel of dk_trio, with betterproto2's messages."""

    flags_each_message = True
    shortest_timeout = 0.001
    messages = testing

    def __init__(self, channel: rpc.Channel, *, server_sees_compression: bool = False) -> None:
        self.channel = channel
        self.server_sees_compression = server_sees_compression

    def request(self, method: str, service: str = SERVICE, **options: Any) -> rpc.ClientCall:
        client_streams, server_streams, request, response = METHODS[method]
        return self.channel.request(
            f"/{service}/{method}",
            CARDINALITY[client_streams, server_streams],
            getattr(testing, request),
            getattr(testing, response),
            **options,
        )

    async def unary(
        self,
        method: str,
        request: Any,
        *,
        service: str = SERVICE,
        metadata: Metadata = (),
        timeout: float | None = None,
        compression: str | None = None,
    ) -> Reply:
        call = self.request(
            method, service, metadata=list(metadata), timeout=timeout or CALL_TIMEOUT, compression=compression
        )
        try:
            async with call as stream:
                await stream.send_message(request, end=True)
                message = await stream.recv_message()
        except GRPCError as error:
            raise failure_of(error) from None
        return Reply(message, by_key(stream.initial_metadata.items()), by_key(stream.trailing_metadata.items()))

    @asynccontextmanager
    async def call(
        self,
        method: str,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        compression: str | None = None,
    ) -> AsyncIterator[DkCall]:
        call = self.request(method, metadata=list(metadata), timeout=timeout or CALL_TIMEOUT, compression=compression)
        async with call as stream:
            yield DkCall(stream, METHODS[method][0])

    async def together(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        results: list[Any] = [None] * len(calls)

        async def run(index: int, call: Awaitable[Any]) -> None:
            results[index] = await call

        async with trio.open_nursery() as nursery:
            for index, call in enumerate(calls):
                nursery.start_soon(run, index, call)
        return results


@asynccontextmanager
async def open_caller(
    target: str, *, roots: str | None = None, server_sees_compression: bool = False, **options: Any
) -> AsyncIterator[DkCaller]:
    """Open a channel that repeats nothing; `roots` is the path of the CA's certificate for TLS."""
    options.setdefault("retry", None)
    context = None if roots is None else ssl.create_default_context(cafile=roots)
    async with rpc.open_channel(target, ssl_context=context, options=rpc.ChannelOptions(**options)) as channel:
        yield DkCaller(channel, server_sees_compression=server_sees_compression)
