"""The seeds of the suite: three hundred for a commit, ten thousand for a night, in blocks that two workers share."""

from __future__ import annotations

from collections.abc import Iterator

from tests.sizes import record, size

from dk_trio.cli._sim_batch import Tally
from dk_trio.testing.simulation.run import Result, as_json, simulate
from dk_trio.testing.simulation.timeline import excerpt

TOTAL = size(300, 10_000)
REPEATED = 50
"""The first of them: they are played twice."""
PER_BLOCK = 25


def blocks(share: int, shares: int = 2) -> list[range]:
    """The blocks of one file, of the seeds that are played once."""
    starts = range(REPEATED, TOTAL, PER_BLOCK)
    return [range(start, min(start + PER_BLOCK, TOTAL)) for start in starts[share::shares]]


def played(seeds: range, tally: Tally) -> Iterator[Result]:
    """Play seeds, each of the next scenario, and count them."""
    for seed in seeds:
        result = simulate(seed)
        tally.add(as_json(result))
        yield result


def check_block(seeds: range, tally: Tally) -> None:
    """Play seeds, and fail with the story of the first that breaks a promise."""
    for result in played(seeds, tally):
        assert not result.violations, story(result)


def story(result: Result) -> str:
    """What a person needs to see of a failing seed."""
    lines = [line.text for line in excerpt(result.history.events, result.violations)]
    return "\n".join(["", *map(str, result.violations), f"again: {result.command}", *lines])


def counted(name: str) -> Iterator[Tally]:
    """A tally of a module's seeds, whose figures are recorded."""
    tally = Tally()
    yield tally
    if tally.seeds:
        record(f"simulation-{name}", **tally.as_json())
