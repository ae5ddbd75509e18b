"""A provider, and a server whose services, setups and signals are there; everything in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import trio
from pydantic import BaseModel
from tests.provider.kit import Provided, provided

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.module import ModuleContext
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupRequest,
    SetupServiceStub,
    SetupStatus,
    SetupVersion,
)
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.stores.work import Statement, Work
from dk_trio.settings import ServerSettings, ServicesSettings
from dk_trio.testing import serve_in_memory

from .sample import Message, module_with
from .sample import Settings as Setup

MODULE_ID = "modules:sample"
MISSION = "missions:m"
REMOTE = Settings(
    services=ServicesSettings(mode="remote", provider="provider:50051", data_dir=None),
    server=ServerSettings(advertise_host="sample.mesh", heartbeat_interval=10.0),
)


def wall_clock() -> float:
    """Goes with virtual time."""
    return 1_800_000_000 + trio.current_time()


class Note(BaseModel):
    text: str


def module(handle: Any, **hooks: Any) -> Any:
    hooks = {
        "metadata": {"module_id": MODULE_ID, "version": "1.2"},
        "services_config_params": {"storage": {"config": {"notes": Note}}},
        **hooks,
    }
    return module_with(handle, **hooks)


class Network:
    """The way to a provider, which can be away."""

    def __init__(self, provider: Provided) -> None:
        self.provider = provider
        self.away = False

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise OSError("the provider is away")
        return await self.provider.connect()

    async def fail(self) -> None:
        self.away = True
        await self.provider.cut()

    def heal(self) -> None:
        self.away = False


@asynccontextmanager
async def remote(
    handle: Any, *, settings: Settings = REMOTE, setup: dict[str, Any] | None = None, **hooks: Any
) -> AsyncIterator[tuple[ModuleServer, ModuleClient, Network, str]]:
    """A provider with one setup, and a server of it; everything in memory."""
    async with provided(now=wall_clock) as provider:
        network = Network(provider)
        setup_id = await stored_setup(provider, setup or {"prefix": "> "})
        async with serve_in_memory(module(handle, **hooks), settings=settings, provider=network.connect) as served:
            yield served.server, served.client, network, setup_id


async def stored_setup(provider: Provided, content: dict[str, Any], module_id: str = MODULE_ID) -> str:
    reply = await SetupServiceStub(provider.channel).create_setup(
        CreateSetupRequest(
            name="sample",
            organisation_id="organisations:o",
            owner_id="users:u",
            module_id=module_id,
            current_setup_version=SetupVersion(version="1", content=Struct.from_dict(content)),
            status=SetupStatus.READY,
        )
    )
    assert reply.setup is not None
    return reply.setup.id


async def told(network: Network) -> list[Task]:
    """Every signal that the provider has taken, in its order."""
    database = network.provider.provider._stores.database

    def work() -> Work[list[Task]]:
        result = yield Statement("SELECT message FROM signals ORDER BY place")
        return [Task.parse(message) for (message,) in result.rows]

    return await database.read(work)


async def say(context: ModuleContext, text: str) -> None:
    await context.send(Message(text=text))


async def echo(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    await say(context, setup.prefix + data.text)


async def keep(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    record = await context.storage.store("notes", data.text, {"text": data.text})
    await say(context, record.record_id)


async def wait(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    await say(context, "waiting")
    await trio.sleep_forever()


async def doze(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    await trio.sleep(data.count)
    await say(context, "awake")


async def signal(network: Network, job_id: str, action: str, *, at: datetime | None = None) -> None:
    task = Task(
        task_id=job_id,
        mission_id=MISSION,
        setup_id="setups:s",
        setup_version_id="setup_versions:v",
        action=action,
        cancellation_reason="none",
        created_at=at or datetime.now(UTC),
    )
    await TaskManagerServiceStub(network.provider.channel).send_signals(SendSignalsRequest(tasks=[task]))
