"""P6: deadlines travel: to the server, to those whom its jobs call, and back to who has called."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from .story import Job, Story, Violation

ROUNDED = 0.01
"""The share by which a time that is left may be longer on the wire, which has few digits for it."""


def travel(story: Story) -> Iterator[Violation]:
    """The code of a job whose call has a deadline knows of it: there is none later in its own scopes."""
    for job in story.jobs.values():
        handler, until = job.first("author", "handler"), _deadline(story, job)
        if handler is None or until is None:
            continue
        known = handler.fields.get("deadline_at")
        if known is None or known > until + 1e-6:
            text = f"its call has a deadline, {until:g} s at most, and its code has {known or 'none'}"
            yield Violation("P6 known", job.name, (handler.step,), text)


def caller(story: Story) -> Iterator[Violation]:
    """Whoever calls with a deadline knows how it ended when that passes, reading aside."""
    for job in story.served:
        deadline = None if job.start is None else job.start.fields.get("deadline_at")
        if job.start is None or deadline is None or job.status is None:
            continue
        due = deadline + job.start.fields.get("pause", 0)
        if job.status.at > due + 1e-6:
            text = f"its client was told at {job.status.at:g} s, its deadline was {deadline:g} s"
            yield Violation("P6 caller", job.name, (job.start.step, job.status.step), text)


def deadlines(story: Story) -> Iterator[Violation]:
    """A job that calls another gives it no later deadline than its own, and the other does not run beyond that."""
    for name, call in story.calls.items():
        parent = story.jobs.get(call.job or "")
        until = None if parent is None else _deadline(story, parent)
        if parent is None or until is None:
            continue
        given = call.fields.get("deadline_at")
        if given is not None and given > until + 1e-6:
            text = f"its deadline is {given:g} s, that of {parent.name}, which calls it, {until:g} s"
            yield Violation("P6 deadline", name, (call.step,), text)
        child = story.jobs.get(name)
        if child is None or child.sinned or child.begun is None:
            continue
        due = story.due(until, {parent.server, child.server}, story.bounds.delivery + story.bounds.strike)
        heard_at = min((each.at for each in child.all("author", "cancelled")), default=inf)
        ended_at = story.over_at if child.ended is None else child.ended.at
        if max(child.begun.at, min(ended_at, heard_at)) > due:
            text = f"runs after {due:g} s, by when the deadline of {parent.name} had passed"
            yield Violation("P6 outran", name, (call.step, child.begun.step), text)


def _deadline(story: Story, job: Job) -> float | None:
    """When the job's deadline passes where it runs: what is left of it travels, rounded up, and counts from there."""
    call = story.calls.get(job.name)
    begin = job.start or call
    deadline = None if begin is None else begin.fields.get("deadline_at")
    if begin is None or deadline is None:
        return None
    seen = job.first("server", "asked") or job.admitted
    late = 0 if seen is None else seen.at - begin.at
    return float(deadline + late + ROUNDED * (deadline - begin.at))
