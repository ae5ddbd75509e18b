"""P2: each job has one outcome, one START and one STOP with its reason. P3: nothing outlives its owner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dk_trio.lifecycle import OUTCOMES, Reason
from dk_trio.testing.simulation.history import Event

from .story import Job, Story, Violation

START: Final = "start"
STOP: Final = "stop"
_ASKS: Final = "none"
"""The reason of a signal that asks for an end, or tells of none."""


def one_outcome(story: Story) -> Iterator[Violation]:
    """A job that was admitted has one outcome, unless its server went down with it; no job has two."""
    for job in story.jobs.values():
        outcomes, admitted = job.all("server", "outcome"), job.all("server", "admitted")
        if len(outcomes) > 1 or len(admitted) > 1:
            steps = tuple(each.step for each in (*admitted, *outcomes))
            text = f"was admitted {len(admitted)} times and has ended {len(outcomes)} times"
            yield Violation("P2 outcome", job.name, steps, text)
        elif admitted and not outcomes and job.crash is None:
            yield Violation("P2 outcome", job.name, (admitted[0].step,), "was admitted and has no outcome")


def fitting(story: Story) -> Iterator[Violation]:
    """What the server, the author's code and the client know of an end fits together."""
    for job in story.jobs.values():
        outcome, status = job.outcome, job.status
        if outcome is None:
            continue
        reason = outcome.fields["reason"]
        if outcome.fields["state"] != OUTCOMES[Reason(reason)].state.value:
            text = f"ended as {outcome.fields['state']}, which does not fit {reason}"
            yield Violation("P2 fitting", job.name, (outcome.step,), text)
        # Where bits were flipped, the trailers of one call may have become those of another.
        well = status is not None and status.fields["status"] == "OK" and not status.fields["on_corrupted"]
        if job.last_run and status is not None and well and reason != Reason.COMPLETED.value:
            yield Violation(
                "P2 fitting", job.name, (outcome.step, status.step), f"its client has OK, its end is {reason}"
            )
        if reason == Reason.REFUSED.value and job.begun is not None:
            yield Violation("P2 fitting", job.name, (job.begun.step, outcome.step), "was refused, and ran")
        if job.raised and reason == Reason.COMPLETED.value:
            yield Violation("P2 fitting", job.name, (outcome.step,), "its code raised, and it has completed")


def one_signal_each(story: Story) -> Iterator[Violation]:
    """The provider has no second START or STOP of a job, none of a job that was not admitted, and the right reason."""
    for job in story.jobs.values():
        for action, signals in (("START", starts(job)), ("STOP", stops(job))):
            steps = tuple(each.step for each in signals)
            if len(signals) > 1:
                yield Violation("P2 signals", job.name, steps, f"the provider has {len(signals)} {action} of it")
            if signals and job.admitted is None:
                yield Violation("P2 signals", job.name, steps, f"the provider has a {action} of it; it never ran")
        if job.outcome is not None:
            for each in stops(job):
                if each.fields["reason"] != job.outcome.fields["reason"]:
                    text = f"its STOP says {each.fields['reason']}, its end was {job.outcome.fields['reason']}"
                    yield Violation("P2 signals", job.name, (job.outcome.step, each.step), text)


def starts(job: Job) -> list[Event]:
    """Its START signals in the provider, in their order there."""
    return _committed(job, START)


def stops(job: Job) -> list[Event]:
    """Its STOP signals in the provider; not what asks for its end, which has no reason."""
    return [each for each in _committed(job, STOP) if each.fields["reason"] != _ASKS]


def _committed(job: Job, action: str) -> list[Event]:
    # The store may be read several times, so the same signal is noted several times.
    signals = {each.fields["seq"]: each for each in job.all("provider", "signal") if each.fields["action"] == action}
    return [signals[seq] for seq in sorted(signals)]


def nothing_left(story: Story) -> Iterator[Violation]:
    """At the end there is no task, stream, session or thread, and nobody holds a place."""
    end = story.end
    if end is None:
        return
    for what in ("tasks_left", "streams_left", "sessions_left", "threads"):
        left = end.fields[what]
        if left:
            yield Violation("P3 left", "", (end.step,), f"{what}: {left}")


def within_outcome(story: Story) -> Iterator[Violation]:
    """The author's code is over before the job is, and does nothing afterwards, nor when its server went down."""
    for job in story.jobs.values():
        end = job.outcome or job.crash
        late = [each for each in job.events if end and each.actor.startswith("author/") and each.step > end.step]
        if end is not None and late:
            text = f"its code goes on ({late[0].event}) after the {end.event} at {end.at:g} s"
            yield Violation("P3 outlived", job.name, (end.step, *(each.step for each in late[:3])), text)
        for what in ("initialize", "handler", "cleanup"):
            begun, ended = job.first("author", what), job.first("author", f"{what}_end")
            if begun is not None and ended is None and job.crash is None:
                yield Violation("P3 outlived", job.name, (begun.step,), f"its {what} has begun and never ended")


def form(story: Story) -> Iterator[Violation]:
    """The history is whole: it says where it begins, when faults are over, and what was left at its end."""
    quiet = story.all("world", "quiet")
    if len(quiet) != 1 or story.end is not story.events[-1] or len(story.all("world", "end")) != 1:
        yield Violation("form", "", (story.events[-1].step,), "does not end with one `quiet` and one `end`")
        return
    for fault in story.faults:
        if fault.event.step > quiet[0].step or fault.ends_at > quiet[0].at:
            text = f"{fault.event.event} of {', '.join(sorted(fault.where))} goes on after `quiet`"
            yield Violation("form", "", (fault.event.step, quiet[0].step), text)
    if not story.jobs:
        yield Violation("form", "", (), "nobody has started a job")
