"""P5: cancel arrives, and cleanup runs once and is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from dk_trio.testing.simulation.history import Event

from .story import CUTS, Job, Story, Violation

ASKS = frozenset({"cancel", "stop"})
ENDS = CUTS | {"client dies"}
"""Faults that end connections."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a job has to end.

    Attributes:
        event: What has happened.
        at: When.
        text: The same in words.
        due: When its code must have heard of it.
    """

    event: Event
    at: float
    text: str
    due: float


def causes(story: Story, job: Job) -> Iterator[Cause]:
    """All that has to cancel this job."""
    bounds, server = story.bounds, job.server
    path = {job.client, server}
    slow = bounds.delivery + bounds.strike

    def caused(event: Event, text: str, *, since: float, hosts: set[str], within: float) -> Cause:
        return Cause(event, since, text, story.due(since, hosts, within))

    for event in job.all("client", "cancel"):
        yield caused(event, "its client left", since=event.at, hosts=path, within=slow)
    if job.status is not None:
        yield caused(job.status, "its call ended", since=job.status.at, hosts=path, within=slow)
    for event in job.all("client", "stop"):
        if not story.drained(server, event.at, event.at + slow):  # or else it may find no open door
            yield caused(event, "StopModule was called", since=event.at, hosts=path, within=slow)
    for event in job.all("client", "stop_reply"):
        if event.fields["ok"]:
            yield Cause(event, event.at, "StopModule was answered", event.at)
    for event in job.all("server", "answered"):
        yield Cause(event, event.at, f"{event.fields['action']} was said", event.at)
    if story.bounds.provider:
        for event in job.all("provider", "signal_taken"):
            if event.fields["action"] in ASKS:
                due = story.taken_up(event.at, job)
                yield Cause(event, event.at, f"the provider had taken a {event.fields['action']} signal", due)
    deadline = None if job.start is None else job.start.fields.get("deadline_at")
    if job.start is not None and deadline is not None:
        yield caused(job.start, "its deadline passed", since=deadline, hosts=path, within=slow)
    for drain in story.drains:
        event = drain.event
        if drain.touches({server}) and job.begun is not None and job.begun.at < drain.ends_at:
            due = event.at + (event.fields.get("grace") or 0) + bounds.strike
            yield Cause(event, event.at, "its server drains", due)
    yield from _losses(story, job)


def _losses(story: Story, job: Job) -> Iterator[Cause]:
    """Connections that were cut while the job was on them, and parents that are over."""
    within = story.bounds.delivery + story.bounds.strike
    begun = inf if job.admitted is None else job.admitted.step
    gone = inf  # a client that is switched off hears of nothing any more, and nobody of it
    for fault in story.faults:
        if fault.event.step > gone:
            continue
        cut = fault.event.event == "fault" and fault.event.fields["what"] in ENDS
        if cut and job.client and fault.touches({job.client, job.server}):
            if fault.event.step > begun:
                due = story.due(fault.event.at, {job.client, job.server}, within)
                yield Cause(fault.event, fault.event.at, "its connection was cut", due)
            if fault.event.fields["what"] not in CUTS:
                gone = fault.event.step
    call = story.calls.get(job.name)
    parent = None if call is None or call.job is None else story.jobs[call.job]
    if parent is not None and parent.ended is not None:
        due = story.due(parent.ended.at, {parent.server, job.server}, within)
        yield Cause(parent.ended, parent.ended.at, f"{parent.name}, which had called it, was over", due)


def arrives(story: Story) -> Iterator[Violation]:
    """What ends a job reaches its code in time: it is cancelled by then, or over, or does not begin any more."""
    for job in story.jobs.values():
        begun, ended = job.begun, job.ended
        if begun is None or job.sinned:
            continue
        ended_at = inf if ended is None else ended.at
        heard_at = min((each.at for each in job.all("author", "cancelled")), default=inf)
        for cause in causes(story, job):
            steps = tuple(sorted({cause.event.step, begun.step}))
            if begun.at > cause.due:
                text = f"{cause.text} at {cause.at:g} s, and its code began at {begun.at:g} s"
                yield Violation("P5 arrives", job.name, steps, text)
            elif min(ended_at, heard_at) > cause.due and cause.due < story.over_at:
                went_on = "is not over" if ended is None else f"went on until {ended_at:g} s"
                text = f"{cause.text} at {cause.at:g} s, of which it had to hear by {cause.due:g} s: it {went_on}"
                yield Violation("P5 arrives", job.name, steps, text)


def cleanup_once(story: Story) -> Iterator[Violation]:
    """`cleanup` runs exactly once when `initialize` began, and never otherwise."""
    for job in story.jobs.values():
        begun, cleaned = job.all("author", "initialize"), job.all("author", "cleanup")
        fits = len(cleaned) == len(begun) <= 1
        if not fits and not (job.crash is not None and len(cleaned) < len(begun) == 1):
            steps = tuple(each.step for each in (*begun, *cleaned))
            text = f"initialize began {len(begun)} times, cleanup {len(cleaned)} times"
            yield Violation("P5 cleanup", job.name, steps, text)


def cleanup_bounded(story: Story) -> Iterator[Violation]:
    """`cleanup` ends within its time: the grace, once a job is cancelled, or else the time for completion."""
    bounds = story.bounds
    for job in story.jobs.values():
        begun, ended = job.first("author", "cleanup"), job.first("author", "cleanup_end")
        if begun is None or (ended is None and job.crash is not None):
            continue
        limit, why = bounds.completion_timeout, list(causes(story, job))
        if any(each.step < begun.step for each in job.all("author", "cancelled")):
            limit = bounds.cleanup_grace
        elif job.sinned or any(each.at <= begun.at for each in why):  # it may know of that, and not have said so
            limit = max(limit, bounds.cleanup_grace)
        # A job that is cancelled while it cleans up gets the shorter time from then on.
        until = min(begun.at + limit, *(max(each.due, begun.at) + bounds.cleanup_grace for each in why), inf)
        ended_at = story.over_at if ended is None else ended.at
        if ended_at > until + 1e-6:
            steps = (begun.step,) if ended is None else (begun.step, ended.step)
            text = f"cleanup went on until {ended_at:g} s, and had time until {until:g} s"
            yield Violation("P5 bounded", job.name, steps, text)


def cleanup_shielded(story: Story) -> Iterator[Violation]:
    """`cleanup` is not cancelled before its time is up, whatever has cancelled the job."""
    # A strike that waits just before it is a part of its time.
    shortest = min(story.bounds.cleanup_grace, story.bounds.completion_timeout) - story.bounds.strike
    for job in story.jobs.values():
        begun, ended = job.first("author", "cleanup"), job.first("author", "cleanup_end")
        if begun is None or ended is None or ended.fields["how"] != "cancelled":
            continue
        took = ended.at - begun.at
        if took < shortest - 1e-6:
            text = f"cleanup was cancelled after {took:g} s, and had {shortest:g} s at least"
            yield Violation("P5 shielded", job.name, (begun.step, ended.step), text)
