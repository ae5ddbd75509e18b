"""Thousands of visits to one server over real sockets, with a provider: nothing is left, and no memory is lost."""

import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest
import trio
from tests.sizes import record, size

from dk_trio import ModuleServer, Settings, rpc
from dk_trio.provider import Provider, ProviderOptions
from dk_trio.services.stores.sqlite import SqliteDatabase

from .module import Visited
from .visitors import Connect
from .world import SETTINGS, Way, World, descriptors, slope, stored_setup

VISITS = size(600, 20_000)
ROUNDS = size(6, 60)
MINUTES = 9.0  # after which a night has had enough
SEED = 7

# Of the slope; see `world.slope`. A leak of one object for each visit adds two blocks at least and some hundred bytes.
# At night there is a limit for both; the rounds of a commit are too few for that, and only find what is gross.
BLOCKS_MAX = size(20.0, 1.0)
BYTES_MAX = size(20_000.0, 512.0)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is logged is kept by the test runner, with its tracebacks and all that they hold."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def to(address: str) -> Connect:
    host, _, port = address.rpartition(":")

    async def connect() -> trio.abc.Stream:
        return await trio.open_tcp_stream(host, int(port))

    return connect


async def cut(stream: trio.abc.Stream, how: str) -> None:
    """See `visitors.Cut`."""
    assert isinstance(stream, trio.SocketStream)
    if how == "reset":  # the end of what comes in makes its owner close it, and that is told as a reset then
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):  # the other end was faster
        stream.socket.shutdown(socket.SHUT_RDWR if how == "fin" else socket.SHUT_RD)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    options = ProviderOptions(stall_threshold=0, heartbeat_ttl=1.0)
    provider = Provider(SqliteDatabase(directory), directory=directory, options=options)
    async with provider.running(port=0) as at, rpc.open_channel(at) as tools:
        setup_id = await stored_setup(tools)
        way = Way(to(at), cut)
        server = ModuleServer(Visited, settings=Settings.from_environment(SETTINGS), provider=way.connect)
        async with server.running(port=0) as address:
            yield World(provider, server, to(address), cut, way, tools, setup_id, directory, Random(SEED))


async def test_nothing_is_left_and_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dk_trio.jobs.KEPT", 100)  # a table that is full before the warm-up is over
    before = sorted(descriptors())
    async with world(tmp_path) as visited, visited.told_when_late(MINUTES * 60 + 300):
        await visited.start()
        while len(visited.rounds) < ROUNDS and trio.current_time() - visited.began < MINUTES * 60:
            await visited.round(VISITS // ROUNDS)
            if size(commit=False, night=True):
                print(visited.rounds[-1], flush=True)
    assert sorted(descriptors()) == before
    blocks = slope(visited.rounds, lambda each: each.blocks)
    resident = slope(visited.rounds, lambda each: each.resident)
    figures = {
        "visits": visited.visits,
        "seconds": round(visited.rounds[-1].seconds, 1),
        "ends": dict(visited.statuses),
        "jobs": {reason.value: count for reason, count in visited.server.statistics().jobs.ended.items()},
        "blocks_per_visit": round(blocks, 3),
        "bytes_per_visit": round(resident, 1),
    }
    record("soak", **figures)
    print(figures)
    assert blocks < BLOCKS_MAX, visited.rounds
    assert resident < BYTES_MAX, visited.rounds
