"""No nested call outlives the caller's deadline: scopes and timeouts become the deadlines of servers behind servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import EchoBase, EchoStub, Message

from dk_trio import rpc

from .channel_kit import STEADY, call, channel_and_server, channel_to, request
from .wire_client import DAY, TestService

pytestmark = pytest.mark.usefixtures("both_ways")

BIDI = Cardinality.STREAM_STREAM
LEVELS = 3
ROUNDING = 1.01
"""The share by which a timeout may grow on the wire (`wire.metadata.encode_timeout`)."""


class Relay:
    """A server whose handler calls the next one, or, as the last one, waits until it is cancelled."""

    def __init__(self, delay: float, then: rpc.Channel | None) -> None:
        self.delay = delay
        self.then = then
        self.deadline: float | None = None
        self.effective: float | None = None
        self.ended: float | None = None

    async def __call__(self, stream):
        self.deadline = stream.deadline.when
        try:
            await stream.recv_message()
            await trio.sleep(self.delay)
            self.effective = trio.current_effective_deadline()
            if self.then is None:
                await trio.sleep_forever()
            await call(self.then)
        finally:
            self.ended = trio.current_time()


@asynccontextmanager
async def relays(delay: float) -> AsyncIterator[tuple[rpc.Channel, list[Relay]]]:
    """Three servers behind each other, and a channel to the first."""
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            channel, chain = None, []
            channels = []
            for _ in range(LEVELS):
                relay = Relay(delay, channel)
                chain.insert(0, relay)
                server = rpc.Server([TestService(unary=relay)])

                async def connect(server=server) -> trio.abc.Stream:
                    ours, theirs = trio.testing.memory_stream_pair()
                    nursery.start_soon(server.serve_stream, theirs)
                    return ours

                channel = rpc.open_channel("relay", connect=connect)
                channels.append(await channel.__aenter__())
            yield channel, chain
            for each in reversed(channels):
                await each.__aexit__(None, None, None)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("by", ["scope", "timeout", "both, the scope first", "both, the timeout first"])
@pytest.mark.parametrize("delay", [0, 0.0371])
async def test_a_deadline_reaches_the_last_of_three_servers(autojump_clock, by, delay):
    scope_seconds = {"scope": 30, "timeout": 10_000, "both, the scope first": 30, "both, the timeout first": 60}[by]
    arguments = {"scope": {}, "timeout": {"timeout": 30}}.get(by, {"timeout": 60 if "scope first" in by else 30})
    async with relays(delay) as (channel, chain):
        begin = trio.current_time()
        error = None
        with trio.move_on_after(scope_seconds) as scope:
            try:
                await call(channel, **arguments)
            except GRPCError as caught:
                error = caught
        assert trio.current_time() - begin == 30
        if scope_seconds == 30:
            assert scope.cancelled_caught
            assert error is None
        else:
            assert error is not None
            assert error.status is Status.DEADLINE_EXCEEDED
        await trio.testing.wait_all_tasks_blocked()
        # The caller's end reaches them all at once, whatever their own clocks and roundings say.
        assert [relay.ended - begin for relay in chain] == [30] * LEVELS
        allowed = 30 if delay == 0 else 30 * ROUNDING
        for relay in chain:
            assert 30 <= relay.deadline - begin <= allowed
            assert relay.effective == relay.deadline


async def test_a_handler_may_give_less_but_not_more(autojump_clock):
    """What a handler allows its own calls counts within what it has itself."""
    seen = []

    async def last(stream):
        seen.append(stream.deadline.when - trio.current_time())
        await stream.send_message(Message())

    async with channel_and_server(unary=last) as (inner, _):

        async def first(stream):
            for timeout in (None, 5, 500):
                await call(inner, timeout=timeout)
            with trio.move_on_after(3):
                await call(inner)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 200):  # as cleanup does
                await call(inner)
            await stream.send_message(Message())

        async with channel_and_server(unary=first) as (outer, _):
            await call(outer, timeout=60)
    assert seen == [60, 5, 60, 3, 200]


@pytest.mark.parametrize("attempt", range(5))
async def test_the_callers_own_scope_wins_over_the_servers_status(autojump_clock, attempt):
    """Both see the deadline at the same moment; in the caller's task it is Cancelled, however the call was made."""

    async def patient(stream):
        await stream.recv_message()
        await trio.sleep_forever()

    async def endless():
        while True:
            yield Message()
            await trio.sleep(1)

    async def unary(stub):
        await stub.unary(Message())

    async def server_stream(stub):
        async for _ in stub.server_stream(Message()):
            pass

    async def client_stream(stub):
        await stub.client_stream(endless())

    async def bidi(stub):
        async for _ in stub.bidi(endless()):
            pass

    class Patient:
        def __mapping__(self):
            return {
                path: Handler(patient, handler.cardinality, Message, Message)
                for path, handler in EchoBase().__mapping__().items()
            }

    async with channel_to(rpc.Server([Patient()])) as (channel, _):
        for way in (unary, server_stream, client_stream, bidi):
            begin = trio.current_time()
            with trio.move_on_after(7 + attempt) as scope:
                await way(EchoStub(channel))
            assert scope.cancelled_caught
            assert trio.current_time() - begin == 7 + attempt


async def test_waiting_for_a_connection_takes_from_the_time(autojump_clock):
    async with channel_to() as (channel, network):
        network.plan = [OSError("down")] * 2
        with trio.move_on_after(100) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: call(channel, wait_for_ready=True))
                answer = await (await network.accept()).next_call()
                waited = trio.current_time()
                assert waited > 1
                seconds = float(answer.fields["grpc-timeout"].removesuffix("m")) / 1000
                assert 100 - waited <= seconds <= (100 - waited) * ROUNDING
        assert scope.cancelled_caught
        assert trio.current_time() == 100


@pytest.mark.parametrize("who", ["the reader", "the task that feeds"])
async def test_every_attempt_is_told_what_is_left(autojump_clock, who):
    """Also one that begins in a task of the channel, where no scope of the caller is."""

    async def messages():
        while True:
            yield Message()
            await trio.sleep(1)

    async with channel_to(retry=STEADY) as (channel, network):
        with trio.move_on_after(60) as scope:
            async with trio.open_nursery() as nursery:

                async def caller() -> None:
                    async with request(channel, "x", BIDI) as stream:
                        await stream.send_request()
                        if who == "the reader":
                            await stream.recv_message()
                        stream.feed(messages())
                        await trio.sleep_forever()

                nursery.start_soon(caller)
                server = await network.accept()
                answer = await server.next_call()
                assert answer.fields["grpc-timeout"] == "60S"
                await trio.sleep(19)
                await answer.finish(Status.UNAVAILABLE, "not now", (b"grpc-retry-pushback-ms", b"1000"))
                answer = await server.next_call()
                assert answer.fields["grpc-timeout"] == f"{60 - trio.current_time():.0f}S"
                assert trio.current_time() in {20, 21}
                assert await answer.until_gone() == 8
        assert scope.cancelled_caught


async def test_no_attempt_begins_after_the_callers_deadline(autojump_clock):
    """A call that has left its scope keeps the limit, so it is not tried again when the server finds it too late."""
    async with channel_to(retry=STEADY) as (channel, network):
        async with request(channel, "x", BIDI) as stream:
            with trio.move_on_after(10):
                await stream.send_message(Message())
            server = await network.accept()
            answer = await server.next_call()
            await trio.sleep(10)
            await answer.finish(Status.DEADLINE_EXCEEDED, "too late")
            with pytest.raises(GRPCError) as caught:
                await stream.recv_message()
        assert (caught.value.status, caught.value.message) == (Status.DEADLINE_EXCEEDED, "too late")
        assert channel.statistics().retries == 0


async def test_a_stream_that_leaves_its_scope_lives_on_until_the_deadline_that_was_told(autojump_clock):
    async def ticks(stream):
        while True:
            await stream.send_message(Message())
            await trio.sleep(1)

    async with channel_and_server(bidi=ticks) as (channel, _):
        async with request(channel, "bidi", BIDI) as stream:
            with trio.move_on_after(10):
                await stream.send_request()
                await stream.recv_message()
            read = 1
            with pytest.raises(GRPCError) as caught:
                while await stream.recv_message() is not None:
                    read += 1
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 10
        assert read == 10
