"""The official interop cases, written from their public description (grpc/doc/interop-test-descriptions.md).

The numbers are the description's: sizes that are no round numbers and do not divide each other.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from .caller import ECHO_INITIAL_KEY, ECHO_TRAILING_KEY, Caller, Failure

Case = Callable[[Caller], Awaitable[None]]

CASES: dict[str, Case] = {}

LARGE_REQUEST = 271_828
LARGE_RESPONSE = 314_159
INPUT_SIZES = (27_182, 8, 1_828, 45_904)
OUTPUT_SIZES = (31_415, 9, 2_653, 58_979)
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
UNKNOWN = 2


def case(function: Case) -> Case:
    """Add a case to the table under its own name."""
    CASES[function.__name__] = function
    return function


def payload(rpc: Caller, size: int) -> Any:
    """Return a payload of zeros."""
    return rpc.messages.Payload(body=bytes(size))


def large_request(rpc: Caller, **fields: Any) -> Any:
    """Return the request of large_unary."""
    return rpc.messages.SimpleRequest(response_size=LARGE_RESPONSE, payload=payload(rpc, LARGE_REQUEST), **fields)


def output_request(rpc: Caller, *sizes: int, body: int | None = None, interval_us: int = 0, **fields: Any) -> Any:
    """Return a streaming request that asks for responses of these sizes."""
    parameters = [rpc.messages.ResponseParameters(size=size, interval_us=interval_us) for size in sizes]
    if body is not None:
        fields["payload"] = payload(rpc, body)
    return rpc.messages.StreamingOutputCallRequest(response_parameters=parameters, **fields)


def body_of(message: Any) -> bytes:
    """Return a message's payload bytes; a payload may be left out when it is empty."""
    assert message is not None, "the stream ended early"
    return message.payload.body if message.payload is not None else b""


async def refused(awaitable: Awaitable[Any], code: str) -> Failure:
    """Await something that has to fail with this status."""
    try:
        result = await awaitable
    except Failure as failure:
        assert failure.code == code, failure
        return failure
    raise AssertionError(f"expected {code}, got {result!r}")


@case
async def empty_unary(rpc: Caller) -> None:
    reply = await rpc.unary("EmptyCall", rpc.messages.Empty())
    assert reply.message == rpc.messages.Empty()


@case
async def cacheable_unary(rpc: Caller) -> None:
    """Caching needs a proxy and GET; what is left is that the method works, twice."""
    request = rpc.messages.SimpleRequest(payload=rpc.messages.Payload(body=b"123456"))
    first, second = [await rpc.unary("CacheableUnaryCall", request, metadata=[("x-user-ip", "1.2.3.4")]) for _ in "ab"]
    assert first.message == second.message


@case
async def large_unary(rpc: Caller) -> None:
    reply = await rpc.unary("UnaryCall", large_request(rpc))
    assert body_of(reply.message) == bytes(LARGE_RESPONSE)


@case
async def client_compressed_unary(rpc: Caller) -> None:
    flag = rpc.messages.BoolValue
    if rpc.server_sees_compression:
        probe = large_request(rpc, expect_compressed=flag(value=True))
        await refused(rpc.unary("UnaryCall", probe), "INVALID_ARGUMENT")
    for compressed in (True, False):
        request = large_request(rpc, expect_compressed=flag(value=compressed))
        reply = await rpc.unary("UnaryCall", request, compression="gzip" if compressed else None)
        assert body_of(reply.message) == bytes(LARGE_RESPONSE)


@case
async def server_compressed_unary(rpc: Caller) -> None:
    for compressed in (True, False):
        flag = rpc.messages.BoolValue(value=compressed)
        reply = await rpc.unary("UnaryCall", large_request(rpc, response_compressed=flag))
        assert body_of(reply.message) == bytes(LARGE_RESPONSE)


@case
async def client_streaming(rpc: Caller) -> None:
    async with rpc.call("StreamingInputCall") as call:
        for size in INPUT_SIZES:
            await call.send(rpc.messages.StreamingInputCallRequest(payload=payload(rpc, size)))
        await call.end()
        assert (await call.receive()).aggregated_payload_size == sum(INPUT_SIZES)
        assert await call.receive() is None


@case
async def client_compressed_streaming(rpc: Caller) -> None:
    def request(size: int, compressed: bool) -> Any:
        flag = rpc.messages.BoolValue(value=compressed)
        return rpc.messages.StreamingInputCallRequest(payload=payload(rpc, size), expect_compressed=flag)

    if rpc.server_sees_compression:
        async with rpc.call("StreamingInputCall") as call:
            await call.send(request(27_182, compressed=True))
            await call.end()
            await refused(call.receive(), "INVALID_ARGUMENT")
    async with rpc.call("StreamingInputCall", compression="gzip") as call:
        await call.send(request(27_182, compressed=True))
        if rpc.flags_each_message:
            await call.send(request(45_904, compressed=False), compressed=False)
        else:
            await call.send(request(45_904, compressed=True))
        await call.end()
        assert (await call.receive()).aggregated_payload_size == 73_086


@case
async def server_streaming(rpc: Caller) -> None:
    async with rpc.call("StreamingOutputCall") as call:
        await call.send(output_request(rpc, *OUTPUT_SIZES))
        await call.end()
        for size in OUTPUT_SIZES:
            assert body_of(await call.receive()) == bytes(size)
        assert await call.receive() is None


@case
async def server_compressed_streaming(rpc: Caller) -> None:
    parameters = [
        rpc.messages.ResponseParameters(size=size, compressed=rpc.messages.BoolValue(value=compressed))
        for size, compressed in ((31_415, True), (92_653, False))
    ]
    async with rpc.call("StreamingOutputCall") as call:
        await call.send(rpc.messages.StreamingOutputCallRequest(response_parameters=parameters))
        await call.end()
        assert body_of(await call.receive()) == bytes(31_415)
        assert body_of(await call.receive()) == bytes(92_653)
        assert await call.receive() is None


@case
async def ping_pong(rpc: Caller) -> None:
    async with rpc.call("FullDuplexCall") as call:
        for request_size, response_size in zip(INPUT_SIZES, OUTPUT_SIZES, strict=True):
            await call.send(output_request(rpc, response_size, body=request_size))
            assert body_of(await call.receive()) == bytes(response_size)
        await call.end()
        assert await call.receive() is None


@case
async def half_duplex(rpc: Caller) -> None:
    """The server answers only after the half-close."""
    async with rpc.call("HalfDuplexCall") as call:
        for size in OUTPUT_SIZES:
            await call.send(output_request(rpc, size))
        await call.end()
        for size in OUTPUT_SIZES:
            assert body_of(await call.receive()) == bytes(size)
        assert await call.receive() is None


@case
async def empty_stream(rpc: Caller) -> None:
    async with rpc.call("FullDuplexCall") as call:
        await call.end()
        assert await call.receive() is None


@case
async def custom_metadata(rpc: Caller) -> None:
    initial, trailing = "test_initial_metadata_value", b"\xab\xab\xab"
    metadata = [(ECHO_INITIAL_KEY, initial), (ECHO_TRAILING_KEY, trailing)]
    reply = await rpc.unary("UnaryCall", large_request(rpc), metadata=metadata)
    assert reply.headers[ECHO_INITIAL_KEY] == [initial]
    assert reply.trailers[ECHO_TRAILING_KEY] == [trailing]
    async with rpc.call("FullDuplexCall", metadata=metadata) as call:
        await call.send(output_request(rpc, LARGE_RESPONSE, body=LARGE_REQUEST))
        await call.end()
        assert body_of(await call.receive()) == bytes(LARGE_RESPONSE)
        assert await call.receive() is None
        assert (await call.headers())[ECHO_INITIAL_KEY] == [initial]
        assert (await call.trailers())[ECHO_TRAILING_KEY] == [trailing]


@case
async def status_code_and_message(rpc: Caller) -> None:
    status = rpc.messages.EchoStatus(code=UNKNOWN, message="test status message")
    failure = await refused(rpc.unary("UnaryCall", rpc.messages.SimpleRequest(response_status=status)), "UNKNOWN")
    assert failure.message == "test status message"
    async with rpc.call("FullDuplexCall") as call:
        await call.send(output_request(rpc, response_status=status))
        await call.end()
        failure = await refused(call.receive(), "UNKNOWN")
        assert failure.message == "test status message"


@case
async def special_status_message(rpc: Caller) -> None:
    status = rpc.messages.EchoStatus(code=UNKNOWN, message=SPECIAL_MESSAGE)
    failure = await refused(rpc.unary("UnaryCall", rpc.messages.SimpleRequest(response_status=status)), "UNKNOWN")
    assert failure.message == SPECIAL_MESSAGE


@case
async def unimplemented_method(rpc: Caller) -> None:
    await refused(rpc.unary("UnimplementedCall", rpc.messages.Empty()), "UNIMPLEMENTED")


@case
async def unimplemented_service(rpc: Caller) -> None:
    call = rpc.unary("UnimplementedCall", rpc.messages.Empty(), service="grpc.testing.UnimplementedService")
    await refused(call, "UNIMPLEMENTED")


@case
async def cancel_after_begin(rpc: Caller) -> None:
    async with rpc.call("StreamingInputCall") as call:
        await call.cancel()
        await refused(call.receive(), "CANCELLED")


@case
async def cancel_after_first_response(rpc: Caller) -> None:
    async with rpc.call("FullDuplexCall") as call:
        await call.send(output_request(rpc, 31_415, body=27_182))
        assert body_of(await call.receive()) == bytes(31_415)
        await call.cancel()
        await refused(call.receive(), "CANCELLED")


@case
async def timeout_on_sleeping_server(rpc: Caller) -> None:
    """One millisecond, if the client can: the deadline may pass before anything reaches the server."""
    async with rpc.call("FullDuplexCall", timeout=rpc.shortest_timeout) as call:

        async def exchange() -> Any:
            await call.send(output_request(rpc, body=27_182))
            return await call.receive()

        await refused(exchange(), "DEADLINE_EXCEEDED")
