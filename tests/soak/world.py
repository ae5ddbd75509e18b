"""A provider and a server of it, and rounds of visitors; after each round everything must be as it was before.

What is looked at after a round, when nobody is there any more:
- every count of the server that says what goes on now is 0, and so are signals that wait;
- each job has had one START, one STOP and one end, and no signal was lost;
- tasks, connections, file descriptors and files are those of the start, exactly: by name, not by number;
- the memory, see `slope`.
"""

import gc
import os
import statistics
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeAlias

import trio

from dk_trio import ModuleClient, ModuleServer, rpc
from dk_trio.boundary import unwrapped
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import DeleteFilesRequest, FileFilter, FilesystemServiceStub
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import CreateSetupRequest, SetupServiceStub, SetupStatus, SetupVersion
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import TaskManagerServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import Provider
from dk_trio.server import ServerStatistics
from dk_trio.signals import Signal
from dk_trio.testing import task_tree

from .visitors import VISITORS, Connect, Cut, Place, call, no_retries

MISSION = "missions:soak"
AT_ONCE = 40  # visitors; the server has half as many slots, so that some wait and some are refused
CLIENTS = 4  # that share connections
OUTAGE = 0.05  # seconds of each round in which the server cannot reach its provider
PATIENCE = 20.0

SETTINGS = {
    "SERVICE_MODE": "remote",
    "DIGITALKIN_MAX_CONCURRENT_TASKS": str(AT_ONCE // 2),
    "DIGITALKIN_MAX_QUEUED_TASKS": str(AT_ONCE * 3 // 8),
    "DIGITALKIN_ADMISSION_TIMEOUT": "0.05",
    "DIGITALKIN_MAX_CONCURRENT_RPCS": "1000",
    "DIGITALKIN_STALL_THRESHOLD": "0",  # what it tells of a slow machine is kept, and sources with it
    "DIGITALKIN_SIGNAL_FLUSH_INTERVAL": "0.01",
    "DIGITALKIN_GRPC_INITIAL_RECONNECT_MS": "20",
    "DIGITALKIN_GRPC_MIN_RECONNECT_MS": "20",
    "DIGITALKIN_GRPC_MAX_RECONNECT_MS": "100",
}


class Way:
    """From the server to its provider; it can be cut, and be away for some time."""

    def __init__(self, connect: Connect, cut: Cut) -> None:
        self._connect = connect
        self._cut = cut
        self._streams: list[trio.abc.Stream] = []
        self._away = False

    async def connect(self) -> trio.abc.Stream:
        if self._away:
            raise OSError("the provider is away")
        stream = await self._connect()
        self._streams.append(stream)
        return stream

    async def outage(self, seconds: float, how: str) -> None:
        self._away = True
        streams, self._streams = self._streams, []
        for stream in streams:
            await self._cut(stream, how)
        await trio.sleep(seconds)
        self._away = False


Held: TypeAlias = dict[str, Counter[str]]
"""What the process has, by kind."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What was there when a round had ended.

    Attributes:
        visits: Since the start.
        blocks: Small blocks of memory that Python has in use: two or three for each object.
        resident: Bytes of the process.
        seconds: Since the start.
    """

    visits: int
    blocks: int
    resident: int
    seconds: float


@dataclass
class World:
    """What visitors come to.

    Attributes:
        provider: What the server gets setups from, and gives signals and what jobs keep.
        server: Of module `Visited`.
        connect: Opens a connection to it.
        cut: Breaks one.
        way: From it to the provider.
        tools: A channel to the provider.
        files: Where the provider keeps its files; None: in memory.
        rounds: Those that have ended.
        statuses: What has become of the visits.
    """

    provider: Provider
    server: ModuleServer
    connect: Connect
    cut: Cut
    way: Way
    tools: rpc.Channel
    setup_id: str
    files: Path | None
    random: Random
    rounds: list[Round] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    signals: dict[str, Counter[str]] = field(default_factory=dict)
    """Of jobs of this round."""
    began: float = field(default_factory=trio.current_time)
    visits: int = 0
    held: Held = field(default_factory=dict)

    async def start(self) -> None:
        """Have everything made that is made at its first use, and note what is there then."""
        async with self.clients() as clients:
            await self._say_hello(clients)
        await self.empty()
        with trio.fail_after(PATIENCE):
            while self.held != (held := self.holding()):
                self.held = held
                await trio.sleep(0.2)  # whatever is still on its way out then would be missed after each round

    @asynccontextmanager
    async def told_when_late(self, seconds: float) -> AsyncIterator[None]:
        """Fail with all that can be seen when the block takes longer: something waits for what does not come."""

        async def watch() -> None:
            await trio.sleep(seconds)
            seen = f"{self.server!r}\n{self.server.statistics()}\n{self.provider.statistics()}"
            raise AssertionError(f"nothing was heard for {seconds:g} s of:{task_tree()}\n{seen}")

        async with unwrapped(), trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield
            nursery.cancel_scope.cancel()

    async def round(self, visits: int) -> None:
        """So many visitors, `AT_ONCE` at a time, with one outage of the provider among them."""
        self.signals.clear()
        before = self.server.statistics()
        with self.server.signals.observe(self._note):
            async with self.clients() as clients:
                place = self.place(clients)
                limiter = trio.CapacityLimiter(AT_ONCE)
                async with trio.open_nursery() as nursery:

                    async def visit(visitor: Callable[[Place], Awaitable[None]]) -> None:
                        async with limiter:
                            await visitor(place)

                    kinds = self.random.choices([*VISITORS], [*VISITORS.values()], k=visits)
                    for number, visitor in enumerate(kinds):
                        if number == visits // 2:
                            nursery.start_soon(self.way.outage, OUTAGE, self.random.choice(["fin", "reset"]))
                        nursery.start_soon(visit, visitor)
                await self._say_hello(clients)
            await self.empty()
        self.visits += visits
        self._check_ends(before)
        await self.as_at_the_start()
        gc.collect()
        self.rounds.append(
            Round(
                visits=self.visits,
                blocks=sys.getallocatedblocks(),
                resident=resident(),
                seconds=trio.current_time() - self.began,
            )
        )

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[list[ModuleClient]]:
        async with AsyncExitStack() as stack:
            channels = [rpc.open_channel("server", connect=self.connect, options=no_retries()) for _ in range(CLIENTS)]
            yield [ModuleClient(await stack.enter_async_context(channel)) for channel in channels]

    def place(self, clients: Sequence[ModuleClient], statuses: Counter[str] | None = None) -> Place:
        """For visitors."""
        tasks = TaskManagerServiceStub(self.tools)
        statuses = self.statuses if statuses is None else statuses
        return Place(self.connect, self.cut, [*clients], tasks, self.setup_id, self.random, statuses)

    async def _say_hello(self, clients: Sequence[ModuleClient]) -> None:
        """A job that needs all that there is, so that connections are there again that were cut."""
        place = self.place(clients, Counter())
        with trio.fail_after(PATIENCE):
            while not place.statuses["OK"]:
                await call(place, place.client(), {"keep": True})

    async def empty(self) -> None:
        """Wait until nobody is there any more, and take away the files that jobs have left."""
        with trio.move_on_after(PATIENCE):
            while any(self.going_on().values()):  # noqa: ASYNC110 - a condition of many tasks
                await trio.sleep(0.01)
        assert not any(self.going_on().values()), self.going_on()
        await FilesystemServiceStub(self.tools).delete_files(
            DeleteFilesRequest(context=MISSION, filters=FileFilter(context=MISSION), permanent=True, force=True)
        )

    def going_on(self) -> dict[str, int]:
        """Every count that is 0 when nothing goes on."""
        now = self.server.statistics()
        assert now.provider is not None
        signals = now.provider.signals
        return {
            "jobs running": now.jobs.running,
            "jobs queued": now.jobs.queued,
            "jobs": len(self.server.jobs),
            "slots": now.admission.running,
            "places": now.admission.admitted,
            "queued": now.admission.queued,
            "at the gate": now.admission.at_gate,
            "RPCs": now.rpc.rpcs,
            "connections": now.rpc.connections,
            "RPCs of the provider": self.provider.statistics().rpc.rpcs,
            "tasks of calls": workers() - self.server._rpc.idle_workers - self.provider._rpc.idle_workers,
            "signals that wait": signals.outbound.pending,
            "jobs whose signals wait": signals.outbound.pending_tasks,
            "jobs that listen": signals.inbound.listening,
        }

    def _note(self, signal: Signal) -> None:
        self.signals.setdefault(signal.task_id, Counter())[signal.action.value] += 1

    def _check_ends(self, before: ServerStatistics) -> None:
        """Each job that was given a slot has had one START and one STOP, and each job one end."""
        after = self.server.statistics()
        assert after.provider is not None
        assert (after.provider.signals.outbound.lost, after.provider.signals.outbound.refused) == (0, 0)
        wrong = {job: said for job, said in self.signals.items() if (said["start"], said["stop"]) != (1, 1)}
        assert not wrong, wrong
        started = after.admission.started - before.admission.started
        abandoned = after.admission.abandoned - before.admission.abandoned
        assert len(self.signals) == started
        ended = Counter(after.jobs.ended) - Counter(before.jobs.ended)
        assert ended.total() - ended[Reason.REFUSED] == started + abandoned, (ended, started, abandoned)

    async def as_at_the_start(self) -> None:
        """Wait until nothing is there that was not there before, and everything that was."""
        with trio.move_on_after(PATIENCE):
            while self.holding() != self.held:  # noqa: ASYNC110 - a condition of many tasks
                await trio.sleep(0.01)
        now = self.holding()
        assert now == self.held, {kind: (now[kind] - self.held[kind], self.held[kind] - now[kind]) for kind in now}

    def holding(self) -> Held:
        """Tasks by name, file descriptors by what they are, and files by name."""
        return {
            "tasks": tasks(),
            "descriptors": Counter(descriptors()),
            "files": Counter(
                () if self.files is None else (str(path) for path in self.files.rglob("*") if path.is_file())
            ),
            "channels": Counter({"leased": self.server.statistics().channels.leases}),
        }


async def stored_setup(channel: rpc.Channel) -> str:
    """A setup of the module at a provider; its id."""
    version = SetupVersion(version="1", content=Struct.from_dict({}))
    request = CreateSetupRequest(
        name="soak",
        organisation_id="organisations:soak",
        owner_id="users:soak",
        module_id="modules:visited",
        current_setup_version=version,
        status=SetupStatus.READY,
    )
    reply = await SetupServiceStub(channel).create_setup(request)
    assert reply.setup is not None
    return reply.setup.id


WORKER = "ConnectionTasks._work"
"""A task in which a connection runs its calls. Between two calls it is parked, and kept for the next one."""


def all_tasks() -> list[trio.lowlevel.Task]:
    """Those of this run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found = [root]
    for task in found:
        for nursery in task.child_nurseries:
            found += nursery.child_tasks
    return found


def tasks() -> Counter[str]:
    """Names of all tasks but those of calls."""
    return Counter(task.name for task in all_tasks() if task.coro.__qualname__ != WORKER)


def workers() -> int:
    """Tasks of calls, those that are parked included."""
    return sum(task.coro.__qualname__ == WORKER for task in all_tasks())


def descriptors() -> list[str]:
    """Sockets and pipes without their numbers."""
    found = []
    for entry in [*Path("/proc/self/fd").iterdir()]:
        try:
            found.append(str(entry.readlink()).partition(":[")[0])
        except FileNotFoundError:
            continue  # that of the directory that was listed
    return found


def resident() -> int:
    """Bytes of memory that the process has now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope(rounds: Sequence[Round], of: Callable[[Round], int]) -> float:
    """How much was added by each visit, in the second half of what comes after the warm-up.

    The first third of the rounds warms up: tables fill that have a bound, and lines of code run for their first time.
    Of what remains the median of the later half is compared with that of the earlier half, so that a round with an
    unlucky collection or a grown arena does not count; between the two middles lie a third of all visits.
    """
    third = len(rounds) // 3
    middle, last = rounds[third : 2 * third], rounds[2 * third : 3 * third]
    visits = statistics.median(each.visits for each in last) - statistics.median(each.visits for each in middle)
    grown = statistics.median(of(each) for each in last) - statistics.median(of(each) for each in middle)
    return grown / visits
