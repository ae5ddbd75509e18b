"""The benchmark still runs: one tiny round of one case, and the arithmetic of its table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PEERS = ("grpc", "grpc_tools", "google.protobuf", "trustme")
TIMEOUT_S = 60


@pytest.fixture(autouse=True)
def bench_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO))


def test_one_round_of_one_case_fills_the_table(tmp_path: Path) -> None:
    for peer in PEERS:
        pytest.importorskip(peer)
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("pins processes to cores, which needs Linux")
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "bench", "--only", "unary-64", "--rounds", "1", "--seconds", "0.2", "--json", report]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    found = {case["case"]: case for case in json.loads(report.read_text())["cases"]}
    assert set(found) == {"unary-64", "tls-unary-64"}
    for case in found.values():
        assert case["failures"] == {}
        assert set(case["summary"]) == {"dk-trio", "grpc.aio", "grpclib"}
        assert case["summary"]["grpc.aio"]["per_second"]["ratio"] == 1.0
        assert case["summary"]["dk-trio"]["per_second"]["median"] > 0
    assert "server: unary, 64 in flight" in done.stdout


def test_ratios_are_taken_round_by_round() -> None:
    from bench.cases import OURS, PER_SECOND, YARDSTICK
    from bench.table import Measured

    result = Measured("case", "a case")
    result.samples = {
        YARDSTICK: [{PER_SECOND: 10.0}, {PER_SECOND: 1.0}, {PER_SECOND: 4.0}],
        OURS: [{PER_SECOND: 20.0}, {PER_SECOND: 3.0}, {PER_SECOND: 16.0}],
    }
    assert result.ratios(OURS, PER_SECOND) == [2.0, 3.0, 4.0]
    assert result.median(YARDSTICK, PER_SECOND) == 4.0


def test_an_aim_that_was_not_measured_is_not_passed() -> None:
    from bench.cases import PER_SECOND, Aim
    from bench.table import verdicts

    (verdict,) = verdicts([], (Aim("absent", PER_SECOND, at_least=1),))
    assert not verdict.passed
    assert "not measured" in str(verdict)


def test_a_failing_contestant_drops_out_and_the_others_go_on() -> None:
    from bench.measure import rotate
    from bench.processes import BenchError
    from bench.table import Measured

    order = []

    def good() -> dict[str, float]:
        order.append("good")
        return {"per_second": 1.0}

    def bad() -> dict[str, float]:
        order.append("bad")
        message = "calls failed"
        raise BenchError(message)

    result = rotate(Measured("case", "a case"), {"bad": bad, "good": good}, rounds=3)
    assert order == ["bad", "good", "good", "good"]
    assert list(result.samples) == ["good"]
    assert result.failures == {"bad": "calls failed"}
