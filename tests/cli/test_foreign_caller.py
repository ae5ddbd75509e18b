"""The main job, seen by a gRPC client that is not ours: grpcio, as callers of the existing SDK use it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from .processes import ECHO, PATIENCE, serving

CALLER = str(Path(__file__).with_name("grpcio_caller.py"))


async def called(*arguments: str) -> list[dict[str, Any]]:
    with trio.fail_after(PATIENCE):
        done = await trio.run_process([sys.executable, CALLER, *arguments], capture_stdout=True, capture_stderr=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("compression", [[], ["gzip"]])
async def test_outputs_are_streamed(compression: list[str]) -> None:
    root = {"protocol": "message", "text": "hello " * 100, "n": 3}
    async with serving(ECHO) as server:
        responses = await called(server.address, json.dumps(root), *compression)
    assert all(response["success"] for response in responses)
    assert len({response["job_id"] for response in responses}) == 1
    roots = [response["output"]["root"] for response in responses]
    assert [root["protocol"] for root in roots] == ["module_start_info", *["message"] * 3, "end_of_stream"]
    assert [root["i"] for root in roots[1:-1]] == [0, 1, 2]
    assert roots[1]["text"] == "hello " * 100
    assert roots[0]["job_id"] == responses[0]["job_id"]
    assert (roots[0]["mission_id"], roots[0]["setup_id"]) == ("missions:any", "setups:any")


async def test_a_failure_is_told_in_the_stream_and_by_the_status() -> None:
    async with serving(ECHO) as server:
        *outputs, failure, status = await called(server.address, '{"protocol": "message", "fail": "raise"}')
        assert [response["output"]["root"]["protocol"] for response in outputs] == ["module_start_info", "message"]
        assert "success" not in failure  # false is the default, which is not sent
        assert failure["output"] == {
            "code": "Error",
            "message": "ValueError: asked to fail",
            "short_description": "Module execution failed",
        }
        assert status == {"status": "INTERNAL", "details": "ValueError: asked to fail"}


async def test_a_refused_input() -> None:
    async with serving(ECHO) as server:
        failure, status = await called(server.address, '{"protocol": "nope"}')
    assert failure["output"]["code"] == "UNKNOWN_PROTOCOL"
    assert "job_id" not in failure
    assert status["status"] == "INVALID_ARGUMENT"
