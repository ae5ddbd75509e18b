"""Polls that are held until something is pending for one of their jobs. In memory, and told of nothing but ids.

What is pending stands in the database; here is only for which jobs that may be: `asked` notes a job, after the commit
or when it is not known whether one took place, and wakes the polls that hold it. A poll looks into the database for
those of its jobs that were noted, and tells with `nothing_for` when it found nothing. So a note too many costs a read,
and none is too few: a note that came after the read stays, since it has another number.

A held poll costs an entry for each of its jobs. A note costs what it wakes, however many polls and jobs there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import trio


class Poll:
    """One poll that is held."""

    __slots__ = ("_woken", "released")

    def __init__(self) -> None:
        self._woken = trio.Event()
        self.released = False
        """Whether it must end now, with nothing."""

    async def wait(self) -> None:
        """Until one of its jobs was noted since this returned last, or the poll is released."""
        await self._woken.wait()
        if not self.released:
            self._woken = trio.Event()

    def wake(self) -> None:
        """End the wait."""
        self._woken.set()


class Polls:
    """All polls of a provider."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}  # job -> number of its last note
        self._notes = 0
        self._held: dict[str, list[Poll]] = {}
        self._polls: dict[Poll, None] = {}
        self._released = False

    def __repr__(self) -> str:
        return f"<Polls {len(self._polls)} held for {len(self._held)} jobs, {len(self._asked)} jobs asked>"

    @property
    def polls(self) -> int:
        """Polls that are held."""
        return len(self._polls)

    @property
    def jobs(self) -> int:
        """Jobs for which a poll is held."""
        return len(self._held)

    @property
    def jobs_asked(self) -> int:
        """Jobs for which something may be pending."""
        return len(self._asked)

    def holds(self, job: str) -> bool:
        """Whether a poll is held for a job."""
        return job in self._held

    # --- who writes --------------------------------------------------------------------------------------------------

    def asked(self, jobs: Iterable[str]) -> None:
        """Something may be pending for these jobs."""
        for job in jobs:
            self._notes += 1
            self._asked[job] = self._notes
            for poll in self._held.get(job, ()):
                poll.wake()

    @property
    def notes(self) -> int:
        """The number of the last note."""
        return self._notes

    def settled(self, jobs: Iterable[str], *, upto: int | None = None) -> None:
        """Nothing is pending for these jobs, nor ever will be; with `upto`, nothing of what was noted up to there."""
        for job in jobs:
            if upto is None or self._asked.get(job, 0) <= upto:
                self._asked.pop(job, None)

    def release(self) -> None:
        """End all polls, with nothing; no other is held from now on."""
        self._released = True
        for poll in self._polls:
            poll.released = True
            poll.wake()

    # --- who polls ---------------------------------------------------------------------------------------------------

    @contextmanager
    def held(self, jobs: Collection[str]) -> Iterator[Poll]:
        """A poll for these jobs, each of them once. From the beginning of the block on it is woken."""
        poll = Poll()
        poll.released = self._released
        self._polls[poll] = None
        for job in jobs:
            self._held.setdefault(job, []).append(poll)
        try:
            yield poll
        finally:
            del self._polls[poll]
            for job in jobs:
                there = self._held[job]
                there.remove(poll)
                if not there:
                    del self._held[job]

    def may_have(self, jobs: Mapping[str, object]) -> dict[str, int]:
        """Those of the jobs for which something may be pending, with the numbers of their notes."""
        if len(jobs) < len(self._asked):
            return {job: self._asked[job] for job in jobs if job in self._asked}
        return {job: note for job, note in self._asked.items() if job in jobs}

    def nothing_for(self, notes: Mapping[str, int]) -> None:
        """Nothing was pending for these jobs, with the numbers that `may_have` told before the look."""
        for job, note in notes.items():
            if self._asked.get(job) == note:
                del self._asked[job]
