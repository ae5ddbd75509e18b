"""Signals, registries and setups for a gRPC client that is not ours, and that leaves out what the existing SDK does."""

import json
import sys
from pathlib import Path
from typing import Any

import trio
from tests.cli.processes import started

import dk_trio
from dk_trio.provider import Provider
from dk_trio.provider.task_manager import TaskManagerStatistics
from dk_trio.services.stores.sqlite import SqliteDatabase

from .test_foreign_client import PATIENCE, called

JOBS = str(Path(__file__).with_name("grpcio_jobs.py"))
DESCRIPTORS = str(Path(dk_trio.__file__).parent / "pb" / "descriptors.bin")
ROOT = str(Path(__file__).parents[2])

IDS = {"mission_id": "missions:m", "setup_id": "setups:s", "setup_version_id": "setup_versions:v"}
CREATED = {"created_at": "2026-01-01T00:00:00Z", "cancellation_reason": "none"}


def sent(job: str, action: str, **fields: Any) -> dict[str, Any]:
    return {"task_id": job, "action": action, **IDS, **CREATED, **fields}


async def test_registries_and_setups() -> None:
    module = {"module_id": "modules:a", "address": "127.0.0.1", "port": 50051, "version": "1"}
    setup = {"name": "S", "module_id": "modules:a", "status": "READY"}
    version = {"version": "1", "content": {"a": 1, "list": [None, True]}}
    async with Provider(SqliteDatabase(None)).running(port=0) as address:
        made, *told = await called(
            address,
            ("setup", "CreateSetup", {**setup, "current_setup_version": version}),
            ("registry", "RegisterModule", module),
            ("registry", "Heartbeat", {"module_id": "a"}),
            ("registry", "DiscoverModules", {}),  # no query, no organization, no limit
            ("registry", "Heartbeat", {"module_id": "modules:x"}),
            ("module_registry", "DeregisterModule", {"module_id": "modules:a"}),
            ("registry", "GetModule", {"module_id": "a"}),
            ("setup", "ListSetups", {}),  # no limit
            ("setup", "GetSetup", {"setup_id": "setups:x", "version": ""}),
        )
        registered, beat, found, lost, left, known, listed, unknown = told
        assert registered["reply"]["module"]["status"] == "MODULE_STATUS_ACTIVE"
        assert beat["reply"]["status"] == "MODULE_STATUS_ACTIVE"
        assert [row["id"] for row in found["reply"]["modules"]] == ["modules:a"]
        assert (lost["status"], lost["reason"]) == ("NOT_FOUND", "MODULE_NOT_FOUND")
        assert left["reply"] == {"success": True}
        assert (known["reply"]["status"], known["reply"]["port"]) == ("MODULE_STATUS_READY", 50051)
        assert listed["reply"]["setups"] == [made["reply"]["setup"]]
        assert made["reply"]["setup"]["current_setup_version"]["content"] == version["content"]
        assert (unknown["status"], unknown["reason"]) == ("NOT_FOUND", "SETUP_NOT_FOUND")


async def test_a_poll_that_is_held() -> None:
    provider = Provider(SqliteDatabase(None))
    polled: list[Any] = []
    async with provider.running(port=0) as address, trio.open_nursery() as nursery:

        async def poll() -> None:
            polled.extend(await called(address, ("task_manager", "GetSignals", {"task_ids": ["a", "b"]})))

        nursery.start_soon(poll)
        while not _statistics(provider).polls:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
        start = sent("a", "start", heartbeat_at="2026-01-01T00:00:00Z")
        told = await called(
            address,
            ("task_manager", "SendSignals", {"tasks": [start, sent("b", "start"), sent("a", "cancel")]}),
            ("task_manager", "ListHeartbeats", {"task_ids": ["a", "c"]}),
        )
    assert [task["action"] for task in told[0]["reply"]["tasks"]] == ["start", "start", "cancel"]
    assert [task["task_id"] for task in told[1]["reply"]["tasks"]] == ["a"]
    assert polled[0]["reply"] == {"tasks": [sent("a", "cancel")]}


def _statistics(provider: Provider) -> TaskManagerStatistics:
    found = provider.statistics().services["TaskManagerServicer"]
    assert isinstance(found, TaskManagerStatistics)
    return found


async def test_jobs_that_poll_as_those_of_the_existing_sdk_do() -> None:
    provider = Provider(SqliteDatabase(None))
    with trio.fail_after(PATIENCE):
        async with provider.running(port=0) as address:
            program = [sys.executable, JOBS]
            async with started(address, DESCRIPTORS, "120", program=program, PYTHONPATH=ROOT) as process:
                ids = json.loads(await process.wait_for("ids", "stdout"))["ids"]
                while _statistics(provider).received < len(ids) + 1:
                    assert process.process.returncode is None, process.lines
                    await trio.sleep(0.01)
                asked = {job: "stop" if number % 2 else "cancel" for number, job in enumerate(ids)}
                # Said twice, the second time by a clock that is behind.
                dates = ("2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z")
                requests = [sent(job, asked[job], created_at=date) for date in dates for job in ids[1:]]
                (taken,) = await called(address, ("task_manager", "SendSignals", {"tasks": requests}))
                assert taken["status"] == "OK"
                assert await process.wait() == 0, process.lines
    *jobs, counts = [json.loads(line) for line in process.lines["stdout"]][1:]
    assert {row["job"]: row["told"] for row in jobs} == {job: [asked[job]] for job in ids}
    # Held polls are answered before their deadline, unless the machine has other things to do.
    assert counts["polls"].keys() <= {"answered", "empty", "DEADLINE_EXCEEDED"}
    assert counts["polls"]["answered"] > 0
    assert max(counts["batches"]) == 50
    assert sum(counts["batches"]) == 3 * len(ids) + 1
