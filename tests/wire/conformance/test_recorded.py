"""Recordings of gRPC's C core, replayed whole, octet by octet and cut at random: the same hooks, the same octets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st

from dk_trio.wire.client import ClientConnection

from .record import CALLS, FOLDER, start
from .test_cuts import Events, Recorded, play, server


def client(log, options):
    connection = ClientConnection(authority="localhost", events=Events(log), **options)
    for _ in start(connection, lambda connection, number: Recorded(connection, number, log)):
        pass
    return connection


RECORDINGS = {
    "client": (server, (FOLDER / "grpcio-client.bin").read_bytes()),
    "server": (client, (FOLDER / "grpcio-server.bin").read_bytes()),
}


def messages(log):
    """Messages of each stream, in the order of streams."""
    found = {}
    for entry in log:
        if entry[0] == "readable":
            found.setdefault(entry[1], []).extend(entry[2])
    return list(found.values())


@pytest.mark.parametrize("name", RECORDINGS)
def test_whole(name):
    make, octets = RECORDINGS[name]
    log, written = play(make, {}, [octets])
    assert not [entry for entry in log if entry[0] == "error"]
    assert messages(log)[: len(CALLS)] == list(CALLS)
    assert written
    if name == "client":
        assert messages(log)[len(CALLS) :] == [[b"never answered"], [b"between"], [b"last"]]
        assert [entry[2] for entry in log if entry[0] == "reset"] == [8]
        assert ("x-octets-bin", "AAH/") in log[1][2]
    else:
        ends = [entry[5][1] for entry in log if entry[0] == "readable" and entry[3]]
        assert [dict(fields)["grpc-status"] for fields in ends] == ["0"] * len(CALLS)


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("size", [1, 9, 1000])
def test_cut_evenly(name, size):
    make, octets = RECORDINGS[name]
    chunks = [octets[at : at + size] for at in range(0, len(octets), size)]
    assert play(make, {}, chunks) == play(make, {}, [octets])


@run(deadline=None)
@given(name=st.sampled_from(sorted(RECORDINGS)), cuts=st.lists(st.integers(0, 28_500), max_size=60))
def test_cut_anywhere(name, cuts):
    make, octets = RECORDINGS[name]
    marks = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    chunks = [octets[first:last] for first, last in pairwise(marks)]
    assert play(make, {}, chunks) == play(make, {}, [octets])
