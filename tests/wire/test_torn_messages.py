"""A message that the end of the stream has torn, seen by the client."""

import pytest
from grpclib.const import Status

from dk_trio.wire import ClientConnection, ClientStream, ServerConnection, Stream
from dk_trio.wire.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame
from dk_trio.wire.hpack import Encoder


def answered(*, trailers: list[tuple[bytes, bytes]] | None) -> ClientStream:
    """A client's stream that got seven bytes of a longer message and then the end, with or without trailers."""
    server = ServerConnection(lambda stream_id, head: Stream(server, stream_id))
    client = ClientConnection(authority="test")
    client.receive(server.take())
    call = ClientStream(client, client.next_stream_id)
    client.open(call, "/test/Test", end=True)
    encoder = Encoder()

    def block(fields: list[tuple[bytes, bytes]]) -> bytes:
        return b"".join([encoder.field(name, value) for name, value in fields])

    head = block([(b":status", b"200"), (b"content-type", b"application/grpc")])
    client.receive(frame(HEADERS, END_HEADERS, call.id, head))
    torn = b"\x00\x00\x00\x00\x63ab"
    client.receive(frame(DATA, 0 if trailers is not None else END_STREAM, call.id, torn))
    if trailers is not None:
        client.receive(frame(HEADERS, END_HEADERS | END_STREAM, call.id, block(trailers)))
    return call


def test_the_servers_reason_counts_for_more_than_the_torn_message() -> None:
    call = answered(trailers=[(b"grpc-status", b"14"), (b"grpc-message", b"the server is shutting down")])
    assert call.fault is None
    assert call.trailers is not None
    assert call.trailers.status is Status.UNAVAILABLE


@pytest.mark.parametrize("trailers", [None, [], [(b"grpc-status", b"0")]])
def test_without_a_reason_it_is_a_fault(trailers: list[tuple[bytes, bytes]] | None) -> None:
    call = answered(trailers=trailers)
    assert call.fault is not None
    assert "ended inside a message: 7 of 104 bytes" in call.fault.message
