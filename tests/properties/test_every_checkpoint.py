"""One job over the whole stack, struck down before each single step that any task of it takes, in every way there is.

The steps are counted by an instrument of Trio from the beginning of the call until server and caller are done with it.
The same seed gives the same steps, so each of them can be found again: the scenario runs afresh for each step, and the
strike comes between that step and the one before it. Steps at which a strike would find nothing to strike are left out.

The job is made of everything that can wait: its setup is fetched, it waits in the queue, `initialize` waits, an output
is larger than the window of its stream, a nursery in the handler has two more outputs, `cleanup` waits. When its caller
cancels, the job before it in the queue shares its connection, and has to come to a good end all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pytest
import trio
from grpclib.const import Status

from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.session import Session
from dk_trio.settings import TaskSettings
from dk_trio.signals import SignalAction

from .acts import Plan
from .world import Caller, Complaints, World, replay, run_seeded, seeds

VICTIM, BYSTANDER = "victim", "bystander"
PLANS = {
    BYSTANDER: Plan(acts=("send", 1.0, "send")),
    VICTIM: Plan(initialize=1, acts=("send", "large", "burst", "send"), cleanup=1),
}
BOUND = 10.0
"""Seconds after a strike within which all is over: the bystander takes 1, a cleanup 1, the end of a drain 2."""


@dataclass(frozen=True)
class Kind:
    """One way to strike.

    Attributes:
        strike: Does it, without waiting.
        target: Finds what it strikes; nothing happens without one.
        reason: Why the victim's job has ended then, unless the strike came too late.
        status: What its caller sees; None when there is no caller any more.
        beside: Whether what holds the slot at first is another job on the same connection, which must be spared.
    """

    strike: Callable[[World], object]
    target: Callable[[World], object]
    reason: Reason
    status: Status | None
    beside: bool = False


def sessions(world: World) -> list[Session]:
    """Session of the victim; a configuration has none."""
    return world.sessions(VICTIM)


def always(world: World) -> bool:
    return True


KINDS = {
    "caller cancels": Kind(
        lambda world: world.callers[VICTIM].scope.cancel(),
        lambda world: not world.callers[VICTIM].over,
        Reason.CLIENT_GONE,
        None,
        beside=True,
    ),
    "StopModule": Kind(lambda world: world.stop(VICTIM), sessions, Reason.STOP_MODULE, Status.CANCELLED),
    "cancel signal": Kind(
        lambda world: world.signal(VICTIM, SignalAction.CANCEL), sessions, Reason.SIGNAL_CANCEL, Status.CANCELLED
    ),
    "deadline": Kind(
        lambda world: world.expire(VICTIM),
        lambda world: world.calls(VICTIM),
        Reason.DEADLINE,
        Status.DEADLINE_EXCEEDED,
    ),
    "connection lost": Kind(lambda world: world.lose("a"), always, Reason.CLIENT_GONE, Status.UNAVAILABLE),
    "drain": Kind(lambda world: world.drain_begins.set(), always, Reason.SHUTDOWN, Status.UNAVAILABLE),
    "server cancelled": Kind(lambda world: world.server_scope.cancel(), always, Reason.SHUTDOWN, Status.UNAVAILABLE),
}


class AtStep(trio.abc.Instrument):
    """Strikes before one step of those in its block; with None it only notes before which steps there is a target."""

    def __init__(self, world: World, kind: Kind, step: int | None) -> None:
        self.targets: list[int] = []
        self._steps = 0
        self._error: BaseException | None = None
        self._world = world
        self._kind = kind
        self._step = step

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)
        if self._error is not None:
            raise self._error

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        try:
            if self._step is None:
                if self._kind.target(self._world):
                    self.targets.append(self._steps)
            elif self._steps == self._step:
                self._kind.strike(self._world)
        except BaseException as error:  # noqa: BLE001  Trio would log it and go on
            self._error = error


async def one_job(kind: Kind, step: int | None) -> AtStep:
    """The victim starts a job. Returns what the instrument has seen."""
    world = a_world(PLANS if kind.beside else {VICTIM: PLANS[VICTIM]})
    instrument = AtStep(world, kind, step)
    async with world.opened():
        victim, bystander = world.caller(VICTIM), world.caller(BYSTANDER)
        async with world.connected("a", stream_window=65_535) as client, trio.open_nursery() as nursery:
            if kind.beside:
                nursery.start_soon(bystander.call, client)
            else:
                nursery.start_soon(world.hold_slot, 2)
            await client.channel.ready()
            await trio.sleep(0.5)
            with instrument:
                await victim.call(client, setup_id="setups:v")
                await world.until_idle(BOUND)
        await world.until_over(BOUND)
    await world.check_jobs()
    check_victim(victim, kind)
    assert set(world.server.statistics().jobs.ended) <= {Reason.COMPLETED, kind.reason}
    assert bystander.status is Status.OK or not kind.beside
    return instrument


async def one_config(kind: Kind, step: int | None) -> AtStep:
    """The victim configures a setup, which takes a slot too."""
    world = a_world({})
    instrument = AtStep(world, kind, step)
    async with world.opened():
        victim = world.caller(VICTIM)
        async with world.connected("a") as client:
            await client.channel.ready()
            with instrument:
                await victim.configure(client, "setups:v")
                await world.until_idle(BOUND)
        await world.until_over(BOUND)
    check_victim(victim, kind)
    assert world.ledger.configuring == 0
    return instrument


def a_world(plans: dict[str, Plan]) -> World:
    return World(
        plans,
        tasks=TaskSettings(max_concurrent_tasks=1, max_queued_tasks=1),
        options=SessionOptions(cleanup_grace=5, completion_timeout=5),
    )


def check_victim(victim: Caller, kind: Kind) -> None:
    assert victim.over
    assert victim.status in {Status.OK, kind.status}


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("function", [one_job, one_config])
def test_it_is_struck_at_every_checkpoint(function: Any, name: str, seed: int, complaints: Complaints) -> None:
    kind = KINDS[name]
    targets = run_seeded(seed, function, kind, None).targets
    assert targets or (function is one_config and kind.target is sessions)
    for step in targets:
        with replay(function=function.__name__, kind=name, seed=seed, step=step):
            run_seeded(seed, function, kind, step)
            assert complaints.texts == []
