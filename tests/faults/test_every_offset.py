"""Calls of every shape over a connection that breaks after each single byte of either direction, in every way.

An exchange is measured once: one unary call, or that and a stream of replies and a stream both ways, together or one
after the other on one connection. Then it runs again for each byte of it. What must hold, wherever the cut is:

* Every call ends, in bounded virtual time, with one of the statuses in `EXPECTED`; with OK only if all of it arrived.
* What arrived is a prefix of what was sent. No call is made twice. What a handler began it ended, cleanup included.
* The channel finds a new connection. Afterwards no call, connection, stream or task is left, and both ends are closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import EchoBase, EchoStub, Message
from tests.properties.world import replay
from tests.sizes import record, size

from dk_trio import rpc
from dk_trio.testing.clock import run

from .links import Link

DAY = 86_400
DEADLINE = 5.0
WAYS = {"reset": "reset", "fin": "fin", "blackhole": "blackhole", "deadline": "blackhole"}
"""How a connection breaks; "deadline" is a blackhole for calls that have one."""
LOST = {Status.UNAVAILABLE}
EXPECTED = {"reset": LOST, "fin": LOST, "blackhole": LOST, "deadline": {Status.DEADLINE_EXCEEDED}}
"""What a call may end with that did not arrive as a whole: nothing that blames the caller or the module."""
NOTICED = {"reset": 3.0, "fin": 3.0, "blackhole": 81.0, "deadline": DEADLINE}
"""Seconds until a call has ended whose connection is broken: a linger, a keepalive, the deadline."""
FOUND = {"reset": 3.0, "fin": 3.0, "blackhole": 81.0, "deadline": 81.0}
"""Seconds until the channel knows that its connection is broken, with or without calls on it."""
GONE = {"reset": 3.0, "fin": 3.0, "blackhole": 142.0, "deadline": 142.0}
"""Seconds until the server has given up the connection: its own keepalive is the last to notice."""

OPTIONS = rpc.ChannelOptions(retry=None, user_agent="cut")


@dataclass
class Heard:
    """What one call came to, at its caller."""

    name: str
    wanted: list[Any]
    got: list[Any] = field(default_factory=list)
    status: Status | None = None
    began_at: float = inf
    ended_at: float = inf

    @contextmanager
    def ending(self) -> Iterator[None]:
        try:
            yield
            self.status = Status.OK
        except GRPCError as error:
            self.status = error.status
        self.ended_at = trio.current_time()


class Echo(EchoBase):
    """Takes a moment for everything, and notes what begins and ends."""

    def __init__(self) -> None:
        self.began: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        self.began[name] += 1
        try:
            yield
        finally:
            self.ended[name] += 1

    async def unary(self, message: Message) -> Message:
        with self._noted(message.data.decode()):
            await trio.sleep(0.1)
            return message

    async def server_stream(self, message: Message) -> AsyncIterator[Message]:
        with self._noted("stream"):
            for number in range(message.n):
                yield Message(n=number)
                await trio.sleep(0.1)

    async def bidi(self, messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
        with self._noted("bidi"):
            async for message in messages:
                yield message
                await trio.sleep(0.1)


async def exchange(channel: rpc.Channel, timeout: float | None, shape: str) -> list[Heard]:
    """The calls of one shape, whatever becomes of each."""
    stub = EchoStub(channel)
    unary, stream, bidi = calls = [Heard("unary", [b"unary"]), Heard("stream", [0, 1, 2]), Heard("bidi", [7, 8])]

    async def call_unary() -> None:
        with unary.ending():
            unary.got.append((await stub.unary(Message(data=b"unary"), timeout=timeout)).data)

    async def call_stream() -> None:
        with stream.ending():
            async for message in stub.server_stream(Message(n=3), timeout=timeout):
                stream.got.append(message.n)

    async def numbers() -> AsyncIterator[Message]:
        for number in bidi.wanted:
            yield Message(n=number)
            await trio.sleep(0.1)

    async def call_bidi() -> None:
        with bidi.ending():
            async for message in stub.bidi(numbers(), timeout=timeout):
                bidi.got.append(message.n)

    if shape == "together":
        for call in calls:
            call.began_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for one in (call_unary, call_stream, call_bidi):
                nursery.start_soon(one)
        return calls
    if shape == "unary":
        calls = [unary]
    for call, one in zip(calls, (call_unary, call_stream, call_bidi), strict=False):
        call.began_at = trio.current_time()
        await one()
    return calls


class Bench:
    """One server for many cases, one after the other."""

    def __init__(self, nursery: trio.Nursery, shape: str) -> None:
        self.echo = Echo()
        self.server = rpc.Server([self.echo])
        self.nursery = nursery
        self.shape = shape
        self.outcomes: Counter[str] = Counter()

    async def one(self, way: str, link: Link, *, again: bool = False) -> tuple[int, int]:
        """The exchange over a link that breaks, and what must hold then. Returns the octets that it took."""
        self.echo.began.clear()
        self.echo.ended.clear()
        tasks = trio.lowlevel.current_statistics().tasks_living
        links: list[Link] = []
        served: list[trio.Event] = []

        async def serve(stream: trio.abc.Stream, done: trio.Event) -> None:
            await self.server.serve_stream(stream)
            done.set()

        async def connect() -> trio.abc.Stream:
            new = Link() if links else link
            links.append(new)
            served.append(trio.Event())
            self.nursery.start_soon(serve, new.server, served[-1])
            return new.client

        with trio.fail_after(DAY):
            async with rpc.open_channel("memory", connect=connect, options=OPTIONS) as channel:
                calls = await exchange(channel, DEADLINE if way == "deadline" else None, self.shape)
                octets = link.up.passed, link.down.passed
                if again:
                    await trio.sleep(FOUND[way])
                    await channel.ready()
                    assert (await EchoStub(channel).unary(Message(data=b"again"))).data == b"again"
        with trio.fail_after(GONE[way]):
            for done in served:
                await done.wait()
        await trio.testing.wait_all_tasks_blocked()
        self._check_calls(way, link, calls)
        assert self.echo.ended == self.echo.began
        assert max(self.echo.began.values(), default=0) <= 1, "a call was made twice"
        assert (self.server.statistics().rpcs, self.server.statistics().connections) == (0, 0)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert all(one.client.closed and one.server.closed for one in links)
        return octets

    def _check_calls(self, way: str, link: Link, calls: list[Heard]) -> None:
        for call in calls:
            assert call.got == call.wanted[: len(call.got)], call
            assert call.status is not None, call
            if call.status is Status.OK:
                assert call.got == call.wanted, call
                assert self.echo.ended[call.name] == 1, call
            else:
                assert link.struck is not None, call
                assert call.status in EXPECTED[way], call
                assert call.ended_at - max(call.began_at, link.struck) <= NOTICED[way], call
            self.outcomes[call.status.name] += 1


async def measured(shape: str) -> tuple[int, int]:
    """Octets of the undisturbed exchange each way."""
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, shape)
        octets = await bench.one("reset", Link())
        assert set(bench.outcomes) == {"OK"}
        nursery.cancel_scope.cancel()
    return octets


async def every_offset(shape: str, way: str, direction: str, offsets: range) -> Counter[str]:
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, shape)
        for number, offset in enumerate(offsets):
            with replay(shape=shape, way=way, direction=direction, offset=offset):
                link = Link(WAYS[way], **{f"from_{direction}": offset})
                await bench.one(way, link, again=number % 16 == 0)
                assert link.struck is not None
        nursery.cancel_scope.cancel()
    return bench.outcomes


@pytest.fixture(scope="module")
def figures() -> Iterator[Counter[str]]:
    """What was done, told at the end."""
    counted: Counter[str] = Counter()
    yield counted
    record("calls cut at every byte", **counted)


SHAPES = {"unary": 1, "together": size(len(WAYS), 1)} | size({}, {"in turn": 1})
"""Every how many bytes one way strikes. Where not at all of them, the ways take turns: every byte has its cut."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("direction", ["client", "server"])
@pytest.mark.parametrize("way", WAYS)
def test_it_breaks_after_every_byte(way: str, direction: str, shape: str, figures: Counter[str]) -> None:
    total = run(measured, shape)[direction == "server"]
    assert total > 100
    step = SHAPES[shape]
    offsets = range(list(WAYS).index(way) % step, total + 1, step)
    outcomes = run(every_offset, shape, way, direction, offsets)
    assert outcomes.keys() - {"OK"}
    figures.update({"cases": len(offsets), way: len(offsets), **outcomes})
