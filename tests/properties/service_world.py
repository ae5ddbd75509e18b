"""Two modules of one process, of which one calls the other: with services, in memory, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal

import trio
import trio.testing
from pydantic import BaseModel
from tests.module.sample import Input, Output, module_class

from dk_trio import ModuleServer, Settings
from dk_trio.lifecycle import SessionOptions
from dk_trio.module import DataModel, DataTrigger, Dynamic, ModuleContext, SetupModel, TriggerHandler, TrioModule
from dk_trio.module.mixins import BaseMessage, ChatHistory
from dk_trio.module.mixins._histories import chat_history
from dk_trio.module.tools import ToolReference
from dk_trio.services.channels import GRACE
from dk_trio.services.cost import CostConfig, CostType
from dk_trio.services.filesystem import FileFilter, UploadFileData
from dk_trio.services.local.cost import DefaultCost
from dk_trio.services.local.filesystem import DefaultFilesystem
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.storage import DefaultStorage
from dk_trio.services.setup import SetupVersion
from dk_trio.settings import ModuleSettings, TaskSettings

from .world import DAY, World

OPTIONS = SessionOptions(cleanup_grace=5, completion_timeout=5)
TASKS = TaskSettings(max_concurrent_tasks=1, max_queued_tasks=1)
CHANNEL_GRACE = GRACE + 5
ROUNDS = 2
"""Outputs of the tool."""
PATIENCE = 5.0
"""Seconds that each of them takes: more than it may go on when nobody waits for it any more."""
FETCH = 1.0
"""Seconds that a fetcher takes."""


class Note(BaseModel):
    text: str


class Ask(DataTrigger):
    protocol: Literal["ask"] = "ask"
    question: str


PRICE = CostConfig(cost_name="call", cost_type=CostType.API_CALL, unit="call", rate=0.5)
PARAMS: dict[str, Any] = {
    "storage": {"config": {"notes": Note, "chat_history": ChatHistory}},
    "cost": {"config": {"call": PRICE}},
    "filesystem": {},
}
FORM = {"tools": [{"setupId": "setups:tool", "triggers": {"ask": True}}]}


# --- the two modules: made once, since pydantic takes longer for them than a run takes --------------------------------

_now: list[ServiceWorld] = []
"""The world that runs."""


async def _fetch() -> list[str]:
    world = _now[0]
    world.fetches += 1
    world.fetching += 1
    try:
        await trio.sleep(FETCH)
        return ["small", "large"]
    finally:
        world.fetching -= 1


class Setup(SetupModel):
    tools: ToolReference = ToolReference()
    size: Annotated[str, Dynamic(enum=_fetch)] = ""


async def _work(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
    await _now[0].work(context)


async def _configure(self: Any, context: ModuleContext, config_setup_data: Any) -> Any:
    world = _now[0]
    world.configuring += 1
    try:
        await context.storage.upsert("notes", "configured", {"text": "1"})
        world.done.append("configured")
        await trio.sleep(1)
        return config_setup_data
    finally:
        world.configuring -= 1


async def _answer(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
    world = _now[0]
    world.asking += 1
    try:
        for number in range(ROUNDS):
            await context.send({"protocol": "message", "text": str(number)})
            await trio.sleep(PATIENCE)
    finally:
        world.asking -= 1


Agent = module_class(TrioModule[Input, Output, Setup], services_config_params=PARAMS, run_config_setup=_configure)
Agent.register(type("Handler", (TriggerHandler,), {"protocol": "message", "handle": _work}))
Tool = module_class(TrioModule[DataModel[Ask], Output, SetupModel])
Tool.register(type("AskHandler", (TriggerHandler,), {"protocol": "ask", "handle": _answer}))


class Setups:
    """What the victim runs with."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        await trio.sleep(1)
        return SetupVersion(id=f"{setup_id}:1", setup_id=setup_id, content=self.content)


class ServiceWorld(World):
    """A server whose jobs use all services, and a tool that they call, on one platform."""

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        super().__init__({}, tasks=TASKS, options=OPTIONS)
        self.platform = LocalPlatform(None)
        self.setups = Setups()
        self.setups.content = content or {}
        self.done: list[str] = []
        self.answers = 0
        self.asking = 0
        self.configuring = 0
        self.fetches = 0
        self.fetching = 0
        settings = Settings(tasks=TASKS)
        self.server = ModuleServer(
            Agent,
            settings=settings,
            setups=self.setups,
            session_options=OPTIONS,
            signals=self.signals,
            platform=self.platform,
        )
        self.tool = ModuleServer(
            Tool,
            settings=replace(settings, module=ModuleSettings(module_id="modules:tool")),
            session_options=OPTIONS,
            platform=self.platform,
        )

        _now[:] = [self]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        with trio.fail_after(DAY):
            async with self.platform.opened(), self.tool.opened(), super().opened():
                yield

    async def work(self, context: ModuleContext) -> None:
        """What a job does; it notes each step that was acknowledged."""
        await context.storage.store("notes", "one", {"text": "stored"})
        self.done.append("store")
        await context.cost.add("question", "call", 2)
        self.done.append("cost")
        file = UploadFileData(content=b"x" * 1000, name="one.txt", file_type="DOCUMENT")
        await context.filesystem.upload_files([file])
        self.done.append("file")
        history = chat_history(context)
        # In the history from the start of the call.
        self.done.append("history")
        await history.append([BaseMessage(role="user", content="hello")])
        for _, ask in context.create_tool_functions("setups:tool"):
            async for _ in ask(question="what?"):
                self.answers += 1
        await history.append([BaseMessage(role="assistant", content="bye")])
        await context.send({"protocol": "message", "number": 1})
        self.done.append("all")

    # --- what must hold ----------------------------------------------------------------------------------------------

    async def until_quiet(self, within: float) -> None:
        """Nothing goes on that belongs to a job; channels may still be open."""
        await self.until_idle(within)
        with trio.fail_after(1):
            while self.tool.statistics().rpc.rpcs:  # noqa: ASYNC110  there is no event for it
                await trio.sleep(0.1)
        assert (self.asking, self.configuring, self.fetching) == (0, 0, 0)
        tool = self.tool.statistics()
        assert (tool.jobs.running, tool.jobs.queued, tool.admission.admitted) == (0, 0, 0)
        for server in (self.server, self.tool):
            channels = server.statistics().channels
            assert (channels.leases, channels.in_use) == (0, 0)
            assert server._servicer.health_checks.late == set()
            assert not server._servicer._schemas._cache._flights
            assert not server._servicer.config_setups

    async def until_over(self, within: float) -> None:
        await trio.sleep(CHANNEL_GRACE)
        assert self.server.statistics().channels.channels == 0
        with trio.fail_after(within):
            while self.tool.statistics().rpc.connections:  # noqa: ASYNC110
                await trio.sleep(1)
        await super().until_over(within)

    async def check_stored(self, mission: str, done: list[str]) -> None:
        """What was acknowledged is there, once; what was not is there wholly or not at all. All can still be used."""
        database = self.platform.database
        now = database.statistics()
        assert (now.queued, now.blocked) == (0, 0)
        ids = (mission, "setups:v", "v1")
        storage = DefaultStorage(*ids, platform=self.platform, **PARAMS["storage"])
        note = await storage.read("notes", "one")
        assert note is not None or "store" not in done
        cost = DefaultCost(*ids, platform=self.platform, **PARAMS["cost"])
        costs = await cost.get("question")
        sums = await self.platform.costs.sums(f"missions:{mission}")
        assert len(costs) in ({1} if "cost" in done else {0, 1})
        assert [float(row.amount) for row in sums.values()] == [row.cost for row in costs]
        files = DefaultFilesystem(*ids, platform=self.platform)
        found, total = await files.get_files(FileFilter(), include_content=True)
        assert len(found) == total == len(self.platform.files._contents._contents)  # type: ignore[attr-defined]
        if "configured" in done:
            assert await storage.read("notes", "configured") is not None
        assert total in ({1} if "file" in done else {0, 1})
        assert all(file.content == b"x" * 1000 for file in found)
        record = await storage.read("chat_history", f"full_chat_history_{mission}")
        said = [] if record is None else [row.content for row in record.data.messages]
        assert said == ["hello", "bye"][: len(said)]
        assert said or "history" not in done
        await storage.store("notes", "afterwards", {"text": "works"})
        await cost.add("afterwards", "call", 1)
