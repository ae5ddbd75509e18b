"""Modules of this process that others call: their servers over memory, and what callers find them with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import trio
import trio.testing

from dk_trio import ModuleServer
from dk_trio.module import DataModel, DataTrigger, ModuleContext, SetupModel, ToolModule, TriggerHandler
from dk_trio.services.channels import ChannelCache
from dk_trio.services.local.communication import DefaultCommunication
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.registry import DefaultRegistry, LocalRegistry
from dk_trio.services.registry import ModuleInfo, SetupInfo
from dk_trio.services.stores.setups import SetupTable

DAY = 86400
IDS = ("missions:m", "setups:own", "setup_versions:own")


class Search(DataTrigger):
    """Search the web."""

    protocol: Literal["search"] = "search"
    query: str
    limit: int = 10


class Fetch(DataTrigger):
    """Fetch a page."""

    protocol: Literal["fetch"] = "fetch"
    url: str


class ToolInput(DataModel[Search | Fetch]):
    pass


class Found(DataTrigger):
    protocol: Literal["found"] = "found"
    text: str = ""


class ToolOutput(DataModel[Found]):
    pass


class ToolSetup(SetupModel):
    engine: str = "any"


def tool_module(handle: Any) -> Any:
    """A tool with two triggers; `handle(input_data, context)` answers both."""

    async def handled(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        await handle(input_data, context)

    class Tool(ToolModule[ToolInput, ToolOutput, ToolSetup]):
        pass

    for protocol in ("search", "fetch"):
        Tool.register(type(f"{protocol}Handler", (TriggerHandler,), {"protocol": protocol, "handle": handled}))
    return Tool


async def echo(input_data: Any, context: ModuleContext) -> None:
    await context.send(Found(text=input_data.model_dump_json(exclude={"created_at"})))


@dataclass
class Process:
    """What the jobs of a process share, and one job's services."""

    registry: LocalRegistry
    channels: ChannelCache
    nursery: trio.Nursery
    connected: list[str] = field(default_factory=list)
    """Module ids, one for each connection."""
    setups: SetupTable = field(default_factory=lambda: LocalPlatform().setups)
    """None is stored."""

    @property
    def job(self) -> SimpleNamespace:
        return SimpleNamespace(
            registry=DefaultRegistry(*IDS, platform=self),
            communication=DefaultCommunication(*IDS, channels=self.channels, platform=self),
        )

    @asynccontextmanager
    async def serving(self, module: Any, name: str = "tool", **arguments: Any) -> AsyncIterator[ModuleServer]:
        """Serve a module as `modules:NAME`, with a setup `setups:NAME`."""
        platform = LocalPlatform(None)  # in memory, so that no thread makes the clock jump
        server = ModuleServer(module, platform=platform, **arguments)

        async def connect() -> trio.abc.Stream:
            self.connected.append(name)
            ours, theirs = trio.testing.memory_stream_pair()
            self.nursery.start_soon(server.serve_stream, theirs)
            return ours

        async with platform.opened(), server.opened():
            with self.known(name, connect):
                yield server

    @contextmanager
    def known(self, name: str, connect: Any, **info: Any) -> Any:
        """A module in the registry, with one setup; `connect` is the way to it."""
        module = ModuleInfo(module_id=f"modules:{name}", module_name=name.title(), **info)
        setup = SetupInfo(setup_id=f"setups:{name}", module_id=name, name=f"My {name}")
        with self.registry.serving(module, connect=connect, setups=[setup]) as found:
            yield found


@asynccontextmanager
async def process(**arguments: Any) -> AsyncIterator[Process]:
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            async with ChannelCache(**arguments).opened() as channels:
                yield Process(LocalRegistry(), channels, nursery)
            nursery.cancel_scope.cancel()


async def refused() -> trio.abc.Stream:
    raise OSError("connection refused")


async def hanging() -> trio.abc.Stream:
    await trio.sleep_forever()
    raise AssertionError
