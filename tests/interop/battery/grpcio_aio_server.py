"""The test service on grpc.aio's server: `python -m tests.interop.battery.grpcio_aio_server [certificate key]`.

What it prints and when it ends: as grpcio_server.py.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from . import google_messages
from .caller import ECHO_INITIAL_KEY
from .grpcio_server import CODES, OPTIONS, bind, echoes, failure_trailers, handlers, trailers


class TestService:
    """Handlers by method name; `messages` has the classes."""

    def __init__(self, messages: Any) -> None:
        self.messages = messages

    def body(self, size: int) -> Any:
        return self.messages.Payload(body=bytes(size))

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        return self.messages.Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        if request.HasField("response_compressed"):
            context.set_compression(grpc.Compression.Gzip)
            if not request.response_compressed.value:
                context.disable_next_message_compression()
        await self.echo(context)
        await self.fail_if_asked(request, context)
        return self.messages.SimpleResponse(payload=self.body(request.response_size))

    CacheableUnaryCall = UnaryCall

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if any(parameters.HasField("compressed") for parameters in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        await self.echo(context)
        async for response in self.responses(request, context):
            yield response

    async def StreamingInputCall(self, requests: AsyncIterator[Any], context: Any) -> Any:
        await self.echo(context)
        total = 0
        async for request in requests:
            total += len(request.payload.body)
        return self.messages.StreamingInputCallResponse(aggregated_payload_size=total)

    async def FullDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await self.echo(context)
        async for request in requests:
            async for response in self.responses(request, context):
                yield response

    async def HalfDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        for request in [request async for request in requests]:
            async for response in self.responses(request, context):
                yield response

    async def responses(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self.fail_if_asked(request, context)
        for parameters in request.response_parameters:
            await asyncio.sleep(parameters.interval_us / 1e6)
            if parameters.HasField("compressed") and not parameters.compressed.value:
                context.disable_next_message_compression()
            yield self.messages.StreamingOutputCallResponse(payload=self.body(parameters.size))

    @staticmethod
    async def echo(context: Any) -> None:
        metadata = context.invocation_metadata()
        if initial := echoes(metadata, ECHO_INITIAL_KEY):
            await context.send_initial_metadata(initial)
        if trailing := trailers(metadata, context.time_remaining):
            context.set_trailing_metadata(trailing)

    @staticmethod
    async def fail_if_asked(request: Any, context: Any) -> None:
        if request.HasField("response_status"):
            status = request.response_status
            trailers = failure_trailers(context.invocation_metadata())
            await context.abort(CODES[status.code], status.message, tuple(trailers))


async def main() -> None:
    """Serve until standard input ends."""
    server = grpc.aio.server(handlers=[handlers(TestService(google_messages.load()))], options=OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        address = bind(server, folder)
        await server.start()
        print("READY", json.dumps(address), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
