"""Each flood ends its connection within 1,000 frames, and until then nothing grows.

All frames arrive at the same instant, so no budget is refilled: the worst that a peer can send at once. Memory is
measured, not argued: what a connection holds after the flood, and at its peak, is little more than before.
"""

import gc
import itertools
import tracemalloc

import pytest
from grpclib.const import Status

from dk_trio.wire.errors import PeerError
from dk_trio.wire.stream import MessageFault

from .cases_windows import big
from .client_peer import HANDSHAKE as FROM_SERVER
from .client_peer import ClientPeer
from .floods import CLIENT_FLOODS, FLOODS, HELD
from .raw import DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, call, data, headers, message, request, settings, window
from .server_peer import HANDSHAKE as FROM_CLIENT
from .server_peer import ServerPeer

FRAMES = 1000
HELD_BYTES = 512 * 1024
"""What a connection may hold more than before, of its own and of the 300 streams that a reset flood may open."""
PEAK_BYTES = 2 * 1024 * 1024
"""... and for a moment: one 64 KiB header block decoded, answers waiting to be taken."""


def drown(peer, flood, handshake, octets=1 << 30):
    """Feed frames until the connection fails, or so many octets are used up."""
    peer.feed(handshake + flood.opening)
    assert peer.error is None
    for one in itertools.islice(flood.frames(), FRAMES):
        octets -= len(one)
        if peer.error is not None or octets < 0:
            return
        peer.feed(one)


def weigh(peer, flood, handshake):
    """What is held after as much of a flood as one read delivers, and what was held at the peak."""
    gc.collect()
    tracemalloc.start()
    try:
        drown(peer, flood, handshake, 65_536)
        peer.frames.clear()
        peer.written()
        gc.collect()
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


BOTH = [pytest.param(ServerPeer, flood, FROM_CLIENT, id=flood.name) for flood in FLOODS]
BOTH += [pytest.param(ClientPeer, flood, FROM_SERVER, id=f"client-{flood.name}") for flood in CLIENT_FLOODS]


@pytest.mark.parametrize(("role", "flood", "handshake"), BOTH)
def test_the_connection_ends(role, flood, handshake):
    peer = role(**flood.options)
    drown(peer, flood, handshake)
    assert peer.error is not None, "all frames were taken"
    assert peer.error.code in flood.codes, peer.error
    assert peer.frames[-1].kind == GOAWAY
    assert not peer.connection.streams


@pytest.mark.parametrize(("role", "flood", "handshake"), BOTH)
def test_memory_stays_flat(role, flood, handshake):
    held, peak = weigh(role(**flood.options), flood, handshake)
    assert held < HELD_BYTES
    assert peak < PEAK_BYTES


@pytest.mark.parametrize("flood", FLOODS, ids=[flood.name for flood in FLOODS])
def test_one_read_of_a_flood_is_bounded(flood):
    """64 KiB, the most that is read at once, cost no more than the same bytes in honest requests by an order."""
    peer = ServerPeer(**flood.options)
    peer.feed(FROM_CLIENT + flood.opening)
    chunk = b""
    for one in flood.frames():
        chunk += one
        if len(chunk) >= 65_536:
            break
    peer.receive(chunk[:65_536])
    assert len(peer.written()) <= 128 * 1024


def test_the_goaway_says_why():
    peer = ServerPeer()
    drown(peer, FLOODS[0], FROM_CLIENT)
    assert b"reset soon after their start" in peer.frames[-1].payload


def gzip_bomb(size):
    """``size`` MiB of zeros, compressed a thousandfold."""
    import gzip
    import io

    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as stream:
        for _ in range(size):
            stream.write(bytes(1 << 20))
    return out.getvalue()


def test_gzip_bomb():
    """Decompression stops at the message limit: 200 MiB in 200 KB of gzip never are in memory."""
    bomb = message(gzip_bomb(200), 1)
    peer = ServerPeer(max_message_bytes=1 << 20)
    peer.feed(FROM_CLIENT + headers(1, request(("grpc-encoding", "gzip"), path="/test.Echo/Stall")))
    for start in range(0, len(bomb), 16_384):
        peer.feed(data(1, bomb[start : start + 16_384]))
    (stalled,) = peer.calls
    assert stalled.messages
    tracemalloc.start()
    try:
        with pytest.raises(MessageFault) as raised:
            stalled.next_message()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert raised.value.status is Status.RESOURCE_EXHAUSTED
    assert peer.error is None


def test_a_large_prefix_allocates_nothing():
    peer = ServerPeer(max_message_bytes=100 << 20)
    peer.feed(FROM_CLIENT)
    tracemalloc.start()
    try:
        for stream in range(1, 200, 2):
            peer.feed(headers(stream, HELD) + data(stream, (99 << 20).to_bytes(5, "big")))
        peer.frames.clear()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [b"", b"x", b"xy", b"12345678"])
def test_tiny_messages_that_nobody_reads(body):
    """The window bounds octets on the wire; what becomes of them in memory is at most 16 times that."""
    peer = ServerPeer(stream_window=64 * 1024)
    peer.feed(FROM_CLIENT + headers(1, request(path="/test.Echo/Stall")))
    chunk = message(body) * (16_000 // len(message(body)))
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(65_536 // len(chunk)):
            peer.feed(data(1, chunk))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peer.error is None
    assert held < 16 * 64 * 1024


def test_data_by_the_octet():
    """A message in frames of one octet is slow for its sender and costs memory for nobody."""
    peer = ServerPeer()
    whole = message(bytes(5000))
    peer.feed(FROM_CLIENT + headers(1, request()))
    tracemalloc.start()
    try:
        for octet in whole:
            peer.feed(data(1, bytes((octet,))))
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()
    peer.feed(data(1, b"", END_STREAM))
    assert b"".join(one.payload for one in peer.frames if one.kind == DATA) == whole


def test_a_peer_that_does_not_read_its_answers():
    """Requests that are refused at once are answered without a handler: the answers are bounded instead."""
    peer = ServerPeer()
    peer.feed(FROM_CLIENT)
    refused = [headers(stream, request(method="GET"), 5) for stream in range(1, 40_001, 2)]
    wire = peer.connection
    tracemalloc.start()
    try:
        for start in range(0, len(refused), 100):
            if wire.error is None:
                try:
                    wire.receive(b"".join(refused[start : start + 100]))
                except PeerError as error:
                    assert error is wire.error
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert wire.error is not None
    assert "does not read" in wire.error.reason


def test_windows_by_the_octet_wake_one_stream_each():
    """1,000 streams wait for the connection's window; a window of one octet moves one of them, not all."""
    woken = []
    peer = ServerPeer()
    peer.feed(FROM_CLIENT + settings((4, 1 << 20)))
    peer.feed(big(1, 65_530))
    for stream in range(3, 2_003, 2):
        peer.feed(call(stream))
    assert len(peer.connection.blocked) == 1_000
    peer.calls[0].__class__.on_writable = lambda one: woken.append(one.id)
    try:
        for _ in range(10):
            peer.connection.receive(window(0, 1))
        assert woken == []
        peer.connection.receive(window(0, 1000))
        assert 50 < len(woken) < 200
    finally:
        del peer.calls[0].__class__.on_writable
    sent = [one for one in peer.frames if one.kind == HEADERS]
    assert len(sent) >= 1_001
    assert not [one for one in peer.frames if one.kind == RST_STREAM]
