"""A process without a descriptor to spare waits until it has one, and does not fill the log meanwhile."""

from __future__ import annotations

import errno
import logging
import os

import pytest
import trio
import trio.testing
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .wire_client import DAY, TestService, WireClient, echo


class Listener(trio.abc.Listener[trio.abc.Stream]):
    """Gives what it is told to, one after the other; then nothing more."""

    def __init__(self, *given: trio.abc.Stream | int) -> None:
        self.given = list(given)
        self.closed = False

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not self.given:
            await trio.sleep_forever()
        now = self.given.pop(0)
        if isinstance(now, int):
            raise OSError(now, os.strerror(now))
        return now

    async def aclose(self) -> None:
        self.closed = True


async def test_a_full_system_is_told_of_once_a_minute(autojump_clock, caplog):
    caplog.set_level(logging.INFO, "dk_trio.rpc.server")
    ours, theirs = trio.testing.memory_stream_pair()
    listener = Listener(*[errno.EMFILE] * 900, theirs)  # 90 s
    server = rpc.Server([TestService(unary=echo)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, [listener])
            client = WireClient(ours)
            nursery.start_soon(client.read)
            assert await client.unary("unary") == Message()
            nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "no connection can be accepted: Too many open files; raise ulimit -n",
        "no connection can be accepted: Too many open files; raise ulimit -n",
        "connections are accepted again",
    ]
    assert listener.closed


async def test_a_system_that_is_full_now_and_then_is_told_of_once_a_minute(autojump_clock, caplog):
    streams = [trio.testing.memory_stream_pair() for _ in range(100)]
    listener = Listener(*[each for _, theirs in streams for each in (theirs, errno.ENFILE)])
    server = rpc.Server([TestService(unary=echo)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, [listener])
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
    assert not listener.given
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


async def test_a_broken_listener_ends_the_server(autojump_clock):
    listener = Listener(errno.EBADF)
    server = rpc.Server([TestService(unary=echo)])
    with trio.fail_after(DAY), pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await server.serve([listener])
    assert listener.closed
