"""P9: a bad peer or a bad module hurts only itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dk_trio.lifecycle import Reason

from .story import PROVIDER, Job, Story, Violation

HARMLESS: Final = "wait"
"""What a strike may do to a job without making it fail."""

_EXPECTED: Final = frozenset({"OK", "RESOURCE_EXHAUSTED"})
"""How the call of a job ends that nothing harms: a server that is full may say so."""


def bystanders(story: Story) -> Iterator[Violation]:
    """A job that nothing has struck, and that does no harm to itself, ends well."""
    for job in story.served:
        status = job.status
        if status is None or status.fields["status"] in _EXPECTED or harmed(story, job):
            continue
        steps = tuple(each.step for each in (job.start, job.outcome, status) if each is not None)
        text = f"ended with {status.fields['status']} ({status.fields['message']}), and nothing had harmed it"
        yield Violation("P9 bystander", job.name, steps, text)


def harmed(story: Story, job: Job, *, deep: bool = True) -> bool:
    """Whether anything has happened that this job may fail of."""
    begin = job.start or story.calls.get(job.name) or job.events[0]
    end = job.status or job.outcome or story.events[-1]
    if any(job.all(*what) for what in _OWN) or job.sinned or job.crash is not None or job.raised:
        return True
    if job.status is not None and job.status.fields["status"] == "DEADLINE_EXCEEDED" and _has_deadline(job):
        return True
    if any(each.fields["how"] == "cancelled" for each in job.all("author", "cleanup_end")):  # it took too long
        return True
    if _slow(job) and job.outcome is not None and job.outcome.fields["reason"] == Reason.TIMEOUT.value:
        return True
    hosts = {job.client or _parent(story, job), job.server} | ({PROVIDER} if story.bounds.provider else set())
    since = begin.at - story.bounds.detect  # what was cut may not have been noticed, or not be connected again
    if (
        story.faults_within(hosts, since, end.at)
        or _struck(story, job, since, end.at)
        or story.drained(job.server, begin.at, end.at)
    ):
        return True
    children = (story.jobs.get(each.fields["child"]) for each in job.all("author", "call"))
    failed = any(each.fields["status"] not in _EXPECTED for each in job.all("author", "called"))
    return deep and failed and any(child is None or harmed(story, child) for child in children)


_OWN: Final = (
    ("client", "cancel"),
    ("client", "stop"),
    ("provider", "signal_sent"),
    ("author", "send_failed"),
)


def _slow(job: Job) -> bool:
    return job.start is not None and bool(job.start.fields.get("pause"))


def _has_deadline(job: Job) -> bool:
    return job.start is not None and job.start.fields.get("deadline_at") is not None


def _parent(story: Story, job: Job) -> str:
    call = story.calls.get(job.name)
    return story.jobs[call.job].server if call is not None and call.job is not None else ""


def _struck(story: Story, job: Job, since: float, until: float) -> bool:
    """By a strike that does more than wait, and that is not known to be another's."""
    for event in story.all("world", "strike"):
        if event.fields["what"] == HARMLESS or not since <= event.at <= until:
            continue
        other = story.jobs.get(event.fields.get("job", ""))
        if other is None:
            if event.fields.get("server") in {None, job.server}:
                return True
        elif other is job or (event.fields["what"] == "cut" and _path(other) == _path(job)):
            return True
    return False


def _path(job: Job) -> tuple[str, str]:
    return job.client, job.server


def no_defect(story: Story) -> Iterator[Violation]:
    """Whatever a peer does, and however a connection ends, it is no error of the server's own."""
    for event in story.all("world", "defect"):
        yield Violation("P9 defect", "", (event.step,), f"{event.fields.get('where', '')}: {event.fields['text']}")
