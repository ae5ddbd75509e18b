"""A channel under everything at once, from a seed: lost connections, GOAWAY, resets, slow answers, callers that leave.

What must hold whatever happens: each call ends once, with its own reply or an error; a reply never belongs to another
call; nothing is left behind.
"""

from __future__ import annotations

from random import Random

import pytest
import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.wire import ErrorCode

from .channel_kit import HandCall, HandServer, Network, call, channel_to, request

FINE = {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.RESOURCE_EXHAUSTED, Status.CANCELLED, Status.INTERNAL}

RESETS = [ErrorCode.REFUSED_STREAM, ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR]


async def answer(hand: HandCall, random: Random) -> None:
    """Answer a call in one of many ways, or never."""
    message = await hand.receive()
    await trio.sleep(random.expovariate(20))
    if message is None or hand.gone is not None:
        return
    fate = random.random()
    if fate < 0.7:
        for _ in range(message.size):
            await hand.reply(message)
            if hand.gone is not None:
                return
        await hand.finish()
    elif fate < 0.8:
        await hand.finish(Status.UNAVAILABLE, "busy")
    elif fate < 0.9:
        await hand.reset_by_server(
            random.choice([ErrorCode.REFUSED_STREAM, ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR])
        )


async def serve(server: HandServer, nursery: trio.Nursery, random: Random) -> None:
    async def answer_all() -> None:
        while True:
            nursery.start_soon(answer, await server.next_call(), random)

    nursery.start_soon(answer_all)
    await trio.sleep(random.expovariate(2))
    if random.random() < 0.5:
        await server.goaway(last=2**31 - 1)
        await trio.sleep(0.01)
        await server.goaway()
        await trio.sleep(random.expovariate(2))
    await server.lose()


@pytest.mark.parametrize("seed", range(12))
async def test_storm(autojump_clock, seed):
    random = Random(seed)
    options = {
        "wire": {"max_streams": random.choice([1, 5, 100]), "stream_window": random.choice([1_000, 65_535, 1 << 20])},
        "connections": random.choice([1, 1, 3]),
        "retry": rpc.RetryPolicy(),
        "wait_for_ready": random.random() < 0.5,
        "stream_window": 65_535,
        "reconnect": rpc.BackoffPolicy(initial=0.2, minimum=0.1, maximum=1.0),
    }
    outcomes = {"ok": 0, "error": 0, "left": 0}

    async def caller(channel: rpc.Channel, n: int) -> None:
        for k in range(10):
            size = random.choice([0, 10, 100_000])
            message = Message(n=n * 100 + k, data=bytes(size), size=1)
            timeout = random.choice([None, 0.05, 5.0])
            with trio.move_on_after(random.choice([0.02, 3.0, 30.0])):
                try:
                    if random.random() < 0.5:
                        assert (await call(channel, message, timeout=timeout)).n == message.n
                    else:
                        message.size = 5
                        shape = Cardinality.STREAM_STREAM
                        async with request(channel, "x", shape, timeout=timeout) as stream:
                            await stream.send_request()
                            stream.feed([message] * 2)
                            assert [reply.n async for reply in stream] == [message.n] * 5
                except GRPCError as error:
                    outcomes["error" if error.status in FINE else "wrong"] += 1
                else:
                    outcomes["ok"] += 1
                continue
            outcomes["left"] += 1

    async def server_side(network: Network, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(serve, await network.accept(), nursery, random)

    async with trio.open_nursery() as nursery:
        async with channel_to(seed=seed, **options) as (channel, network):
            network.plan = [random.choice(["hand", OSError("down"), "hand"]) for _ in range(20)]
            nursery.start_soon(server_side, network, nursery)
            async with trio.open_nursery() as callers:
                for n in range(30):
                    callers.start_soon(caller, channel, n)
            statistics = channel.statistics()
            assert (statistics.calls, statistics.waiting) == (0, 0)
            assert statistics.succeeded + statistics.failed == statistics.started
            for subchannel in channel._subchannels:
                for link in subchannel.links:
                    assert not link.reserved
                    assert not link.wire.streams
        nursery.cancel_scope.cancel()
    assert sum(outcomes.values()) == 300
    assert outcomes["ok"] > 50
