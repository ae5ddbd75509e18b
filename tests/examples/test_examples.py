"""The examples do what they say, and the benchmark's module keeps its contract."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.served import outputs_of, served

ROOT = Path(__file__).parents[2]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ECHO = load("examples/echo.py").Echo
TRANSFORM = load("examples/text_transform.py").TextTransform
BENCH = load("bench/echo_module.py").EchoModule


def texts(outputs: list[dict[str, Any]]) -> list[str]:
    return [output["root"]["text"] for output in outputs[1:-1]]


async def test_echo(autojump_clock: object) -> None:
    async with served(ECHO) as (_, client):
        assert texts(await outputs_of(client, {"text": "hello"}, protocol="message")) == ["hello"]


async def test_text_transform_streams(autojump_clock: object) -> None:
    async with served(TRANSFORM) as (_, client):
        times = []
        async with client.start({"text": "Attack at dawn xyz", "pause_s": 10}, protocol="transform") as outputs:
            received = []
            async for output in outputs:
                received.append(output)
                times.append(trio.current_time())
    assert texts(received) == ["Dwwdfn", "dw", "gdzq", "abc"]
    assert [round(time - times[0]) for time in times] == [0, 0, 10, 20, 30, 40]


async def test_text_transform_refuses_an_empty_text(autojump_clock: object) -> None:
    async with served(TRANSFORM) as (_, client):
        with pytest.raises(GRPCError) as caught:
            await outputs_of(client, {"text": ""}, protocol="transform")
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_the_contract_of_the_benchmarks_module(autojump_clock: object) -> None:
    async with served(BENCH) as (_, client):
        started = trio.current_time()
        data = {"text": "t", "n": 3, "sleep_s": 100, "gap_s": 10, "tail_s": 1}
        outputs = await outputs_of(client, data, protocol="message")
        assert round(trio.current_time() - started) == 131
        assert [output["root"] for output in outputs[1:-1]] == [
            {"protocol": "message", "text": "t", "i": i} for i in range(3)
        ]
        assert texts(await outputs_of(client, {"size": 5}, protocol="message")) == ["xxxxx"]
        assert texts(await outputs_of(client, {"n": 0}, protocol="message")) == []
        received = []
        with pytest.raises(GRPCError, match="asked to fail") as caught:
            async with client.start({"n": 2, "fail": "raise"}, protocol="message") as stream:
                async for output in stream:
                    received += [output["root"]["protocol"]]
        assert caught.value.status is Status.INTERNAL
        assert received == ["module_start_info", "message", "message"]


async def test_the_benchmarks_module_records_a_cancel(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    monkeypatch.setenv("BENCH_EVENT_LOG", str(path))
    async with served(BENCH) as (_, client):
        async with client.start({"sleep_s": 600}, protocol="message") as outputs:
            await anext(outputs)
            job_id = outputs.job_id
        await trio.testing.wait_all_tasks_blocked()
    time, event, recorded = path.read_text().split()
    assert (event, recorded) == ("cancelled", job_id)
    assert float(time) > 0
