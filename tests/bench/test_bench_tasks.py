"""The task cases of the benchmark: their arithmetic, what their drivers refuse to count, and a tiny round of some."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PEERS = ("grpc", "grpc_tools", "google.protobuf")
TIMEOUT_S = 120
JOB = "6f1f8c5e-3a62-4b0e-9d4c-0d2f5a0b7c11"
DATA, HEADERS, END_STREAM = 0, 1, 1


@pytest.fixture(autouse=True)
def bench_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO))


class Canned:
    """A connection whose socket reads were written down beforehand; stream numbers are those of HTTP/2."""

    def __init__(self, *reads: list[tuple[int, int, int, bytes]]) -> None:
        self.reads = list(reads)
        self.next = 1

    def start(self, count: int) -> range:
        streams = range(self.next, self.next + 2 * count, 2)
        self.next += 2 * count
        return streams

    def frames(self, *, within: float = 0.0) -> list[tuple[int, int, int, bytes]]:
        return self.reads.pop(0)


@pytest.mark.parametrize("key", ["start-64", "budget-800", "cancel-refill"])
def test_a_tiny_round_measures_the_served_module_and_its_peer(tmp_path: Path, key: str) -> None:
    for peer in PEERS:
        pytest.importorskip(peer)
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("pins processes to cores, which needs Linux")
    report = tmp_path / "report.json"
    seconds = (
        "1.0" if key == "start-64" else "0.2"
    )  # calls are counted in steps of 64, and a slow machine takes its time
    argv = [sys.executable, "-m", "bench", "--quick", "--only", key, "--rounds", "1", "--seconds", seconds]
    argv += ["--json", str(report)]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(report.read_text())["cases"]
    assert case["case"] == key
    assert case["failures"] == {}
    assert set(case["summary"]) == {"dk-trio serve", "grpc.aio"}
    assert all(value["median"] > 0 for value in case["summary"]["dk-trio serve"].values())


def test_a_quantile_is_one_of_the_values() -> None:
    from bench.task_samples import quantile

    values = [float(value) for value in range(200, 0, -1)]
    assert quantile(values, 0.5) == 100
    assert quantile(values, 0.99) == 198
    assert quantile([7.0], 0.99) == 7


def test_overhead_is_what_a_task_takes_beyond_its_own_waiting() -> None:
    from bench.cases import MEAN_MS, OVERHEAD_MS, PER_MINUTE
    from bench.task_samples import budget

    sample = budget([2.0, 4.0], ideal_s=2.5, seconds=4.0)
    assert sample == {MEAN_MS: 3000, OVERHEAD_MS: 500, PER_MINUTE: 30}


def test_an_absolute_aim_bounds_the_contestants_own_median() -> None:
    from bench.cases import P99_MS, SERVED_MODULE, YARDSTICK, Aim
    from bench.table import Measured, verdicts

    result = Measured("case", "a case")
    result.samples = {
        SERVED_MODULE: [{P99_MS: 5.0}, {P99_MS: 19.0}, {P99_MS: 30.0}],
        YARDSTICK: [{P99_MS: 1.0}, {P99_MS: 1.0}, {P99_MS: 1.0}],
    }
    at_20, at_10 = (Aim("case", P99_MS, at_most=most, contestant=SERVED_MODULE, absolute=True) for most in (20, 10))
    assert [verdict.passed for verdict in verdicts([result], (at_20, at_10))] == [True, False]


def test_an_aim_of_a_contestant_that_dropped_out_is_not_passed() -> None:
    from bench.cases import P99_MS, SERVED_MODULE, Aim
    from bench.table import Measured, verdicts

    result = Measured("case", "a case", failures={SERVED_MODULE: "did not start"})
    (verdict,) = verdicts([result], (Aim("case", P99_MS, at_most=20, contestant=SERVED_MODULE, absolute=True),))
    assert not verdict.passed


def test_every_aim_names_a_metric_that_verdicts_can_print() -> None:
    from bench.cases import AIMS
    from bench.table import Verdict

    assert all("not measured" in str(Verdict(aim, None)) for aim in AIMS)


def test_a_task_that_answers_too_little_is_not_counted() -> None:
    from bench.tasks.together import drive

    def tasks(*, second: bytes) -> Canned:
        return Canned(
            [(HEADERS, 0, 1, b""), (DATA, 0, 1, b"1234")],
            [(DATA, 0, 3, second), (HEADERS, END_STREAM, 1, b""), (HEADERS, END_STREAM, 3, b"")],
        )

    assert len(drive(tasks(second=b"1234"), tasks=2, spread_s=1e-9, expected=4).took) == 2
    with pytest.raises(ConnectionError, match="3 bytes instead of 4"):
        drive(tasks(second=b"123"), tasks=2, spread_s=1e-9, expected=4)


def test_a_refused_call_is_no_first_message() -> None:
    from bench.tasks.cancel import first_messages

    accepted = (DATA, 0, 1, f"module_start_info {JOB}".encode())
    assert first_messages(Canned([(HEADERS, 0, 1, b"")], [accepted]), range(1, 3, 2))[1][0] == JOB
    for refusal in ((DATA, 0, 3, b"RESOURCE_EXHAUSTED"), (HEADERS, END_STREAM, 3, b"")):
        with pytest.raises(ConnectionError, match="not accepted"):
            first_messages(Canned([accepted, refusal]), range(1, 5, 2))


def test_frames_of_cancelled_streams_are_not_taken_for_answers() -> None:
    from bench.tasks.cancel import first_messages

    old = (HEADERS, END_STREAM, 1, b"")
    answer = (DATA, 0, 3, f"module_start_info {JOB}".encode())
    assert list(first_messages(Canned([old, answer]), range(3, 5, 2))) == [3]


def test_only_whole_lines_of_known_jobs_count_as_felt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.tasks import cancel

    monkeypatch.setattr(cancel, "LOG_TIMEOUT_S", -1.0)
    log = tmp_path / "events"
    log.write_text("1.5 cancelled one\n2.5 cancelled other\n3.5 cancelled tw")
    assert cancel.felt(log, {"one"}) == {"one": 1.5}
    with pytest.raises(TimeoutError, match="1 of 2 jobs"):
        cancel.felt(log, {"one", "two"})
