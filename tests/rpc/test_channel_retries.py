"""Retries of a channel: policy, pushback, throttling, what commits a call, and what is repeated transparently."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.pb.google.rpc import ErrorInfo, RetryInfo
from dk_trio.wire import ErrorCode

from .channel_kit import ONCE, STEADY, Network, call, channel_to, request, unary
from .wire_client import TestService

pytestmark = pytest.mark.usefixtures("both_ways")


def flaky(failures: int, status: Status = Status.UNAVAILABLE, details=None, **trailing: str):
    """A handler that fails a number of times; notes when it was called and as which attempt."""
    log: list[tuple[float, str | None]] = []

    async def handler(stream):
        log.append((trio.current_time(), stream.metadata.get("grpc-previous-rpc-attempts")))
        message = await stream.recv_message()
        if len(log) <= failures:
            metadata = {name.replace("_", "-"): value for name, value in trailing.items()}
            await stream.send_trailing_metadata(
                status=status, status_message="not now", status_details=details, metadata=metadata
            )
            return
        await stream.send_message(message)

    return handler, log


def serve(handler) -> rpc.Server:
    return rpc.Server([TestService(unary=handler)])


async def test_attempts_follow_the_backoff_and_say_their_number(autojump_clock):
    handler, log = flaky(3)
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        assert (await call(channel, Message(text="again"))).text == "again"
        assert [when for when, _ in log] == pytest.approx([0, 0.1, 0.3, 0.7])
        assert [previous for _, previous in log] == [None, "1", "2", "3"]
        statistics = channel.statistics()
        assert (statistics.started, statistics.succeeded, statistics.failed, statistics.retries) == (1, 1, 0, 3)


async def test_five_attempts_at_most(autojump_clock):
    handler, log = flaky(100, Status.RESOURCE_EXHAUSTED)
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        with pytest.raises(GRPCError, match="not now") as caught:
            await call(channel)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert len(log) == 5


async def test_other_statuses_and_no_policy_are_not_retried(autojump_clock):
    for status, policy in ((Status.INTERNAL, STEADY), (Status.UNAVAILABLE, None), (Status.UNAVAILABLE, ONCE)):
        handler, log = flaky(1, status)
        async with channel_to(serve(handler), retry=policy) as (channel, _):
            with pytest.raises(GRPCError):
                await call(channel)
            assert len(log) == 1


async def test_jitter_comes_from_the_given_seed(autojump_clock):
    times = []
    for seed in (1, 1, 2):
        handler, log = flaky(3)
        async with channel_to(serve(handler), retry=rpc.RetryPolicy(), seed=seed) as (channel, _):
            started = trio.current_time()
            await call(channel)
        times.append([round(when - started, 6) for when, _ in log])
    assert times[0] == times[1] != times[2]


async def test_pushback_sets_the_delay(autojump_clock):
    handler, log = flaky(2, grpc_retry_pushback_ms="7000")
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        await call(channel)
        assert [when for when, _ in log] == [0, 7, 14]


@pytest.mark.parametrize(
    ("asked", "pushback", "times"),
    [
        (7.0, {}, [0, 7, 14]),
        (0.05, {}, [0, 0.1, 0.3]),
        (-7.0, {}, [0, 0.1, 0.3]),
        (7.0, {"grpc_retry_pushback_ms": "2000"}, [0, 2, 4]),
    ],
)
async def test_an_attempt_waits_for_as_long_as_a_retry_info_asks(autojump_clock, asked, pushback, times):
    info = RetryInfo(retry_delay=timedelta(seconds=asked))
    handler, log = flaky(2, details=[ErrorInfo(reason="FULL"), info], **pushback)
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        await call(channel)
        assert [when for when, _ in log] == pytest.approx(times)


async def test_a_retry_info_beyond_the_deadline_ends_the_call(autojump_clock):
    handler, log = flaky(1, Status.RESOURCE_EXHAUSTED, details=[RetryInfo(retry_delay=timedelta(seconds=60))])
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        with pytest.raises(GRPCError, match="not now"):
            await call(channel, timeout=30)
        assert (trio.current_time(), len(log)) == (0, 1)


async def test_pushback_forbids(autojump_clock):
    handler, log = flaky(1, grpc_retry_pushback_ms="-1")
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        with pytest.raises(GRPCError, match="not now"):
            await call(channel)
        assert len(log) == 1


async def test_no_attempt_is_begun_past_the_deadline(autojump_clock):
    handler, log = flaky(100)
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        with pytest.raises(GRPCError, match="not now"):
            await call(channel, timeout=0.5)
        assert [when for when, _ in log] == pytest.approx([0, 0.1, 0.3])
        with trio.move_on_after(0.2) as scope, pytest.raises(GRPCError, match="not now"):
            await call(channel)
        assert not scope.cancelled_caught


async def test_throttling_stops_retries_of_all_calls(autojump_clock):
    handler, log = flaky(100)
    policy = rpc.RetryPolicy(jitter=0, throttling=rpc.RetryThrottling(max_tokens=4, token_ratio=1))
    async with channel_to(serve(handler), retry=policy) as (channel, _):
        for expected in (2, 3, 4):
            with pytest.raises(GRPCError):
                await call(channel)
            assert len(log) == expected


async def test_response_headers_commit(autojump_clock):
    async def handler(stream):
        calls.append(1)
        await stream.send_initial_metadata()
        raise GRPCError(Status.UNAVAILABLE, "too late")

    calls: list[int] = []
    async with channel_to(serve(handler), retry=STEADY) as (channel, _):
        with pytest.raises(GRPCError, match="too late"):
            await call(channel)
        assert len(calls) == 1


async def test_a_large_request_commits(autojump_clock):
    for size, attempts in ((1000, 2), (1001, 1)):
        handler, log = flaky(1)
        policy = rpc.RetryPolicy(jitter=0, buffer_bytes=1004)
        async with channel_to(serve(handler), retry=policy) as (channel, _):
            try:
                await call(channel, Message(data=bytes(size)))
            except GRPCError:
                assert attempts == 1
            assert len(log) == attempts


async def test_a_request_stream_is_sent_again_whole(autojump_clock):
    seen: list[list[int]] = []

    async def handler(stream):
        seen.append([])
        async for message in stream:
            seen[-1].append(message.n)
            if len(seen) == 1 and message.n == 2:
                raise GRPCError(Status.UNAVAILABLE)
        await stream.send_message(Message(n=len(seen[-1])))

    async with channel_to(rpc.Server([TestService(client_stream=handler)]), retry=STEADY) as (channel, _):

        async def slowly():
            for n in range(5):
                yield Message(n=n)
                await trio.sleep(0.03)

        async with request(channel, "client_stream", Cardinality.STREAM_UNARY) as stream:
            await stream.send_request()
            stream.feed(slowly())
            assert (await stream.recv_message()).n == 5
        assert seen == [[0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("wait", ["recv_initial_metadata", "recv_trailing_metadata"])
async def test_whatever_is_waited_for_comes_with_the_attempt_that_has_it(autojump_clock, wait):
    async def handler(stream):
        tries.append(await stream.recv_message())
        if len(tries) == 1:
            raise GRPCError(Status.UNAVAILABLE)
        await stream.send_message(Message())

    tries = []
    async with channel_to(rpc.Server([TestService(unary=handler)]), retry=STEADY) as (channel, _):
        async with request(channel, "unary", Cardinality.UNARY_UNARY) as stream:
            await stream.send_message(Message(), end=True)
            await getattr(stream, wait)()
        assert len(tries) == 2


async def test_an_attempt_that_is_lost_while_all_is_sent_again_is_followed_by_another(autojump_clock):
    data = bytes(100_000)  # more than its stream may take at once
    async with channel_to(retry=STEADY, wire={"stream_window": 65_535}) as (channel, network):

        async def serve() -> None:
            first = await (await network.accept()).next_call()
            assert (await first.receive()).data == data
            await first.server.lose()
            second = await (await network.accept()).next_call()
            await second.server.lose()
            third = await (await network.accept()).next_call()
            assert (await third.receive()).data == data
            await third.answer(Message(n=3))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with request(channel, "unary", Cardinality.UNARY_UNARY) as stream:
                await stream.send_message(Message(data=data), end=True)
                assert (await stream.recv_message()).n == 3


async def test_a_sender_alone_finds_the_failure_and_goes_on(autojump_clock):
    """Nobody reads yet: the next send begins the second attempt."""
    async with (
        channel_to(retry=STEADY) as (channel, network),
        request(channel, "x", Cardinality.STREAM_UNARY) as stream,
    ):
        await stream.send_message(Message(n=1))
        server = await network.accept()
        await (await server.next_call()).finish(Status.UNAVAILABLE)
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_message(Message(n=2))
        await stream.end()
        second = await server.next_call()
        assert [(await second.receive()).n for _ in range(2)] == [1, 2]
        assert await second.receive() is None
        await second.answer(Message(n=3))
        assert (await stream.recv_message()).n == 3


async def test_refused_stream_is_repeated_once_at_once_and_uncounted(autojump_clock):
    async with channel_to(retry=None) as (channel, network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            server = await network.accept()
            await (await server.next_call()).reset_by_server(ErrorCode.REFUSED_STREAM)
            again = await server.next_call()
            assert "grpc-previous-rpc-attempts" not in again.fields
            await again.answer()
        assert trio.current_time() == 0
        assert channel.statistics().retries == 1

        async def refused() -> None:
            with pytest.raises(GRPCError, match="REFUSED_STREAM") as caught:
                await call(channel)
            assert caught.value.status is Status.UNAVAILABLE

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            for _ in range(2):
                await (await server.next_call()).reset_by_server(ErrorCode.REFUSED_STREAM)


async def test_a_call_above_goaways_last_id_moves_on(autojump_clock):
    async with channel_to(retry=None) as (channel, network), trio.open_nursery() as nursery:
        nursery.start_soon(call, channel, Message(n=1))
        server = await network.accept()
        first = await server.next_call()
        nursery.start_soon(call, channel, Message(n=2))
        await server.next_call()
        await server.goaway(last=first.id)
        second = await (await network.accept()).next_call()
        assert (await second.receive()).n == 2
        await second.answer()
        await first.answer()


async def test_a_call_that_never_left_is_repeated_for_free(autojump_clock):
    """The connection breaks in the same pass in which the call begins: nothing of it was written."""
    async with channel_to(retry=None) as (channel, network):
        await channel.ready()
        server = await network.accept()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await (await (await network.accept()).next_call()).answer()

            nursery.start_soon(answer)
            async with unary(channel) as stream:
                await stream.send_message(Message(n=1))
                next(iter(channel._subchannels[0].links)).abort("gone")  # before the writer has run
                await stream.recv_message()
        assert server.calls.statistics().current_buffer_used == 0
        assert channel.statistics().retries == 1


async def test_a_lost_connection_is_retried_by_policy(autojump_clock):
    async with channel_to(retry=STEADY) as (channel, network), trio.open_nursery() as nursery:
        nursery.start_soon(call, channel)
        server = await network.accept()
        await server.next_call()
        await server.lose()
        again = await (await network.accept()).next_call()
        assert again.fields["grpc-previous-rpc-attempts"] == "1"
        assert trio.current_time() == pytest.approx(0.1)
        await again.answer()


async def test_failed_connects_are_retried_by_policy(autojump_clock):
    reconnect = rpc.BackoffPolicy(initial=0.5, jitter=0)
    async with channel_to(retry=STEADY, reconnect=reconnect) as (channel, network):
        network.plan = [OSError("down")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            await (await (await network.accept()).next_call()).answer()
        assert trio.current_time() == pytest.approx(0.7)  # attempts at 0, 0.1, 0.3; connected at 0.5


async def test_cancelled_while_waiting_for_the_next_attempt(autojump_clock):
    handler, log = flaky(100)
    policy = rpc.RetryPolicy(initial_backoff=10, jitter=0)
    async with channel_to(serve(handler), retry=policy) as (channel, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, channel)
                await trio.sleep(5)
                scope.cancel()
        assert len(log) == 1
        with pytest.raises(GRPCError, match="not now"):
            await call(channel, timeout=9)
        assert trio.current_time() == 5


async def test_a_network_that_comes_and_goes(autojump_clock):
    """Calls over a network whose connections die every 0.2 s: each succeeds, or fails with UNAVAILABLE."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        outcomes = {"OK": 0, "UNAVAILABLE": 0}

        async def serve_and_die() -> None:
            while True:
                server = await network.accept()
                nursery.start_soon(answer_all, server)
                await trio.sleep(0.2)
                await server.lose()

        async def answer_all(server) -> None:
            while True:
                answer = await server.next_call()
                await trio.sleep(0.01)
                await answer.answer()

        async def caller() -> None:
            for _ in range(50):
                try:
                    await call(channel)
                except GRPCError as error:
                    outcomes[error.status.name] += 1
                else:
                    outcomes["OK"] += 1

        nursery.start_soon(serve_and_die)
        with trio.fail_after(86_400):
            async with rpc.open_channel("test", connect=network.connect) as channel:
                async with trio.open_nursery() as callers:
                    for _ in range(10):
                        callers.start_soon(caller)
                assert channel.statistics().calls == 0
        assert sum(outcomes.values()) == 500
        assert outcomes["OK"] > 490
        nursery.cancel_scope.cancel()
