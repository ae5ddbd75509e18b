"""Messages that nobody reads: bounded memory whatever their size, and nothing lost when the reader comes back."""

import tracemalloc

import pytest

from dk_trio.wire import ClientConnection, ClientStream, ServerConnection, Stream
from dk_trio.wire.frames import DATA, END_STREAM, WINDOW_UPDATE, frame
from dk_trio.wire.stream import MAX_CUT_MESSAGES


def connected(stream_window=256 * 1024):
    """A client's stream, and the stream that the server made of it."""
    made = []

    def accept(stream_id, head):
        made.append(Stream(server, stream_id))
        return made[-1]

    server = ServerConnection(accept, stream_window=stream_window)
    client = ClientConnection(authority="test")
    client.receive(server.take())
    call = ClientStream(client, client.next_stream_id)
    client.open(call, "/test/Test")
    server.receive(client.take())
    return client, call, server, made[0]


def send_until_blocked(client, call, server, bodies):
    """How many of the bodies the window lets through."""
    sent = 0
    for body in bodies:
        if not call.queue_message(body):
            break
        sent += 1
        if client.out_size > 8192:
            server.receive(client.take())
    server.receive(client.take())
    return sent


def read_all(stream):
    received = []
    while (body := stream.next_message()) is not None:
        received.append(body)
    return received


def test_tiny_messages_cost_no_more_than_their_window():
    client, call, server, stream = connected()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    sent = send_until_blocked(client, call, server, (b"%02d" % (index % 100) for index in range(10**6)))
    server.take()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert sent > 30_000
    assert len(stream.messages) < MAX_CUT_MESSAGES + 8192 / 7
    assert held < 2 * 256 * 1024
    assert read_all(stream) == [b"%02d" % (index % 100) for index in range(sent)]


@pytest.mark.parametrize("tail", [0, 1, 4, 6, 70_000])
def test_end_is_told_after_the_last_message_and_a_torn_one_is_a_fault(tail):
    client, call, server, stream = connected()
    bodies = [bytes([index % 256]) * (index % 7) for index in range(5000)]
    assert send_until_blocked(client, call, server, bodies) == len(bodies)
    if tail:  # a message of 100,000 bytes of which only the beginning comes
        torn = (b"\x00" + (100_000).to_bytes(4, "big") + bytes(100_000))[:tail]
        pieces = [torn[start : start + 16_000] for start in range(0, tail, 16_000)]
        for number, piece in enumerate(pieces, start=1):
            server.receive(frame(DATA, END_STREAM if number == len(pieces) else 0, stream.id, piece))
    else:
        call.queue_end()
        server.receive(client.take())
    assert stream.remote_ended
    assert read_all(stream) == bodies
    assert (stream.fault is not None) == bool(tail)
    if stream.fault is not None:
        assert "ended inside a message" in stream.fault.message


def test_large_message_behind_many_tiny_ones():
    client, call, server, stream = connected(stream_window=64 * 1024)
    bodies = [b"xy"] * 3000
    assert send_until_blocked(client, call, server, bodies) == len(bodies)
    large = bytes(200_000)
    call.queue_message(large, end=True)
    received = []
    for _ in range(10_000):
        server.receive(client.take())
        received += read_all(stream)
        if stream.remote_ended:
            break
        stream.starve()
        client.receive(server.take())
        call.pump()
    assert received == [*bodies, large]


@pytest.mark.parametrize("window", range(1, 8))
def test_a_window_may_end_inside_of_the_prefix(window):
    client, call, *_ = connected(stream_window=window)
    assert not call.queue_message(b"0123456789", end=True)
    assert call.unsent == 15 - window
    first = client.take()
    for _ in range(15 - window):
        client.receive(frame(WINDOW_UPDATE, 0, call.id, (1).to_bytes(4, "big")))
    assert call.unsent == 0
    data = first + client.take()
    assert payloads(data) == b"\0\0\0\0\x0a0123456789"


def payloads(data):
    """What stands in these DATA frames, together."""
    whole = b""
    while data:
        size = int.from_bytes(data[:3], "big")
        assert data[3] == DATA
        whole, data = whole + data[9 : 9 + size], data[9 + size :]
    return whole
