"""The retry matrix, measured: each way to fail, each set of layers, each kind of call -> calls and seconds.

`python -m tests.services.retry_matrix` writes the table into `docs/retries.md`; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
import trio.testing
from grpclib.const import Status
from tests.services.query_kit import read, scripted, status_of, write

PAGE: Final = Path(__file__).parents[2] / "docs" / "retries.md"
BEGIN: Final = "<!-- retry matrix: python -m tests.services.retry_matrix -->"
END: Final = "<!-- end of the retry matrix -->"

LAYERS: Final = {"A": {"attempts": 5, "retries": 0}, "B": {"attempts": 1, "retries": 2}, "A + B": {}}
KINDS: Final = ("read", "write, keys honoured", "write, keys not honoured")

# Beside the statuses that a server answers with.
DROPPED: Final = "reply lost with the connection, each time"
LOST: Final = "connection lost before the call was applied, each time"
REFUSED: Final = "no connection"
SILENT: Final = "no answer within the deadline of 30 s"
SCRIPTS: Final[dict[str, Any]] = {DROPPED: "drop", LOST: "lose", SILENT: "hang"}

STATUSES: Final = {status.name: status for status in Status if status is not Status.OK}
FAILURES: Final = (*STATUSES, DROPPED, LOST, REFUSED, SILENT)


@dataclass(frozen=True)
class Measured:
    """What became of one call."""

    calls: int
    """That the server has seen; for `REFUSED`, attempts."""
    seconds: float
    status: Status
    applied: int

    def __str__(self) -> str:
        return f"{self.calls}, {self.seconds:.2f} s" if self.seconds else f"{self.calls}"


async def measure(failure: str, layers: str, kind: str) -> Measured:
    """One call that fails in one way for ever."""
    script = SCRIPTS.get(failure) or STATUSES.get(failure)
    steps = [] if script is None else [script]
    async with scripted(*steps, honours=kind == KINDS[1], **LAYERS[layers]) as (query, provider):
        if failure == REFUSED:
            provider.down = True
            await provider.cut()
            await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        retries = query._channel.retries + query.retries
        status = await status_of((read if kind == KINDS[0] else write)(query, "it"))
        seconds = trio.current_time() - started
        calls = len(provider.calls)
        if failure == REFUSED:
            calls = 1 + query._channel.retries + query.retries - retries
        return Measured(calls, round(seconds, 6), status, provider.applied["it"])


async def _measure_all() -> dict[tuple[str, str, str], Measured]:
    return {
        (failure, layers, kind): await measure(failure, layers, kind)
        for failure in FAILURES
        for layers in LAYERS
        for kind in KINDS
    }


def measure_all() -> dict[tuple[str, str, str], Measured]:
    """(failure, layers, kind) -> what was measured, in virtual time."""
    return trio.run(_measure_all, clock=trio.testing.MockClock(autojump_threshold=0))


def table(measured: dict[tuple[str, str, str], Measured]) -> str:
    """As the page has it; failures with the same numbers share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for failure in FAILURES:
        cells = tuple(str(measured[failure, layers, kind]) for kind in KINDS for layers in LAYERS)
        rows.setdefault(cells, []).append(f"`{failure}`" if failure in STATUSES else failure)
    heads = ["failure", *(f"{kind}: {layers}" for kind in KINDS for layers in LAYERS)]
    lines = [heads, ["---"] * len(heads), *([", ".join(names), *cells] for cells, names in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page_with(text: str) -> str:
    """The page with this table."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{head}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(table(measure_all())))
