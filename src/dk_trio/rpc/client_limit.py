"""How much one client may have at the same time: a number for each that has something, and nothing for the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ClientLimit:
    """Counts what is open by client.

    Args:
        limit: Of one client; None: no limit, and nothing is counted.

    Attributes:
        refused: Times that a client was at its limit.
    """

    __slots__ = ("_open", "limit", "refused")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.refused = 0
        self._open: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<ClientLimit of {self.limit}, {len(self._open)} clients, {self.refused} refused>"

    @property
    def clients(self) -> int:
        """Clients that have something open; 0 without a limit."""
        return len(self._open)

    @contextmanager
    def one(self, client: str) -> Iterator[bool]:
        """One more of a client, for the length of the block; False when it has as many as it may. "" has no limit."""
        limit, counts = self.limit, self._open
        if limit is None or not client:
            yield True
            return
        if counts.get(client, 0) >= limit:
            self.refused += 1
            yield False
            return
        counts[client] = counts.get(client, 0) + 1
        try:
            yield True
        finally:
            left = counts[client] - 1
            if left:
                counts[client] = left
            else:
                del counts[client]
