"""Servers in remote mode on a provider that is not ours: grpcio's, in a process of its own; see its own docstring."""

import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel
from tests.cli.processes import PATIENCE, Running, started
from tests.module.sample import Message, module_with
from tests.module.sample import Settings as Setup

import dk_trio
from dk_trio import ModuleClient, ModuleServer, Settings, rpc
from dk_trio.module import ModuleContext
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import CreateSetupRequest, SetupServiceStub, SetupStatus, SetupVersion
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.filesystem import FileFilter, UploadFileData
from dk_trio.settings import ServerSettings, ServicesSettings

pytest.importorskip("grpc", reason="grpcio is the peer")

SCRIPT = str(Path(__file__).with_name("grpcio_provider.py"))
DESCRIPTORS = str(Path(dk_trio.__file__).parent / "pb" / "descriptors.bin")
MISSION = "missions:profiled"
CONTENT = bytes(range(256)) * 800


class Note(BaseModel):
    text: str


PARAMS = {
    "storage": {"config": {"notes": Note}},
    "cost": {"config": {"calls": {"cost_name": "calls", "cost_type": "API_CALL", "unit": "call", "rate": 0.5}}},
}


@asynccontextmanager
async def foreign(port: int = 0) -> AsyncIterator[Running]:
    """The provider; `address` is where it listens."""
    async with started(DESCRIPTORS, str(port), program=[sys.executable, SCRIPT]) as running:
        running.address = (await running.wait_for("READY ", "stdout")).removeprefix("READY ")
        yield running


def asked(provider: Running, method: str) -> list[dict[str, Any]]:
    """The requests of a method, in the order in which they came."""
    calls = [json.loads(line) for line in provider.lines["stdout"] if line.startswith("{")]
    return [call["request"] for call in calls if call["method"] == method]


def told(provider: Running, job_id: str) -> list[tuple[str, str]]:
    """What was said of a job: actions with their reasons."""
    tasks = [task for request in asked(provider, "SendSignals") for task in request["tasks"]]
    return [(task["action"], task["cancellation_reason"]) for task in tasks if task["task_id"] == job_id]


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110  another process does not tell
        await trio.sleep(0.01)


async def stored(address: str, module_id: str) -> str:
    version = SetupVersion(version="1", content=Struct.from_dict({"prefix": f"{module_id} "}))
    request = CreateSetupRequest(name="s", module_id=module_id, current_setup_version=version, status=SetupStatus.READY)
    async with rpc.open_channel(address) as channel:
        reply = await SetupServiceStub(channel).create_setup(request)
    assert reply.setup is not None
    return reply.setup.id


async def cancel(address: str, job_id: str) -> None:
    ids = {"mission_id": MISSION, "setup_id": "setups:1", "setup_version_id": "setup_versions:2"}
    moment = datetime(2020, 1, 1, tzinfo=UTC)  # of a platform whose clock is behind
    task = Task(task_id=job_id, action="cancel", cancellation_reason="none", created_at=moment, **ids)
    async with rpc.open_channel(address) as channel:
        await TaskManagerServiceStub(channel).send_signals(SendSignalsRequest(tasks=[task]))


@asynccontextmanager
async def serving(address: str, module_id: str, handle: Any) -> AsyncIterator[tuple[ModuleServer, ModuleClient]]:
    """A server of a module, and a client of it."""
    settings = Settings(
        services=ServicesSettings(mode="remote", provider=address, data_dir=None),
        server=ServerSettings(heartbeat_interval=0.3),
    )
    metadata = {"module_id": module_id, "version": "1"}
    module = module_with(handle, metadata=metadata, services_config_params=PARAMS)
    server = ModuleServer(module, settings=settings)
    async with server.running(port=0) as own, ModuleClient.connect(own) as client:
        await until(lambda: registrations(server) == 1)
        yield server, client


def registrations(server: ModuleServer) -> int:
    link = server.statistics().provider
    assert link is not None
    assert link.registration is not None
    return link.registration.registrations


async def say(context: ModuleContext, text: Any) -> None:
    await context.send(Message(text=str(text)))


async def echo(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    await say(context, setup.prefix + data.text)


async def wait(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    await say(context, "waiting")
    await trio.sleep_forever()


async def use_everything(self: Any, data: Message, setup: Setup, context: ModuleContext) -> None:
    storage, cost, files = context.storage, context.cost, context.filesystem
    await storage.store("notes", "a", {"text": "1"})
    await storage.upsert("notes", "b", {"text": "2"})
    record = await storage.update("notes", "a", {"text": "3"})
    assert record is not None
    assert await storage.remove("notes", "b")
    assert not await storage.remove("notes", "b")
    assert await storage.read("notes", "b") is None
    await say(context, [row.data.text for row in await storage.list("notes")])
    for quantity in (2, 0):
        await cost.add("search", "calls", quantity)
    await say(context, [row.cost for row in await cost.get("search")])
    upload = UploadFileData(content=CONTENT, name="a.bin", file_type="OTHER")
    (file,) = (await files.upload_files([upload])).records
    renamed = await files.update_file(file.id, new_name="b.bin")
    whole = await files.get_file(file.id, include_content=True)
    assert whole.content == CONTENT
    listed, total = await files.get_files(FileFilter())
    await say(context, [renamed.name, file.size_bytes, [row.name for row in listed], total])
    assert (await files.delete_files(FileFilter(file_ids=[file.id]))).deleted == {file.id: True}
    profile = await context.user_profile.get_user_profile()
    assert profile is not None
    await say(context, [profile["first_name"], profile["credits"][0]["remaining"]])
    (other,) = await context.registry.search("callee")
    assert await context.registry.discover_by_id("callee") == other
    answers = context.communication.call_module(
        other.address, other.port, {"protocol": "message", "text": "called"}, data.text, MISSION
    )
    async with aclosing(answers):
        async for answer in answers:
            root = answer["output"]["root"]
            if root["protocol"] == "message":
                await say(context, root["text"])


async def test_jobs_with_services_of_a_provider_of_other_make() -> None:
    with trio.fail_after(PATIENCE):
        async with foreign() as provider, AsyncExitStack() as stack:
            _, client = await stack.enter_async_context(serving(provider.address, "modules:caller", use_everything))
            await stack.enter_async_context(serving(provider.address, "modules:callee", echo))
            setup_id, callee = [await stored(provider.address, f"modules:{name}") for name in ("caller", "callee")]
            data = {"protocol": "message", "text": callee}
            async with client.start(data, setup_id=setup_id, mission_id=MISSION) as outputs:
                roots = [output["root"] async for output in outputs]
    texts = [root["text"] for root in roots if root["protocol"] == "message"]
    assert texts == [
        "['3']",
        "[1.0, 0.0]",
        f"['b.bin', {len(CONTENT)}, ['b.bin'], 1]",
        "['Ada', 1.5]",
        "modules:callee called",
    ]
    assert [request["setup_id"] for request in asked(provider, "GetSetup")] == [setup_id, callee]


async def test_a_job_is_cancelled_by_a_signal_and_not_by_its_own_words() -> None:
    with trio.fail_after(PATIENCE):
        async with foreign() as provider, serving(provider.address, "modules:m", wait) as (_, client):
            setup_id = await stored(provider.address, "modules:m")
            jobs = []

            async def job() -> None:
                data = {"protocol": "message"}
                async with client.start(data, setup_id=setup_id, mission_id=MISSION) as outputs:
                    await anext(outputs)
                    jobs.append(str(outputs.job_id))
                    with pytest.raises(Exception, match="cancel"):
                        async for _ in outputs:
                            pass

            async with trio.open_nursery() as nursery:
                nursery.start_soon(job)
                nursery.start_soon(job)
                await until(lambda: len(jobs) == 2)
                await trio.sleep(1)  # START has come back by now, several times
                await cancel(provider.address, jobs[0])
                await until(lambda: ("ack_cancel", "signal_service_cancel") in told(provider, jobs[0]))
                assert told(provider, jobs[1]) == [("start", "none")]
                await cancel(provider.address, jobs[1])
            await until(lambda: all(told(provider, job_id)[-1][0] == "stop" for job_id in jobs))
            for job_id in jobs:
                assert told(provider, job_id) == [
                    ("start", "none"),
                    ("cancel", "none"),
                    ("ack_cancel", "signal_service_cancel"),
                    ("stop", "signal_service_cancel"),
                ]


async def test_a_restart_is_survived_and_the_lease_runs_out_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with trio.fail_after(PATIENCE):
        async with foreign() as first, serving(first.address, "modules:m", wait) as (server, client):
            setup_id = await stored(first.address, "modules:m")
            async with client.start({"protocol": "message"}, setup_id=setup_id, mission_id=MISSION) as outputs:
                await anext(outputs)
                job_id = str(outputs.job_id)
                await until(lambda: told(first, job_id))
                first.process.kill()
                await first.wait()
                # What comes back has nothing in its memory.
                async with foreign(int(first.address.rpartition(":")[2])) as second:
                    await until(lambda: registrations(server) == 2)
                    await cancel(second.address, job_id)
                    with pytest.raises(Exception, match="cancel"):
                        async for _ in outputs:
                            pass
                    await until(lambda: len(told(second, job_id)) == 3)
                    assert [action for action, _ in told(second, job_id)] == ["cancel", "ack_cancel", "stop"]
                    await server.drain(0)
    assert "the registry has forgotten modules:m: registering it again" in caplog.text
    assert "the registry finds modules:m until its lease has run out" in caplog.text
