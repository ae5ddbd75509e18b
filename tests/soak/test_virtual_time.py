"""The same visits in virtual time, over the network of `dk_trio.testing`: slow, and sliced, as a seed will have it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Literal, cast

import pytest
import trio
from tests.sizes import record, size

from dk_trio import ModuleServer, Settings, rpc
from dk_trio.provider import Provider
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.testing.network import Conditions, Network, NetworkStream

from .module import Visited
from .test_sockets import quiet as quiet
from .world import SETTINGS, Way, World, stored_setup

VISITS = size(300, 5_000)
ROUNDS = size(2, 20)


@asynccontextmanager
async def world(seed: int) -> AsyncIterator[tuple[World, Network]]:
    network = Network(Random(seed))
    network.conditions("*", "*", Conditions(latency=0.002, jitter=0.01, slice_max=16_000))
    provider = Provider(SqliteDatabase(None))
    hosts = (f"client-{number}" for number in count())  # each connection from one of its own, to be cut by itself

    async def connect() -> trio.abc.Stream:
        return await network.connect(next(hosts), "server")

    async def to_provider() -> trio.abc.Stream:
        return await network.connect("server", "provider")

    async def cut(stream: trio.abc.Stream, how: str) -> None:
        assert isinstance(stream, NetworkStream)
        network.cut(stream.host, stream.peer, how=cast(Literal["fin", "reset"], how))

    way = Way(to_provider, cut)
    server = ModuleServer(Visited, settings=Settings.from_environment(SETTINGS), provider=way.connect)
    async with (
        provider.opened(),
        network.host("provider", provider.serve_stream),
        rpc.open_channel("provider", connect=lambda: network.connect("tools", "provider")) as tools,
    ):
        setup_id = await stored_setup(tools)
        async with server.opened(), network.host("server", server.serve_stream):
            yield World(provider, server, connect, cut, way, tools, setup_id, None, Random(seed)), network


@pytest.mark.parametrize("seed", range(size(1, 4)))
async def test_nothing_is_left(autojump_clock: object, seed: int) -> None:
    with trio.fail_after(86400):
        async with world(seed) as (visited, network):
            await visited.start()
            streams = len(network.streams())
            for _ in range(ROUNDS):
                await visited.round(VISITS // ROUNDS)
                assert len(network.streams()) == streams
        assert network.streams() == []
    record(f"soak-virtual-{seed}", visits=visited.visits, ends=dict(visited.statuses))
