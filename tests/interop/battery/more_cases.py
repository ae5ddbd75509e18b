"""Cases beyond the official list: what else our users meet, in the same form. `CASES` has both lists from here on."""

from typing import Any

from .caller import DETAILS_KEY, ECHO_INITIAL_KEY, ECHO_TRAILING_KEY, TELL_DEADLINE_KEY, Caller, Failure
from .cases import CASES as CASES
from .cases import UNKNOWN, body_of, case, large_request, output_request, payload, refused

MEGABYTE = 1 << 20


@case
async def deadline_between_responses(rpc: Caller) -> None:
    """The server has answered once and now sleeps for a minute."""
    request = output_request(rpc, 7)
    request.response_parameters.append(rpc.messages.ResponseParameters(size=7, interval_us=60_000_000))
    async with rpc.call("StreamingOutputCall", timeout=0.5) as call:
        await call.send(request)
        await call.end()
        assert body_of(await call.receive()) == bytes(7)
        await refused(call.receive(), "DEADLINE_EXCEEDED")


@case
async def deadline_reaches_the_server(rpc: Caller) -> None:
    reply = await rpc.unary("UnaryCall", rpc.messages.SimpleRequest(), metadata=[(TELL_DEADLINE_KEY, "?")], timeout=15)
    (left,) = reply.trailers[TELL_DEADLINE_KEY]
    assert 10 < float(left) <= 15.1  # a sender may round up


@case
async def message_of_20_mb(rpc: Caller) -> None:
    request = rpc.messages.SimpleRequest(response_size=20 * MEGABYTE, payload=payload(rpc, 20 * MEGABYTE))
    reply = await rpc.unary("UnaryCall", request)
    assert len(body_of(reply.message)) == 20 * MEGABYTE


@case
async def concurrent_large_unary(rpc: Caller) -> None:
    async def one() -> int:
        reply = await rpc.unary("UnaryCall", large_request(rpc))
        return len(body_of(reply.message))

    sizes = await rpc.together([one() for _ in range(100)])
    assert sizes == [314_159] * 100


@case
async def concurrent_streams(rpc: Caller) -> None:
    """Streams that share a connection keep their own order and their own end."""

    async def one(number: int) -> list[int]:
        sizes = [(number * 37 + step * 997) % 70_000 for step in range(12)]
        got = []
        async with rpc.call("FullDuplexCall") as call:
            for size in sizes:
                await call.send(output_request(rpc, size, body=number))
                got.append(len(body_of(await call.receive())))
            await call.end()
            assert await call.receive() is None
        assert got == sizes
        return got

    assert len(await rpc.together([one(number) for number in range(30)])) == 30


@case
async def many_small_responses(rpc: Caller) -> None:
    sizes = [step % 100 for step in range(5_000)]
    async with rpc.call("StreamingOutputCall") as call:
        await call.send(output_request(rpc, *sizes))
        await call.end()
        for size in sizes:
            assert len(body_of(await call.receive())) == size
        assert await call.receive() is None


@case
async def many_small_requests(rpc: Caller) -> None:
    async with rpc.call("StreamingInputCall") as call:
        for step in range(2_000):
            await call.send(rpc.messages.StreamingInputCallRequest(payload=payload(rpc, step % 10)))
        await call.end()
        assert (await call.receive()).aggregated_payload_size == 9_000


@case
async def late_reader(rpc: Caller) -> None:
    """More than any window is asked for before the first response is read."""
    async with rpc.call("FullDuplexCall") as call:
        for _ in range(40):
            await call.send(output_request(rpc, 100_000))
        await call.end()
        for _ in range(40):
            assert len(body_of(await call.receive())) == 100_000
        assert await call.receive() is None


@case
async def failure_after_responses(rpc: Caller) -> None:
    """Everything sent before the status arrives before it."""
    status = rpc.messages.EchoStatus(code=UNKNOWN, message="enough")
    async with rpc.call("FullDuplexCall") as call:
        await call.send(output_request(rpc, 10, 20_000, 30))
        await call.send(output_request(rpc, response_status=status))
        for size in (10, 20_000, 30):
            assert len(body_of(await call.receive())) == size
        failure = await refused(call.receive(), "UNKNOWN")
        assert failure.message == "enough"


@case
async def status_while_client_still_sends(rpc: Caller) -> None:
    """The server ends the call early; a client in the middle of its requests learns the status, not a broken stream."""
    status = rpc.messages.EchoStatus(code=UNKNOWN, message="not one more")
    async with rpc.call("FullDuplexCall") as call:

        async def exchange() -> Any:
            await call.send(output_request(rpc, response_status=status))
            try:
                for _ in range(50):
                    await call.send(output_request(rpc, body=100_000))
            except Failure as failure:
                assert failure.message == "not one more"  # a client may learn it here ...
            return await call.receive()  # ... but has to here

        failure = await refused(exchange(), "UNKNOWN")
        assert failure.message == "not one more"


@case
async def every_status_code(rpc: Caller) -> None:
    names = (
        "CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
        "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
        "UNAUTHENTICATED"
    ).split()
    for number, name in enumerate(names, start=1):
        status = rpc.messages.EchoStatus(code=number, message=f"code {number}")
        failure = await refused(rpc.unary("UnaryCall", rpc.messages.SimpleRequest(response_status=status)), name)
        assert failure.message == f"code {number}"


@case
async def long_status_message(rpc: Caller) -> None:
    """Percent signs, every printable character, and a length that takes a multi-byte HPACK integer."""
    message = "".join(map(chr, range(0x21, 0x7F))) + " 100 % %41 %zz " + "é" * 400
    status = rpc.messages.EchoStatus(code=UNKNOWN, message=message)
    failure = await refused(rpc.unary("UnaryCall", rpc.messages.SimpleRequest(response_status=status)), "UNKNOWN")
    assert failure.message == message


@case
async def padded_status_message(rpc: Caller) -> None:
    """Spaces at the ends: RFC 9113 8.2.1 forbids them in a field's value, so a server has to percent-encode them."""
    status = rpc.messages.EchoStatus(code=UNKNOWN, message="  two in front, three behind   ")
    failure = await refused(rpc.unary("UnaryCall", rpc.messages.SimpleRequest(response_status=status)), "UNKNOWN")
    assert failure.message == "  two in front, three behind   "


@case
async def status_details(rpc: Caller) -> None:
    """grpc-status-details-bin arrives as it was sent, byte by byte."""
    # google.rpc.Status{code: 5, message: "gone", details: [Any{type_url, value}]}, by hand: no peer needs the type
    value = bytes(range(256))
    item = b"\x0a\x13type.example/Detail" + b"\x12\x80\x02" + value
    details = b"\x08\x05\x12\x04gone\x1a" + bytes([len(item) & 0x7F | 0x80, len(item) >> 7]) + item
    status = rpc.messages.EchoStatus(code=5, message="gone")
    request = rpc.messages.SimpleRequest(response_status=status)
    failure = await refused(rpc.unary("UnaryCall", request, metadata=[(DETAILS_KEY, details)]), "NOT_FOUND")
    assert failure.message == "gone"
    assert failure.details == details


@case
async def binary_metadata(rpc: Caller) -> None:
    """Every byte value, every padding length of base64, an empty value, one key twice."""
    values = [b"", b"\x00", b"\xff\xfe", b"abc", bytes(range(256))]
    for value in values:
        reply = await rpc.unary("UnaryCall", rpc.messages.SimpleRequest(), metadata=[(ECHO_TRAILING_KEY, value)])
        assert reply.trailers[ECHO_TRAILING_KEY] == [value]
    twice = [(ECHO_TRAILING_KEY, b"one"), (ECHO_TRAILING_KEY, b"two"), (ECHO_INITIAL_KEY, "a"), (ECHO_INITIAL_KEY, "b")]
    reply = await rpc.unary("UnaryCall", rpc.messages.SimpleRequest(), metadata=twice)
    assert reply.trailers[ECHO_TRAILING_KEY] == [b"one", b"two"]
    assert reply.headers[ECHO_INITIAL_KEY] in (["a", "b"], ["a, b"], ["a,b"])  # HTTP lets a library join them


@case
async def long_metadata(rpc: Caller) -> None:
    """Just below the 8 KiB that gRPC's implementations accept by default."""
    value = "v" * 7_000
    reply = await rpc.unary("UnaryCall", rpc.messages.SimpleRequest(), metadata=[(ECHO_INITIAL_KEY, value)])
    assert reply.headers[ECHO_INITIAL_KEY] == [value]


@case
async def deflate(rpc: Caller) -> None:
    """gRPC's deflate is zlib's format."""
    reply = await rpc.unary("UnaryCall", large_request(rpc), compression="deflate")
    assert len(body_of(reply.message)) == 314_159
