"""The services-provider of a simulation, which crashes and comes back with what it has kept; and whoever asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import trio
from grpclib.exceptions import GRPCError

from dk_trio import chance, rpc
from dk_trio.boundary import unwrapped
from dk_trio.extensions import SETUP_ID
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import GetModuleRequest, ModuleStatus, RegistryServiceStub
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupRequest,
    SetupServiceStub,
    SetupStatus,
    SetupVersion,
)
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import Provider, ProviderOptions, SqliteDatabase
from dk_trio.services.stores.work import Statement, Work
from dk_trio.signals._tasks import payload_of

from .authors import PREFIX, setup_of
from .callers import client_options
from .servers import LEASE, PORT, PROVIDER

if TYPE_CHECKING:
    from .world import World

PLATFORM = "platform"
"""The host from which others ask the provider to end jobs."""
ASK_EVERY = 1.0
"""Seconds after which what was not taken is asked again."""


class _Kept:
    """A database that outlives the provider which opens it, as a disk does."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        yield self


class ProviderHost:
    """The host on which the services-provider runs, one life after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._database = SqliteDatabase(None)
        self._scope = trio.CancelScope()
        self._away = 0.0
        self._channel: rpc.Channel
        self._told = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """The provider is there for the length of the block, but for its crashes."""
        async with self._database.opened(), unwrapped(), trio.open_nursery() as nursery:
            await nursery.start(self._live)
            async with rpc.open_channel(
                f"{PROVIDER}:{PORT}",
                connect=lambda: self._world.network.connect(PLATFORM, PROVIDER),
                options=client_options(retries=False),
            ) as self._channel:
                yield self
            nursery.cancel_scope.cancel()

    async def _live(self, *, task_status: trio.TaskStatus[None]) -> None:
        while True:
            database: Any = _Kept(self._database)
            provider = Provider(database, options=ProviderOptions(validate="strict", lease=LEASE, stall_threshold=0.0))
            with trio.CancelScope() as self._scope:
                async with provider.opened(), self._world.network.host(PROVIDER, provider.serve_stream):
                    task_status.started()
                    await trio.sleep_forever()
            task_status = trio.TASK_STATUS_IGNORED
            await self.note_signals()
            await trio.sleep(self._away)
            self._world.note("provider", "restart")

    async def crash(self, seconds: float) -> None:
        """The process ends without a word, and comes back after so many seconds."""
        self._world.note("provider", "crash")
        self._away = seconds
        self._world.network.kill(PROVIDER)
        self._scope.cancel()
        await trio.sleep(seconds)

    async def create_setup(self, server: str) -> None:
        """Store the setup of a server's jobs."""
        setup_id = setup_of(server)
        version = SetupVersion(
            id=f"setup_versions:{server}",
            setup_id=setup_id,
            version="1",
            content=Struct.from_dict({"tone": "stored"}),
            creation_date=chance.utc_now(),
        )
        await SetupServiceStub(self._channel).create_setup(
            CreateSetupRequest(
                name="script",
                organisation_id="organisations:o",
                owner_id="users:u",
                module_id=f"modules:{server}",
                current_setup_version=version,
                status=SetupStatus.READY,
            ),
            metadata={SETUP_ID: setup_id},
        )

    async def ask(self, job: str, job_id: str, server: str, action: str) -> None:
        """Ask for the end of a job, until the provider has taken that."""
        self._world.note("provider", "signal_sent", task=job, action=action)
        task = Task(
            task_id=job_id,
            mission_id=PREFIX + job,
            setup_id=setup_of(server),
            setup_version_id=f"setup_versions:{server}",
            action=action,
            cancellation_reason="none",
            created_at=chance.utc_now(),
        )
        while True:
            try:
                await TaskManagerServiceStub(self._channel).send_signals(SendSignalsRequest(tasks=[task]), timeout=5)
            except GRPCError:
                await trio.sleep(ASK_EVERY)
            else:
                self._world.note("provider", "signal_taken", task=job, action=action)
                return

    async def note_registered(self) -> None:
        """Note which servers the registry finds now, as anybody does who asks it."""
        stub = RegistryServiceStub(self._channel)
        found = []
        for server in self._world.script.servers:
            module = await stub.get_module(GetModuleRequest(f"modules:{server}"))
            if module.status is ModuleStatus.ACTIVE:
                found.append(server)
        self._world.note("provider", "registered", found=found)

    # -- what is kept -------------------------------------------------------------------------------------------------

    async def note_signals(self) -> None:
        """Note what jobs have reported, as it was committed since the last time."""

        def work() -> Work[list[tuple[int, Task]]]:
            sql = "SELECT place, message FROM signals WHERE request = 0 AND place > ? ORDER BY place"
            rows = (yield Statement(sql, (self._told,))).rows
            return [(place, Task.parse(bytes(message))) for place, message in rows]

        for place, task in await self._database.read(work):
            self._told = place
            job = self._world.run_name(task.mission_id.removeprefix(PREFIX), task.task_id)
            reason = payload_of(task).get("reason", "none")
            self._world.note("provider", "signal", task=job, action=task.action, reason=reason, seq=place)

    async def note_records(self) -> None:
        """Note which records, costs and files there are, and how often."""

        def work() -> Work[list[tuple[str, int]]]:
            found: list[tuple[str, int]] = []
            for sql in (
                "SELECT record_id, COUNT(*) FROM records GROUP BY record_id ORDER BY record_id",
                "SELECT name, COUNT(*) FROM costs GROUP BY name ORDER BY name",
                "SELECT name, COUNT(*) FROM files GROUP BY name ORDER BY name",
            ):
                found += [(name, count) for name, count in (yield Statement(sql)).rows]
            return found

        for name, count in await self._database.read(work):
            self._world.note("provider", "record", record=name, times=count)
