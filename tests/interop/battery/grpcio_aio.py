"""grpcio's asyncio client as a `Caller`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from .caller import METHODS, SERVICE, Failure, Metadata, Reply, by_key
from .grpcio_sync import CALL_TIMEOUT, COMPRESSION


async def failure_of(call: Any) -> Failure:
    """Translate the end of a call."""
    trailers = by_key(await call.trailing_metadata())
    details = trailers.get("grpc-status-details-bin", [None])[0]
    return Failure((await call.code()).name, await call.details(), details)


class AioCall:
    """A call of grpc.aio."""

    def __init__(self, caller: "AioCaller", method: str, options: dict[str, Any]) -> None:
        self._client_streams, self._server_streams, *_ = METHODS[method]
        self._start = caller.multicallable(method)
        self._options = options
        self._call = self._start(**options) if self._client_streams else None
        self._done = False

    async def send(self, message: Any, *, compressed: bool | None = None) -> None:
        if not self._client_streams:
            self._call = self._start(message, **self._options)
            return
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            raise await failure_of(self._call) from None

    async def end(self) -> None:
        if self._client_streams:
            await self._call.done_writing()

    async def receive(self) -> Any:
        try:
            if self._server_streams:
                message = await self._call.read()
                return None if message is grpc.aio.EOF else message
            if self._done:
                return None
            self._done = True
            return await self._call
        except (grpc.RpcError, asyncio.CancelledError, asyncio.InvalidStateError):
            raise await failure_of(self._call) from None

    async def headers(self) -> dict[str, list[str | bytes]]:
        return by_key(await self._call.initial_metadata())

    async def trailers(self) -> dict[str, list[str | bytes]]:
        return by_key(await self._call.trailing_metadata())

    async def cancel(self) -> None:
        self._call.cancel()

    def close(self) -> None:
        """Cancel the call when it is not over."""
        if self._call is not None:
            self._call.cancel()


class AioCaller:
    """A channel of grpc.aio."""

    flags_each_message = False
    shortest_timeout = 0.1
    """A write that fails puts "Internal error from Core" in place of the status (grpcio 1.85): let it succeed."""

    def __init__(self, channel: grpc.aio.Channel, messages: Any, *, server_sees_compression: bool) -> None:
        self.channel = channel
        self.messages = messages
        self.server_sees_compression = server_sees_compression

    def multicallable(self, method: str, service: str = SERVICE) -> Any:
        client_streams, server_streams, request, response = METHODS[method]
        kind = f"{'stream' if client_streams else 'unary'}_{'stream' if server_streams else 'unary'}"
        return getattr(self.channel, kind)(
            f"/{service}/{method}",
            request_serializer=getattr(self.messages, request).SerializeToString,
            response_deserializer=getattr(self.messages, response).FromString,
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
        call = self.multicallable(method, service)(
            request, metadata=list(metadata), timeout=timeout or CALL_TIMEOUT, compression=COMPRESSION[compression]
        )
        try:
            message = await call
        except grpc.RpcError:
            raise await failure_of(call) from None
        return Reply(message, by_key(await call.initial_metadata()), by_key(await call.trailing_metadata()))

    @asynccontextmanager
    async def call(
        self,
        method: str,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        compression: str | None = None,
    ) -> AsyncIterator[AioCall]:
        options = {
            "metadata": list(metadata),
            "timeout": timeout or CALL_TIMEOUT,
            "compression": COMPRESSION[compression],
        }
        call = AioCall(self, method, options)
        try:
            yield call
        finally:
            call.close()

    async def together(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*calls))
