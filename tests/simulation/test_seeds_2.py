"""Whole systems from seeds keep all promises: every second block of the seeds. The others are in the file beside."""

from collections.abc import Iterator

import pytest

from dk_trio.cli._sim_batch import Tally

from .seeds import blocks, check_block, counted


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    yield from counted("2")


@pytest.mark.parametrize("seeds", blocks(1), ids=lambda seeds: f"{seeds.start} to {seeds.stop - 1}")
def test_seeds(seeds: range, tally: Tally) -> None:
    check_block(seeds, tally)
