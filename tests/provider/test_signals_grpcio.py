"""Signals, registries and setups for a gRPC client that is not ours, and that leaves out what the existing SDK does."""

from typing import Any

import trio

from dk_trio.provider import Provider
from dk_trio.provider.task_manager import TaskManagerStatistics
from dk_trio.services.stores.sqlite import SqliteDatabase

from .test_foreign_client import called

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
