"""A whole system in one run of Trio: servers, clients and a provider on a network, from their beginning to their end.

`play` follows a script. While it goes on, faults come and go. Then it is quiet: nothing goes wrong any more, and all
that was begun has to end well, or be told. After that everything is closed, and what is left over is noted. What all of
it means is not judged here: `dk_trio.testing.simulation.checker` reads the history.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

import trio

from dk_trio import buggify, chance
from dk_trio.boundary import unwrapped
from dk_trio.testing.network import Conditions, Network

from .authors import STAGE
from .callers import Call, ClientHost
from .farewell import last_jobs, last_look
from .history import History
from .losses import told_noted
from .provision import ProviderHost
from .scenarios import Scenario
from .scripts import Script, write
from .servers import (
    LEASE,
    MEMORY_PER_CONNECTION,
    PROVIDER,
    Incarnation,
    ServerHost,
)
from .strikes import STRANGER, Faults, Strikes

EPOCH: Final = 1_800_000_000.0
"""The time of day at which all simulations begin, in seconds since 1970."""
SETTLED: Final = 400.0
"""Seconds after the last fault within which everything must be well again; what is not is noted as it is."""
LOOK_EVERY: Final = 0.5
"""Seconds between two looks whether it is."""


class World:
    """What is there in one simulation.

    Args:
        script: What happens.
        seed: Decides what the script leaves open.
        history: Where it is noted.

    Attributes:
        script: As given.
        network: Between all hosts.
        note: Notes an event.
        servers: By the names of their hosts.
        clients: By the names of their hosts.
    """

    def __init__(self, script: Script, seed: int, history: History) -> None:
        self.script = script
        self.note: Callable[..., object] = history.note
        self.network = Network(_dice(seed, "network"))
        link = script.link
        self.network.conditions(
            "*",
            "*",
            Conditions(
                latency=link.latency,
                jitter=link.jitter,
                bandwidth=link.bandwidth,
                slice_max=link.slice_max,
                buffer=link.buffer,
            ),
        )
        self.strikes = Strikes(self, _dice(seed, "strikes"))
        self._faults = Faults(self, _dice(seed, "faults"))
        self.servers = {name: ServerHost(self, name) for name in script.servers}
        self.clients = {name: ClientHost(self, name) for name in script.clients}
        self._calls = {call.errand.job: call for client in self.clients.values() for call in client.calls}
        self._provider: ProviderHost | None = None
        self._runs: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    # -- names --------------------------------------------------------------------------------------------------------

    def run_name(self, job: str, job_id: str) -> str:
        """How a run of a job is called: as the job, but for one that a channel has repeated.

        Args:
            job: Its name.
            job_id: What the server calls it.
        """
        known = self._runs.get(job_id)
        if known is None:
            times = sum(name.partition("~")[0] == job for name in self._runs.values())
            known = self._runs[job_id] = f"{job}~{times + 1}" if times else job
            self._ids[known] = job_id
        return known

    def note_loss(self, job_id: str) -> None:
        """The server that the current task works for has told that a signal of a job is lost.

        Args:
            job_id: What the server calls the job.
        """
        stage = STAGE.get(None)
        if isinstance(stage, Incarnation) and job_id in self._runs:
            stage.note(f"server/{stage.name}", "lost", job=self._runs[job_id])

    def note_defect(self, text: str) -> None:
        """The server that the current task works for, or else the provider, has told of an error of its own."""
        stage = STAGE.get(None)
        self.note("world", "defect", text=text, where=stage.name if isinstance(stage, Incarnation) else PROVIDER)

    def call_of(self, job: str) -> Call | None:
        """The client's side of a job; None of one that was called by another job."""
        return self._calls.get(job.partition("~")[0])

    def know(self, call: Call) -> None:
        """A call is made that was not known from the beginning."""
        self._calls[call.errand.job] = call

    def open_calls(self, server: str) -> list[Call]:
        """The calls of clients to a server that have begun and not ended."""
        return [call for call in self._calls.values() if call.open and call.errand.server == server]

    # -- what happens in it -------------------------------------------------------------------------------------------

    async def ask(self, job: str, action: str) -> None:
        """Ask the provider for the end of a job that has begun."""
        job_id = self._ids.get(job)
        if job_id is not None and self._provider is not None:
            await self._provider.ask(job, job_id, self._calls[job].errand.server, action)

    def end_server(self, name: str, *, kill: bool) -> None:
        """Kill or drain a server, if it serves; it comes back."""
        host = self.servers[name]
        if host.serves:
            (host.now.kill if kill else host.now.drain)()

    async def crash_provider(self, seconds: float) -> None:
        """Let the provider be gone for so many seconds."""
        if self._provider is not None:
            await self._provider.crash(seconds)

    async def play(self) -> None:
        """All of it."""
        before = trio.lowlevel.current_statistics().tasks_living
        threads = {*threading.enumerate()}  # of others, which may end meanwhile
        async with self._provided(), unwrapped(), trio.open_nursery() as nursery:
            for server in self.servers.values():
                await nursery.start(server.live)
            for client in self.clients.values():
                await nursery.start(client.live)
            self.strikes.quiet = False
            await self._faults.run()
            await trio.sleep_until(self.script.quiet_at)
            self.strikes.quiet = True
            self.note("world", "quiet")
            with trio.move_on_after(SETTLED):
                await self._settle()
            for client in self.clients.values():
                client.close()
            with trio.move_on_after(SETTLED):
                await self.until(lambda: not self.connected)
            left = self._left_in_servers()
            if self._provider is not None and self.script.farewell:
                await last_look(self, self._provider)
            for server in self.servers.values():
                server.close()
        tasks = trio.lowlevel.current_statistics().tasks_living - before
        self.note(
            "world",
            "end",
            tasks_left=[*left, *([f"{tasks} more than before"] if tasks else [])],
            streams_left=self.network.statistics().streams,
            threads=len({*threading.enumerate()} - threads),
            **self._borrowed,
        )

    @asynccontextmanager
    async def _provided(self) -> AsyncIterator[None]:
        """The provider, when the script has one. At its end, what it has kept is noted."""
        if not self.script.provider:
            yield
            return
        async with ProviderHost(self).opened() as self._provider:
            for server in self.script.servers:
                await self._provider.create_setup(server)
            yield
            await self._provider.note_signals()
            await self._provider.note_records()

    async def _settle(self) -> None:
        for client in self.clients.values():
            await client.over.wait()
        await self.until(lambda: not self._busy())
        if self.script.farewell:
            await last_jobs(self)
            await self.until(lambda: not self._busy())

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, which is looked at again and again."""
        while not holds():  # noqa: ASYNC110  it is looked at from outside, and nothing tells of it
            await trio.sleep(LOOK_EVERY)

    def _busy(self) -> bool:
        """Whether a job is anywhere, or a signal waits."""
        for host in self.servers.values():
            now = host.now.server.statistics()
            if not host.serves or now.jobs.queued or now.jobs.running or now.admission.admitted:
                return True
            if now.provider is not None and now.provider.signals.outbound.pending:
                return True
        return False

    @property
    def connected(self) -> bool:
        """Whether a server has a connection of somebody who calls it from outside."""
        outside = {*self.clients, STRANGER}
        return any(stream.host in self.servers and stream.peer in outside for stream in self.network.streams())

    # -- what is left -------------------------------------------------------------------------------------------------

    def _left_in_servers(self) -> list[str]:
        """Tasks of jobs and calls; and notes for `end` how much of each server is taken."""
        borrowed: dict[str, dict[str, int]] = {}
        sessions = 0
        left: list[str] = []
        for name, host in self.servers.items():
            host.now.note_gauge()
            now = host.now.server.statistics()
            borrowed[name] = {"running": now.admission.running, "admitted": now.admission.admitted}
            sessions += len(host.now.server.jobs)
            if now.rpc.rpcs:
                left.append(f"{name}: {now.rpc.rpcs} calls")
        root = trio.lowlevel.current_root_task()
        assert root is not None
        left += [task.name for task in _tasks(root) if task.name.startswith("job ")]
        self._borrowed: dict[str, Any] = {"borrowed": borrowed, "sessions_left": sessions}
        return left


def _tasks(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)


def _dice(seed: int, what: str) -> Random:
    return Random(f"{what} {seed}")  # noqa: S311  a simulation is to be repeated


async def play(scenario: Scenario, seed: int, history: History) -> None:
    """Play one simulation to its end.

    Args:
        scenario: What kind of.
        seed: Which one. The order of tasks is the scheduler's: `dk_trio.testing.seed_scheduler`.
        history: Gets what happens.
    """
    script = write(scenario, seed)
    link = script.link
    history.note(
        "world",
        "begin",
        seed=seed,
        scenario=scenario.name,
        slots=script.slots,
        queue=script.queue,
        cleanup_grace=script.cleanup_grace,
        completion_timeout=script.completion_timeout,
        delivery=link.delivery,
        detect=script.detect,
        hold=script.poll_timeout,
        poll=2 * script.poll_timeout + 2 + script.flush_interval + 2 * link.delivery,
        strike=script.strike,
        memory=MEMORY_PER_CONNECTION * (len(script.clients) + len(script.servers) + 2),
        lease=LEASE + link.delivery,
        provider=script.provider,
    )
    world = World(script, seed, history)
    with (
        chance.decided_by(_dice(seed, "chance"), lambda: EPOCH + trio.current_time()),
        buggify.struck_by(world.strikes),
        told_noted(world.note_loss, world.note_defect),
    ):
        await world.play()
