"""Drain: what a server owes to calls and clients when it stops, and how long that may take at most."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.rpc.server_connection import DRAIN_ROUND_TRIP, LINGER
from dk_trio.rpc.transport import FLUSH_TIMEOUT

from .wire_client import DAY, TestService, WireClient, connected, echo, serving

QUICK = DRAIN_ROUND_TRIP + LINGER + FLUSH_TIMEOUT + 0.1
"""Seconds after which a connection that has nothing to do must be gone, whatever its client does."""


class Gate:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.open = trio.Event()

    async def __call__(self, stream):
        message = await stream.recv_message()
        await self.open.wait()
        await stream.send_message(message)


def reopen(client: WireClient) -> None:
    """Make the client forget that it was told to leave, and what it was about to answer."""
    client.wire.take()
    client.wire.peer_last_stream = None


async def test_calls_under_way_finish(autojump_clock):
    gate = Gate()
    async with serving(unary=gate) as (client, server):
        call = await client.call("unary", Message(text="patience"))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await trio.sleep(3600)  # no grace was named, so there is no limit
            assert server.draining
            assert repr(server) == "<rpc.Server draining, 1 connections, 1 RPCs>"
            gate.open.set()
            assert (await call.answer()).text == "patience"
        assert client.lost.is_set() or server.statistics().connections == 0


async def test_goaway_is_sent_twice(autojump_clock):
    """First "soon" (the largest id), then, after a round trip, the last stream that counts (RFC 9113 section 6.8)."""
    gate = Gate()
    async with serving(unary=gate) as (client, server):
        call = await client.call("unary", Message())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await trio.testing.wait_all_tasks_blocked()
            assert client.goaways == [(2**31 - 1, 0, b""), (call.id, 0, b"")]
            gate.open.set()
            await call.answer()


async def test_calls_that_cross_the_announcement_are_served(autojump_clock):
    """A client that has not yet seen GOAWAY loses nothing; one that ignores it is not served any more."""
    async with serving(unary=echo) as (client, server):
        client.answer_pings = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await trio.testing.wait_all_tasks_blocked()
            reopen(client)
            assert await client.unary("unary") == Message()
            await trio.sleep(DRAIN_ROUND_TRIP + 0.1)  # no answer to the ping: the server goes on by itself
            assert len(client.goaways) == 2
            reopen(client)
            started = server.statistics().rpcs_started
            late = await client.call("unary", Message())
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().rpcs_started == started
            assert late.id > client.goaways[1][0]
            assert late.head is None


async def test_grace_then_unavailable(autojump_clock):
    gate = Gate()
    async with serving(unary=gate) as (client, server):
        calls = [await client.call("unary", Message()) for _ in range(10)]
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await server.drain(grace=10)
        assert 10 <= trio.current_time() - begin <= 10 + QUICK
        for call in calls:
            assert await call.status() == (Status.UNAVAILABLE, "the server is shutting down")
        assert server.statistics() == rpc.ServerStatistics(0, 0, 10, 0, draining=True)


async def test_no_grace(autojump_clock):
    async with serving(unary=Gate()) as (client, server):
        call = await client.call("unary", Message())
        begin = trio.current_time()
        await server.drain(grace=0)
        assert trio.current_time() - begin <= QUICK
        assert (await call.status())[0] is Status.UNAVAILABLE


async def test_idle_connections_go_quickly(autojump_clock):
    server = rpc.Server([TestService(unary=echo)])
    async with connected(server) as idle, connected(server) as used, connected(server) as leaving:
        await used.unary("unary")
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await trio.testing.wait_all_tasks_blocked()
            await leaving.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().connections == 2
        assert trio.current_time() - begin <= QUICK
        assert idle.lost.is_set()
        assert used.lost.is_set()


async def test_last_answer_arrives_before_the_connection_ends(autojump_clock):
    gate = Gate()
    async with serving(unary=gate) as (client, server):
        call = await client.call("unary", Message(data=bytes(1_000_000)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
            await client.lost.wait()
        assert len((await call.answer()).data) == 1_000_000


async def test_client_that_never_reads(autojump_clock):
    async def endless(stream):
        while True:
            await stream.send_message(Message(data=bytes(10_000)))

    server = rpc.Server([TestService(bidi=endless)])
    async with connected(server, pair=trio.testing.lockstep_stream_pair, read=False) as client:
        for _ in range(5):
            await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await server.drain(grace=5)
        assert trio.current_time() - begin <= 5 + QUICK
        assert server.statistics().rpcs == server.statistics().connections == 0


async def test_client_that_says_nothing(autojump_clock):
    server = rpc.Server([TestService(unary=echo)])
    async with connected(server, read=False) as _:
        silent, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
            await server.drain()
            assert trio.current_time() - begin <= QUICK
        await silent.aclose()


async def test_connection_that_comes_too_late(autojump_clock):
    server = rpc.Server([TestService(unary=echo)])
    await server.drain()
    begin = trio.current_time()
    async with connected(server) as client:
        await client.lost.wait()
        assert trio.current_time() - begin <= QUICK
        assert client.goaways


async def test_handler_that_has_said_everything_but_does_not_end(autojump_clock):
    """After its trailers the call is over for the client, but not for the server: a drain must end it too."""
    ended = []

    async def handler(stream):
        await stream.send_message(Message())
        await stream.send_trailing_metadata()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with serving(unary=handler) as (client, server):
        await client.unary("unary")
        begin = trio.current_time()
        await server.drain(grace=5)
        assert 5 <= trio.current_time() - begin <= 5 + QUICK
        assert len(ended) == 1


async def test_cleanup_under_a_shield_is_waited_for(autojump_clock):
    async def handler(stream):
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(30, shield=True):
                await trio.sleep(20)

    async with serving(unary=handler) as (client, server):
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await server.drain(grace=5)
        assert 25 <= trio.current_time() - begin <= 25 + QUICK
        assert (await call.status())[0] is Status.UNAVAILABLE


async def test_drain_twice_and_cancelled(autojump_clock):
    """The smaller grace wins; a drain that is cancelled leaves the server draining."""
    async with serving(unary=Gate()) as (client, server):
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(5):
            await server.drain(grace=10)
        assert server.draining
        assert server.statistics().rpcs == 1
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain, 100)
            nursery.start_soon(server.drain, 1)
        assert trio.current_time() - begin <= 1 + QUICK
        assert (await call.status())[0] is Status.UNAVAILABLE


async def test_drain_hook_of_services(autojump_clock):
    """Services whose calls have no end of their own are told once, before anybody else is."""
    told = []

    class Endless(TestService):
        def __init__(self):
            super().__init__(bidi=self.bidi)
            self.end = trio.Event()

        async def bidi(self, stream):
            await self.end.wait()

        def __drain__(self):
            told.append(server.draining)
            self.end.set()

    server = rpc.Server([Endless()])
    async with connected(server) as client:
        call = await client.call("bidi")
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await server.drain()
        await server.drain()
        assert trio.current_time() - begin <= QUICK
        assert await call.status() == (Status.OK, None)
    assert told == [True]


@pytest.mark.parametrize("count", [0, 1])
async def test_serve_returns_after_a_drain(autojump_clock, count):
    """With its listeners closed and its connections gone."""

    class Listener(trio.abc.Listener):
        def __init__(self):
            self.send, self.receive = trio.open_memory_channel(10)
            self.closed = False

        async def accept(self):
            return await self.receive.receive()

        async def aclose(self):
            self.closed = True
            self.receive.close()
            await trio.lowlevel.checkpoint()

    listener = Listener()
    server = rpc.Server([TestService(unary=echo)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, [listener])
            clients = []
            for _ in range(count):
                ours, theirs = trio.testing.memory_stream_pair()
                await listener.send.send(theirs)
                client = WireClient(ours)
                nursery.start_soon(client.read)
                assert await client.unary("unary") == Message()
                clients.append(client)
            await server.drain()
            assert listener.closed
        assert all(client.lost.is_set() for client in clients)
    listener.send.close()
