"""The test service on dk_trio.rpc, with everything a request may ask for. Imports no peer."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from tests._pb.grpc import testing

from dk_trio import rpc
from dk_trio.pb.google.rpc import Status as StatusMessage

from .caller import DETAILS_KEY, ECHO_INITIAL_KEY, ECHO_TRAILING_KEY, METHODS, SERVICE, TELL_DEADLINE_KEY

CARDINALITY = {
    (False, False): Cardinality.UNARY_UNARY,
    (False, True): Cardinality.UNARY_STREAM,
    (True, False): Cardinality.STREAM_UNARY,
    (True, True): Cardinality.STREAM_STREAM,
}


def payload(size: int) -> testing.Payload:
    """Return zeros."""
    return testing.Payload(body=bytes(size))


def echoes(call: rpc.ServerCall, key: str) -> list[tuple[str, str | bytes]]:
    """Return the request's metadata of this key, all of it."""
    return [(key, value) for value in call.metadata.getall(key, [])]


def check_compression(call: rpc.ServerCall, expected: testing.BoolValue | None) -> None:
    """Refuse a message that is not as it says, which is what the cases' probe looks for."""
    if expected is not None and expected.value != call.message_compressed:
        raise GRPCError(Status.INVALID_ARGUMENT, f"the message's compressed flag is {call.message_compressed}")


def fail_if_asked(call: rpc.ServerCall, request: Any) -> None:
    """End the call with the status that the request names."""
    status = request.response_status
    if status is None:
        return
    details = None
    if DETAILS_KEY in call.metadata:
        details = StatusMessage.parse(call.metadata[DETAILS_KEY]).details
    raise GRPCError(Status(status.code), status.message, details)


class InteropService:
    """A service object; handlers use the whole call, so it is not derived from the generated base.

    `started` and `ended` count handlers, so that a test can see that none is left.
    """

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self._changed = trio.Event()

    async def idle(self) -> None:
        """Wait until no handler runs."""
        while self.started != self.ended:
            await self._changed.wait()

    def __mapping__(self) -> dict[str, Handler]:
        functions = {
            "EmptyCall": self.empty,
            "UnaryCall": self.unary,
            "CacheableUnaryCall": self.unary,
            "StreamingOutputCall": self.streaming_output,
            "StreamingInputCall": self.streaming_input,
            "FullDuplexCall": self.full_duplex,
            "HalfDuplexCall": self.half_duplex,
        }
        mapping = {}
        for method, function in functions.items():
            client_streams, server_streams, request, response = METHODS[method]
            mapping[f"/{SERVICE}/{method}"] = Handler(
                self.counted(function),
                CARDINALITY[client_streams, server_streams],
                getattr(testing, request),
                getattr(testing, response),
            )
        return mapping

    def counted(self, function: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def handler(call: rpc.ServerCall) -> None:
            self.started += 1
            try:
                if initial := echoes(call, ECHO_INITIAL_KEY):
                    await call.send_initial_metadata(metadata=initial)
                await function(call)
                trailing = echoes(call, ECHO_TRAILING_KEY)
                if TELL_DEADLINE_KEY in call.metadata and call.deadline is not None:
                    trailing.append((TELL_DEADLINE_KEY, str(call.deadline.time_remaining())))
                if trailing:
                    await call.send_trailing_metadata(metadata=trailing)
            finally:
                self.ended += 1
                self._changed.set()
                self._changed = trio.Event()

        return handler

    async def empty(self, call: rpc.ServerCall) -> None:
        await call.recv_message()
        await call.send_message(testing.Empty())

    async def unary(self, call: rpc.ServerCall) -> None:
        request = await call.recv_message()
        check_compression(call, request.expect_compressed)
        fail_if_asked(call, request)
        compress = False
        if request.response_compressed is not None:
            call.set_compression("gzip")
            compress = request.response_compressed.value
        response = testing.SimpleResponse(payload=payload(request.response_size))
        if request.fill_server_id:
            response.server_id = str(os.getpid())
        await call.send_message(response, compress=compress)

    async def streaming_output(self, call: rpc.ServerCall) -> None:
        request = await call.recv_message()
        if any(parameters.compressed is not None for parameters in request.response_parameters):
            call.set_compression("gzip")
        await self.respond(call, request)

    async def streaming_input(self, call: rpc.ServerCall) -> None:
        total = 0
        async for request in call:
            check_compression(call, request.expect_compressed)
            total += len(request.payload.body)
        await call.send_message(testing.StreamingInputCallResponse(aggregated_payload_size=total))

    async def full_duplex(self, call: rpc.ServerCall) -> None:
        async for request in call:
            await self.respond(call, request)

    async def half_duplex(self, call: rpc.ServerCall) -> None:
        for request in [request async for request in call]:
            await self.respond(call, request)

    @staticmethod
    async def respond(call: rpc.ServerCall, request: testing.StreamingOutputCallRequest) -> None:
        fail_if_asked(call, request)
        for parameters in request.response_parameters:
            if parameters.interval_us:
                await trio.sleep(parameters.interval_us / 1e6)
            compress = parameters.compressed is not None and parameters.compressed.value
            response = testing.StreamingOutputCallResponse(payload=payload(parameters.size))
            await call.send_message(response, compress=compress)
