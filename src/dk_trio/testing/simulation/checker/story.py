"""A history in the order in which checks read it: by job, by server, with the times of faults."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import inf
from typing import Any

from dk_trio.testing.simulation.history import Event

ANYWHERE = "*"
PROVIDER = "provider"
CUTS = frozenset({"reset", "fin"})
"""Faults of which both ends of a connection hear."""

_PROVIDERS_POINTS = ("signals.", "database.", "setup.")


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """A promise that was not kept.

    Attributes:
        rule: The check that has found it: the promise, and a word.
        job: The job whose history shows it; empty where it is none's.
        steps: Numbers of the events that show it.
        text: What is wrong, in a sentence.
    """

    rule: str
    job: str
    steps: tuple[int, ...]
    text: str

    def __str__(self) -> str:
        where = f" {self.job}" if self.job else ""
        steps = f" (steps {', '.join(map(str, self.steps))})" if self.steps else ""
        return f"{self.rule}{where}: {self.text}{steps}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a simulation promises about its own world; see `begin` in `vocabulary.EVENTS`."""

    slots: int
    queue: int
    cleanup_grace: float
    completion_timeout: float
    delivery: float
    detect: float
    hold: float
    poll: float
    strike: float
    memory: int
    lease: float
    provider: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """A time in which something is not as it should be."""

    event: Event
    where: frozenset[str]
    ends_at: float

    def touches(self, hosts: Iterable[str]) -> bool:
        """Whether it is about what these hosts do with each other; that of a pair needs both to be among them."""
        return self.where - {ANYWHERE} <= frozenset(hosts)


class Job:
    """One run of a job: what its client, its author and its server have noted of it.

    A channel repeats a call that no server has begun to answer; then the client's job has several runs, of which the
    last is the one whose outputs it gets. `j3~2` is the second run of `j3`.
    """

    def __init__(self, name: str, events: Sequence[Event], crashes: Sequence[Event], *, last: bool = True) -> None:
        self.name = name
        self.last_run = last
        self._by_kind: dict[tuple[str, str], list[Event]] = defaultdict(list)
        for event in events:
            self._by_kind[event.actor.partition("/")[0], event.event].append(event)
        self.events = events
        self._crashes = crashes

    def all(self, kind: str, event: str) -> list[Event]:
        """The events of this kind of actor and this name."""
        return self._by_kind.get((kind, event), [])

    def first(self, kind: str, event: str) -> Event | None:
        """The first of them."""
        return next(iter(self.all(kind, event)), None)

    def last(self, kind: str, event: str) -> Event | None:
        """The last of them."""
        return next(reversed(self.all(kind, event)), None)

    @cached_property
    def start(self) -> Event | None:
        """A client starts it; None for a job that another job has started."""
        return self.first("client", "start")

    @cached_property
    def status(self) -> Event | None:
        """How it has ended for its client."""
        return self.first("client", "status")

    @cached_property
    def admitted(self) -> Event | None:
        return self.first("server", "admitted")

    @cached_property
    def outcome(self) -> Event | None:
        return self.first("server", "outcome")

    @cached_property
    def client(self) -> str:
        """The host of its client; empty when there is none."""
        return name_of(self.start)

    @cached_property
    def server(self) -> str:
        """The server where it was; where it was meant to be, if it never got there."""
        seen = self.first("server", "asked") or self.admitted or self.outcome
        if seen is not None:
            return name_of(seen)
        return "" if self.start is None else str(self.start.fields["server"])

    def crash_within(self, since: Event, until: float) -> bool:
        """Whether its server went down after this, and not later than that."""
        return any(each.step > since.step and each.at <= until for each in self._crashes)

    @cached_property
    def crash(self) -> Event | None:
        """The server went down while the job was on it."""
        if self.admitted is None:
            return None
        until = inf if self.outcome is None else self.outcome.step
        return next((each for each in self._crashes if self.admitted.step < each.step < until), None)

    @cached_property
    def sinned(self) -> bool:
        """Whether its code does what no module should, so that no bound holds for it."""
        return bool(self.all("author", "sin"))

    @cached_property
    def begun(self) -> Event | None:
        """The author's code begins."""
        return self.first("author", "initialize") or self.first("author", "handler")

    @cached_property
    def ended(self) -> Event | None:
        """The author's code is over, cleanup aside."""
        begins = (each for each in self.all("author", "initialize_end") if each.fields["how"] != "returned")
        code = self.first("author", "handler_end") or next(iter(begins), None)
        return code or self.first("author", "cleanup") or self.outcome or self.crash

    @cached_property
    def raised(self) -> bool:
        """Whether the author's code has raised an error."""
        ends = (self.all("author", f"{what}_end") for what in ("initialize", "handler", "cleanup"))
        return any(each.fields["how"] == "raised" for each in chain.from_iterable(ends))


class Story:
    """All of a history.

    Args:
        events: In their order. The first one must be `begin`.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.begin = events[0]
        self.bounds = Bounds(**{name: self.begin.fields[name] for name in Bounds.__slots__})
        self._by_kind: dict[tuple[str, str], list[Event]] = defaultdict(list)
        by_job: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            self._by_kind[event.actor.partition("/")[0], event.event].append(event)
            if event.job is not None:
                by_job[event.job].append(event)
        crashes: dict[str, list[Event]] = defaultdict(list)
        for event in self.all("server", "crash"):
            crashes[name_of(event)].append(event)
        self.jobs: dict[str, Job] = {}
        """By name, each run of each job."""
        runs: dict[str, list[str]] = defaultdict(list)
        for name in by_job:
            runs[base(name)].append(name)
        for job, names in runs.items():
            of_client = [each for each in by_job[job] if each.actor.startswith("client/")]
            for name in names:
                mine = by_job[name] if name == job else sorted((*of_client, *by_job[name]), key=lambda each: each.step)
                server = next((name_of(each) for each in mine if each.actor.startswith("server/")), "")
                self.jobs[name] = Job(name, mine, crashes[server], last=name == names[-1])
        self.served = [run for run in self.jobs.values() if run.last_run and run.start is not None]
        """Of each job that a client has started, the run that it gets outputs of."""
        self.calls = {each.fields["child"]: each for each in self.all("author", "call")}
        """By child, how its parent has called it."""

    def all(self, kind: str, event: str) -> list[Event]:
        """The events of this kind of actor and this name."""
        return self._by_kind.get((kind, event), [])

    @cached_property
    def end(self) -> Event | None:
        return next(reversed(self.all("world", "end")), None)

    @cached_property
    def over_at(self) -> float:
        """When the history ends."""
        return self.events[-1].at

    @cached_property
    def faults(self) -> list[Fault]:
        """All times in which something is wrong; a cut, which is over at once, is a moment."""
        faults = []
        heals = self.all("world", "heal")
        for event in self.all("world", "fault"):
            where = places(event.fields["where"])
            healed = (
                each.at
                for each in heals
                if each.step > event.step
                and (each.fields["what"], places(each.fields["where"])) == (event.fields["what"], where)
            )
            ends_at = next(healed, event.fields.get("until") or event.at)
            faults.append(Fault(event, where, ends_at))
        for kind in ("server", "provider"):
            back = self.all(kind, "restart")
            for event in self.all(kind, "crash"):
                restarted = (each.at for each in back if each.step > event.step and each.actor == event.actor)
                faults.append(Fault(event, frozenset({name_of(event)}), next(restarted, inf)))
        return faults

    @cached_property
    def drains(self) -> list[Fault]:
        """The times in which a server takes no new jobs: from the begin of a drain until it is started again."""
        drains = []
        for event in self.all("server", "drain_begin"):
            restarts = self.all("server", "restart")
            back = (each.at for each in restarts if each.step > event.step and each.actor == event.actor)
            drains.append(Fault(event, frozenset({name_of(event)}), next(back, inf)))
        return drains

    def drained(self, server: str, since: float, until: float) -> bool:
        """Whether a server takes no new jobs at some moment of this time."""
        return any(each.touches({server}) and each.event.at <= until and each.ends_at >= since for each in self.drains)

    def faults_within(self, hosts: Iterable[str], since: float, until: float) -> list[Fault]:
        """The faults that touch these hosts in this time."""
        known = list(hosts)
        return [
            each for each in self.faults if each.ends_at >= since and each.event.at <= until and each.touches(known)
        ]

    def taken_up(self, since: float, job: Job) -> float:
        """When a job must have heard of a signal that the provider has taken.

        Where all was well for long, its server waits for that with a poll that names the job; or else it has to begin
        anew, after each thing that has come between it and the provider.
        """
        bounds, hosts = self.bounds, {PROVIDER, job.server}
        if job.begun is not None:
            named = max(since, job.begun.at + bounds.hold)
            due = named + 1 + 4 * bounds.delivery
            if not self.provider_harmed(job.server, since - bounds.detect, due):
                return due
        within = bounds.poll + bounds.delivery + bounds.strike
        ended = (fault.ends_at for fault in self.faults_within(hosts, since - bounds.detect, since))
        due = max(self.due(since, hosts, within), *(at + bounds.detect + within for at in ended), since)
        for event in self._harms_to_provider:
            if since <= event.at <= due and event.fields.get("server") in {None, job.server}:
                due = max(due, self.due(event.at, hosts, within))
        return due

    def provider_harmed(self, server: str, since: float, until: float) -> bool:
        """Whether something has come between a server and the provider in this time."""
        return bool(self.faults_within({PROVIDER, server}, since, until)) or any(
            since <= event.at <= until and event.fields.get("server") in {None, server}
            for event in self._harms_to_provider
        )

    @cached_property
    def _harms_to_provider(self) -> list[Event]:
        """Strikes, but for those between clients and servers. One that waits may wait for long, too."""
        strikes = self.all("world", "strike")
        return [each for each in strikes if each.fields["point"].startswith(_PROVIDERS_POINTS)]

    def due(self, since: float, hosts: Iterable[str], within: float) -> float:
        """When something must have got through that takes `within` seconds where nothing is wrong.

        A fault in its way holds it up until the fault's end, and from then on it may take as long as it takes to notice
        that a connection is gone. One that is cut tells both of its ends, and holds up nothing.
        """
        known = list(hosts)
        due = since + within
        while late := [
            fault.ends_at + self.bounds.detect + within
            for fault in self.faults_within(known, since, due)
            if fault.event.fields.get("what") not in CUTS and fault.ends_at + self.bounds.detect + within > due
        ]:
            due = max(late)
        return due


def base(name: str) -> str:
    """The job of a run."""
    return name.partition("~")[0]


def places(where: Any) -> frozenset[str]:
    """The hosts of a fault: one name, or a list of them."""
    return frozenset([where] if isinstance(where, str) else where)


def name_of(event: Event | None) -> str:
    """The host that notes an event; empty without one."""
    return "" if event is None else event.actor.partition("/")[2] or event.actor
