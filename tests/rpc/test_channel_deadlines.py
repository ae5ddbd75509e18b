"""Deadlines and cancellation of calls: what the server is told, what the caller gets, that nothing stays behind."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline as GrpclibDeadline
from tests._pb.dk_trio.test.v1 import EchoStub, Message

from dk_trio import rpc
from dk_trio.wire import ErrorCode

from .channel_kit import STEADY, call, channel_and_server, channel_to, request, unary
from .wire_client import echo

pytestmark = pytest.mark.usefixtures("both_ways")

BIDI = Cardinality.STREAM_STREAM


async def sleepy(stream):
    try:
        await stream.recv_message()
        await trio.sleep_forever()
    finally:
        endings.append((trio.current_time(), stream.deadline.when if stream.deadline else inf))


endings: list[tuple[float, float]] = []


@pytest.fixture(autouse=True)
def no_endings():
    endings.clear()


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": 60},
        {"timeout": 90, "deadline": "ours"},
        {"timeout": 60, "deadline": "later"},
        {"deadline": "grpclib"},
    ],
)
async def test_a_deadline_ends_both_sides(autojump_clock, arguments):
    kinds = {
        "ours": lambda: rpc.Deadline.from_timeout(60),
        "later": lambda: rpc.Deadline.from_timeout(90),
        "grpclib": lambda: GrpclibDeadline.from_timeout(60),
    }
    if "deadline" in arguments:
        arguments = {**arguments, "deadline": kinds[arguments["deadline"]]()}
    async with channel_and_server(unary=sleepy) as (channel, _):
        with pytest.raises(GRPCError) as caught:
            await call(channel, **arguments)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == pytest.approx(60, abs=0.5)  # grpclib's clock is the real one
        await trio.testing.wait_all_tasks_blocked()
        assert [when for when, _ in endings] == pytest.approx([60], abs=0.7)


async def test_a_callers_scope_is_told_to_the_server_and_cancels_the_caller(autojump_clock):
    async with channel_and_server(unary=sleepy) as (channel, _):
        with trio.move_on_after(7) as scope:
            await call(channel, timeout=60)
        assert scope.cancelled_caught
        assert trio.current_time() == 7
        await trio.testing.wait_all_tasks_blocked()
        assert endings == [(7, 7)]
        assert channel.statistics().failed == 1


async def test_the_smallest_of_three_is_sent(autojump_clock):
    async with channel_to() as (channel, network), trio.open_nursery() as nursery:
        for arguments in ({"timeout": 5}, {"timeout": 500}, {"timeout": 500, "deadline": rpc.Deadline.at(3)}):

            async def bounded(arguments=arguments) -> None:
                with trio.move_on_after(100), pytest.raises((GRPCError, trio.Cancelled)):
                    await call(channel, **arguments)

            nursery.start_soon(bounded)
        server = await network.accept()
        assert sorted([(await server.next_call()).fields["grpc-timeout"] for _ in range(3)]) == ["100S", "3S", "5S"]


async def test_no_timeout_is_sent_without_a_deadline(autojump_clock):
    seen = []

    async def handler(stream):
        seen.append(stream.deadline)
        await stream.send_message(await stream.recv_message())

    server = rpc.Server([_Service(handler)])
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve_stream, theirs)
            return ours

        async with rpc.open_channel("test", connect=connect) as channel:
            await call(channel)
        assert seen == [None]


class _Service:
    def __init__(self, handler) -> None:
        self._handler = handler

    def __mapping__(self):
        from grpclib.const import Handler

        return {"/test.Service/unary": Handler(self._handler, Cardinality.UNARY_UNARY, Message, Message)}


@pytest.mark.parametrize("timeout", [0, -1])
async def test_a_deadline_in_the_past_sends_nothing(autojump_clock, timeout):
    async with channel_to() as (channel, network):
        with pytest.raises(GRPCError) as caught:
            await call(channel, timeout=timeout)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        await channel.ready()
        with pytest.raises(GRPCError) as caught:
            await call(channel, timeout=timeout)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        server = await network.accept()
        await trio.testing.wait_all_tasks_blocked()
        assert server.calls.statistics().current_buffer_used == 0


async def test_the_deadline_strikes_while_the_caller_is_elsewhere(autojump_clock):
    async with channel_to() as (channel, network), request(channel, "x", BIDI, timeout=5) as stream:
        await stream.send_message(Message())
        answer = await (await network.accept()).next_call()
        await answer.reply(Message(n=1))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 100)
                assert await answer.until_gone() == ErrorCode.CANCEL
                assert trio.current_time() == 5
                scope.cancel()
        with pytest.raises(GRPCError) as caught:
            await stream.recv_message()
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        with pytest.raises(GRPCError) as caught:
            await stream.send_message(Message())
        assert caught.value.status is Status.DEADLINE_EXCEEDED


async def test_a_server_that_cancels_at_the_deadline_is_a_deadline(autojump_clock):
    async with channel_to() as (channel, network):

        async def late() -> None:
            answer = await (await network.accept()).next_call()
            await trio.sleep(5)
            await answer.reset_by_server(ErrorCode.CANCEL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            with pytest.raises(GRPCError) as caught:
                await call(channel, timeout=5)
            assert caught.value.status is Status.DEADLINE_EXCEEDED


async def connecting(channel, network):
    network.default = "hang"
    await call(channel)


async def backing_off(channel, network):
    network.default = OSError("down")
    await call(channel, wait_for_ready=True)


async def queueing(channel, network):
    network.wire = {"max_streams": 0}
    await call(channel)


async def sending(channel, network):
    async with request(channel, "x", BIDI) as stream:
        while True:
            await stream.send_message(Message(data=bytes(100_000)))


async def sending_slowly(channel, network):
    """Windows are wide but the transport is not read."""
    async with request(channel, "x", BIDI) as stream:
        await stream.send_request()
        (await network.accept()).deaf = True
        while True:
            await stream.send_message(Message(data=bytes(100_000)))


async def receiving(channel, network):
    await call(channel)


async def awaiting_headers(channel, network):
    async with unary(channel) as stream:
        await stream.send_message(Message())
        await stream.recv_initial_metadata()


async def awaiting_trailers(channel, network):
    async with unary(channel) as stream:
        await stream.send_message(Message())
        server = await network.accept()
        await (await server.next_call()).reply()
        await stream.recv_message()
        await stream.recv_trailing_metadata()


async def leaving(channel, network):
    async with unary(channel) as stream:
        await stream.send_message(Message())


async def retrying(channel, network):
    async with unary(channel) as stream:
        await stream.send_message(Message())
        server = await network.accept()
        await (await server.next_call()).finish(Status.UNAVAILABLE)
        await stream.recv_message()


async def stubbed(channel, network):
    await EchoStub(channel).unary(Message())


async def stub_streaming(channel, network):
    async for _ in EchoStub(channel).server_stream(Message()):
        pass


async def feeding(channel, network):
    async def messages():
        while True:
            yield Message(data=bytes(100_000))

    await EchoStub(channel).client_stream(messages())


POINTS = [
    connecting,
    backing_off,
    queueing,
    sending,
    sending_slowly,
    receiving,
    awaiting_headers,
    awaiting_trailers,
    leaving,
    retrying,
    stubbed,
    stub_streaming,
    feeding,
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
async def test_cancelled_at_each_point(autojump_clock, point):
    """Wherever a call waits, a cancelled caller leaves at once; the server is told; the channel stays whole."""
    policy = rpc.RetryPolicy(initial_backoff=4, jitter=0)
    async with channel_to(retry=policy) as (channel, network):
        with trio.move_on_after(5) as scope:
            await point(channel, network)
        assert scope.cancelled_caught
        assert trio.current_time() == 5
        statistics = channel.statistics()
        assert (statistics.calls, statistics.waiting) == (0, 0)
        await trio.testing.wait_all_tasks_blocked()
        for subchannel in channel._subchannels:
            for link in subchannel.links:
                assert not link.wire.streams
                assert not link.reserved


@pytest.mark.parametrize("point", POINTS[:-3], ids=lambda point: point.__name__)
async def test_deadline_at_each_point(autojump_clock, point):
    policy = rpc.RetryPolicy(initial_backoff=4, jitter=0)
    async with channel_to(retry=policy) as (channel, network):
        original = channel.request

        def with_timeout(*arguments, **options):
            return original(*arguments, **{**options, "timeout": 5})

        channel.request = with_timeout
        with pytest.raises(GRPCError) as caught:
            await point(channel, network)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 5
        assert channel.statistics().calls == 0


async def test_cancelled_in_every_pass(autojump_clock):
    """A call that is cancelled after k scheduler passes, for each k until it succeeds."""
    async with channel_and_server({"retry": STEADY}, unary=echo, bidi=echo) as (channel, server):
        for passes in range(40):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def strike(passes=passes, scope=scope) -> None:
                        for _ in range(passes):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(strike)
                    await call(channel)
                    async with request(channel, "bidi", BIDI) as stream:
                        await stream.send_message(Message(n=1))
                        await stream.recv_message()
                        await stream.end()
            assert channel.statistics().calls == 0
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().rpcs == 0
        assert not scope.cancelled_caught
        assert channel.statistics().connects <= 2


async def test_a_send_that_was_cut_off_is_finished_first(autojump_clock):
    async with channel_to() as (channel, network), request(channel, "x", BIDI) as stream:
        with trio.move_on_after(1):
            await stream.send_message(Message(data=bytes(1_000_000), n=1))
        answer = await (await network.accept()).next_call()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_message, Message(n=2))
            assert (await answer.receive()).n == 1
            assert (await answer.receive()).n == 2
        await stream.cancel()
