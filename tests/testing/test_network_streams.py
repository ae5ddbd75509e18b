"""Streams of the network in memory behave as Trio says that streams do, and as sockets do where Trio says nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from dk_trio.testing.network import Conditions, Network

INSTANT = Conditions(latency=0.0)
FAR = Conditions(latency=0.05, jitter=0.02, slice_max=5000)


@asynccontextmanager
async def pair(conditions=None, *, seed=1):
    """A network with one connection: `(network, client's end, server's end)`."""
    network = Network(Random(seed))
    if conditions is not None:
        network.conditions("*", "*", conditions)
    async with (
        network.listening("server") as listener,
        await network.connect("client", "server") as client,
        await listener.accept() as server,
    ):
        yield network, client, server
    assert network.statistics().streams == 0


@pytest.mark.parametrize("conditions", [INSTANT, Conditions(), FAR], ids=["instant", "default", "far"])
async def test_trios_own_checks(conditions, autojump_clock):
    network = Network(Random(1))
    network.conditions("*", "*", conditions)

    async with network.listening("server") as listener:

        async def connected():
            return await network.connect("client", "server"), await listener.accept()

        async def clogged():
            client, server = await connected()
            for stream in (client, server):
                with trio.move_on_after(10):
                    while True:
                        await stream.send_all(bytes(10_000))
            return client, server

        with trio.fail_after(86400):
            await trio.testing.check_half_closeable_stream(connected, clogged)
    assert network.statistics().streams == 0
    assert not network._connections
