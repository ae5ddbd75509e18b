"""What one call may say about its retries, and what it tells about a failure: was it processed, and how often tried?"""

from __future__ import annotations

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.wire import ErrorCode

from .channel_kit import ONCE, STEADY, channel_to, left, unary
from .wire_client import TestService

pytestmark = pytest.mark.usefixtures("both_ways")


def failing(status: Status = Status.UNAVAILABLE) -> tuple[rpc.Server, list[float]]:
    times: list[float] = []

    async def handler(stream: rpc.ServerCall) -> None:
        times.append(trio.current_time())
        await stream.recv_message()
        await stream.send_trailing_metadata(status=status)

    return rpc.Server([TestService(unary=handler)]), times


async def failure_of(call: rpc.ClientCall) -> Status:
    from . import channel_kit

    with pytest.raises(GRPCError) as caught:
        if channel_kit.AT_ONCE:
            await call.unary(Message())
        else:
            async with call:
                await call.send_message(Message(), end=True)
                await call.recv_message()
    return caught.value.status


def answering(answer: bool) -> tuple[object, list[float]]:
    asked: list[float] = []

    async def may_repeat() -> bool:
        asked.append(trio.current_time())
        await trio.sleep(0.01)
        return answer

    return may_repeat, asked


async def test_a_call_has_its_own_policy(autojump_clock):
    server, times = failing()
    async with channel_to(server, retry=STEADY) as (channel, _):
        call = unary(channel, retry=rpc.RetryPolicy(max_attempts=2, initial_backoff=3, jitter=0))
        await failure_of(call)
        assert times == [0, 3]
        assert call.attempts == 2
        await failure_of(unary(channel, retry=ONCE))
        assert len(times) == 3
        await failure_of(unary(channel))
        assert len(times) == 8


async def test_a_call_has_its_own_statuses_and_buffer(autojump_clock):
    server, times = failing(Status.ABORTED)
    policy = rpc.RetryPolicy(max_attempts=3, statuses=frozenset({Status.ABORTED}), jitter=0)
    async with channel_to(server, retry=ONCE) as (channel, _):
        await failure_of(unary(channel, retry=policy))
        assert len(times) == 3
        await failure_of(unary(channel, retry=rpc.RetryPolicy(statuses=policy.statuses, buffer_bytes=0)))
        assert len(times) == 4


async def test_the_budget_is_the_channels(autojump_clock):
    server, times = failing()
    policy = rpc.RetryPolicy(jitter=0, throttling=rpc.RetryThrottling(max_tokens=4))
    async with channel_to(server, retry=policy) as (channel, _):
        await failure_of(unary(channel, retry=STEADY))
        assert len(times) == 2
        assert not channel.retry_budget.allows


@pytest.mark.parametrize("answer", [True, False])
async def test_a_repetition_may_depend_on_an_answer(autojump_clock, answer):
    server, times = failing()
    may_repeat, asked = answering(answer)
    async with channel_to(server, retry=STEADY) as (channel, _):
        call = unary(channel, may_repeat=may_repeat)
        assert await failure_of(call) is Status.UNAVAILABLE
        assert len(times) == call.attempts == (5 if answer else 1)
        # Before the delay, so that nobody waits for nothing, and after it, when it matters.
        assert len(asked) == (8 if answer else 1)
        assert not call.unprocessed


async def test_nothing_is_asked_without_need(autojump_clock):
    may_repeat, asked = answering(True)
    for status, policy in ((Status.NOT_FOUND, STEADY), (Status.UNAVAILABLE, ONCE)):
        server, _ = failing(status)
        async with channel_to(server, retry=policy) as (channel, _):
            await failure_of(unary(channel, may_repeat=may_repeat))
    async with channel_to(retry=STEADY) as (channel, network):
        network.default = OSError("down")
        assert await failure_of(unary(channel, may_repeat=may_repeat)) is Status.UNAVAILABLE
        assert len(network.attempts) > 1
    assert asked == []


async def test_the_deadline_passes_while_the_answer_is_awaited(autojump_clock):
    server, times = failing()

    async def may_repeat() -> bool:
        await trio.sleep_forever()
        return True

    async with channel_to(server, retry=STEADY) as (channel, _):
        assert await failure_of(unary(channel, may_repeat=may_repeat, timeout=2)) is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 2
        assert len(times) == 1


async def test_no_connection_means_unprocessed(autojump_clock):
    async with channel_to(retry=STEADY) as (channel, network):
        network.default = OSError("down")
        call = unary(channel)
        await failure_of(call)
        assert call.unprocessed
        assert call.attempts == 5
        waiting = unary(channel, wait_for_ready=True, timeout=1)
        assert await failure_of(waiting) is Status.DEADLINE_EXCEEDED
        assert waiting.unprocessed


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.INTERNAL])
async def test_an_answer_means_that_it_may_have_been_processed(autojump_clock, status):
    server, _ = failing(status)
    async with channel_to(server, retry=ONCE) as (channel, _):
        call = unary(channel)
        await failure_of(call)
        assert not call.unprocessed


async def test_a_refused_stream_means_unprocessed_and_a_cancelled_one_does_not(autojump_clock):
    for code, unprocessed in ((ErrorCode.REFUSED_STREAM, True), (ErrorCode.CANCEL, False)):
        async with channel_to(retry=None) as (channel, network), trio.open_nursery() as nursery:
            call = unary(channel)
            nursery.start_soon(failure_of, call)
            server = await network.accept()
            await (await server.next_call()).reset_by_server(code)
            if unprocessed:  # the free retry
                await (await server.next_call()).reset_by_server(code)
            await trio.testing.wait_all_tasks_blocked()
            assert call.unprocessed is unprocessed


async def test_a_lost_connection_or_a_deadline_leaves_it_open(autojump_clock):
    async with channel_to(retry=None) as (channel, network), trio.open_nursery() as nursery:
        call = unary(channel)
        nursery.start_soon(failure_of, call)
        server = await network.accept()
        await server.next_call()
        await server.lose()
        await left(channel, rpc.ConnectivityState.READY)
        await trio.testing.wait_all_tasks_blocked()
        assert not call.unprocessed
        late = unary(channel, timeout=1)
        assert await failure_of(late) is Status.DEADLINE_EXCEEDED
        assert not late.unprocessed


async def test_one_doubtful_attempt_makes_the_call_doubtful(autojump_clock):
    """The first attempt is lost with its connection, the others find no connection at all."""
    async with channel_to(retry=STEADY) as (channel, network), trio.open_nursery() as nursery:
        call = unary(channel)
        nursery.start_soon(failure_of, call)
        server = await network.accept()
        await server.next_call()
        network.default = OSError("down")
        await server.lose()
        await trio.sleep(10)
        assert call.attempts == 5
        assert not call.unprocessed


async def test_initial_metadata_is_there_after_the_call(autojump_clock):
    async def handler(stream: rpc.ServerCall) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata(metadata={"told": "this"})
        await stream.send_message(Message())

    async with channel_to(rpc.Server([TestService(unary=handler)])) as (channel, _):
        call = unary(channel)
        await call.unary(Message())
        assert call.initial_metadata["told"] == "this"
    server, _ = failing()
    async with channel_to(server) as (channel, _):
        call = unary(channel)
        await failure_of(call)
        assert not call.initial_metadata


async def test_the_peer_tells_connections_apart(autojump_clock):
    async with channel_to(rpc.Server([TestService()])) as (channel, _):
        assert channel.peer is None
        assert channel.target == "test"
        await channel.ready()
        first = channel.peer
        assert first is not None
        next(iter(channel._subchannels[0].links)).abort("gone")
        assert channel.peer is None
        await channel.ready()
        assert channel.peer is not first
