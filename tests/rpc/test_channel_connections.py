"""Connections of a channel: demand, backoff, loss, GOAWAY, keepalive, stream limits, several of them, closing."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.wire import ErrorCode

from .channel_kit import call, channel_to, left, request, unary
from .wire_client import TestService, echo

pytestmark = pytest.mark.usefixtures("both_ways")

IDLE, CONNECTING, READY, FAILING = rpc.ConnectivityState
REFUSED = ConnectionRefusedError(111, "Connection refused")
SCHEDULE = rpc.BackoffPolicy(jitter=0)


async def test_connects_with_the_first_call_and_once(autojump_clock):
    async with channel_to(rpc.Server([TestService(unary=echo)])) as (channel, network):
        await trio.sleep(1000)
        assert network.attempts == []
        assert channel.state is IDLE
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call, channel)
        assert len(network.attempts) == 1
        assert channel.state is READY


async def test_reconnect_schedule(autojump_clock):
    """1 s, then times 1.6 up to 10 s, each from the start of the attempt that failed."""
    async with channel_to(reconnect=SCHEDULE) as (channel, network):
        network.plan = [REFUSED] * 8
        await channel.ready()
        gaps = [later - earlier for earlier, later in zip(network.attempts, network.attempts[1:], strict=False)]
        assert gaps == pytest.approx([1, 1.6, 2.56, 4.096, 6.5536, 10, 10, 10])
        statistics = channel.statistics()
        assert (statistics.connects, statistics.connect_failures) == (1, 8)


async def test_backoff_begins_anew_after_success(autojump_clock):
    async with channel_to(reconnect=SCHEDULE) as (channel, network):
        network.plan = [REFUSED] * 4 + ["hand"] + [REFUSED]
        await channel.ready()
        server = await network.accept()
        await server.lose()
        await left(channel, READY)
        before = len(network.attempts)
        await channel.ready()
        assert network.attempts[before + 1] - network.attempts[before] == pytest.approx(1)


async def test_fail_fast_and_wait_for_ready(autojump_clock):
    async with channel_to(rpc.Server([TestService(unary=echo)]), reconnect=SCHEDULE) as (channel, network):
        network.plan = [REFUSED] * 3
        with pytest.raises(GRPCError, match="Connection refused") as caught:
            await call(channel)
        assert caught.value.status is Status.UNAVAILABLE
        assert trio.current_time() == 0
        assert channel.state is FAILING
        with pytest.raises(GRPCError, match="Connection refused"):
            await call(channel)  # at once: attempts go on, but not for this call
        assert trio.current_time() == 0
        await call(channel, wait_for_ready=True)
        assert trio.current_time() == pytest.approx(1 + 1.6 + 2.56)
        assert channel.statistics().last_error.startswith("cannot connect to test: ConnectionRefusedError")


async def test_wait_for_ready_as_the_default_ends_with_the_deadline(autojump_clock):
    async with channel_to(REFUSED, wait_for_ready=True) as (channel, _):
        with pytest.raises(GRPCError) as caught:
            await call(channel, timeout=30)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 30
        with pytest.raises(GRPCError) as caught:
            await call(channel, timeout=30, wait_for_ready=False)
        assert caught.value.status is Status.UNAVAILABLE


@pytest.mark.parametrize(("what", "text"), [("hang", "within 20 s"), ("mute", "sent no HTTP/2 SETTINGS")])
async def test_connect_timeout(autojump_clock, what, text):
    async with channel_to(what) as (channel, _):
        with pytest.raises(GRPCError, match=text) as caught:
            await call(channel)
        assert caught.value.status is Status.UNAVAILABLE
        assert trio.current_time() == 20


async def test_a_lost_connection_fails_its_calls_and_the_next_call_reconnects(autojump_clock):
    async with channel_to() as (channel, network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect, channel, Status.UNAVAILABLE, "closed the connection")
            server = await network.accept()
            await server.next_call()
            await server.lose()
        assert channel.state is IDLE
        assert len(network.attempts) == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            await (await (await network.accept()).next_call()).answer()


async def test_messages_that_arrived_before_the_loss_are_delivered(autojump_clock):
    async with channel_to() as (channel, network), request(channel, "x", Cardinality.UNARY_STREAM) as stream:
        await stream.send_message(Message())
        server = await network.accept()
        answer = await server.next_call()
        await answer.reply(Message(n=1))
        await answer.reply(Message(n=2))
        await server.lose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await stream.recv_message()).n == 1
        assert (await stream.recv_message()).n == 2
        with pytest.raises(GRPCError, match="closed the connection"):
            await stream.recv_message()


async def _expect(channel: rpc.Channel, status: Status, text: str, **arguments) -> None:
    with pytest.raises(GRPCError, match=text) as caught:
        await call(channel, **arguments)
    assert caught.value.status is status


async def test_goaway_moves_new_calls_while_old_ones_finish(autojump_clock):
    async with channel_to() as (channel, network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            old = await network.accept()
            slow = await old.next_call()
            await old.goaway(last=2**31 - 1)
            await old.goaway()
            await trio.testing.wait_all_tasks_blocked()
            assert channel.state is IDLE
            nursery.start_soon(call, channel)
            new = await network.accept()
            await (await new.next_call()).answer()
            assert channel.statistics().connections == 2
            await slow.answer()
        await old.closed.wait()  # the channel closes it, once drained
        assert old.goaways
        assert not new.closed.is_set()
        assert channel.statistics().connections == 1


async def test_goaway_on_an_idle_connection_closes_it(autojump_clock):
    async with channel_to() as (channel, network):
        await channel.ready()
        server = await network.accept()
        await server.goaway()
        await server.closed.wait()
        assert channel.state is IDLE


async def test_servers_drain_loses_no_call(autojump_clock):
    """A server that drains between many calls: each of them succeeds, here or on the next server."""
    servers = [rpc.Server([TestService(unary=_slow_echo)]) for _ in range(2)]
    done = []

    async def caller() -> None:
        done.extend([(await call(channel, Message(n=n))).n for n in range(20)])

    async with channel_to(servers[1]) as (channel, network):
        network.plan = [servers[0]]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(caller)
            await trio.sleep(0.55)
            await servers[0].drain(grace=60)
        assert sorted(done) == sorted(list(range(20)) * 20)
        assert len(network.attempts) == 2
        assert servers[0].statistics().connections == 0


async def _slow_echo(stream):
    message = await stream.recv_message()
    await trio.sleep(0.1)
    await stream.send_message(message)


async def test_keepalive_finds_a_dead_connection(autojump_clock):
    async with channel_to() as (channel, network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect, channel, Status.UNAVAILABLE, "did not answer a ping within 20 s")
            server = await network.accept()
            await server.next_call()
            server.deaf = True
        assert trio.current_time() == 60 + 20
        assert channel.state is IDLE


async def test_keepalive_without_calls_and_with_an_honest_server(autojump_clock):
    async with channel_to(rpc.Server([TestService(unary=echo)])) as (channel, _):
        await channel.ready()
        await trio.sleep(3600)
        assert channel.state is READY
        assert channel.statistics().connects == 1


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({"keepalive_time": 10.0}, 30 + 20),
        ({"keepalive_time": 10.0, "min_ping_interval": 0.0, "keepalive_timeout": 5.0}, 15),
        ({"keepalive_time": 100.0}, 120),
    ],
)
async def test_keepalive_interval(autojump_clock, options, after):
    async with channel_to(**options) as (channel, network):
        await channel.ready()
        (await network.accept()).deaf = True
        await left(channel, READY)
        assert trio.current_time() == pytest.approx(after)


@pytest.mark.parametrize("options", [{"keepalive_time": inf}, {"keepalive_without_calls": False}])
async def test_no_keepalive_when_it_is_not_wanted(autojump_clock, options):
    async with channel_to(**options) as (channel, network):
        await channel.ready()
        (await network.accept()).deaf = True
        await trio.sleep(10_000)
        assert channel.state is READY


async def test_too_many_pings_doubles_the_keepalive_time(autojump_clock):
    async with channel_to() as (channel, network):
        await channel.ready()
        await (await network.accept()).goaway(code=ErrorCode.ENHANCE_YOUR_CALM, debug=b"too_many_pings")
        await left(channel, READY)
        await channel.ready()
        started = trio.current_time()
        (await network.accept()).deaf = True
        await left(channel, READY)
        assert trio.current_time() - started == pytest.approx(2 * 60 + 20)


async def test_calls_queue_in_order_for_the_servers_stream_limit(autojump_clock):
    async with channel_to(wire={"max_streams": 2}) as (channel, network):
        finished = []

        async def caller(n: int) -> None:
            await call(channel, Message(n=n))
            finished.append(n)

        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(caller, n)
                await trio.testing.wait_all_tasks_blocked()
            assert channel.statistics().waiting == 6
            server = await network.accept()
            order = []
            for _ in range(8):
                answer = await server.next_call()
                order.append((await answer.receive()).n)
                await trio.testing.wait_all_tasks_blocked()
                assert len(server.wire.streams) <= 2
                await answer.answer()
        assert order == finished == list(range(8))
        assert len(network.attempts) == 1


async def test_a_call_that_leaves_the_queue_disturbs_nobody(autojump_clock):
    async with channel_to(wire={"max_streams": 1}) as (channel, network), trio.open_nursery() as nursery:
        nursery.start_soon(call, channel)
        server = await network.accept()
        first = await server.next_call()
        nursery.start_soon(_expect_timeout, channel, 5)
        await trio.testing.wait_all_tasks_blocked()
        leaver = trio.CancelScope()

        async def leave() -> None:
            with leaver:
                await call(channel)

        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, channel, Message(n=4))
        await trio.testing.wait_all_tasks_blocked()
        leaver.cancel()
        await trio.sleep(10)
        await first.answer()
        last = await server.next_call()
        assert (await last.receive()).n == 4
        await last.answer()


async def _expect_timeout(channel: rpc.Channel, timeout: float) -> None:
    await _expect(channel, Status.DEADLINE_EXCEEDED, "deadline", timeout=timeout)


async def test_cancelled_and_promised_at_the_same_moment(autojump_clock):
    """Room that was handed to a call which is cancelled in the same pass goes to the next in line."""
    async with channel_to(wire={"max_streams": 1}) as (channel, network), trio.open_nursery() as nursery:
        leaver = trio.CancelScope()

        async def leave() -> None:
            with leaver:
                await call(channel, Message(n=2))

        async def free_and_cancel() -> None:
            async with unary(channel) as stream:
                await stream.send_message(Message(n=1))
                nursery.start_soon(leave)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(call, channel, Message(n=3))
                await trio.testing.wait_all_tasks_blocked()
                await stream.cancel()
                leaver.cancel()

        nursery.start_soon(free_and_cancel)
        server = await network.accept()
        while True:
            answer = await server.next_call()
            if (await answer.receive()).n == 3:
                await answer.answer()
                break


async def test_calls_spread_over_several_connections(autojump_clock):
    async with channel_to(connections=3) as (channel, network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            servers = [await network.accept() for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(8):
                nursery.start_soon(call, channel)
                await trio.testing.wait_all_tasks_blocked()
            assert [len(server.wire.streams) for server in servers] == [3, 3, 3]
            for server in servers:
                for _ in range(3):
                    await (await server.next_call()).answer()
        assert channel.statistics().connections == 3


async def test_one_of_several_connections_lost(autojump_clock):
    async with channel_to(connections=2) as (channel, network):
        await channel.ready()
        first, second = [await network.accept() for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        await first.lose()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            await (await second.next_call()).answer()
        await network.accept()  # the place was filled again


async def test_closing_ends_calls_and_says_goaway(autojump_clock):
    errors = []

    async def caller(**arguments) -> None:
        try:
            await call(channel, **arguments)
        except GRPCError as error:
            errors.append((error.status, error.message))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            async with channel_to(wire={"max_streams": 1}) as (channel, network):
                nursery.start_soon(caller)
                server = await network.accept()
                open_call = await server.next_call()
                nursery.start_soon(caller)
                await trio.testing.wait_all_tasks_blocked()
            assert open_call.gone is not None
            assert server.goaways == [(0, 0, b"")]
            assert server.closed.is_set()
        assert errors == [(Status.CANCELLED, "the channel was closed")] * 2


async def test_closing_does_not_wait_for_a_server_that_reads_nothing(autojump_clock):
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.lockstep_stream_pair()

            async def greet() -> None:
                await theirs.receive_some()
                await theirs.send_all(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
                await trio.sleep_forever()

            nursery.start_soon(greet)
            return ours

        async with rpc.open_channel("test", connect=connect) as channel:
            await channel.ready()
            started = trio.current_time()
        assert trio.current_time() - started <= 4
        nursery.cancel_scope.cancel()


async def test_a_broken_server_is_named(autojump_clock):
    async with channel_to() as (channel, network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect, channel, Status.UNAVAILABLE, "the server broke HTTP/2: .*PING of 3 bytes")
            server = await network.accept()
            await server.next_call()
            await server.stream.send_all(b"\x00\x00\x03\x06\x00\x00\x00\x00\x00abc")
        await server.closed.wait()
        assert server.goaways[0][1] == ErrorCode.FRAME_SIZE_ERROR


async def test_a_server_that_is_no_http2_is_told_apart(autojump_clock):
    async def connect() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return ours

    with trio.fail_after(60):
        async with rpc.open_channel("test", connect=connect, options=rpc.ChannelOptions(retry=None)) as channel:
            await _expect(channel, Status.UNAVAILABLE, "the server broke HTTP/2")
