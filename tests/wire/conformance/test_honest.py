"""Traffic that looks like a flood and is not: what honest clients do must never end a connection.

Time is told to the connection, in seconds, so hours pass at once.
"""

import pytest
from grpclib.const import Status

from .client_peer import ClientPeer
from .raw import (
    ACK,
    CANCEL,
    DATA,
    END_STREAM,
    INITIAL_WINDOW_SIZE,
    RST_STREAM,
    block,
    call,
    continuation,
    data,
    headers,
    message,
    ping,
    priority,
    request,
    rst,
    settings,
    window,
)
from .server_peer import HANDSHAKE, ServerPeer

HELD = request(path="/test.Echo/Hold")


@pytest.fixture
def peer():
    """A server that has shaken hands and must be alive, and answering, at the end."""
    peer = ServerPeer()
    peer.feed(HANDSHAKE)
    yield peer
    assert peer.error is None, peer.error
    before = len(peer.frames)
    peer.feed(settings((INITIAL_WINDOW_SIZE, 65_535)) + window(0, 1000) + call(999_999), 1e6)
    assert any(one.stream == 999_999 and one.flags & END_STREAM for one in peer.frames[before:])


def sent(peer, stream):
    return sum(len(one.payload) for one in peer.frames if one.kind == DATA and one.stream == stream)


def test_thousands_of_long_calls_cancelled_at_once(peer):
    streams = range(1, 6_001, 2)
    for stream in streams:
        peer.receive(headers(stream, HELD), 10.0)
    peer.receive(b"".join(rst(stream) for stream in streams), 11.1)
    assert not peer.connection.streams


def test_calls_cancelled_young_but_not_too_many(peer):
    """Fifty a second, for an hour: a client whose deadlines are short."""
    stream = 1
    for second in range(3600):
        for _ in range(50):
            peer.connection.receive(headers(stream, HELD) + rst(stream), float(second + 1))
            stream += 2
        peer.written()
        peer.calls.clear()


def test_two_hundred_deadlines_pass_together(peer):
    """A burst of calls with a deadline of half a second, all missed."""
    for stream in range(1, 401, 2):
        peer.receive(headers(stream, HELD), 5.0)
    for stream in range(1, 401, 2):
        peer.receive(rst(stream, CANCEL), 5.5)


def test_keepalive_for_a_day(peer):
    for tick in range(8_640):
        peer.feed(ping(b"keepaliv"), 10.0 * tick)


def test_bandwidth_probes_of_c_core(peer):
    """Ten pings a second while data flows, for ten minutes."""
    for tick in range(6_000):
        peer.receive(ping(b"bdp-ping"), tick / 10)


def test_bandwidth_probes_of_go(peer):
    """A ping for each message that arrives, with no time in between: the round trip of one machine."""
    peer.feed(headers(1, request(path="/test.Echo/Stall")))
    (stream,) = peer.calls
    stream.queue_headers(peer.connection.response_block())
    for _ in range(5_000):
        assert stream.queue_message(b"x" * 10)
        peer.feed(ping(b"\x02\x04\x10\x10\x09\x0e\x07\x07") + window(0, 15) + window(1, 15))


def test_window_updates_for_each_data_frame(peer):
    """Stream and connection are credited for each of 20,000 empty messages, with no time in between."""
    peer.feed(headers(1, request(path="/test.Echo/Stall")))
    (stream,) = peer.calls
    stream.queue_headers(peer.connection.response_block())
    for _ in range(20_000):
        assert stream.queue_message(b"")
        peer.receive(window(1, 5) + window(0, 5))
        peer.written()
        peer.frames.clear()


@pytest.mark.parametrize("size", [1024, 100])
def test_small_windows(peer, size):
    """A client whose initial window is small reads 200 KB at its own pace, crediting each frame twice."""
    peer.feed(settings((INITIAL_WINDOW_SIZE, size)))
    whole = message(bytes(200_000))
    peer.feed(headers(1, request()))
    for start in range(0, len(whole), 16_384):
        peer.feed(data(1, whole[start : start + 16_384]))
    peer.feed(data(1, b"", END_STREAM))
    seen = 0
    while seen < len(whole):
        part = sent(peer, 1)
        peer.frames.clear()
        assert part
        seen += part
        peer.feed(window(1, part) + window(0, part))
    assert seen == len(whole)


def test_headers_in_small_pieces(peer):
    """A proxy that cuts header blocks into pieces of 1 KiB."""
    coded = block(request(("x-long", "y" * 14_000)))
    pieces = [coded[start : start + 1024] for start in range(0, len(coded), 1024)]
    for stream in range(1, 2_001, 2):
        frames = [headers(stream, pieces[0], END_STREAM)]
        frames += [continuation(stream, piece, 4 if piece is pieces[-1] else 0) for piece in pieces[1:]]
        peer.connection.receive(b"".join(frames))
        peer.connection.take()
        peer.connection.streams.clear()
        peer.calls.clear()


def test_settings_now_and_then(peer):
    """Windows tuned every ten seconds, for a day."""
    for tick in range(8_640):
        peer.connection.receive(settings((INITIAL_WINDOW_SIZE, 65_535 + tick)), 10.0 * tick)
        peer.connection.take()


def test_priorities_of_a_browser(peer):
    """Five idle streams to hang priorities on, and one PRIORITY a request."""
    peer.feed(b"".join(priority(stream) for stream in (3, 5, 7, 9, 11)))
    for number in range(300):
        stream = 13 + 2 * number
        peer.feed(call(stream) + priority(stream, 3), number / 50)


def test_small_messages_on_their_way_when_the_call_ends(peer):
    """A client streams 5,000 small messages and learns only then that its call ended at the first."""
    peer.feed(headers(1, request(path="/test.Echo/Early")))
    assert any(one.kind == RST_STREAM and one.code == 0 for one in peer.frames)
    for _ in range(5_000):
        peer.connection.receive(data(1, message(b"x" * 20)))
    peer.receive(data(1, b"", END_STREAM))


def test_all_calls_ended_while_their_clients_still_send(peer):
    """A drain ends 10,000 streams at once; on each, messages are on their way."""
    streams = range(1, 20_001, 2)
    peer.connection.receive(b"".join(headers(stream, HELD) for stream in streams))
    for held in peer.calls:
        held.queue_headers(peer.connection.trailers_block(Status.UNAVAILABLE, "drained", only=True), end=True)
        peer.connection.finish(held)
    peer.calls.clear()
    peer.receive(b"".join(data(stream, message(b"x")) for stream in streams))


def test_cancels_that_cross_their_answers(peer):
    for number in range(400):
        stream = 2 * number + 1
        peer.feed(call(stream) + rst(stream), number / 50)


def test_windows_that_cross_the_end(peer):
    """Credit for streams that have just ended, as every client sends it."""
    for number in range(2_000):
        stream = 2 * number + 1
        peer.feed(call(stream) + window(stream, 10) + window(0, 10), number / 1000)


def test_thousands_of_answers_at_once(peer):
    """1,000 calls a second for a minute: work is no abuse."""
    for number in range(5_000):
        peer.feed(call(2 * number + 1) + window(0, 10), number / 1000)
        peer.frames.clear()
        peer.written()


def test_a_server_that_answers_slowly_and_pings():
    """A client lives with a server's keepalive, probes and one settings change a minute."""
    peer = ClientPeer()
    peer.feed(settings() + b"\0\0\0\4\1\0\0\0\0")
    for second in range(3_600):
        peer.feed(ping(), float(second))
        if second % 60 == 0:
            peer.feed(settings((INITIAL_WINDOW_SIZE, 65_535 + second)), float(second))
    assert peer.error is None


def test_pings_of_our_own_are_answered():
    """Answers to our pings are not counted, however many."""
    peer = ServerPeer()
    peer.feed(HANDSHAKE)
    for number in range(2_000):
        payload = number.to_bytes(8, "big")
        peer.connection.ping(payload)
        peer.feed(ping(payload, ACK))
    assert peer.error is None
