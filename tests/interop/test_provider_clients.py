"""Our services-provider with clients that are neither ours nor grpcio's."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.interop.battery import peers
from tests.npm import Missing, installed

from dk_trio import rpc
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import AddCostRequest, CostServiceStub, CostType, GetCostsRequest
from dk_trio.provider import Provider
from dk_trio.services.stores.sqlite import SqliteDatabase

PROTOS = str(peers.ROOT / "proto")
PATIENCE = 60.0  # seconds; a loaded machine needs some for an interpreter


@pytest.fixture
def program():
    """grpc-js as a client of a provider."""
    try:
        return ["node", str(installed(peers.NODE) / "provider.js"), PROTOS]
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_grpc_js(program: list[str], compression: str, tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with Provider(SqliteDatabase(tmp_path), directory=tmp_path).running(port=0) as address:
            done = await trio.run_process([*program, address, compression], capture_stdout=True)
    told: dict[str, Any] = json.loads(done.stdout)
    record = told["stored"]["stored_data"]
    assert told["stored"]["success"]
    assert record["data"]["fields"]["list"]["listValue"]["values"][0]["numberValue"] == 1.5
    assert (record["record_id"], record["data_type"]) == ("r", "OUTPUT")
    assert (told["again"]["code"], told["absent"]["code"]) == ("ALREADY_EXISTS", "NOT_FOUND")
    assert told["checksum"]
    assert told["content"]
    assert told["started"]["success"]
    assert told["held"]
    assert [task["action"] for task in told["polled"]["tasks"]] == ["cancel"]
    # Before its deadline, unless the machine has other things to do.
    assert told["empty"] in ({}, {"code": "DEADLINE_EXCEEDED", "text": told["empty"].get("text")})


async def test_h2load_writes(tmp_path: Path) -> None:
    """Every request of 4 connections with 16 streams each is answered, and is there afterwards, once."""
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed (Debian: nghttp2-client)")
    names = {"mission_id": "missions:m", "name": "x", "unit": "u", "setup_version_id": "setup_versions:v"}
    cost = AddCostRequest(cost=0.5, rate=0.5, quantity=1, cost_type=CostType.OTHER, **names)
    data = bytes(cost)
    body = tmp_path / "body"
    body.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
    command = ["h2load", "-n2000", "-c4", "-m16", "-t1", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    with trio.fail_after(PATIENCE):
        async with Provider(SqliteDatabase(tmp_path), directory=tmp_path).running(port=0) as address:
            url = f"http://{address}/agentic_mesh_protocol.cost.v1.CostService/AddCost"
            done = await trio.run_process([*command, url], capture_stdout=True)
            async with rpc.open_channel(address) as channel:
                kept = await CostServiceStub(channel).get_costs(GetCostsRequest(mission_id="missions:m", limit=1))
    assert re.search(r"2000 succeeded, 0 failed, 0 errored, 0 timeout", done.stdout.decode()), done.stdout.decode()
    assert (kept.total_count, kept.total_cost) == (2000, 1000.0)
