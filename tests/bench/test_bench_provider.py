"""The provider cases of the benchmark: a tiny round, their bound, and what their driver refuses to count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PEERS = ("grpc", "grpc_tools", "google.protobuf")
TIMEOUT_S = 120
DATA, HEADERS, END_STREAM = 0, 1, 1


@pytest.fixture(autouse=True)
def bench_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO))


@pytest.mark.parametrize("key", ["provider-store-keyed-64", "provider-signals-16"])
def test_a_tiny_round_measures_the_provider_and_its_bounds(tmp_path: Path, key: str) -> None:
    for peer in PEERS:
        pytest.importorskip(peer)
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("pins processes to cores, which needs Linux")
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "bench", "--quick", "--only", key, "--rounds", "1", "--seconds", "0.2"]
    argv += ["--json", str(report)]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(report.read_text())["cases"]
    assert case["case"] == key
    assert case["failures"] == {}
    assert set(case["summary"]) == {"dk-trio provider", "the store alone", "the transport alone"}
    assert case["summary"]["the store alone"]["per_second"]["ratio"] == 1.0
    assert all(value["median"] > 0 for value in case["summary"]["dk-trio provider"].values())


@pytest.mark.parametrize(("floor", "transport", "share"), [(1000.0, 5000.0, 0.5), (1000.0, 300.0, 1.0)])
def test_a_provider_is_held_against_the_lower_bound(floor: float, transport: float, share: float) -> None:
    from bench.cases import OF_BOUND, PER_SECOND, PROVIDER, STORE_ALONE, TRANSPORT
    from bench.provider_measure import add_shares
    from bench.table import Measured

    result = Measured("case", "a case", yardstick=STORE_ALONE)
    result.samples = {
        PROVIDER: [{PER_SECOND: 300.0}],
        STORE_ALONE: [{PER_SECOND: floor}],
        TRANSPORT: [{PER_SECOND: transport}],
    }
    add_shares(result)
    assert result.median(PROVIDER, OF_BOUND) == share
    assert result.ratios(PROVIDER, PER_SECOND) == [300.0 / floor]


class Canned:
    """A connection whose socket reads were written down beforehand."""

    def __init__(self, *reads: list[tuple[int, int, int, bytes]]) -> None:
        self.reads = list(reads)
        self.next = 1

    def start(self, count: int) -> range:
        streams = range(self.next, self.next + 2 * count, 2)
        self.next += 2 * count
        return streams

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        return self.reads.pop(0)


def test_a_refused_write_is_not_counted() -> None:
    from bench.tasks.durable import drive

    refused = Canned([(DATA, 0, 1, b"reply"), (HEADERS, END_STREAM, 1, b"")], [(HEADERS, END_STREAM, 3, b"refused")])
    with pytest.raises(ConnectionError, match="refused"):
        drive(refused, in_flight=1, seconds=5.0)


def test_requests_differ_by_their_number_alone() -> None:
    from bench.tasks.durable import NUMBER, PATHS, template

    for kind in PATHS:
        assert template(kind).count(NUMBER) == 1
