"""What has happened in a simulation: events in their order, and a digest that is the same for the same history."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from .vocabulary import misspelt

EVENTS_MAX: Final = 1_000_000
"""Events of one history. A simulation of a few hundred jobs has some ten thousand; more is one that goes in circles."""

_AUTHOR: Final = "author/"
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that has happened.

    Attributes:
        at: Seconds of virtual time since the start of the history.
        step: Its number; 1 is the first.
        actor: Who noted it: `world`, `provider`, `client/NAME`, `server/NAME`, `author/JOB`.
        event: What happened, in a word.
        fields: What belongs to it; values of JSON.
    """

    at: float
    step: int
    actor: str
    event: str
    fields: Mapping[str, Any]

    @property
    def job(self) -> str | None:
        """The job that it is about, where it is about one."""
        if self.actor.startswith(_AUTHOR):
            return self.actor.removeprefix(_AUTHOR)
        job = self.fields.get("job", self.fields.get("task"))
        return job if isinstance(job, str) else None

    def line(self) -> str:
        """The event as one line of JSON, the same for the same event in every process."""
        whole = {"step": self.step, "at": self.at, "actor": self.actor, "event": self.event, **self.fields}
        return _ENCODER.encode(whole)


class History:
    """The events of one simulation.

    Args:
        now: Gives the virtual time in seconds; the run's clock when None.
    """

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self.events: list[Event] = []
        self._now = now or trio.current_time
        self._hash = hashlib.sha256()

    def __repr__(self) -> str:
        return f"<History {len(self.events)} events, {self.digest[:12]}>"

    def note(self, actor: str, event: str, /, **fields: Any) -> Event:
        """Add an event, now.

        Args:
            actor: Who notes it.
            event: What happened, in a word.
            **fields: What belongs to it: values of JSON, and the same in every run of the seed. No set, no id() of an
                object, no real time.

        Raises:
            TypeError: A value is none of JSON.
            ValueError: A number is not finite, or the event is none of `vocabulary.EVENTS`.
            RuntimeError: The history is full: the simulation goes in circles.
        """
        if (wrong := misspelt(actor, event, fields)) is not None:
            raise ValueError(wrong)
        if len(self.events) >= EVENTS_MAX:
            raise RuntimeError(f"{EVENTS_MAX} events, and still going on: the last one was {self.events[-1]}")
        # Nanoseconds: what floats add to a virtual time would make a history hard to read, and says nothing.
        noted = Event(round(self._now(), 9), len(self.events) + 1, actor, event, fields)
        # At once: a value that is none of JSON is told where it comes from, and nobody can change it afterwards unseen.
        self._hash.update(noted.line().encode() + b"\n")
        self.events.append(noted)
        return noted

    @property
    def digest(self) -> str:
        """SHA-256 of all lines so far, in hex."""
        return self._hash.hexdigest()

    def lines(self) -> list[str]:
        """Every event as a line of JSON."""
        return [event.line() for event in self.events]

    def of_job(self, job: str) -> list[Event]:
        """The events that are about this job."""
        return [event for event in self.events if event.job == job]
