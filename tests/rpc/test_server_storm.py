"""Random calls, all at once, on a few connections: whatever happens to one, the others get exactly their own answers.

Handler tasks, their contexts and their cancel scopes are reused between calls, so this is where a leak from call to
call would show.
"""

from __future__ import annotations

import random
from contextvars import ContextVar

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .wire_client import Reset, TestService, WireClient, connected

CALLS = 60
CONNECTIONS = 3

current: ContextVar[str | None] = ContextVar("current", default=None)


async def storm_handler(stream):
    """Does what the request says, in the place of many handlers; looks for traces of others all the time."""
    assert current.get() is None, "another call's context"
    asked = await stream.recv_message()
    current.set(asked.text)
    effective = trio.current_effective_deadline() - trio.current_time()
    assert effective > 1000 or stream.deadline is not None, "another call's deadline"
    try:
        for n in range(asked.n):
            await trio.sleep(asked.delay)
            await stream.send_message(Message(text=asked.text, n=n, data=bytes(asked.size)))
    finally:
        assert current.get() == asked.text
        if asked.status == 99:
            with trio.move_on_after(1, shield=True):
                await trio.sleep(0.5)
    if asked.status:
        raise GRPCError(Status(asked.status % 17), asked.text)


async def one_call(client: WireClient, name: str, dice: random.Random, outcomes: list[str]) -> None:
    await trio.sleep(dice.random() * 2)
    ask = Message(
        text=name,
        n=dice.randrange(5),
        delay=dice.choice([0, 0, 0.1, 1]),
        size=dice.choice([0, 10, 20_000, 100_000]),
        status=dice.choice([0, 0, 0, 5, 10, 99]),
    )
    timeout = dice.choice([None, None, 0.05, 1, 2.5])
    give_up = dice.choice([None, None, None, 0, 0.3, 1])
    call = await client.call("bidi", ask, timeout=timeout)
    received = 0
    try:
        with trio.move_on_after(10_000 if give_up is None else give_up) as scope:
            while (answer := await call.receive()) is not None:
                assert (answer.text, answer.n, len(answer.data)) == (name, received, ask.size)
                received += 1
            status, text = await call.status()
    except Reset:
        raise AssertionError(f"{name} was reset by the server") from None
    if scope.cancelled_caught:
        await call.reset_by_client()
        outcomes.append("reset")
        return
    outcomes.append(status.name)
    if status is Status.DEADLINE_EXCEEDED:
        assert timeout is not None
    elif ask.status:
        assert (status.value, text, received) == (ask.status % 17, name, ask.n)
    else:
        assert (status, received) == (Status.OK, ask.n)


@pytest.mark.parametrize("seed", range(12))
async def test_storm(autojump_clock, seed):
    dice = random.Random(seed)
    server = rpc.Server([TestService(bidi=storm_handler)])
    outcomes: list[str] = []
    async with connected(server) as a, connected(server, stream_window=65_535) as b, connected(server) as c:
        async with trio.open_nursery() as nursery:
            for index in range(CALLS):
                client = (a, b, c)[index % CONNECTIONS]
                nursery.start_soon(one_call, client, f"call {index}", random.Random(dice.random()), outcomes)
        await trio.sleep(2)  # cleanup of what was cancelled
        assert server.statistics().rpcs == 0
        assert server.statistics().rpcs_started == CALLS
        assert server.statistics().connections == CONNECTIONS
    assert len(outcomes) == CALLS
    assert {"OK", "reset", "DEADLINE_EXCEEDED", "NOT_FOUND"} <= set(outcomes)
    assert server.statistics().connections == server.idle_workers == 0


@pytest.mark.parametrize("seed", range(4))
async def test_storm_and_drain(autojump_clock, seed):
    """In the middle of it the server drains: every call ends in one of the ways it may, and the drain in its time."""
    dice = random.Random(seed)
    server = rpc.Server([TestService(bidi=storm_handler)])
    ends: list[Status | int] = []

    async def call_until_the_end(client: WireClient, name: str) -> None:
        call = await client.call("bidi", Message(text=name, n=100, delay=dice.random()))
        try:
            ends.append((await call.status())[0])
        except Reset as reset:
            ends.append(reset.args[0])

    async with connected(server) as a, connected(server) as b:
        async with trio.open_nursery() as nursery:
            for index in range(CALLS):
                nursery.start_soon(call_until_the_end, (a, b)[index % 2], f"call {index}")
            await trio.sleep(dice.random())
            begin = trio.current_time()
            await server.drain(grace=30)
            assert trio.current_time() - begin < 34
        assert set(ends) <= {Status.OK, Status.UNAVAILABLE}
        assert {Status.OK, Status.UNAVAILABLE} == set(ends)
    assert server.statistics().rpcs == server.idle_workers == 0
