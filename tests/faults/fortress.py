"""A public module server in memory, its honest users, and raw connections of those who are not.

Users are measured in scheduler passes and not in seconds: a pass is what every task that can run does once, so the
passes between a question and its answer say how long the loop makes a user wait behind everybody else, on any machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
import trio.testing
from tests.properties.acts import Ledger, Plan
from tests.properties.world import DAY, Caller, SlowSetups
from tests.wire.conformance import raw
from tests.wire.conformance.server_peer import HANDSHAKE

from dk_trio import ModuleClient, ModuleServer, rpc
from dk_trio.client import START_MODULE
from dk_trio.lifecycle import SessionOptions
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleRequest
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponseServingStatus, HealthStub
from dk_trio.settings import Settings
from dk_trio.signals import LocalSignals

GRACE = 5.0
WATCH = "/grpc.health.v1.Health/Watch"
CHECK = "/grpc.health.v1.Health/Check"
WORK = Plan(initialize=0.0, acts=("send",))


def start_module(name: str, *extra: tuple[str, str]) -> tuple[raw.Fields, bytes]:
    """Fields and message of a StartModule."""
    request = StartModuleRequest(
        input=Struct.from_dict({"root": {"protocol": "message", "text": "x"}}), setup_id="setups:s", mission_id=name
    )
    return raw.request(*extra, path=START_MODULE), raw.message(bytes(request))


class Raw:
    """Frames by hand, over a stream in memory.

    Reads what comes, unless told not to: opens the connection's window, though not those of streams, and answers pings.
    """

    def __init__(self, fortress: Fortress, *, reads: bool = True, greets: bool = True) -> None:
        self.stream, theirs = trio.testing.memory_stream_pair()
        self.frames: list[raw.Frame] = []
        self.octets = 0
        self.closed = False
        self.ended_at: float | None = None
        self._reader = raw.FrameReader()
        fortress.nursery.start_soon(self._served, fortress, theirs)
        self._reads = reads
        if reads:
            fortress.nursery.start_soon(self._listen)
        self._greets = greets
        fortress.attackers.append(self)

    async def _served(self, fortress: Fortress, stream: trio.abc.Stream) -> None:
        await fortress.server.serve_stream(stream)
        self.closed = True
        self.ended_at = trio.current_time()

    async def _listen(self) -> None:
        try:
            while octets := await self.stream.receive_some(1 << 20):
                self.octets += len(octets)
                new = self._reader.feed(bytes(octets))
                self.frames += new
                for one in new:
                    if one.kind == raw.PING and not one.flags:
                        await self.send(raw.ping(one.payload, raw.ACK))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return

    async def send(self, octets: bytes) -> None:
        """Send, behind the handshake the first time; what an ended connection does not take is lost."""
        if self._greets:
            self._greets = False
            octets = HANDSHAKE + (raw.window(0, 1 << 30) if self._reads else b"") + octets
        try:
            await self.stream.send_all(octets)
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()

    def leave(self) -> None:
        """Be gone without a word."""
        self.stream.send_stream.close()
        self.stream.receive_stream.close()

    @property
    def goaway(self) -> list[int]:
        """Codes of GOAWAY frames that have come."""
        return [one.code for one in self.frames if one.kind == raw.GOAWAY]

    def statuses(self) -> Counter[int]:
        """grpc-status of the calls that have ended here."""
        ends = [dict(one.fields) for one in self.frames if one.kind == raw.HEADERS]
        return Counter(int(fields["grpc-status"]) for fields in ends if "grpc-status" in fields)


class Fortress:
    """The server, with limits as by default except for those given, and a user with a job that ticks all the time."""

    def __init__(self, nursery: trio.Nursery, settings: Settings) -> None:
        self.nursery = nursery
        self.ledger = Ledger({})
        self.signals = LocalSignals()
        self.server = ModuleServer(
            self.ledger.module(),
            settings=settings,
            setups=SlowSetups(0.01),
            session_options=SessionOptions(cleanup_grace=GRACE, completion_timeout=GRACE),
            signals=self.signals,
        )
        self.passes = 0
        self.attackers: list[Raw] = []
        self._names = 0

    def job(self, plan: Plan = WORK) -> str:
        """Name of a new job that does this."""
        self._names += 1
        name = f"job-{self._names}"
        self.ledger.add(name, plan)
        return name

    @contextmanager
    def at_once(self, most: int) -> Iterator[None]:
        """What happens in the block takes no time, and at most so many passes of the scheduler."""
        began, passes = trio.current_time(), self.passes
        yield
        assert trio.current_time() == began
        assert self.passes - passes <= most, f"{self.passes - passes} passes"

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Count passes. Time stands still meanwhile, as there is always something to do."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count)
            yield
            nursery.cancel_scope.cancel()

    async def _count(self) -> None:
        while True:
            self.passes += 1
            await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def user(self) -> AsyncIterator[ModuleClient]:
        """A user's client, on a connection of its own."""

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            self.nursery.start_soon(self.server.serve_stream, theirs)
            return ours

        async with rpc.open_channel("user", connect=connect, options=rpc.ChannelOptions(retry=None)) as channel:
            await channel.ready()
            yield ModuleClient(channel)

    async def works(self, client: ModuleClient) -> None:
        """A whole job, and a probe, as a user sees them."""
        name = self.job()
        caller = Caller(name)
        await caller.call(client)
        assert caller.status is not None
        assert (caller.status.name, caller.received) == ("OK", [0]), caller
        await self.alive(client)

    async def alive(self, client: ModuleClient) -> None:
        """A probe is answered."""
        answer = await HealthStub(client.channel).check(HealthCheckRequest())
        assert answer.status is HealthCheckResponseServingStatus.SERVING


TICKS = Plan(acts=("send", *((1.0, "send") * 10_000)), cleanup=0.5)


@asynccontextmanager
async def besieged(settings: Settings | None = None) -> AsyncIterator[tuple[Fortress, ModuleClient]]:
    """A server, and a user whose job sends an output each second all through the block; afterwards nothing is left."""
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            fortress = Fortress(nursery, settings or Settings())
            async with fortress.server.opened():
                with fortress.signals.observe(fortress.ledger.note):
                    async with fortress.user() as client, trio.open_nursery() as users:
                        ticker = Caller(fortress.job(TICKS))
                        users.start_soon(ticker.call, client)
                        await trio.sleep(1.5)
                        began = trio.current_time()
                        received = len(ticker.received)
                        yield fortress, client
                        await trio.testing.wait_all_tasks_blocked()
                        assert not ticker.over
                        assert len(ticker.received) - received in (
                            int(trio.current_time() - began) + late for late in (0, 1)
                        )
                        ticker.scope.cancel()
                    for attacker in fortress.attackers:
                        attacker.leave()
                    await nothing_left(fortress)
                nursery.cancel_scope.cancel()


async def nothing_left(fortress: Fortress) -> None:
    """Everybody has left: within the time that cleanups and lingering take nothing is here any more."""
    with trio.fail_after(GRACE + 200):
        while fortress.server.statistics().rpc.connections:  # noqa: ASYNC110  there is no event for it
            await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()
    now = fortress.server.statistics()
    admission = now.admission
    assert (now.rpc.rpcs, now.jobs.running, now.jobs.queued, now.setups.in_flight) == (0, 0, 0, 0)
    assert (admission.running, admission.queued, admission.at_gate, admission.admitted) == (0, 0, 0, 0)
    assert not fortress.signals._listeners
    for job in fortress.ledger.jobs.values():
        job.check(grace=GRACE)


def held(fortress: Fortress) -> int:
    """Octets that wait on the server in buffers of connections and streams."""
    total = 0
    for connection in fortress.server._rpc._connections:
        wire: Any = connection._wire
        total += wire.out_size + len(wire._buffer)
        for stream in wire.streams.values():
            waiting = [*stream.messages, stream._partial or b"", stream._uncut or b"", stream._pending or b""]
            total += sum(map(len, waiting))
    return total
