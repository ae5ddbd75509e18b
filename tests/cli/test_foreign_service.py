"""ModuleService seen by a gRPC client that is not ours: grpcio, with the retries of existing callers."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from dk_trio import ModuleClient
from dk_trio.pb.google.rpc import ErrorInfo, RetryInfo
from dk_trio.pb.google.rpc import Status as StatusMessage

from .processes import PATIENCE, Running, serving

CALLER = str(Path(__file__).with_name("grpcio_service.py"))
MODULE = str(Path(__file__).with_name("configured_module.py"))

Call = tuple[str, dict[str, Any]]
COMPRESSION = pytest.mark.parametrize("compression", ["none", "gzip"])


async def called(server: Running, *calls: Call, compression: str = "none") -> list[dict[str, Any]]:
    """All that grpcio was told, in order; details of a status as messages."""
    arguments = [part for method, request in calls for part in (method, json.dumps(request))]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, CALLER, server.address, compression, *arguments], capture_stdout=True, capture_stderr=True
        )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for line in told:
        if "status" in line and "binary" in line:
            status = StatusMessage.parse(bytes.fromhex(line.pop("binary")))
            assert status.message in {"", line["details"]}  # grpcio's rpc_status wants them to be the same
            line["infos"] = [detail.unpack() for detail in status.details]
    return told


def configure(setup_id: str = "setups:s", **form: Any) -> Call:
    version = {"id": "setup_versions:9", "setup_id": setup_id, "version": "9"}
    return "ConfigSetupModule", {"setup_version": version, "content": form, "mission_id": "missions:m"}


def start(text: str = "hi", **root: Any) -> Call:
    root = {"protocol": "message", "text": text} | root
    return "StartModule", {"input": {"root": root}, "setup_id": "setups:s", "mission_id": "missions:m"}


def texts(told: list[dict[str, Any]]) -> list[str]:
    roots = [line["output"]["root"] for line in told if "root" in line.get("output", {})]
    return [root["text"] for root in roots if root["protocol"] == "message"]


def configured(server: Running) -> int:
    return sum(line.startswith("configuring") for line in server.lines["stderr"] + server.lines["stdout"])


@COMPRESSION
async def test_a_setup_is_configured_and_used(compression: str) -> None:
    async with serving(MODULE) as server:
        missing, missing_status, reply, ok, *outputs, end = await called(
            server, start(), configure(prefix="> " * 1000), start(), compression=compression
        )
    assert missing["output"]["code"] == "SETUP_NOT_FOUND"
    assert missing_status["status"] == "NOT_FOUND"
    info, refused = missing_status["infos"]
    assert info == ErrorInfo(reason="SETUP_NOT_FOUND", domain="dk-trio")
    assert [row.field for row in refused.field_violations] == ["setup_id"]
    assert (ok["status"], end["status"]) == ("OK", "OK")
    assert reply["success"]
    version = reply["setup_version"]
    assert (version["id"], version["setup_id"], version["version"]) == ("setup_versions:9", "setups:s", "9")
    assert version["content"] == {"prefix": "> " * 1000, "act": "", "resolved_tools": {}}
    assert texts(outputs) == ["> " * 1000 + "hi"]
    assert outputs[0]["output"]["root"]["setup_version_id"] == "setup_versions:9"


async def test_a_configuration_that_fails() -> None:
    async with serving(MODULE, DIGITALKIN_CONFIG_SETUP_TIMEOUT="0.5") as server:
        invalid, failed, late = await called(
            server,
            configure(prefix=3),
            configure(prefix="a", act="raise"),
            configure(prefix="a", act="sleep"),
        )
        assert (invalid["status"], invalid["infos"][0].reason) == ("INVALID_ARGUMENT", "INVALID_SETUP")
        assert "prefix: input should be a valid string" in invalid["details"]
        assert (failed["status"], failed["details"]) == ("INTERNAL", "ValueError: no such model")
        assert failed["infos"] == [ErrorInfo(reason="CONFIG_SETUP_FAILED", domain="dk-trio")]
        assert (late["status"], late["infos"][0].reason) == ("DEADLINE_EXCEEDED", "CONFIG_SETUP_TIMEOUT")
        assert configured(server) == 2  # DEADLINE_EXCEEDED is retried, but not what had begun


async def test_a_full_server_and_what_becomes_of_its_job() -> None:
    full = {"DIGITALKIN_MAX_CONCURRENT_TASKS": "1", "DIGITALKIN_BACKPRESSURE_STRATEGY": "reject"}
    async with serving(MODULE, **full) as server, ModuleClient.connect(server.address) as client:
        await client.config_setup({"prefix": ""}, setup_id="setups:s")
        with trio.fail_after(PATIENCE):
            async with client.start({"text": "wait"}, protocol="message", setup_id="setups:s") as outputs:
                await anext(outputs)
                job_id = outputs.job_id
                refused, refused_status, jobs, _, status, _, stopped, _, unknown = await called(
                    server,
                    start(),
                    ("GetModuleJobs", {}),
                    ("GetModuleStatus", {"job_id": f"jobs:{job_id}"}),
                    ("StopModule", {"job_id": f"jobs:{job_id}"}),
                    ("StopModule", {"job_id": "jobs:nobody"}),
                )
                with pytest.raises(Exception, match="StopModule was called"):
                    async for _ in outputs:
                        pass
            ended, _, again = await called(
                server, ("GetModuleStatus", {"job_id": job_id}), ("StopModule", {"job_id": job_id})
            )
    # Refused: a message in the stream, without a job's id, and a status with its details.
    assert "success" not in refused  # false is the default, which is not sent
    assert "job_id" not in refused
    assert refused["output"]["code"] == "NO_FREE_SLOT"
    assert refused["output"]["message"] == refused_status["details"]
    assert refused_status["status"] == "RESOURCE_EXHAUSTED"
    info, retry = refused_status["infos"]
    assert (info.reason, info.domain) == ("NO_FREE_SLOT", "dk-trio")
    assert info.metadata == {"limit": "DIGITALKIN_MAX_CONCURRENT_TASKS", "size": "1", "waited": "0"}
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.total_seconds() >= 1
    # The job: listed, running, stopped.
    assert jobs == {"success": True, "jobs": [{"job_id": job_id, "job_status": "MODULE_STATUS_PROCESSING"}]}
    assert (status["success"], status["status"]) == (True, "MODULE_STATUS_PROCESSING")
    assert stopped == {"success": True, "job_id": f"jobs:{job_id}"}
    assert (unknown["status"], unknown["details"]) == ("NOT_FOUND", "Job jobs:nobody not found")
    assert ended["status"] == "MODULE_STATUS_STOPPED"
    assert (again["status"], again["details"]) == ("NOT_FOUND", f"Job {job_id} has ended: stop module")


@COMPRESSION
async def test_requests_that_are_refused(compression: str) -> None:
    async with serving(MODULE) as server:
        told = await called(
            server,
            start(text=3),
            start(protocol="mesage"),
            ("ConfigSetupModule", {}),
            ("GetModuleStatus", {}),
            compression=compression,
        )
    statuses = [line for line in told if "infos" in line]
    assert [(line["status"], line["infos"][0].reason) for line in statuses] == [
        ("INVALID_ARGUMENT", "INVALID_INPUT"),
        ("INVALID_ARGUMENT", "UNKNOWN_PROTOCOL"),
        ("INVALID_ARGUMENT", "INVALID_SETUP"),
        ("NOT_FOUND", "JOB_NOT_FOUND"),
    ]
