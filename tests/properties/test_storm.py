"""Hundreds of callers at once, each with a job and a fate drawn from a seed, at a server with few slots.

Whatever happens to one of them, capacity stays conserved at every moment, and in the end each job has one outcome, one
START, one STOP and one cleanup, each caller has all its outputs or a status that says why not, and nothing is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from grpclib.const import Status

from dk_trio import ModuleClient
from dk_trio.lifecycle import SessionOptions
from dk_trio.settings import LifecycleSettings, TaskSettings
from dk_trio.signals import SignalAction

from .acts import Act, Plan
from .world import Caller, Complaints, World, replay, run_seeded, seeds

MANY, FEW = 300, 30
"""Callers in every twentieth storm, and in the others, which show more of what goes right."""
ARRIVALS = 20
"""Seconds within which all of them come."""

ACTS: list[Act] = [*["send"] * 6, 0.5, 1.0, 2.0, "large", "large", "burst", "burst", "swallow", "shield"]
LAST: list[tuple[Act, ...]] = [*[()] * 12, ("raise",), ("exit",), ("spoil",), ("leave open",)]


def a_plan(dice: random.Random) -> Plan:
    return Plan(
        acts=(*dice.choices(ACTS, k=dice.randrange(6)), *dice.choice(LAST)),
        initialize=dice.choice([0, 0, 0.5]),
        cleanup=dice.choice([0, 0, 1, 4]),
        parting=dice.random() < 0.2,
        fails=dice.choice([*[""] * 12, "initialize", "cleanup"]),
    )


class Storm:
    """One of them."""

    def __init__(self, seed: int, callers: int) -> None:
        self._dice = random.Random(seed)
        self._names = [f"job {number}" for number in range(callers)]
        self._limit = self._dice.choice([None, None, 3])
        self._drains = self._dice.random() < 0.5
        self._spared: set[str] = set()  # whom nothing strikes, and whose jobs do no harm
        self._world = World(
            {name: a_plan(self._dice) for name in self._names},
            tasks=TaskSettings(
                max_concurrent_tasks=self._dice.randrange(3, 12),
                max_queued_tasks=self._dice.choice([0, 4, 20]),
                admission_timeout=self._dice.choice([0, 1, 5]),
                task_wait_timeout=self._dice.choice([0, 1, 5]),
                queue_slot_timeout=self._dice.choice([None, 4]),
            ),
            lifecycle=LifecycleSettings(stream_drain_timeout=3, setup_cache_max=4, setup_cache_ttl=2),
            options=SessionOptions(cleanup_grace=5, completion_timeout=6, execution_timeout=self._limit),
            setup_delay=0.5,
        )

    async def run(self) -> None:
        world, dice = self._world, self._dice
        async with world.opened(), trio.open_nursery() as watching:
            watching.start_soon(world.watch)
            async with (
                world.connected("lost", stream_window=65_535) as lost,
                world.connected("b") as b,
                world.connected("c", stream_window=65_535) as c,
                trio.open_nursery() as nursery,
            ):
                for name in self._names:
                    client = dice.choice([lost, b, c])
                    nursery.start_soon(self._visit, name, client, client is lost, random.Random(dice.random()))
                nursery.start_soon(self._lose, dice.uniform(0, ARRIVALS))
                if self._drains:
                    nursery.start_soon(self._drain, dice.uniform(ARRIVALS / 2, ARRIVALS))
            await world.until_idle(60)
            watching.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
            await world.until_over(60)
        await world.check_jobs()
        if not self._drains and self._limit is None:
            assert {world.callers[name].status for name in self._spared} <= {Status.OK, Status.RESOURCE_EXHAUSTED}

    async def _visit(self, name: str, client: ModuleClient, lost: bool, dice: random.Random) -> None:
        caller = self._world.caller(name, timeout=dice.choice([None, None, None, 0.5, 2, 6]))
        pause = dice.choice([0, 0, 0, 0.25, 10])  # the last is too slow
        strikes = dice.choice([0, 0, 1, 1, 2])
        harmed = lost or strikes or pause == 10 or caller.timeout is not None
        if not harmed and not self._world.ledger[name].plan.fails_by_itself:
            self._spared.add(name)
        await trio.sleep(dice.randrange(ARRIVALS * 4) / 4)
        async with trio.open_nursery() as nursery:
            for _ in range(strikes):
                nursery.start_soon(self._strike, caller, dice)
            await caller.call(client, setup_id=f"setups:{dice.randrange(6)}", pause=pause)
            nursery.cancel_scope.cancel()

    async def _strike(self, caller: Caller, dice: random.Random) -> None:
        await trio.sleep(dice.randrange(16) / 4)
        for _ in range(dice.randrange(4)):
            await trio.lowlevel.checkpoint()
        world, name = self._world, caller.name
        strikes: list[Callable[[], object]] = [
            caller.scope.cancel,
            lambda: world.stop(name),
            lambda: world.signal(name, SignalAction.CANCEL),
            lambda: world.signal(name, SignalAction.STOP),
        ]
        dice.choice(strikes)()

    async def _lose(self, after: float) -> None:
        await trio.sleep(after)
        self._world.lose("lost")

    async def _drain(self, after: float) -> None:
        await trio.sleep(after)
        self._world.drain_begins.set()


@pytest.mark.parametrize("seed", seeds(20))
def test_storm(seed: int, complaints: Complaints) -> None:
    callers = FEW if seed % 20 else MANY
    with replay(seed=seed, callers=callers):
        run_seeded(seed, Storm(seed, callers).run)
        # What a job's own code has done wrong is told, and which call has failed of it; anything else would be ours.
        told = (" dk_trio.session: job ", " dk_trio.servicer: job ")
        assert [text for text in complaints.texts if not any(name in text for name in told)] == []
