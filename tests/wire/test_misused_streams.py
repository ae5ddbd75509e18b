"""A stream after its fault, its end or its reset, and a message whose first bytes come one by one."""

import pytest

from dk_trio.wire import ClientConnection, ClientStream, ServerConnection, Stream
from dk_trio.wire.errors import LocalError
from dk_trio.wire.frames import DATA, frame


def connected(**options):
    """A client's stream, and the stream that the server made of it."""
    made = []

    def accept(stream_id, head):
        made.append(Stream(server, stream_id))
        return made[-1]

    server = ServerConnection(accept, **options)
    client = ClientConnection(authority="test")
    client.receive(server.take())
    call = ClientStream(client, client.next_stream_id)
    client.open(call, "/test/Test")
    server.receive(client.take())
    return client, call, server, made[0]


def test_what_comes_after_a_fault_is_dropped():
    _, call, server, stream = connected(max_message_bytes=10)
    server.receive(frame(DATA, 0, call.id, b"\x00\x00\x00\x00\x0b"))
    fault = stream.fault
    assert fault is not None
    server.receive(frame(DATA, 0, call.id, b"\x00\x00\x00\x00\x01x"))
    assert stream.fault is fault
    assert stream.next_message() is None


@pytest.mark.parametrize("prefix", [b"\x02\x00\x00\x00\x01", b"\x00\x00\x00\x00\x0b"], ids=["flag", "size"])
def test_a_bad_prefix_in_pieces_is_a_fault_once_it_is_whole(prefix):
    _, call, server, stream = connected(max_message_bytes=10)
    for start in range(5):
        assert stream.fault is None
        server.receive(frame(DATA, 0, call.id, prefix[start : start + 1]))
    assert stream.fault is not None


def test_a_message_waits_for_the_one_before_it():
    _, call, *_ = connected(stream_window=10)
    assert not call.queue_message(bytes(100))
    with pytest.raises(LocalError, match="still being sent"):
        call.queue_message(b"x")


def test_an_end_and_a_reset_are_sent_once():
    client, call, *_ = connected()
    call.queue_end()
    assert client.take()
    call.queue_end()
    assert not client.take()
    call.reset(8)
    assert client.take()
    call.reset(8)
    assert not client.take()
    assert call.reset_code == 8
