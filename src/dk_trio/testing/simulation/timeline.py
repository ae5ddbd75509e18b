"""A history as a person reads it: one line an event, time from top to bottom, whoever acts further right.

 step      time  job   world, clients         servers                authors                provider
    1    0.000         begin seed=7 scenario=jobs ...
   14    1.204  j3     client-1 start ...
   15    1.305  j3                            server-1 admitted
   16    1.305  j3                                                   handler
!! 20    1.900         fault reset client-1 server-1
>> 31    2.410  j3     client-1 status ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .checker import Violation
from .history import Event

LANES: Final = {"world": 0, "client": 0, "server": 1, "author": 2, "provider": 3}
LANE: Final = 24
"""Characters by which a lane stands right of the one before."""

BEFORE: Final = 60
"""Lines of an excerpt."""

_NOISE: Final = frozenset({"gauge", "memory"})
_STRUCK: Final = frozenset({"fault", "heal", "strike", "crash", "restart", "drain_begin", "drain_end"})
_SHOWN: Final = ("job", "task")
"""Fields that have a column of their own."""

HEAD: Final = f"{'step':>8} {'time':>10}  {'job':<6} {'clients':<{LANE}}{'servers':<{LANE}}{'authors':<{LANE}}provider"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a timeline.

    Attributes:
        text: As it is shown.
        struck: It is a fault, or the end of one.
        guilty: A violation names it.
    """

    text: str
    struck: bool = False
    guilty: bool = False


def timeline(
    events: Iterable[Event], *, job: str | None = None, violations: Iterable[Violation] = ()
) -> Iterator[Line]:
    """The lines of a history.

    Args:
        events: The history, or a part of it.
        job: Show only what is about this job, and faults; None: all but gauges, which nobody could read.
        violations: What was found; the events that show it are marked.
    """
    guilty = {step for violation in violations for step in violation.steps}
    at = None
    yield Line(HEAD)
    for event in events:
        struck, marked = event.event in _STRUCK, event.step in guilty
        if not marked and not _shown(event, job):
            continue
        mark = ">>" if marked else "!!" if struck else "  "
        time = f"{event.at:10.3f}" if event.at != at else " " * 10
        at = event.at
        kind, _, name = event.actor.partition("/")
        what = [name] if kind in {"client", "server"} else [kind] if kind == "world" else []
        what += [event.event, *_told(event.fields)]
        lane = " " * (LANE * LANES[kind])
        text = f"{mark}{event.step:>6} {time}  {event.job or '':<6} {lane}{' '.join(what)}"
        yield Line(text.rstrip(), struck, marked)


def _shown(event: Event, job: str | None) -> bool:
    if event.event in _NOISE:
        return False
    return job is None or about(event, job)


def about(event: Event, job: str) -> bool:
    """Whether an event is about a job, or may be the cause of what happens to it."""
    return event.job == job or event.event in _STRUCK or event.actor == "world"


def _told(fields: Any) -> list[str]:
    """Fields in short: the name only where the value does not say what it is."""
    told = []
    for name, value in fields.items():
        if name in _SHOWN or value in (None, "", [], {}):
            continue
        if isinstance(value, list):
            value = "+".join(map(str, value))
        told.append(
            value if isinstance(value, str) and name in {"what", "where", "point", "action"} else f"{name}={value}"
        )
    return told


def excerpt(events: Sequence[Event], violations: Sequence[Violation], *, before: int = BEFORE) -> Iterator[Line]:
    """The end of the timeline of the first violation's job: what a failing test shows.

    Args:
        events: The history.
        violations: What was found.
        before: Lines up to the last event that shows it.
    """
    first = next((each for each in violations if each.steps), None)
    last = len(events) if first is None else max(first.steps)
    lines = [
        *timeline(events[:last], job=None if first is None or not first.job else first.job, violations=violations[:1])
    ]
    yield lines[0]
    if len(lines) > before:
        yield Line("     ...")
    yield from lines[1:][-before:]
