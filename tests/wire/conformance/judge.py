"""Runs a case against a peer and holds the result against its outcome."""

from __future__ import annotations

from typing import Protocol

from dk_trio.wire.errors import PeerError

from .case import Answered, Case, ConnectionFails, Outcome, StreamFails
from .raw import DATA, GOAWAY, HEADERS, PING, RST_STREAM, Frame


class Peer(Protocol):
    """What a case is run against: a connection, its application, and what they wrote."""

    frames: list[Frame]
    error: PeerError | None

    def feed(self, chunk: bytes) -> None: ...


def play(case: Case, peer: Peer, handshake: bytes) -> None:
    """Feed the handshake and the steps, checking the expectations between them where they stand."""
    peer.feed(handshake if case.preface is None else case.preface)
    for step in case.steps:
        if isinstance(step, bytes):
            peer.feed(step)
        else:
            step.check(peer.frames)


def holds(outcome: Outcome, peer: Peer, probe: bytes, probe_stream: int) -> None:
    """Check an outcome; one that leaves the connection open is followed by ``probe``: a ping and one more exchange."""
    if isinstance(outcome, tuple):
        kind = StreamFails if peer.error is None else ConnectionFails
        outcome = next(one for one in outcome if isinstance(one, kind))
    if isinstance(outcome, ConnectionFails):
        assert peer.error is not None, f"the connection lives: {peer.frames}"
        last = peer.frames[-1]
        assert last.kind == GOAWAY, last
        assert last.code == peer.error.code
        assert last.code in outcome.codes, (last.code, peer.error)
        written = len(peer.frames)
        peer.feed(probe)
        assert len(peer.frames) == written, "a failed connection still writes"
        return
    assert peer.error is None, peer.error
    assert not [one for one in peer.frames if one.kind == GOAWAY], peer.frames
    before = list(peer.frames)
    peer.feed(probe)
    assert peer.error is None, peer.error
    assert any(one.kind == PING and one.payload == b"liveness" for one in peer.frames), peer.frames
    if probe_stream:
        assert any(one.kind == HEADERS and one.stream == probe_stream for one in peer.frames), peer.frames
    if isinstance(outcome, StreamFails):
        resets = [one.code for one in before if one.kind == RST_STREAM and one.stream == outcome.stream]
        assert len(resets) == 1, before
        assert resets[0] in outcome.codes, before
    elif isinstance(outcome, Answered):
        answered(outcome, before)
    else:
        assert not [one for one in before if one.stream in outcome.silent], before


def answered(outcome: Answered, frames: list[Frame]) -> None:
    """The frames of one stream are headers, data and trailers of the wanted response, or trailers alone."""
    mine = [one for one in frames if one.stream == outcome.stream and one.kind in {HEADERS, DATA, RST_STREAM}]
    assert mine, f"nothing on {outcome.stream} among {frames}"
    first = dict(mine[0].fields)
    assert mine[0].kind == HEADERS, mine
    assert first[":status"] == str(outcome.http), mine
    ended = [index for index, one in enumerate(mine) if one.kind in {HEADERS, DATA} and one.flags & 1]
    assert len(ended) == 1, mine
    last = mine[ended[0]]
    assert last.kind == HEADERS, "gRPC ends with trailers"
    assert dict(last.fields)["grpc-status"] == str(outcome.status), mine
    if last is not mine[0]:
        assert not any(name.startswith(":") for name, _ in last.fields)
        assert first["content-type"].startswith("application/grpc")
    behind = mine[ended[0] + 1 :]
    assert all(one.kind == RST_STREAM and one.code == 0 for one in behind), behind
    for name, value in outcome.fields:
        assert (name, value) in (*mine[0].fields, *last.fields), mine
