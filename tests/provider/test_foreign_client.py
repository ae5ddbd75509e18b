"""The provider seen by a gRPC client that is not ours, and that breaks the rules which the existing SDK breaks."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from dk_trio.extensions import ALL, HONOURS, IDEMPOTENCY_KEY
from dk_trio.pb.google.rpc import Status as StatusMessage
from dk_trio.provider import Provider, ProviderOptions
from dk_trio.services.stores.sqlite import SqliteDatabase

# A loaded machine needs seconds for an interpreter and its imports.
PATIENCE = 60.0

CLIENT = str(Path(__file__).with_name("grpcio_client.py"))
M = "missions:m"
FILE = {
    "context": M,
    "name": "a.bin",
    "file_type": "FILE_TYPE_OTHER",
    "content_type": "application/octet-stream",
    "content": base64.b64encode(b"content").decode(),
    "status": "FILE_STATUS_UPLOADING",
}
COST = {
    "mission_id": M,
    "name": "x",
    "cost_type": "API_CALL",
    "unit": "call",
    "setup_version_id": "setup_versions:v",
}


async def called(address: str, *calls: tuple[Any, ...], compression: str = "none") -> list[dict[str, Any]]:
    """What grpcio was told, in order."""
    asked = [[*call, *({},)][:4] for call in calls]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, CLIENT, address, compression],
            stdin=json.dumps(asked).encode(),
            capture_stdout=True,
            capture_stderr=True,
        )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for line in told:
        if line.get("details"):
            info, *more = (row.unpack() for row in StatusMessage.parse(bytes.fromhex(line["details"])).details)
            line["reason"] = info.reason
            line["fields"] = [row.field for detail in more for row in getattr(detail, "field_violations", ())]
    return told


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_grpcio_is_served(tmp_path: Path, compression: str, caplog: pytest.LogCaptureFixture) -> None:
    content = os.urandom(300_000)
    record = {"context": M, "collection": "c", "record_id": "r"}
    data = {"n": 3, "text": "ä" * 1000, "list": [1.5, None, True]}
    file = {**FILE, "content": base64.b64encode(content).decode()}
    key = {IDEMPOTENCY_KEY: "one"}
    async with Provider(SqliteDatabase(tmp_path), directory=tmp_path).running(port=0) as address:
        told = await called(
            address,
            ("storage", "StoreRecord", {**record, "data": data, "data_type": "OUTPUT"}, key),
            ("storage", "StoreRecord", {**record, "data": data, "data_type": "OUTPUT"}, key),
            ("storage", "StoreRecord", {**record, "data": data, "data_type": "OUTPUT"}),
            ("storage", "ReadRecord", record),
            ("storage", "ListRecords", {"context": M, "collection": "empty"}),
            ("filesystem", "UploadFiles", {"files": [file, {**file, "name": "../b"}]}),
            ("cost", "AddCost", {**COST, "rate": 0.5, "quantity": 2, "cost": 1}),
            ("cost", "AddCost", COST),  # of nothing, which a rule forbids
            ("cost", "GetCosts", {"mission_id": M}),  # without a limit
            ("user_profile", "GetUserProfile", {"mission_id": M}),
            ("provider", "PutUserProfile", {"mission_id": M, "user_profile": {"locale": "fr"}}),  # beside the contract
            ("user_profile", "GetUserProfile", {"mission_id": M}),
            compression=compression,
        )
        stored, again, exists, read, empty, uploaded, *costs, nobody, put, somebody = told
        assert set(stored["initial"][HONOURS].split(",")) == ALL
        assert stored["reply"] == again["reply"] == read["reply"]
        assert stored["reply"]["stored_data"]["data"] == data
        assert (exists["status"], exists["reason"]) == ("ALREADY_EXISTS", "RECORD_EXISTS")
        assert (empty["status"], empty["reply"]) == ("OK", {})
        assert (uploaded["reply"]["total_uploaded"], uploaded["reply"]["total_failed"]) == (1, 1)
        assert uploaded["reply"]["results"][1]["error"].startswith("INVALID_FILE")
        assert [cost["status"] for cost in costs] == ["OK", "OK", "OK"]
        assert (costs[2]["reply"]["total_cost"], costs[2]["reply"]["total_count"]) == (1.0, 2)
        assert nobody["reply"] == put["reply"] == {}
        assert somebody["reply"] == {"success": True, "user_profile": {"locale": "fr"}}

        file_id = uploaded["reply"]["results"][0]["file"]["file_id"]
        renamed, got = await called(
            address,
            ("filesystem", "UpdateFile", {"context": M, "file_id": file_id, "new_name": "b.bin"}),  # and no status
            ("filesystem", "GetFile", {"context": M, "file_id": file_id, "include_content": True}),
            compression=compression,
        )
        assert renamed["reply"]["result"]["file"]["name"] == "b.bin"
        assert base64.b64decode(got["reply"]["file"]["content"]) == content
        assert got["reply"]["file"]["status"] == "FILE_STATUS_ACTIVE"
    assert any("CostService.GetCosts of the peer ('127.0.0.1'" in record.getMessage() for record in caplog.records)


TASK = {"task_id": "j", "mission_id": M, "action": "start", "created_at": "2026-01-01T00:00:00Z", "payload": {}}
BROKEN: dict[str, tuple[str, str, dict[str, Any], str]] = {
    # What a strategy of the existing SDK does: its call, and the fields that break a rule.
    "cost.add of nothing": ("cost", "AddCost", {**COST, "rate": 2}, "cost quantity"),
    "cost.get_filtered": ("cost", "GetCosts", {"mission_id": M, "filter": {"names": ["x"]}}, "limit"),
    "cost.set_cost_config": (
        "cost",
        "SetCostConfig",
        {"setup_version_id": "setup_versions:v", "configs": [{"name": "a", "cost_type": "OTHER", "unit": "u"}]},
        "configs[0].rate",
    ),
    "registry.search": ("registry", "DiscoverModules", {}, "organization_id query limit"),
    "registry.discover_by_id without prefix": ("registry", "GetModule", {"module_id": "a"}, "module_id"),
    "setup.create_setup": (
        "setup",
        "CreateSetup",
        {"name": "S", "module_id": "modules:a"},
        "organisation_id owner_id status",
    ),
    "setup.update_setup": ("setup", "UpdateSetup", {"setup_id": "{setup}", "name": "T"}, "status"),
    "setup.list_setups": ("setup", "ListSetups", {}, "limit"),
    "filesystem.update_file": (
        "filesystem",
        "UpdateFile",
        {"context": M, "file_id": "{file}", "metadata": {"a": 1}},
        "new_name file_type content_type status",
    ),
    "task_manager.send without reason": (
        "task_manager",
        "SendSignals",
        {"tasks": [{**TASK, "setup_id": "s", "setup_version_id": "v"}]},
        "tasks[0].setup_id tasks[0].setup_version_id tasks[0].cancellation_reason",
    ),
    "user_profile.get_user_profile without prefix": (
        "user_profile",
        "GetUserProfile",
        {"mission_id": "m"},
        "mission_id",
    ),
}


async def test_rules_that_the_existing_sdk_breaks_are_no_matter_unless_they_are_strict(tmp_path: Path) -> None:
    valid = [
        (
            "setup",
            "CreateSetup",
            {"name": "S", "organisation_id": "o", "owner_id": "u", "module_id": "modules:a", "status": "READY"},
        ),
        ("filesystem", "UploadFiles", {"files": [FILE]}),
        ("registry", "RegisterModule", {"module_id": "modules:a", "address": "h", "port": 1, "version": "1"}),
    ]
    replies = {}
    for mode in ("warn", "strict"):
        directory = tmp_path / mode
        provider = Provider(SqliteDatabase(directory), directory=directory, options=ProviderOptions(validate=mode))
        async with provider.running(port=0) as address:
            made, uploaded, registered = await called(address, *valid, compression="gzip")
            assert registered["status"] == "OK"
            ids = {
                "{setup}": made["reply"]["setup"]["id"],
                "{file}": uploaded["reply"]["results"][0]["file"]["file_id"],
            }
            calls = [
                (package, method, {field: ids.get(str(value), value) for field, value in request.items()})
                for package, method, request, _ in BROKEN.values()
            ]
            replies[mode] = dict(zip(BROKEN, await called(address, *calls, compression="gzip"), strict=True))
    assert {name: told["status"] for name, told in replies["warn"].items()} == dict.fromkeys(BROKEN, "OK")
    assert [row["id"] for row in replies["warn"]["registry.search"]["reply"]["modules"]] == ["modules:a"]
    assert replies["warn"]["cost.get_filtered"]["reply"]["total_count"] == 1
    updated = replies["warn"]["filesystem.update_file"]["reply"]["result"]["file"]
    assert (updated["name"], updated["status"], updated["metadata"]) == ("a.bin", "FILE_STATUS_ACTIVE", {"a": 1})
    changed = replies["warn"]["setup.update_setup"]["reply"]["setup"]
    assert (changed["name"], changed["status"]) == ("T", "READY")
    for name, (_, method, _, fields) in BROKEN.items():
        told = replies["strict"][name]
        assert (told["status"], told["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST"), name
        assert set(told["fields"]) == set(fields.split()), name
        assert method in told["message"]
        assert fields.split()[0] in told["message"]
