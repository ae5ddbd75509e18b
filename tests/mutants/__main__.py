"""Plant each bug, run the batteries, and say which of them has noticed it, after how long."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.mutants.mutant import Mutant
from tests.mutants.mutants import MUTANTS
from tests.sizes import record

ROOT: Final = Path(__file__).parents[2]
SEEDS: Final = 60
TIMEOUT: Final = 300.0
"""Seconds of one battery; a bug may be that something does not end."""

SIMULATION: Final = "simulation"
REGRESSIONS: Final = "tests/regressions"
OTHERS: Final = "others"
_NOT_COPIED: Final = shutil.ignore_patterns("__pycache__", ".*", "node_modules")
_PYTEST: Final = ("-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider")
_NO_TESTS_RUN: Final = 5
_SHOWN: Final = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What has become of a mutant.

    Attributes:
        name: Of the mutant.
        promise: That it breaks.
        battery: That has caught it; empty when none has.
        shown: By which test or seed.
        seconds: From its planting to that, all batteries before included.
    """

    name: str
    promise: str
    battery: str
    shown: str
    seconds: float

    def __str__(self) -> str:
        battery = self.battery or "SURVIVED"
        return f"{self.name:34} {self.promise:4} {self.seconds:6.1f} s  {battery:34} {self.shown}"


class Copy:
    """A copy of the package and its tests, where bugs are planted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for entry in ROOT.iterdir():
            if entry.name in {"src", "tests"}:
                shutil.copytree(entry, directory / entry.name, ignore=_NOT_COPIED)
            elif not entry.name.startswith("."):
                (directory / entry.name).symlink_to(entry)

    @contextmanager
    def with_bug(self, mutant: Mutant) -> Iterator[None]:
        """The bug is there for the length of the block."""
        path = self.directory / "src/dk_trio" / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: what it replaces occurs {text.count(mutant.old)} times in {mutant.file}")
        self._write(path, text.replace(mutant.old, mutant.new))
        try:
            yield
        finally:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        # Python tells a change by size and whole seconds.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def run(self, battery: str, seeds: int, timeout: float) -> str:
        """What the battery has noticed; empty when all is well.

        Raises:
            SystemExit: It could not be run.
        """
        what = ("-m", "tests.mutants.seeds", str(seeds)) if battery == SIMULATION else (*_PYTEST, battery)
        path = os.pathsep.join((str(self.directory / "src"), str(self.directory)))
        process = subprocess.Popen(
            [sys.executable, *what],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"no end within {timeout:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # processes that a test has started, too
                process.communicate()
        if process.returncode == 0:
            return ""
        if "errors during collection" in output or "error during collection" in output:
            raise SystemExit(f"{battery} cannot be run:\n{output}")
        if process.returncode == _NO_TESTS_RUN:
            return ""
        shown = _first_failure(output)
        if not shown:
            raise SystemExit(f"{battery} has ended with {process.returncode}:\n{output}")
        return shown


def _first_failure(output: str) -> str:
    for line in output.splitlines():
        if line.startswith(("FAILED tests/", "ERROR tests/", "FAILED seed")):
            return line.partition(" ")[2].partition(" - ")[0][:_SHOWN]
    return ""


def kind_of(battery: str) -> str:
    """What kind of battery this is."""
    return battery if battery in {SIMULATION, REGRESSIONS} else OTHERS


def batteries_of(mutant: Mutant, only: Sequence[str]) -> list[str]:
    """Who is asked, in this order; `only` batteries of these kinds, if there are any."""
    asked = (SIMULATION, REGRESSIONS, *mutant.batteries)
    return [battery for battery in asked if not only or kind_of(battery) in only]


def judge(copy: Copy, mutant: Mutant, only: Sequence[str], seeds: int, timeout: float) -> Verdict:
    """Plant one bug, and ask until somebody has noticed."""
    began = time.perf_counter()
    with copy.with_bug(mutant):
        for battery in batteries_of(mutant, only):
            shown = copy.run(battery, seeds, timeout)
            if shown:
                break
        else:
            battery = shown = ""
    seconds = time.perf_counter() - began
    return Verdict(name=mutant.name, promise=mutant.promise, battery=battery, shown=shown, seconds=round(seconds, 1))


def sound(copy: Copy, chosen: Sequence[Mutant], only: Sequence[str], seeds: int, timeout: float) -> bool:
    """Whether no battery notices anything where there is nothing: what cannot pass cannot catch."""
    well = True
    for battery in dict.fromkeys(battery for mutant in chosen for battery in batteries_of(mutant, only)):
        if shown := copy.run(battery, seeds, timeout):
            print(f"{battery} fails without a bug: {shown}", flush=True)
            well = False
    return well


def main() -> int:
    """The exit status: 1 when a mutant survives, 2 when a battery fails without one."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants; all when none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts there")
    kinds = (SIMULATION, REGRESSIONS, OTHERS)
    parser.add_argument("--only", action="append", default=[], choices=kinds, help="ask these batteries alone")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of the simulation (%(default)s)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds of one battery (%(default)s)")
    parser.add_argument("--trust", action="store_true", help="do not run the batteries without a bug before")
    chosen_by = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := set(chosen_by.names) - set(known):
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    chosen = [known[name] for name in chosen_by.names] or MUTANTS
    how = (chosen_by.only, chosen_by.seeds, chosen_by.timeout)
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy = Copy(Path(directory))
        if not chosen_by.trust and not sound(copy, chosen, *how):
            return 2
        for mutant in chosen:
            verdict = judge(copy, mutant, *how)
            print(verdict, flush=True)
            verdicts.append(verdict)
    survivors = [verdict.name for verdict in verdicts if not verdict.battery]
    print(f"{len(verdicts)} mutants, {len(survivors)} survived{': ' if survivors else ''}{', '.join(survivors)}")
    if chosen_by.json is not None:
        chosen_by.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    if not chosen_by.names and not chosen_by.only:
        caught_by = Counter(kind_of(verdict.battery) for verdict in verdicts if verdict.battery)
        record(
            "mutants",
            mutants=len(verdicts),
            survived=survivors,
            caught_by=dict(caught_by),
            seconds=round(sum(verdict.seconds for verdict in verdicts), 1),
            verdicts=[asdict(verdict) for verdict in verdicts],
        )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
