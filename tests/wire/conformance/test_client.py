"""The client's table of cases against a ClientConnection."""

import pytest

from dk_trio.wire.errors import LocalError

from . import cases_client, cases_client_streams
from .case import Case, ConnectionFails, StreamFails
from .client_peer import HANDSHAKE, ClientPeer, Reset, Result, response
from .judge import holds, play
from .raw import MAX_CONCURRENT_STREAMS, RST_STREAM, goaway, headers, ping, rst, settings

CASES: list[Case] = [*cases_client.CASES, *cases_client_streams.CASES]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case):
    peer = ClientPeer(**case.options)
    play(case, peer, HANDSHAKE)
    if isinstance(case.outcome, ConnectionFails | StreamFails | tuple):
        holds(case.outcome, peer, ping(b"liveness"), 0)
        if peer.error is not None:
            assert all(call.ended or call.trailers for call in peer.calls.values()), "everybody learns of the end"
            return
    else:
        assert peer.error is None, peer.error
        assert peer.calls[1].result == case.outcome or (peer.calls[1].ended is None and case.options.get("cancelled"))
        wanted = [] if not isinstance(case.outcome, Reset) else [one for one in peer.frames if one.kind == RST_STREAM]
        assert not wanted, "a reset is not answered"
    probe(peer)


def probe(peer):
    """The connection works: call 3 gets its answer, unless GOAWAY has taken it."""
    if peer.calls[3].ended is None:
        assert peer.calls[3].trailers is None
        peer.feed(
            ping(b"liveness")
            + (b"" if peer.calls[3].head else headers(3, [(":status", "200"), ("content-type", "application/grpc")]))
        )
        peer.feed(response(3)[len(headers(3, [(":status", "200"), ("content-type", "application/grpc")])) :])
        assert peer.calls[3].result == Result()
    else:
        assert peer.calls[3].ended == (7, True)
    assert peer.error is None
    assert not peer.connection.blocked


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_room_follows_settings_and_ends():
    peer = ClientPeer()
    peer.feed(settings((MAX_CONCURRENT_STREAMS, 3)))
    assert peer.connection.room == 1
    peer.open()
    assert peer.connection.room == 0
    with pytest.raises(LocalError):
        peer.open()
    peer.feed(rst(1) + response(3))
    assert peer.connection.room == 2
    peer.feed(goaway(2**31 - 1))
    assert peer.connection.room == 0


def test_ids_run_out():
    peer = ClientPeer()
    peer.connection._next_stream = 2**31 - 1
    peer.open()
    assert peer.connection.room == 0
    with pytest.raises(LocalError):
        peer.open()
