"""When jobs were heard of last. In memory: after a restart each is heard of again with its server's next poll."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

HEARTBEATS_MAX: Final = 200_000
"""Jobs that are remembered, about 20 MB; of more, those that were heard of first are forgotten. A mesh that runs so
many at once has other worries; a client that makes up ids must not fill the memory."""


class Heartbeats:
    """The last heartbeat of each job, for a time.

    Args:
        ttl: Seconds for which one is told.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._last: OrderedDict[str, float] = OrderedDict()  # those that were heard of first are first

    def __len__(self) -> int:
        return len(self._last)

    def beat(self, jobs: Iterable[str], now: float) -> None:
        """These jobs are alive at `now`, in seconds of any clock that does not go back."""
        last = self._last
        for job in jobs:
            last[job] = now
            last.move_to_end(job)
        while last and (len(last) > HEARTBEATS_MAX or next(iter(last.values())) <= now - self._ttl):
            last.popitem(last=False)

    def last(self, job: str, now: float) -> float | None:
        """When the job was heard of; None when that is too long ago."""
        at = self._last.get(job)
        return None if at is None or at <= now - self._ttl else at

    def forget(self, jobs: Iterable[str]) -> None:
        """These jobs have ended."""
        for job in jobs:
            self._last.pop(job, None)
