"""Many seeds of `dk-trio sim`: one after the other, or in several processes; and what they have shown so far."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any, Final, TextIO

import click

from ._output import harmless

Row = dict[str, Any]
"""A result as JSON: `dk_trio.testing.simulation.run.as_json`."""

_TERMINAL_EVERY: Final = 0.2  # seconds between two lines of progress
_FILE_EVERY: Final = 10.0


class Tally:
    """What many seeds have shown."""

    def __init__(self) -> None:
        self.violations = 0
        self.failed: list[Row] = []
        self._digests: dict[tuple[int, str], str] = {}
        self._counts = {name: Counter[str]() for name in ("seeds", "faults", "strikes", "outcomes")}
        self._sums: Counter[str] = Counter()
        self._virtual = self._seconds = 0.0
        self._began = time.monotonic()

    def add(self, row: Row) -> None:
        """Count one result."""
        self._digests[row["seed"], row["scenario"]] = row["digest"]
        self._counts["seeds"][row["scenario"]] += 1
        for name in ("faults", "strikes", "outcomes"):
            self._counts[name].update(row[name])
        self._sums.update({name: row[name] for name in ("jobs", "outputs", "events")})
        self._virtual += row["virtual"]
        self._seconds += row["seconds"]
        self.violations += len(row["violations"])
        if row["violations"]:
            self.failed.append(row)

    @property
    def seeds(self) -> int:
        """Seeds so far."""
        return len(self._digests)

    @property
    def rate(self) -> float:
        """Seeds in a second of real time."""
        return self.seeds / max(time.monotonic() - self._began, 1e-9)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all seeds, in their order."""
        lines = (f"{seed} {scenario} {digest}\n" for (seed, scenario), digest in sorted(self._digests.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def as_json(self) -> Row:
        """All of it."""
        counts = {name: dict(sorted(counter.items())) for name, counter in self._counts.items()}
        return {
            "total": self.seeds,
            **counts,
            **self._sums,
            "violations": self.violations,
            "failed": [[row["seed"], row["scenario"]] for row in self.failed],
            "virtual": round(self._virtual, 3),
            "seconds": round(self._seconds, 3),
            "digest": self.digest,
        }

    def lines(self) -> Iterator[str]:
        """All of it, for people."""
        yield f"{self.seeds} seeds, {self.violations} violations in {len(self.failed)} of them"
        for name, counter in self._counts.items():
            if counter:
                yield f"  {name:<9} " + ", ".join(f"{each} {count}" for each, count in sorted(counter.items()))
        yield "  of them   " + ", ".join(f"{count} {name}" for name, count in self._sums.items())
        hours, took = self._virtual / 3600, max(self._seconds, 1e-9)
        yield f"  time      {hours:.2f} virtual hours in {took:.1f} s of processors: {hours / took:.3f} hours a second"
        yield f"  digest    {self.digest}"


class Progress:
    """Tells on stderr how far it is: on a terminal in one line, elsewhere now and then."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total = total
        self._stream: TextIO | None = sys.stderr if shown else None
        self._live = shown and sys.stderr is not None and sys.stderr.isatty()
        self._due = time.monotonic() + (0 if self._live else _FILE_EVERY)

    def show(self, tally: Tally) -> None:
        """Tell it, if it was not told just now."""
        now = time.monotonic()
        if self._stream is None or now < self._due:
            return
        self._due = now + (_TERMINAL_EVERY if self._live else _FILE_EVERY)
        text = f"{tally.seeds}/{self._total} seeds, {tally.rate:.1f} a second, {tally.violations} violations"
        self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Leave the line to others."""
        if self._live and self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def tell_failure(row: Row) -> None:
    """The violations of one seed, and what shows it again."""
    from dk_trio.testing.simulation.run import replay_command

    click.secho(f"seed {row['seed']} of {row['scenario']}: {len(row['violations'])} violations", fg="red", bold=True)
    for each in row["violations"]:
        steps = f" (steps {', '.join(map(str, each['steps']))})" if each["steps"] else ""
        click.echo(harmless(f"  {each['rule']} {each['job']}: {each['text']}{steps}"))
    click.echo(f"  again: {replay_command(row['seed'], row['scenario'])}")


def here(seeds: range, scenario: str | None) -> Generator[Row, None, None]:
    """The results of these seeds, one after the other in this process."""
    from dk_trio.testing.simulation.run import as_json, simulate

    for seed in seeds:
        yield as_json(simulate(seed, scenario))


def shares(seeds: range, processes: int) -> list[range]:
    """Seeds in as many ranges as there are processes; they differ by one at most."""
    size, more = divmod(len(seeds), processes)
    begin, found = seeds.start, []
    for number in range(processes):
        end = begin + size + (number < more)
        if end > begin:
            found.append(range(begin, end))
        begin = end
    return found


def elsewhere(seeds: range, scenario: str | None, processes: int) -> Generator[Row, None, None]:
    """The same, by this command in several processes, in the order in which they come.

    Leaving the iterator early ends the processes.
    """
    import selectors
    import subprocess

    of_scenario = [] if scenario is None else ["--scenario", scenario]
    started: list[Any] = []
    try:
        with selectors.DefaultSelector() as selector:
            for share in shares(seeds, processes):
                numbers = ["--seeds", str(len(share)), "--from", str(share.start)]
                arguments = [sys.executable, "-m", "dk_trio", "sim", "--json", "--keep-going", "--quiet"]
                child: Any = subprocess.Popen([*arguments, *numbers, *of_scenario], stdout=subprocess.PIPE, bufsize=0)  # noqa: S603
                started.append(child)
                selector.register(child.stdout, selectors.EVENT_READ, [child, b""])
            while selector.get_map():
                for key, _ in selector.select():
                    child, begun = key.data
                    chunk = child.stdout.read(65_536)
                    *lines, key.data[1] = (begun + chunk).split(b"\n")
                    rows = (json.loads(line) for line in lines)
                    yield from (row for row in rows if "seed" in row)
                    if not chunk:
                        selector.unregister(key.fileobj)
                        _check(child.wait())
    finally:
        for child in started:
            child.terminate()
        for child in started:
            child.wait()
            child.stdout.close()


def _check(code: int) -> None:
    from ._exits import Exit

    if code not in {Exit.OK, Exit.VIOLATED}:
        raise click.ClickException(f"a process of this command ended with {code}; what it says is above.")
