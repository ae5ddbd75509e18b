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
            details = StatusMessage.parse(bytes.fromhex(line["details"])).details
            line["reason"] = details[0].unpack().reason
    return told


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_grpcio_is_served(tmp_path: Path, compression: str, caplog: pytest.LogCaptureFixture) -> None:
    content = os.urandom(300_000)
    record = {"context": M, "collection": "c", "record_id": "r"}
    data = {"n": 3, "text": "ä" * 1000, "list": [1.5, None, True]}
    file = {
        "context": M,
        "name": "a.bin",
        "file_type": "FILE_TYPE_OTHER",
        "content_type": "application/octet-stream",
        "content": base64.b64encode(content).decode(),
        "status": "FILE_STATUS_UPLOADING",
    }
    cost = {
        "mission_id": M,
        "name": "x",
        "cost_type": "API_CALL",
        "unit": "call",
        "setup_version_id": "setup_versions:v",
    }
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
            ("cost", "AddCost", {**cost, "rate": 0.5, "quantity": 2, "cost": 1}),
            ("cost", "AddCost", cost),  # of nothing, which a rule forbids
            ("cost", "GetCosts", {"mission_id": M}),  # without a limit
            ("user_profile", "GetUserProfile", {"mission_id": M}),
            compression=compression,
        )
        stored, again, exists, read, empty, uploaded, *costs, profile = told
        assert set(stored["initial"][HONOURS].split(",")) == ALL
        assert stored["reply"] == again["reply"] == read["reply"]
        assert stored["reply"]["stored_data"]["data"] == data
        assert (exists["status"], exists["reason"]) == ("ALREADY_EXISTS", "RECORD_EXISTS")
        assert (empty["status"], empty["reply"]) == ("OK", {})
        assert (uploaded["reply"]["total_uploaded"], uploaded["reply"]["total_failed"]) == (1, 1)
        assert uploaded["reply"]["results"][1]["error"].startswith("INVALID_FILE")
        assert [cost["status"] for cost in costs] == ["OK", "OK", "OK"]
        assert (costs[2]["reply"]["total_cost"], costs[2]["reply"]["total_count"]) == (1.0, 2)
        assert profile["reply"] == {}

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


async def test_strict_rules_refuse_what_lenient_ones_serve(tmp_path: Path) -> None:
    provider = Provider(SqliteDatabase(tmp_path), options=ProviderOptions(validate="strict"))
    async with provider.running(port=0) as address:
        (told,) = await called(address, ("cost", "GetCosts", {"mission_id": M}))
        assert (told["status"], told["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
