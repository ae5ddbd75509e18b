"""P7: signals arrive at least once, in order per job, and a loss is told. And who is there is found."""

from __future__ import annotations

from collections.abc import Iterator

from dk_trio.testing.simulation.history import Event

from .ends import START, STOP, starts, stops
from .story import PROVIDER, Job, Story, Violation, name_of

RULE = "P7 arrived"


def arrived(story: Story) -> Iterator[Violation]:
    """The provider has the START and the STOP of each job that was admitted, unless their loss was told."""
    if not story.bounds.provider:
        return
    for job in story.jobs.values():
        if job.admitted is None or job.crash is not None:
            continue
        for action, signals, since in ((START, starts(job), job.admitted), (STOP, stops(job), job.outcome)):
            if (
                not signals
                and since is not None
                and not job.all("server", "lost")
                and not _went_down(story, job, since)
            ):
                text = f"the provider has no {action.upper()} of it, and nobody was told of its loss"
                yield Violation(RULE, job.name, (since.step,), text)


def lost(story: Story) -> Iterator[Violation]:
    """No signal is given up while its server and the provider can hear each other."""
    for job in story.jobs.values():
        for event in job.all("server", "lost"):
            if not story.provider_harmed(name_of(event), event.at - story.bounds.detect, event.at):
                text = "a signal of it was given up, and nothing had kept its server from the provider"
                yield Violation("P7 lost", job.name, (event.step,), text)


def leases(story: Story) -> Iterator[Violation]:
    """The registry finds a server that is there, and none that has said nothing for as long as its lease."""
    lease = story.bounds.lease
    for look in story.all("provider", "registered"):
        found = set(look.fields["found"])
        silent = {name_of(each): each.at for each in story.all("server", "vanish") if each.step < look.step}
        for server in sorted(found & silent.keys()):
            if look.at - silent[server] > lease:
                text = f"{server} is found {look.at - silent[server]:g} s after it was there last"
                yield Violation("P7 leases", "", (look.step,), text)
        for server in sorted({each.server for each in story.jobs.values()} - {""} - found - silent.keys()):
            if not story.provider_harmed(server, look.at - lease, look.at):
                yield Violation("P7 leases", "", (look.step,), f"{server} is there, and not found")


def in_order(story: Story) -> Iterator[Violation]:
    """The START of a job is before its STOP, and what has once been read of a signal stays as it is."""
    for job in story.jobs.values():
        first, last = starts(job), stops(job)
        if first and last and first[0].fields["seq"] > last[-1].fields["seq"]:
            yield Violation("P7 order", job.name, (first[0].step, last[-1].step), "its STOP came before its START")
        read: dict[int, tuple[object, object]] = {}
        for each in job.all("provider", "signal"):
            said = (each.fields["action"], each.fields["reason"])
            if read.setdefault(each.fields["seq"], said) != said:
                yield Violation("P7 order", job.name, (each.step,), "a signal in the provider has changed")


def _went_down(story: Story, job: Job, since: Event) -> bool:
    """Whether the signal's server may have gone down with it, before it had to be in the provider."""
    bounds = story.bounds
    return job.crash_within(since, story.due(since.at, {PROVIDER, job.server}, bounds.poll + bounds.strike))
