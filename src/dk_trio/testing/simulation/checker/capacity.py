"""P4: capacity is conserved. P8: every buffer has a number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from dk_trio.testing.simulation.history import Event

from .story import Job, Story, Violation, name_of


def gauges(story: Story) -> Iterator[Violation]:
    """At every moment: running <= slots, admitted <= slots + queue, and nobody waits while a slot is free."""
    for event in story.all("server", "gauge"):
        now = event.fields
        running, admitted, slots = now["running"], now["admitted"], now["slots"]
        if not 0 <= running <= slots:
            yield Violation("P4 gauge", "", (event.step,), f"{event.actor}: {running} running in {slots} slots")
        if not running <= admitted <= slots + now["queue"]:
            text = f"{event.actor}: {admitted} admitted, {running} running, {slots} slots and a queue of {now['queue']}"
            yield Violation("P4 gauge", "", (event.step,), text)
        if now["queued"] and running < slots:
            text = f"{event.actor}: {now['queued']} wait while {running} of {slots} slots are taken"
            yield Violation("P4 gauge", "", (event.step,), text)


def running(story: Story) -> Iterator[Violation]:
    """As the authors' code sees it: no server runs more jobs at the same time than it has slots."""
    for server, jobs in _by_server(story).items():
        steps: list[tuple[int, int, Job]] = []
        for job in jobs:
            mine = [each for each in job.events if each.actor.startswith("author/")]
            if mine:
                end = mine[-1] if job.crash is None else min(mine[-1], job.crash, key=lambda each: each.step)
                steps += [(mine[0].step, 1, job), (end.step, -1, job)]
        now = 0
        for step, more, job in sorted(steps, key=lambda each: each[0]):
            now += more
            if now > story.bounds.slots:
                text = f"code of {now} jobs runs on {server}, which has {story.bounds.slots} slots"
                yield Violation("P4 running", job.name, (step,), text)
                break


def back_to_zero(story: Story) -> Iterator[Violation]:
    """At the end every place has been given back."""
    end = story.end
    if end is None:
        return
    for server, borrowed in end.fields["borrowed"].items():
        if borrowed["running"] or borrowed["admitted"]:
            text = f"{server} counts {borrowed['running']} running and {borrowed['admitted']} admitted at the end"
            yield Violation("P4 zero", "", (end.step,), text)


def first_come(story: Story) -> Iterator[Violation]:
    """Jobs get their slots in the order in which they asked; those that got them in the same moment had no order."""
    for jobs in _by_server(story).values():
        line = [
            (asked, slot)
            for job in jobs
            for asked, slot in zip(job.all("server", "asked"), job.all("server", "slot"), strict=False)
        ]
        latest: tuple[Event, Event] | None = None
        for asked, slot in sorted(line, key=lambda each: each[0].step):
            if latest is not None and slot.at < latest[1].at:
                text = f"asked after {latest[0].job}, and got a slot before it"
                steps = (latest[0].step, asked.step, slot.step, latest[1].step)
                yield Violation("P4 order", asked.job or "", steps, text)
            else:
                latest = (asked, slot)


def memory(story: Story) -> Iterator[Violation]:
    """No server's buffers hold more than they may."""
    for event in story.all("server", "memory"):
        if event.fields["buffered"] > story.bounds.memory:
            text = f"{event.actor} buffers {event.fields['buffered']} bytes, {story.bounds.memory} are allowed"
            yield Violation("P8 memory", "", (event.step,), text)


def _by_server(story: Story) -> dict[str, list[Job]]:
    servers: dict[str, list[Job]] = defaultdict(list)
    for job in story.jobs.values():
        seen = job.first("server", "asked") or job.admitted
        if seen is not None:
            servers[name_of(seen)].append(job)
    return servers
