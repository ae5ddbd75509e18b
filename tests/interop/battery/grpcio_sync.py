"""grpcio's blocking client as a `Caller`."""

import queue
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc

from .caller import METHODS, SERVICE, Failure, Metadata, Reply, by_key

CALL_TIMEOUT = 20.0  # seconds, for calls that name none: a hung peer becomes a status
COMPRESSION = {None: None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
_END = object()


def run_blocking(coroutine: Any) -> Any:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("a blocking caller suspended")


def failure_of(error: Any) -> Failure:
    """Translate grpc.RpcError, which is a call as well."""
    trailers = by_key(error.trailing_metadata())
    details = trailers.get("grpc-status-details-bin", [None])[0]
    return Failure(error.code().name, error.details(), details)


class SyncCall:
    """A call with a queue for its requests, which grpcio reads in a thread of its own."""

    def __init__(self, caller: "SyncCaller", method: str, options: dict[str, Any]) -> None:
        self._client_streams, self._server_streams, *_ = METHODS[method]
        self._start = caller.multicallable(method)
        self._options = options
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call: Any = None
        self._done = False
        if self._client_streams:
            requests: Iterator[Any] = iter(self._requests.get, _END)
            start = self._start if self._server_streams else self._start.future
            self._call = start(requests, **options)

    async def send(self, message: Any, *, compressed: bool | None = None) -> None:
        if self._client_streams:
            self._requests.put(message)
        else:
            self._call = self._start(message, **self._options)

    async def end(self) -> None:
        self._requests.put(_END)

    async def receive(self) -> Any:
        try:
            if self._server_streams:
                return next(self._call, None)
            if self._done:
                return None
            self._done = True
            return self._call.result()
        except (grpc.RpcError, grpc.FutureCancelledError):
            raise failure_of(self._call) from None

    async def headers(self) -> dict[str, list[str | bytes]]:
        return by_key(self._call.initial_metadata())

    async def trailers(self) -> dict[str, list[str | bytes]]:
        return by_key(self._call.trailing_metadata())

    async def cancel(self) -> None:
        self._call.cancel()

    def close(self) -> None:
        """Let the request thread go, and the call when it is not over."""
        self._requests.put(_END)
        if self._call is not None:
            self._call.cancel()


class SyncCaller:
    """A channel of grpcio's blocking API."""

    flags_each_message = False
    shortest_timeout = 0.001

    def __init__(self, channel: grpc.Channel, messages: Any, *, server_sees_compression: bool) -> None:
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
        try:
            message, call = self.multicallable(method, service).with_call(
                request,
                metadata=list(metadata),
                timeout=timeout or CALL_TIMEOUT,
                compression=COMPRESSION[compression],
            )
        except grpc.RpcError as error:
            raise failure_of(error) from None
        return Reply(message, by_key(call.initial_metadata()), by_key(call.trailing_metadata()))

    @asynccontextmanager
    async def call(
        self,
        method: str,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        compression: str | None = None,
    ) -> AsyncIterator[SyncCall]:
        pairs = list(metadata)
        if compression is not None:
            # What `compression=` turns into; `future` of a stream-unary callable forgets to do it (grpcio 1.85).
            pairs.append(("grpc-internal-encoding-request", compression))
        call = SyncCall(self, method, {"metadata": pairs, "timeout": timeout or CALL_TIMEOUT})
        try:
            yield call
        finally:
            call.close()

    async def together(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run_blocking, calls))
