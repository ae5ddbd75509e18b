"""The module servers of a simulation: each lives on a host, is killed or drained, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from dk_trio.admission import Admission, AdmissionStatistics
from dk_trio.hooks import Job, JobHook
from dk_trio.log_context import CURRENT
from dk_trio.server import ModuleServer
from dk_trio.settings import (
    ChannelSettings,
    LifecycleSettings,
    ModuleSettings,
    ObserveSettings,
    ServerSettings,
    ServicesSettings,
    Settings,
    SignalSettings,
    TaskSettings,
)
from dk_trio.signals import Signal, SignalAction

from .authors import PREFIX, STAGE, Actor, Plan

if TYPE_CHECKING:
    from .scripts import Script
    from .world import World

PORT: Final = 50055
PROVIDER: Final = "provider"
DRAIN_GRACE: Final = 3.0
"""Seconds that jobs get when a server drains."""
_ANSWERS: Final = frozenset({SignalAction.ACK_CANCEL, SignalAction.ACK_STOP})
AWAY: Final = 2.0
"""Seconds after which a server comes back."""
KEEPALIVE: Final = 15.0
"""Seconds of silence after which a peer is asked whether it is there."""
KEEPALIVE_TIMEOUT: Final = 5.0
"""Seconds that it has for the answer."""
HEARTBEAT: Final = 8.0
"""Seconds after which a server tells the registry that it is there."""
LEASE: Final = 30.0
"""Seconds for which the registry believes that."""
MEMORY_PER_CONNECTION: Final = 4 * 1024 * 1024
"""Bytes that a server may hold of one connection: what waits to be written, and streams of a megabyte."""


class Incarnation(JobHook):
    """One life of a module server, which is what its authors play on."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self.dead = False
        """Killed: what its code still does never happens."""
        self.over = trio.Event()
        """Nothing of it runs any more."""
        self.gone = trio.Event()
        """It serves no more; its code may still run."""
        self._ordered = trio.Event()
        self._drains = False
        self._scope = trio.CancelScope()
        settings = settings_of(world.script, name)
        self._admission = _Watched(self, settings.tasks)
        self._gauge: AdmissionStatistics | None = None
        self.server = ModuleServer(Actor, settings=settings, hooks=[self], admission=self._admission, dial=self._dial)

    def note(self, actor: str, event: str, /, **fields: Any) -> None:
        """See `Stage`: the dead note nothing."""
        if not self.dead:
            self._world.note(actor, event, **fields)

    def plan(self, job: str) -> Plan:
        """See `Stage`."""
        return self._world.script.plans[job]

    def run_name(self, mission: str, job_id: str) -> str:
        """See `Stage`."""
        return self._world.run_name(mission, job_id)

    def lose_reply(self) -> None:
        """See `Stage`."""
        self._world.strikes.lose_reply(self.name)

    async def live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until it is killed, drained or closed."""
        world = self._world
        STAGE.set(self)
        try:
            with self._scope:
                async with (
                    world.network.listening(self.name) as listener,
                    self.server.running(listeners=[listener], host=self.name, port=PORT),
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._watch)
                    with self._observed():
                        task_status.started()
                        await self._ordered.wait()
                        if self._drains:
                            self.note(f"server/{self.name}", "drain_begin", grace=DRAIN_GRACE)
                            await self.server.drain(DRAIN_GRACE)
                            self.note(f"server/{self.name}", "drain_end")
                        nursery.cancel_scope.cancel()
        finally:
            self.gone.set()
            self.over.set()

    def close(self) -> None:
        """Stop serving."""
        self._ordered.set()

    def drain(self) -> None:
        """Let jobs end, then stop serving."""
        self._drains = True
        self._ordered.set()

    def kill(self, event: str = "crash") -> None:
        """The process ends without a word: nobody hears from its code any more."""
        self._world.note(f"server/{self.name}", event)
        self.dead = True
        self._world.network.kill(self.name)
        self._scope.cancel()
        self.gone.set()

    async def _dial(self, target: str) -> trio.abc.Stream:
        if self.dead:
            await trio.lowlevel.checkpoint()
            raise OSError(f"{self.name} is no more")
        return await self._world.network.connect(self.name, target.partition(":")[0])

    # -- what is noted ------------------------------------------------------------------------------------------------

    @contextmanager
    def _observed(self) -> Iterator[None]:
        signals: Any = self.server.signals
        with signals.observe(self._on_signal):
            yield

    def _on_signal(self, signal: Signal) -> None:
        if signal.action is SignalAction.START:
            job = self.run_name(signal.mission_id.removeprefix(PREFIX), signal.task_id)
            self.note(f"server/{self.name}", "admitted", job=job)
            self.note_gauge()
        elif signal.action in _ANSWERS:
            job = self.run_name(signal.mission_id.removeprefix(PREFIX), signal.task_id)
            self.note(f"server/{self.name}", "answered", job=job, action=signal.action.value)

    def note_gauge(self) -> None:
        """Note how many jobs run and wait."""
        self._gauge = now = self._admission.statistics()
        self.note(
            f"server/{self.name}",
            "gauge",
            running=now.running,
            admitted=now.admitted,
            slots=now.slots,
            queue=now.queue,
            queued=now.queued,
        )

    @property
    def buffered(self) -> int:
        """Bytes of calls that wait in the server."""
        size = 0
        for connection in self.server._rpc._connections:
            wire = connection._wire
            size += wire.out_size
            for stream in wire.streams.values():
                size += sum(map(len, stream.messages)) + len(stream._partial or b"") + len(stream._pending or b"")
        return size

    async def _watch(self) -> None:
        last = 0
        while True:
            if self._admission.statistics() != self._gauge:
                self.note_gauge()
            if (buffered := self.buffered) != last:
                self.note(f"server/{self.name}", "memory", buffered=buffered)
                last = buffered
            await trio.sleep(1)

    def around(self, job: Job) -> AbstractContextManager[object]:
        """See `JobHook`."""
        return self._until_over(self.run_name(job.ids.mission_id.removeprefix(PREFIX), job.ids.job_id))

    @contextmanager
    def _until_over(self, name: str) -> Iterator[None]:
        try:
            yield
        finally:
            self.note(f"author/{name}", "over")

    def ended(self, job: Job) -> None:
        """See `JobHook`."""
        assert job.outcome is not None
        name = self.run_name(job.ids.mission_id.removeprefix(PREFIX), job.ids.job_id)
        self.note(f"server/{self.name}", "outcome", job=name, reason=job.outcome.reason.value, state=job.state.value)
        self.note_gauge()


class _Watched(Admission):
    """An admission that notes who comes in which order."""

    def __init__(self, incarnation: Incarnation, settings: TaskSettings) -> None:
        super().__init__(settings)
        self._incarnation = incarnation

    async def _pass_gate(self, gate: trio.CapacityLimiter, task: trio.lowlevel.Task, came: float) -> None:
        self._note_asked()
        await super()._pass_gate(gate, task, came)

    async def _take_slot(self, task: trio.lowlevel.Task, came: float, nested: bool) -> None:
        if self._gate is None:
            self._note_asked()
        await super()._take_slot(task, came, nested)
        self._note("slot")

    def _note_asked(self) -> None:
        self._note("asked")

    def _note(self, event: str) -> None:
        now = CURRENT.get()
        one = self._incarnation
        name = one.run_name(now["mission"].removeprefix(PREFIX), now["job"])
        one.note(f"server/{one.name}", event, job=name)


class ServerHost:
    """A host on which a module server runs, one life after the other.

    Attributes:
        now: The present life.
    """

    now: Incarnation

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self._closing = False

    async def live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve, and come back, until `close`."""
        self.now = Incarnation(self._world, self.name)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.now.live)
            task_status.started()
            while True:
                await self.now.gone.wait()
                if not self._closing:
                    await trio.sleep(AWAY)
                if self._closing:
                    return
                self.now = Incarnation(self._world, self.name)
                await nursery.start(self.now.live)
                self._world.note(f"server/{self.name}", "restart")

    def close(self) -> None:
        """Serve no more."""
        self._closing = True
        self.now.close()

    def vanish(self) -> None:
        """Be killed, and never come back."""
        self._closing = True
        self.now.kill("vanish")

    @property
    def serves(self) -> bool:
        """Whether it can be called."""
        return not self.now.gone.is_set()


def settings_of(script: Script, name: str) -> Settings:
    """The settings of a server."""
    return Settings(
        server=ServerSettings(
            advertise_host=name,
            heartbeat_interval=HEARTBEAT,
            keepalive_time=KEEPALIVE,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            reflection=False,
        ),
        module=ModuleSettings(module_id=f"modules:{name}"),
        tasks=TaskSettings(
            max_concurrent_tasks=script.slots,
            max_queued_tasks=script.queue,
            admission_timeout=script.admission_timeout,
            task_wait_timeout=script.admission_timeout,
        ),
        lifecycle=LifecycleSettings(
            completion_timeout=script.completion_timeout,
            cleanup_grace=script.cleanup_grace,
            stream_drain_timeout=script.drain_timeout,
            setup_cache_ttl=5.0,
        ),
        services=ServicesSettings(
            mode="remote" if script.provider else "local",
            provider=f"{PROVIDER}:{PORT}",
            data_dir=None,
            timezone="UTC",
        ),
        signals=SignalSettings(
            poll_timeout=script.poll_timeout, flush_interval=script.flush_interval, send_timeout=5.0
        ),
        channel=ChannelSettings(keepalive_time=KEEPALIVE, keepalive_timeout=KEEPALIVE_TIMEOUT, min_ping_interval=10.0),
        observe=ObserveSettings(stall_threshold=0.0),
    )
