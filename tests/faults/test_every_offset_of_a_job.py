"""StartModule and StopModule over a connection that breaks after each single byte of either direction, in every way.

One client runs a job to its end, then starts another and stops it as soon as it has sent something. This is measured
once, and runs again for each byte of it. What must hold, wherever the cut is:

* Both calls end, in bounded virtual time: with OK only if every output arrived and `end_of_stream` after them, with
  CANCELLED only if the job was stopped, else with one of `EXPECTED`.
* The outputs that arrived are a prefix of those that were sent. No job runs twice.
* A job that began has one outcome, which its signals tell once; its cleanup ran once, to its end.
* No job, slot, session, call, connection, listener for signals or task is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.properties.acts import Ledger, Plan
from tests.properties.world import Caller, SlowSetups, replay
from tests.sizes import record, size

from dk_trio import ModuleClient, ModuleServer, chance, rpc
from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.settings import Settings, TaskSettings
from dk_trio.signals import LocalSignals
from dk_trio.testing.clock import run
from dk_trio.wire.frames import PREFACE

from .links import Link, seams
from .test_every_offset import DAY, DEADLINE, EXPECTED, GONE, NOTICED, OPTIONS, WAYS

GRACE = 5.0
WORKS = Plan(initialize=0.1, acts=("send", 0.1, "send", "send"), cleanup=0.1)
WAITS = Plan(acts=("send", 1000.0), cleanup=0.1)
REASONS = {Reason.COMPLETED, Reason.STOP_MODULE, Reason.CLIENT_GONE, Reason.DEADLINE}


@dataclass
class Called(Caller):
    """A caller that may stop its job, and remembers what it was told then."""

    stop_status: Status | None = None
    ended_at: float = 0.0

    async def run(self, client: ModuleClient, *, stops: bool) -> None:
        root = {"protocol": "message", "text": "x"}
        with self._ending():
            async with client.start(root, mission_id=self.name, timeout=self.timeout) as outputs:
                async for output in outputs:
                    self._note(output["root"])
                    if stops and "number" in output["root"]:
                        await self._stop(client, outputs.job_id)
        self.ended_at = trio.current_time()

    async def _stop(self, client: ModuleClient, job_id: str) -> None:
        try:
            await client.stop(job_id, timeout=self.timeout)
            self.stop_status = Status.OK
        except GRPCError as error:
            self.stop_status = error.status


class Bench:
    """One module server for many cases, one after the other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.ledger = Ledger({})
        self.signals = LocalSignals()
        self.server = ModuleServer(
            self.ledger.module(),
            settings=Settings(tasks=TaskSettings(max_concurrent_tasks=10, max_queued_tasks=1)),
            setups=SlowSetups(0.1),
            session_options=SessionOptions(cleanup_grace=GRACE, completion_timeout=GRACE),
            signals=self.signals,
        )
        self.nursery = nursery
        self.outcomes: Counter[str] = Counter()

    async def one(self, number: int, way: str, link: Link) -> tuple[bytes, bytes]:
        """Both jobs over a link that breaks, and what must hold then. Returns the octets that came through."""
        tasks = trio.lowlevel.current_statistics().tasks_living
        ended = Counter(self.server.statistics().jobs.ended)
        self.ledger.jobs.clear()
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

        timeout = DEADLINE if way == "deadline" else None
        works, waits = Called(f"works-{number:06}", timeout), Called(f"waits-{number:06}", timeout)
        self.ledger.add(works.name, WORKS)
        self.ledger.add(waits.name, WAITS)
        with trio.fail_after(DAY):
            async with rpc.open_channel("memory", connect=connect, options=OPTIONS) as channel:
                client = ModuleClient(channel)
                for caller in (works, waits):
                    began = trio.current_time()
                    await caller.run(client, stops=caller is waits)
                    self._check_caller(caller, way, link, began)
                octets = bytes(link.up.carried), bytes(link.down.carried)
        with trio.fail_after(GONE[way]):
            for done in served:
                await done.wait()
        await trio.testing.wait_all_tasks_blocked()
        reasons = [self._check_job(caller) for caller in (works, waits)]
        now = self.server.statistics()
        assert Counter(now.jobs.ended) - ended == Counter(reason for reason in reasons if reason is not None)
        assert (now.jobs.queued, now.jobs.running, len(self.server.jobs)) == (0, 0, 0)
        admission = now.admission
        assert (admission.running, admission.queued, admission.at_gate, admission.admitted) == (0, 0, 0, 0)
        assert (now.rpc.rpcs, now.rpc.connections, now.setups.in_flight) == (0, 0, 0)
        assert not self.signals._listeners
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert all(one.client.closed and one.server.closed for one in links)
        return octets

    def _check_caller(self, caller: Called, way: str, link: Link, began: float) -> None:
        assert caller.status is not None
        if caller.status is Status.OK:
            assert (caller.protocols[0], caller.protocols[-1]) == ("module_start_info", "end_of_stream"), caller
        elif caller.stop_status is None or caller.status is not Status.CANCELLED:
            assert link.struck is not None, caller
            assert caller.status in EXPECTED[way], caller
            # To stop a job takes the caller as long again.
            bound = NOTICED[way] * (1 if caller.stop_status is None else 2)
            assert caller.ended_at - max(began, link.struck) <= bound, caller
        self.outcomes[caller.status.name] += 1

    def _check_job(self, caller: Called) -> Reason | None:
        job = self.ledger[caller.name]
        reason = job.check(grace=GRACE)
        ok = caller.status is Status.OK
        job.check_received(caller.received, complete=ok or "end_of_stream" in caller.protocols)
        assert "end_of_stream" not in caller.protocols[:-1], caller
        assert reason in REASONS or (reason is None and not ok), (caller, job)
        assert (reason is Reason.COMPLETED) or not ok, (caller, job)
        if caller.status is Status.CANCELLED:
            assert reason is Reason.STOP_MODULE, (caller, job)
        elif caller.stop_status is Status.OK:  # over the next connection, to a job that ends with the first one
            assert reason in {Reason.STOP_MODULE, Reason.CLIENT_GONE}, (caller, job)
        return reason


@asynccontextmanager
async def a_bench() -> AsyncIterator[Bench]:
    with chance.decided_by(Random(0), lambda: 1.5):  # ids and dates are always as long
        async with trio.open_nursery() as nursery:
            bench = Bench(nursery)
            async with bench.server.opened():
                with bench.signals.observe(bench.ledger.note):
                    yield bench


async def measured() -> tuple[bytes, bytes]:
    """The undisturbed exchange each way."""
    async with a_bench() as bench:
        octets = await bench.one(0, "reset", Link())
        assert bench.outcomes == {"OK": 1, "CANCELLED": 1}
    return octets


async def every_offset(way: str, direction: str, offsets: list[int]) -> Counter[str]:
    async with a_bench() as bench:
        for offset in offsets:
            with replay(way=way, direction=direction, offset=offset):
                link = Link(WAYS[way], **{f"from_{direction}": offset})
                await bench.one(offset, way, link)
                assert link.struck is not None
    return bench.outcomes


@pytest.fixture(scope="module")
def figures() -> Iterator[Counter[str]]:
    """What was done, told at the end."""
    counted: Counter[str] = Counter()
    yield counted
    record("jobs cut at every byte", **counted)


def offsets_for(way: str, direction: str, octets: bytes) -> list[int]:
    """At night all of them for each way. In a hurry those that differ in kind, and the ways take turns."""
    hurried = seams(octets, preface=len(PREFACE) if direction == "client" else 0)[list(WAYS).index(way) :: len(WAYS)]
    return size(hurried, list(range(len(octets) + 1)))


@pytest.mark.parametrize("direction", ["client", "server"])
@pytest.mark.parametrize("way", WAYS)
def test_it_breaks_after_every_byte(way: str, direction: str, figures: Counter[str]) -> None:
    octets = run(measured)[direction == "server"]
    offsets = offsets_for(way, direction, octets)
    assert len(offsets) > 30
    outcomes = run(every_offset, way, direction, offsets)
    assert outcomes.keys() - {"OK"}
    figures.update({"cases": len(offsets), way: len(offsets), **outcomes})
