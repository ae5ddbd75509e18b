"""Our channel and our server together over memory, where neither can be judged without the other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import EchoBase, EchoStub, Message

from dk_trio import rpc
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthStub
from dk_trio.pb.grpc.health.v1 import HealthCheckResponseServingStatus as Serving

from .wire_client import DAY


class Echo(EchoBase):
    """Answers after `delay`; remembers what it was cancelled by."""

    def __init__(self) -> None:
        self.cancelled: list[float] = []

    async def unary(self, message):
        try:
            await trio.sleep(message.delay)
        except trio.Cancelled:
            self.cancelled.append(trio.current_time())
            raise
        return message

    async def server_stream(self, message):
        for n in range(message.n):
            yield Message(n=n)
            await trio.sleep(message.delay)

    async def bidi(self, messages):
        async for message in messages:
            yield message


@asynccontextmanager
async def channel_to(server: rpc.Server, **options) -> AsyncIterator[rpc.Channel]:
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect, options=rpc.ChannelOptions(**options)) as channel:
                yield channel
            nursery.cancel_scope.cancel()


async def test_a_minute_passes_in_milliseconds_at_both_ends(autojump_clock):
    echo = Echo()
    started = time.perf_counter()
    async with channel_to(rpc.Server([echo]), retry=None) as channel:
        begin = trio.current_time()
        with pytest.raises(GRPCError) as caught:
            await EchoStub(channel).unary(Message(delay=3600), timeout=60)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - begin == pytest.approx(60, abs=0.1)
        await trio.sleep(1)
        assert echo.cancelled == [pytest.approx(begin + 60, abs=0.7)]  # grpc-timeout is rounded up
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("timeout", [0.001, 5, 60])
async def test_deadline_of_a_server_that_says_nothing(autojump_clock, timeout):
    """The client's own clock ends the call, whatever the server makes of grpc-timeout."""

    async def deaf(stream):
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + 1000
            await trio.sleep_forever()

    class Deaf(Echo):
        def __mapping__(self):
            return {path: handler._replace(func=deaf) for path, handler in super().__mapping__().items()}

    async with channel_to(rpc.Server([Deaf()]), retry=None) as channel:
        begin = trio.current_time()
        with pytest.raises(GRPCError) as caught:
            await EchoStub(channel).unary(Message(), timeout=timeout)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - begin == pytest.approx(timeout)


async def test_a_cancelled_caller_cancels_the_handler(autojump_clock):
    echo = Echo()
    async with channel_to(rpc.Server([echo])) as channel:
        begin = trio.current_time()
        with trio.move_on_after(3):
            await EchoStub(channel).unary(Message(delay=100))
        await trio.testing.wait_all_tasks_blocked()
        assert echo.cancelled == [pytest.approx(begin + 3)]


async def test_back_pressure_reaches_through_both(autojump_clock):
    """A caller that takes one reply a second gets them all, and the server is never far ahead."""
    async with channel_to(rpc.Server([Echo()])) as channel:
        got = []
        async for reply in EchoStub(channel).server_stream(Message(n=500)):
            got.append(reply.n)
            if len(got) % 100 == 0:
                await trio.sleep(1)
        assert got == list(range(500))


async def test_watch_of_a_draining_server(autojump_clock):
    """Clients with health checks learn the state, then the end, and the drain does not wait for them."""
    health = rpc.Health()
    server = rpc.Server([health])
    told = []
    async with channel_to(server, retry=None) as channel, trio.open_nursery() as nursery:

        async def follow():
            with pytest.raises(GRPCError) as caught:
                async for answer in HealthStub(channel).watch(HealthCheckRequest()):
                    told.append(answer.status)  # noqa: PERF401  (what came before the error counts)
            told.append(caught.value.status)

        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await server.drain()
        assert trio.current_time() - begin < 4
    assert told == [Serving.SERVING, Serving.NOT_SERVING, Status.UNAVAILABLE]
