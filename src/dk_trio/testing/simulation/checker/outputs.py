"""P1: an output whose `send` returned reaches the client once and in order, or the client gets a non-OK status."""

from __future__ import annotations

from collections.abc import Iterator

from .story import Job, Story, Violation, base

LAST = "end_of_stream"


def _read(story: Story) -> Iterator[Job]:
    """Jobs whose outputs can be told from each other: nothing has flipped bits on their way."""
    for job in story.served:
        if job.status is None or not job.status.fields["on_corrupted"]:
            yield job


def order(story: Story) -> Iterator[Violation]:
    """A client gets the numbers 0, 1, 2, ... of one run without gap or repetition, nothing after `end_of_stream`."""
    for job in _read(story):
        outputs = job.all("client", "output")
        runs = {each.fields.get("run", base(job.name)): each.step for each in outputs}
        if len(runs) > 1:
            yield Violation("P1 order", job.name, tuple(runs.values()), f"got outputs of {' and '.join(runs)}")
            continue
        numbered = [each for each in outputs if each.fields.get("number") is not None]
        for expected, each in enumerate(numbered):
            if each.fields["number"] != expected:
                text = f"got output {each.fields['number']} where {expected} comes"
                yield Violation("P1 order", job.name, (each.step,), text)
                break
        last = next((each for each in outputs if each.fields["protocol"] == LAST), None)
        if last is not None and outputs[-1] is not last:
            text = f"got an output after {LAST}"
            yield Violation("P1 order", job.name, (last.step, outputs[-1].step), text)


def complete(story: Story) -> Iterator[Violation]:
    """OK means that everything has come: every output whose `send` returned, and `end_of_stream`."""
    for job in _read(story):
        status = job.status
        if status is None or status.fields["status"] != "OK":
            continue
        outputs = [each for each in job.all("client", "output") if each.step < status.step]
        got = {each.fields.get("number") for each in outputs}
        lost = [each for each in job.all("author", "sent") if each.fields["number"] not in got]
        if lost:
            numbers = ", ".join(str(each.fields["number"]) for each in lost)
            steps = (*(each.step for each in lost), status.step)
            yield Violation("P1 complete", job.name, steps, f"OK, but output {numbers} was sent and has not come")
        if not any(each.fields["protocol"] == LAST for each in outputs):
            yield Violation("P1 complete", job.name, (status.step,), f"OK without {LAST}")


def invented(story: Story) -> Iterator[Violation]:
    """A client gets nothing before it was sent, and nothing after the end of its call."""
    for job in _read(story):
        sends = {each.fields["number"]: each for each in reversed(job.all("author", "send"))}
        for each in job.all("client", "output"):
            number = each.fields.get("number")
            if number is not None and (number not in sends or sends[number].step > each.step):
                yield Violation("P1 invented", job.name, (each.step,), f"got output {number}, which nobody had sent")
            if job.status is not None and each.step > job.status.step:
                text = "got an output after its call had ended"
                yield Violation("P1 invented", job.name, (job.status.step, each.step), text)


def told(story: Story) -> Iterator[Violation]:
    """Every call ends, and for its client once."""
    for job in story.served:
        statuses = job.all("client", "status")
        if job.start is not None and not statuses and not job.all("client", "cancel"):
            yield Violation("P1 told", job.name, (job.start.step,), "its client was never told how it ended")
        if len(statuses) > 1:
            yield Violation("P1 told", job.name, tuple(each.step for each in statuses), "its call has ended twice")


def records(story: Story) -> Iterator[Violation]:
    """A record is there once when its `store` returned, and at most once when it did not."""
    written = {each.fields["record"]: each for each in story.all("provider", "record")}
    for job in story.jobs.values():
        for each in job.all("author", "stored"):
            if each.fields["record"] not in written:
                yield Violation(
                    "P1 records", job.name, (each.step,), f"{each.fields['record']} was stored, and is gone"
                )
        for each in job.all("author", "store"):
            record = written.get(each.fields["record"])
            if record is not None and record.fields["times"] != 1:
                text = f"{each.fields['record']} is there {record.fields['times']} times"
                yield Violation("P1 records", job.name, (each.step, record.step), text)
