"""A module server and its callers in one virtual world, where every thing can be struck down at any moment."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.sizes import size

from dk_trio import ModuleClient, ModuleServer, rpc
from dk_trio.errors import SessionEndedError
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import OUTCOMES, Reason, SessionOptions
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ConfigSetupModuleRequest, ModuleServiceStub
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion as SetupVersionMessage
from dk_trio.pb.google.protobuf import Struct
from dk_trio.rpc.server_call import ServerCall
from dk_trio.services.setup import SetupVersion
from dk_trio.session import Session
from dk_trio.settings import LifecycleSettings, Settings, TaskSettings
from dk_trio.signals import LocalSignals, Signal, SignalAction
from dk_trio.testing import run, task_tree

from .acts import Ledger, Plan

MemoryStream = trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]

DAY = 86_400
"""Seconds of virtual time within which every test must be done; a deadlock gets there at once."""


def seeds(suite: int) -> range:
    """As many seeds as the suite takes; a night gives each test of seeds sixteen times as many."""
    return range(size(suite, 16 * suite))


def run_seeded(seed: int, function: Any, *arguments: Any) -> Any:
    """`trio.run` in virtual time; the seed decides in which order tasks run that could run at the same time."""
    return run(function, *arguments, seed=seed)


@dataclass
class Caller:
    """What one caller has got."""

    name: str
    timeout: float | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    received: list[int] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    status: Status | None = None
    over: bool = False

    async def call(self, client: ModuleClient, *, setup_id: str = "setups:s", pause: float = 0) -> None:
        """Start the job of this name, and read its outputs, with a pause after each."""
        root = {"protocol": "message", "text": self.name}
        with self._ending():
            async with client.start(
                root, setup_id=setup_id, mission_id=self.name, timeout=self.timeout, metadata={"name": self.name}
            ) as outputs:
                async for output in outputs:
                    self._note(output["root"])
                    if pause:
                        await trio.sleep(pause)

    async def configure(self, client: ModuleClient, setup_id: str) -> None:
        """Configure a setup."""
        version = SetupVersionMessage(id="v1", setup_id=setup_id)
        request = ConfigSetupModuleRequest(setup_version=version, content=Struct.from_dict({}), mission_id=self.name)
        stub = ModuleServiceStub(client.channel)
        with self._ending():
            await stub.config_setup_module(request, metadata={"name": self.name})

    @contextmanager
    def _ending(self) -> Iterator[None]:
        with self.scope:
            try:
                yield
                self.status = Status.OK
            except GRPCError as error:
                self.status = error.status
        self.over = True

    def _note(self, root: dict[str, Any]) -> None:
        self.protocols.append(root["protocol"])
        if "number" in root:
            self.received.append(int(root["number"]))


class SlowSetups:
    """A source of setups that takes its time."""

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        await trio.sleep(self._delay)
        return SetupVersion(id=f"{setup_id}:1", setup_id=setup_id, content={})


class World:
    """One server, over memory, and connections to it.

    Args:
        plans: What the jobs do, by name.
        tasks: Sizes of the server.
        lifecycle: Times of the server.
        options: Times of its sessions.
        setup_delay: Seconds for the fetch of a setup.
    """

    def __init__(
        self,
        plans: dict[str, Plan],
        *,
        tasks: TaskSettings,
        lifecycle: LifecycleSettings | None = None,
        options: SessionOptions,
        setup_delay: float = 1,
    ) -> None:
        self.ledger = Ledger(plans)
        self._grace = min(options.cleanup_grace, options.completion_timeout)
        self.callers: dict[str, Caller] = {}
        self.signals = LocalSignals()
        self.server = ModuleServer(
            self.ledger.module(),
            settings=Settings(tasks=tasks, lifecycle=lifecycle or LifecycleSettings()),
            setups=SlowSetups(setup_delay),
            session_options=options,
            signals=self.signals,
        )
        self.server_scope = trio.CancelScope()
        self.drain_begins = trio.Event()
        self.stuck: list[Session] | None = None
        self._streams: dict[str, list[MemoryStream]] = {}
        self._connections: trio.Nursery | None = None
        self._tasks = 0

    @property
    def jobs(self) -> Jobs:
        return self.server._servicer.jobs

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Serve for the length of the block, unless the server is cancelled before."""
        with trio.fail_after(DAY), self.signals.observe(self.ledger.note):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain)
                await nursery.start(self._serve)
                yield
                nursery.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        with self.server_scope:
            async with self.server.opened(), trio.open_nursery() as self._connections:
                self._tasks = trio.lowlevel.current_statistics().tasks_living
                task_status.started()
                await trio.sleep_forever()
        self._connections = None

    async def _drain(self) -> None:
        await self.drain_begins.wait()
        self.stuck = await self.server.drain(0)

    @asynccontextmanager
    async def connected(self, name: str, **options: Any) -> AsyncIterator[ModuleClient]:
        """A client of its own channel."""
        streams = self._streams[name] = []

        async def connect() -> trio.abc.Stream:
            if self._connections is None or self.server_scope.cancel_called:
                raise OSError("nobody listens")
            ours, theirs = trio.testing.memory_stream_pair()
            self._connections.start_soon(self.server.serve_stream, theirs)
            streams.append(ours)
            return ours

        channel = rpc.open_channel(name, connect=connect, options=rpc.ChannelOptions(retry=None, **options))
        async with channel:
            yield ModuleClient(channel)

    def caller(self, name: str, *, timeout: float | None = None) -> Caller:
        caller = self.callers[name] = Caller(name, timeout)
        return caller

    async def hold_slot(self, seconds: float) -> None:
        """Take a slot without a job."""
        async with self.server._admission.admit():
            await trio.sleep(seconds)

    # -- strikes: none of them waits ----------------------------------------------------------------------------------

    def sessions(self, name: str) -> list[Session]:
        """The session of a job, if it is here."""
        return [session for session in self.jobs if session.ids.mission_id == name]

    def calls(self, name: str) -> list[ServerCall]:
        """The call of a job on the server, if its handler runs."""
        connections = list(self.server._rpc._connections)
        streams = [stream for connection in connections for stream in list(connection._wire.streams.values())]
        return [call for call in streams if call.scope is not None and call.metadata.get("name") == name]

    def lose(self, connection: str) -> None:
        """The connections of a channel are gone, without a word."""
        for stream in self._streams[connection]:
            stream.send_stream.close()
            stream.receive_stream.close()

    def stop(self, name: str) -> None:
        """StopModule, as far as it goes on the server."""
        for session in self.sessions(name):
            self.jobs.stop(session.ids.job_id, Reason.STOP_MODULE, "struck")

    def signal(self, name: str, action: SignalAction) -> None:
        """A signal comes for a job."""
        for session in self.sessions(name):
            self.signals.send(Signal(task_id=session.ids.job_id, action=action))

    def expire(self, name: str) -> None:
        """The deadline of a call passes on the server now."""
        for call in self.calls(name):
            assert call.scope is not None
            call.deadline_at = call.scope.deadline = trio.current_time()

    # -- what must hold meanwhile -------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look, whenever all tasks wait, whether what is counted is what is there."""
        while True:
            await trio.testing.wait_all_tasks_blocked()
            now = self.server.statistics()
            admission = now.admission
            assert admission.running == sum(job.holds_slot for job in self.ledger.jobs.values()) <= admission.slots
            queued = admission.queued if admission.queue else 0
            assert admission.admitted == admission.running + queued <= admission.slots + admission.queue
            assert admission.queued + admission.at_gate == now.jobs.queued
            assert len(self.jobs) <= now.rpc.rpcs
            await trio.sleep(0.25)

    # -- what must hold afterwards ------------------------------------------------------------------------------------

    async def until_idle(self, within: float) -> None:
        """Wait until no job and no call is here."""
        with trio.fail_after(within):
            while len(self.jobs) or self.server.statistics().rpc.rpcs:  # noqa: ASYNC110  there is no event for it
                await trio.sleep(1)

    async def until_over(self, within: float) -> None:
        """Wait until every connection has ended, once the channels are closed; then nothing may be left."""
        with trio.fail_after(within):
            while (now := self.server.statistics()).rpc.connections or now.setups.in_flight:  # noqa: ASYNC110
                await trio.sleep(1)
            await trio.testing.wait_all_tasks_blocked()
        self._check_empty()

    def _check_empty(self) -> None:
        server = self.server
        now = server.statistics()
        admission = now.admission
        assert (admission.running, admission.queued, admission.at_gate, admission.admitted) == (0, 0, 0, 0), server
        assert not server._admission._door.locked()
        assert (now.jobs.queued, now.jobs.running, len(self.jobs)) == (0, 0, 0), server
        assert (now.rpc.rpcs, now.rpc.connections, server._rpc.idle_workers) == (0, 0, 0), server
        assert not self.signals._listeners
        assert sum(now.jobs.ended.values()) == len(self.jobs._reasons) + now.jobs.refused
        assert not self.drain_begins.is_set() or self.stuck == []
        if not self.server_scope.cancel_called:
            tasks = trio.lowlevel.current_statistics().tasks_living
            assert tasks + self.drain_begins.is_set() == self._tasks, task_tree()

    async def check_jobs(self) -> None:
        """Each job has ended once, and its caller knows how."""
        known = self.jobs._reasons
        for name, job in self.ledger.jobs.items():
            reason = job.check(grace=self._grace)
            if reason is not None:
                assert known[job.signals[-1].task_id] is reason, job
            caller = self.callers[name]
            assert caller.over, name
            self._check_caller(caller, reason)
            if job.context is not None:
                sent = list(caller.received)
                try:
                    await job.context.send({"protocol": "message"})
                except SessionEndedError:
                    assert caller.received == sent
                else:
                    raise AssertionError(f"{name} could send after its end")

    def _check_caller(self, caller: Caller, reason: Reason | None) -> None:
        job = self.ledger[caller.name]
        ok = caller.status is Status.OK
        # Not OK may follow: a strike in the very step that sends it.
        job.check_received(caller.received, complete=ok or "end_of_stream" in caller.protocols)
        assert "end_of_stream" not in caller.protocols[:-1], caller
        if ok:
            assert reason is Reason.COMPLETED, (caller, job)
            assert (caller.protocols[0], caller.protocols[-1]) == ("module_start_info", "end_of_stream"), caller
        elif reason is not None and not caller.scope.cancel_called:
            error = OUTCOMES[reason].error
            status = Status.OK if error is None else error.status
            # A connection that is lost takes the status along, and a caller may see its deadline first.
            late = {Status.DEADLINE_EXCEEDED} if caller.timeout is not None else set()
            assert caller.status in {status, Status.UNAVAILABLE} | late, (caller, job)
        assert caller.status is not None or caller.scope.cancel_called, caller


@contextmanager
def replay(**what: object) -> Iterator[None]:
    """Say in an error that comes out of the block what is needed to see it again."""
    try:
        yield
    except BaseException as error:
        error.add_note("To see it again: " + ", ".join(f"{key}={value!r}" for key, value in what.items()))
        raise


_admission_log = logging.getLogger("dk_trio.admission")


class Complaints(logging.Handler):
    """Collects what the package logs as a warning or worse, for the length of a block."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.texts: list[str] = []

    def __enter__(self) -> Self:
        logging.getLogger("dk_trio").addHandler(self)
        _admission_log.setLevel(logging.ERROR)  # few free slots are what these tests want
        return self

    def __exit__(self, *_: object) -> None:
        _admission_log.setLevel(logging.NOTSET)
        logging.getLogger("dk_trio").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))
