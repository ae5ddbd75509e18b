"""One seed, one simulation: play it in virtual time, check what has happened, and say how to see it again.

The scheduler, ids, jitter, dates and every fault come from the seed, the garbage collector rests, nothing outside of
the process is asked: a seed has one history, on every machine and in every process.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import trio

from dk_trio.testing.clock import run

from .checker import Violation, check
from .history import History

if TYPE_CHECKING:
    from .scenarios import Scenario

SECONDS_MAX: Final = 60.0
"""Seconds of a processor for one simulation. It takes half a second; one that never waits would never end."""

_LOGGER: Final = "dk_trio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one simulation was made of.

    Attributes:
        jobs: Jobs that were started, by clients and by other jobs.
        outputs: Outputs that clients got.
        events: Events of the history.
        faults: Faults, by what they were.
        strikes: Strikes, by point.
        outcomes: Ends of jobs, by reason.
        virtual: Seconds of virtual time.
    """

    jobs: int
    outputs: int
    events: int
    faults: Mapping[str, int]
    strikes: Mapping[str, int]
    outcomes: Mapping[str, int]
    virtual: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one seed has shown.

    Attributes:
        seed: The seed.
        scenario: Name of the scenario.
        digest: Of the history: the same whenever the seed is played.
        violations: Promises that were not kept, in the order of the events that show it.
        statistics: What it was made of.
        seconds: Seconds of a processor that it took.
        history: All that has happened.
        logs: What the package has logged as a warning or worse, with its virtual time.
    """

    seed: int
    scenario: str
    digest: str
    violations: tuple[Violation, ...]
    statistics: Statistics
    seconds: float
    history: History = field(repr=False)
    logs: tuple[str, ...] = field(repr=False)

    @property
    def command(self) -> str:
        """What shows it again in a terminal. The terminal does not know scenarios of your own: `simulate` does."""
        return replay_command(self.seed, self.scenario)


def replay_command(seed: int, scenario: str) -> str:
    """What plays a seed again in a terminal, and shows its timeline."""
    return f"dk-trio sim --seed {seed} --scenario {scenario} --timeline"


class TooLongError(BaseException):
    """A simulation computes for too long: it goes round without waiting for anything."""


def scenario_of(seed: int) -> str:
    """The scenario of a seed where none is named: each in turn."""
    from .scenarios import SCENARIOS

    names = list(SCENARIOS)
    return names[seed % len(names)]


def simulate(seed: int, scenario: str | Scenario | None = None, *, seconds_max: float = SECONDS_MAX) -> Result:
    """Play a seed and check its history.

    Args:
        seed: Decides everything.
        scenario: What is simulated: the name of one, or one of your own; one of ours by the seed when None.
        seconds_max: Seconds of a processor after which it is given up, where the platform has a timer of the kind;
            then this is a violation.

    Raises:
        KeyError: No scenario has this name.
        KeyboardInterrupt: As ever.
    """
    from .scenarios import SCENARIOS
    from .world import play

    chosen = SCENARIOS[scenario or scenario_of(seed)] if scenario is None or isinstance(scenario, str) else scenario
    history = History()
    found: list[Violation] = []
    started = time.process_time()

    async def main() -> None:
        await play(chosen, seed, history)

    with _watched(found) as logs:
        try:
            with _no_longer_than(seconds_max):
                run(main, seed=seed)
        except KeyboardInterrupt:
            raise
        # boundary: whatever comes out of a simulation is what it has shown
        except (Exception, TooLongError, BaseExceptionGroup) as error:
            if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt) is not None:
                raise
            found.append(_raised(error))
    return Result(
        seed=seed,
        scenario=chosen.name,
        digest=history.digest,
        violations=tuple(found or check(history)),  # of a history that breaks off, checks would tell nothing new
        statistics=statistics_of(history),
        seconds=time.process_time() - started,
        history=history,
        logs=tuple(logs),
    )


def statistics_of(history: History) -> Statistics:
    """What a history is made of."""
    events = history.events
    counted = Counter(event.event for event in events)
    return Statistics(
        jobs=counted["start"] + counted["call"],
        outputs=counted["output"],
        events=len(events),
        faults=_counted(history, "fault", "what"),
        strikes=_counted(history, "strike", "point"),
        outcomes=_counted(history, "outcome", "reason"),
        virtual=events[-1].at if events else 0.0,
    )


def _counted(history: History, event: str, name: str) -> dict[str, int]:
    counts = Counter(str(each.fields[name]) for each in history.events if each.event == event)
    return dict(sorted(counts.items()))


def _raised(error: BaseException) -> Violation:
    text = "".join(traceback.format_exception(error)).rstrip()
    return Violation("error", "", (), f"the simulation has raised:\n{text}")


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Raise in whatever runs by then. Only in a main thread and where there are timers; elsewhere nothing is done."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(_: int, __: FrameType | None) -> None:
        raise TooLongError(f"it takes longer than {seconds:g} s of a processor")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)  # again, if somebody has caught it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _watched(found: list[Violation]) -> Iterator[list[str]]:
    """Collect what the package logs, and add to `found` what Python itself complains of.

    The collector rests meanwhile and runs at the end: what it finds has no owner any more, and tells of it there.
    """
    logs = _Logs()
    logger = logging.getLogger(_LOGGER)
    before = logger.propagate, logger.level, sys.unraisablehook, gc.isenabled()

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        what = args.err_msg or "Exception ignored in"
        found.append(Violation("P3 left", "", (), f"{what} {args.object!r}: {args.exc_value!r}"))

    logger.addHandler(logs)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    gc.disable()
    gc.freeze()  # what was there before is none of ours, and makes a collection slow
    sys.unraisablehook = unraisable
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield logs.lines
            gc.collect()
    finally:
        sys.unraisablehook = before[2]
        gc.unfreeze()
        if before[3]:
            gc.enable()
        logger.setLevel(before[1])
        logger.propagate = before[0]
        logger.removeHandler(logs)
    found += [Violation("P3 left", "", (), f"{each.category.__name__}: {each.message}") for each in warned]


class _Logs(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            at = trio.current_time()
        except RuntimeError:  # after the run, from a finalizer
            at = inf
        self.lines.append(f"{at:.3f} {self.format(record)}")


def as_json(result: Result) -> dict[str, Any]:
    """A result as JSON, without its history."""
    statistics = result.statistics
    return {
        "seed": result.seed,
        "scenario": result.scenario,
        "digest": result.digest,
        "violations": [
            {"rule": each.rule, "job": each.job, "steps": list(each.steps), "text": each.text}
            for each in result.violations
        ],
        "seconds": round(result.seconds, 3),
        **{name: getattr(statistics, name) for name in Statistics.__slots__},
    }
