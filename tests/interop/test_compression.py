"""That compressed means compressed: sizes on the wire, and the flag of each message where our client can see it."""

import pytest
import trio
from tests.interop.battery.cases import LARGE_REQUEST, LARGE_RESPONSE, body_of, large_request
from tests.interop.battery.dk_caller import DkCaller, open_caller
from tests.interop.battery.tap import open_tap

SMALL = 10_000  # bytes; zeros shrink to a thousandth, what remains is headers and settings
TIMEOUT = 30


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("server", ["dk", "grpcio-sync", "grpcio-aio", "ruby", "grpc-js"])
async def test_our_requests(server, encoding, server_peer):
    port = server_peer.address["tcp"]
    with trio.fail_after(TIMEOUT):
        async with open_tap(port) as tap, open_caller(f"127.0.0.1:{tap.port}") as caller:
            await caller.unary("UnaryCall", large_request(caller), compression=encoding)
            assert tap.to_server < SMALL
            await caller.unary("UnaryCall", large_request(caller))
            assert LARGE_REQUEST < tap.to_server < LARGE_REQUEST + SMALL


@pytest.mark.parametrize("client", ["grpcio-sync", "grpcio-aio", "grpc-js"])
async def test_our_responses(client, client_peer, server_of):
    """The case asks for two responses, the first of them compressed."""
    with trio.fail_after(TIMEOUT):
        async with open_tap(server_of("dk").address["tcp"]) as tap:
            await trio.to_thread.run_sync(client_peer.run, "server_compressed_unary", f"127.0.0.1:{tap.port}")
            assert LARGE_RESPONSE < tap.to_client < LARGE_RESPONSE + SMALL


@pytest.mark.parametrize("server", ["dk", "grpcio-sync", "grpcio-aio"])  # the others never compress
async def test_flags_of_responses(server, server_peer):
    with trio.fail_after(TIMEOUT):
        async with open_caller(server_peer.target) as caller:
            assert await flags(caller) == [True, False, True]


async def flags(caller: DkCaller) -> list[bool]:
    """Ask for a stream of responses that are compressed in turns; return the flags they came with."""
    boxes = [caller.messages.BoolValue(value=value) for value in (True, False, True)]
    parameters = [caller.messages.ResponseParameters(size=50_000, compressed=box) for box in boxes]
    seen = []
    async with caller.call("StreamingOutputCall") as call:
        await call.send(caller.messages.StreamingOutputCallRequest(response_parameters=parameters))
        for _ in boxes:
            assert body_of(await call.receive()) == bytes(50_000)
            seen.append(call.stream.message_compressed)
        assert await call.receive() is None
    return seen
