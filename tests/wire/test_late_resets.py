"""Resets that come after the end of their stream."""

import pytest

from dk_trio.wire import ClientConnection, ClientStream, PeerError, ServerConnection, Stream
from dk_trio.wire.frames import ErrorCode, rst_stream

CALLS = 2000
REFUSED = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"8")]


def test_a_server_that_refuses_every_call_early_keeps_its_connection() -> None:
    # As an overloaded server does: it answers when it has read the headers, and resets for what may still come.
    def refuse(stream_id: int, head: object) -> Stream:
        made.append(Stream(server, stream_id))
        return made[-1]

    made: list[Stream] = []
    server = ServerConnection(refuse)
    client = ClientConnection(authority="test")
    client.receive(server.take())
    for _ in range(CALLS):
        call = ClientStream(client, client.next_stream_id)
        client.open(call, "/test/Test")
        server.receive(client.take())
        call.queue_message(b"", end=True)
        late = client.take()
        stream = made.pop()
        stream.queue_headers(b"".join([server.encoder.field(*pair) for pair in REFUSED]), end=True)
        server.finish(stream)
        client.receive(server.take())
        server.receive(late)
        assert call.trailers is not None
    assert client.error is None
    assert client.room


def test_more_resets_than_calls_are_a_flood() -> None:
    client = ClientConnection(authority="test")
    client.receive(ServerConnection(lambda stream_id, head: Stream(client, stream_id)).take())
    call = ClientStream(client, client.next_stream_id)
    client.open(call, "/test/Test", end=True)
    with pytest.raises(PeerError, match="too many resets of closed streams") as caught:
        client.receive(rst_stream(call.id, ErrorCode.NO_ERROR) * 1000)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM
