"""A connection as the network sees it, and what the network counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._link import Link
from ._stream import NetworkStream


@dataclass(frozen=True, slots=True)
class NetworkStatistics:
    """What a network is doing, and has done."""

    opened: int
    """Connections that were made so far."""
    failed: int
    """Attempts to connect that led to nothing."""
    streams: int
    """Ends that their owners have got and not closed: 0 once nothing is left over."""
    buffered: int
    """Bytes that were sent and not read, of all connections that can still be read."""
    sent: int
    """Bytes that were sent so far."""
    corrupted: int
    """Segments that were changed on the way so far."""


class Connection:
    """Both ends of a connection, and the links between them."""

    def __init__(
        self, seed: str, source: str, destination: str, number: int, ended: Callable[[Connection], object]
    ) -> None:
        self.source = source
        self.destination = destination
        self.number = number
        self.opened = False
        """Whether the destination has taken it in."""
        self.there = Link(source, destination, f"{seed} {source} {destination} {number} there")
        self.back = Link(destination, source, f"{seed} {source} {destination} {number} back")
        self.there.back, self.back.back = self.back, self.there
        self.client = NetworkStream(self.back, self.there, number, ended=lambda _: ended(self))
        self.server = NetworkStream(self.there, self.back, number, ended=lambda _: ended(self))

    @property
    def names(self) -> dict[str, str | int]:
        """Which one it is."""
        return {"source": self.source, "destination": self.destination, "number": self.number}

    @property
    def links(self) -> tuple[Link, Link]:
        """Both directions."""
        return self.there, self.back

    @property
    def ends(self) -> tuple[NetworkStream, NetworkStream]:
        """Who has connected, and who has accepted."""
        return self.client, self.server
