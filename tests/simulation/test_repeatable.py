"""A seed has one history: the same events at the same times, in this process and in any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dk_trio.cli._sim_batch import Tally
from dk_trio.testing.simulation.run import simulate

from .seeds import REPEATED, counted, played, story


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    yield from counted("repeated")


def test_another_process_plays_the_same_seeds_alike(tally: Tally) -> None:
    """Its hashes of texts differ from ours, so that the order of a set which decides anything would show."""
    command = [sys.executable, "-m", "dk_trio", "sim", "--seeds", str(REPEATED), "--json", "--quiet", "--keep-going"]
    salt = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": salt}) as other:
        here = list(played(range(REPEATED), tally))
        rows = [json.loads(line) for line in other.communicate()[0].splitlines()]
    there = {row["seed"]: row["digest"] for row in rows if "seed" in row}
    assert [result.seed for result in here if result.digest != there[result.seed]] == []
    assert len({result.digest for result in here}) == REPEATED
    assert not [result for result in here if result.violations], "".join(map(story, here))


def test_a_seed_plays_alike_after_others() -> None:
    """What the process has done before does not matter."""
    first = simulate(1, "everything")
    simulate(2, "mesh")
    again = simulate(1, "everything")
    assert first.history.lines() == again.history.lines()
