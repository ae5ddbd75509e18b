"""Lines of a log that are written once for each peer and reason: what a stranger does a thousand times is one line."""

from __future__ import annotations

import logging
from math import inf
from typing import Final

import trio

LIMIT: Final = 1000
"""Peers and reasons that are told apart: 200 KiB, and as many lines in one period."""
PERIOD: Final = 3600.0
"""Seconds after which all is forgotten: what goes on is told again, some times a day."""


class Notices:
    """Says each (peer, reason) once in a period. Counting is the caller's."""

    __slots__ = ("_log", "_said", "_since")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[tuple[str, str]] = set()
        self._since = -inf

    def __repr__(self) -> str:
        return f"<Notices, {len(self._said)} said>"

    def say(self, level: int, peer: str, reason: str, text: str) -> None:
        """Write `text`, unless this reason was told of this peer, or of too many peers."""
        now = trio.current_time()
        if now - self._since > PERIOD:
            self._said.clear()
            self._since = now
        key = (peer, reason)
        if key in self._said or len(self._said) > LIMIT:
            return
        self._said.add(key)
        if len(self._said) > LIMIT:
            self._log.warning("%d peers and reasons were told of; others are counted, and not named for a while", LIMIT)
            return
        self._log.log(level, "%s (told once)", text)
