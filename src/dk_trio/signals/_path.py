"""Whether signals get through, in one direction. Each change is told once, however many calls fail in between."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

_log = logging.getLogger("dk_trio.signals")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathHealth:
    """One direction of an exchange.

    Attributes:
        ok: Whether signals get through, as far as is known.
        since: Since when, in seconds of `trio.current_time`.
        reason: Why not; empty when they do.
    """

    ok: bool
    since: float
    reason: str = ""


class Path:
    """The state of one direction."""

    def __init__(self) -> None:
        self.health = PathHealth(ok=True, since=0.0)
        self.outages = 0

    def __repr__(self) -> str:
        return f"<Path {'ok' if self.ok else self.health.reason}>"

    @property
    def ok(self) -> bool:
        """Whether signals get through."""
        return self.health.ok

    def opened(self) -> None:
        """Nothing is known yet, so nothing is wrong."""
        self.health = PathHealth(ok=True, since=trio.current_time())

    def fails(self, reason: str, text: str) -> None:
        """Signals do not get through. `text` is told, unless it has been."""
        if self.ok:
            self.outages += 1
            self.health = PathHealth(ok=False, since=trio.current_time(), reason=reason)
            _log.warning("%s", text)

    def works(self, text: str) -> None:
        """Signals get through. If they did not before, `text` and the seconds of the outage after it are told."""
        if not self.ok:
            now = trio.current_time()
            _log.info("%s %.1f s", text, now - self.health.since)
            self.health = PathHealth(ok=True, since=now)
