"""The fuzzer that is guided by coverage, for a moment in the suite and for minutes at night, where it is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sizes import SOAK, record, size

from .targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
BOUND = size("-runs=100", "-max_total_time=300")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (extra fuzz)"
)


@pytest.mark.parametrize("name", TARGETS if SOAK else ["header_blocks"])
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", name, BOUND, "-timeout=60", "-rss_limit_mb=1000"]
    done = subprocess.run(
        [*command, "-print_final_stats=1", f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT, capture_output=True, text=True, errors="replace", check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    assert runs is not None
    assert covered
    record(f"fuzzing {name}", executions=int(runs[1]), branches=int(covered[-1]))
