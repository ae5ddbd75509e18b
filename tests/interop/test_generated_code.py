"""Generated stubs and service bases, without a line of our test service, against grpcio."""

import pytest
import trio
from tests._pb.grpc import testing

from dk_trio import rpc

TIMEOUT = 30
SIZES = (31_415, 9, 2_653, 58_979)


def output_request(*sizes):
    return testing.StreamingOutputCallRequest(
        response_parameters=[testing.ResponseParameters(size=size) for size in sizes]
    )


def response(size):
    return testing.StreamingOutputCallResponse(payload=testing.Payload(body=bytes(size)))


@pytest.fixture(params=["grpcio-sync", "grpcio-aio"])
async def stub(request, server_of):
    async with rpc.open_channel(server_of(request.param).target) as channel:
        yield testing.TestServiceStub(channel, timeout=TIMEOUT)


async def test_stub_unary(stub):
    assert await stub.empty_call(testing.Empty()) == testing.Empty()
    reply = await stub.unary_call(testing.SimpleRequest(response_size=314_159))
    assert reply.payload.body == bytes(314_159)


async def test_stub_server_streaming(stub):
    replies = stub.streaming_output_call(output_request(*SIZES))
    assert [len(reply.payload.body) async for reply in replies] == list(SIZES)


async def test_stub_client_streaming(stub):
    requests = (testing.StreamingInputCallRequest(payload=testing.Payload(body=bytes(size))) for size in SIZES)
    assert (await stub.streaming_input_call(requests)).aggregated_payload_size == sum(SIZES)


async def test_stub_ping_pong(stub):
    send, receive = trio.open_memory_channel(0)
    replies = stub.full_duplex_call(receive)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send.send, output_request(SIZES[0]))
        for following in (*SIZES[1:], None):
            assert (await anext(replies)).payload is not None
            if following is not None:
                nursery.start_soon(send.send, output_request(following))
        await send.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(replies)


class Generated(testing.TestServiceBase):
    """The service as an application would write it."""

    async def empty_call(self, message):
        return testing.Empty()

    async def unary_call(self, message):
        return testing.SimpleResponse(payload=testing.Payload(body=bytes(message.response_size)))

    async def streaming_output_call(self, message):
        for parameters in message.response_parameters:
            yield response(parameters.size)

    async def streaming_input_call(self, messages):
        total = 0
        async for message in messages:
            total += len(message.payload.body)
        return testing.StreamingInputCallResponse(aggregated_payload_size=total)

    async def full_duplex_call(self, messages):
        async for message in messages:
            for parameters in message.response_parameters:
                yield response(parameters.size)


CASES = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "unimplemented_method",
    "cancel_after_begin",
    "cancel_after_first_response",
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("client", ["grpcio-sync", "grpcio-aio"])
async def test_base(client, case, client_peer, nursery):
    listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(rpc.Server([Generated()]).serve, listeners)
    target = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    with trio.fail_after(TIMEOUT):
        await trio.to_thread.run_sync(client_peer.run, case, target)
