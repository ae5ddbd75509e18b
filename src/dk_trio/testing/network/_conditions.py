"""What a way from one host to another is like, and which of several rules holds for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Final, Generic, TypeVar

ANY: Final = "*"
"""In place of a host's name: any host."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the network does to bytes that go one way between two hosts.

    Raises:
        ValueError: A time is negative or endless, a size is below 1.
    """

    latency: float = 0.001
    """Seconds that every segment is under way, at least."""
    jitter: float = 0.0
    """Seconds that a segment may take longer: drawn evenly between 0 and this. Segments of one connection do not
    overtake each other; those of different connections do."""
    bandwidth: float = inf
    """Bytes per second that a connection gets through, each way."""
    slice_max: int | None = None
    """Bytes of the longest piece that bytes arrive in: lengths are drawn evenly from 1 to this, whatever was sent at
    once, and each piece is received by itself. None joins what has arrived, as a socket does."""
    buffer: int = 64 * 1024
    """Bytes that may be sent and not yet received; then `send_all` waits. A `bandwidth` is reached if half of this
    covers what is under way: `latency * bandwidth`."""

    def __post_init__(self) -> None:
        for name in ("latency", "jitter"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a number of seconds from 0, not {getattr(self, name)!r}")
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth must be above 0, not {self.bandwidth!r}")
        if self.buffer < 1 or (self.slice_max is not None and self.slice_max < 1):
            raise ValueError("buffer and slice_max must be at least 1 byte")


class Rules(Generic[T]):
    """Values for ways between hosts, by name or for any: of those that fit, the one set last holds."""

    def __init__(self, default: T) -> None:
        self._rules = [(ANY, ANY, default)]

    def set(self, source: str, destination: str, value: T) -> None:
        """Let this hold from now on; rules that can never hold again are forgotten."""
        kept = [rule for rule in self._rules if not (fits(source, rule[0]) and fits(destination, rule[1]))]
        self._rules = [*kept, (source, destination, value)]

    def get(self, source: str, destination: str) -> T:
        """What holds for this way."""
        return next(value for a, b, value in reversed(self._rules) if fits(a, source) and fits(b, destination))


def fits(pattern: str, host: str) -> bool:
    """Whether a name, or any, means this host."""
    return pattern in {ANY, host}
