"""Drain: what a server owes to calls and clients when it stops, and how long that may take at most."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.rpc.server import DRAIN_SLICE
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


class Turns:
    """A handler that waits until it is cancelled; notes in which pass of the scheduler it was."""

    def __init__(self) -> None:
        self.passes = 0
        self.cancelled: list[int] = []

    async def count(self, calls: int) -> None:
        while len(self.cancelled) < calls:
            self.passes += 1
            await trio.lowlevel.checkpoint()

    async def __call__(self, stream):
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.append(self.passes)


@pytest.mark.parametrize(("connections", "each"), [(1, 1000), (50, 20), (200, 1)])
async def test_thousands_of_calls_are_cut_while_others_run(autojump_clock, connections, each):
    turns = Turns()
    server = rpc.Server([TestService(unary=turns)])
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server)) for _ in range(connections)]
        calls = [await client.call("unary", Message()) for client in clients for _ in range(each)]
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns.count, len(calls))
            nursery.start_soon(server.drain, 0)
        assert trio.current_time() - begin <= QUICK
        # Two slices fall between two counts when a pass counts first and the next one last.
        assert max(Counter(turns.cancelled).values()) <= 2 * DRAIN_SLICE
        for call in calls:
            assert await call.status() == (Status.UNAVAILABLE, "the server is shutting down")
        assert all(len(client.goaways) == 2 for client in clients)


async def test_a_drain_that_is_cancelled_while_it_cuts_leaves_the_rest_to_the_next(autojump_clock):
    turns = Turns()
    async with serving(unary=turns) as (client, server):
        calls = [await client.call("unary", Message()) for _ in range(20 * DRAIN_SLICE)]
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain, 0)
            while not turns.cancelled:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.sleep(1000)
        assert 0 < len(turns.cancelled) < 10 * DRAIN_SLICE
        assert server.statistics().rpcs == len(calls) - len(turns.cancelled)
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for grace in (0, 0, 10, 5):
                nursery.start_soon(server.drain, grace)
        assert trio.current_time() - begin <= QUICK
        assert len(turns.cancelled) == len(calls)
        for call in calls:
            assert (await call.status())[0] is Status.UNAVAILABLE
        await server.drain(0)


async def test_grace_by_a_scope_then_no_grace(autojump_clock):
    """As a server does that has something to say to its jobs in between: those that are done by then end well."""
    gate, patient = Gate(), Turns()
    async with serving(unary=gate, unary_patient=patient) as (client, server):
        well = await client.call("unary", Message(text="well"))
        badly = [await client.call("unary_patient", Message()) for _ in range(3 * DRAIN_SLICE)]
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(30):
            await server.drain()
        assert server.draining
        assert not patient.cancelled
        gate.open.set()
        begin = trio.current_time()
        await server.drain(0)
        assert trio.current_time() - begin <= QUICK
        assert (await well.answer()).text == "well"
        for call in badly:
            assert (await call.status())[0] is Status.UNAVAILABLE


async def test_no_call_begins_after_the_grace(autojump_clock):
    """On a connection that was accepted in the last moment: it would have all the time of the world."""

    async def shielded(stream):
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(100, shield=True):
                await trio.sleep(60)

    patient = Turns()
    server = rpc.Server([TestService(unary=shielded, unary_patient=patient)])
    async with connected(server) as client, trio.open_nursery() as nursery:
        await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        nursery.start_soon(server.drain, 0)
        await trio.sleep(10)
        async with connected(server, read=False) as late:
            await late.call("unary_patient", Message())  # before it can know
            await late.read()
            assert trio.current_time() - begin <= 10 + QUICK
            assert late.goaways[-1][0] == 0  # no call of it was taken, so all of them are safe to repeat
        assert server.statistics().rpcs_started == 1
    assert trio.current_time() - begin <= 60 + QUICK


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
