"""How long to wait between attempts to connect: gRPC's connection backoff, as numbers without a clock.

The schedule is that of gRPC's "connection-backoff" document with the bounds of the tuning guide. A delay counts from
the *start* of the attempt that failed, so a connect which took long to fail is followed by the next one soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffPolicy:
    """Delays between the starts of attempts to connect, in seconds."""

    initial: float = 1.0
    """After the first failure. `DIGITALKIN_GRPC_INITIAL_RECONNECT_MS`."""
    maximum: float = 10.0
    """Cap, jitter aside. `DIGITALKIN_GRPC_MAX_RECONNECT_MS`."""
    minimum: float = 0.5
    """Floor, jitter included. `DIGITALKIN_GRPC_MIN_RECONNECT_MS`."""
    multiplier: float = 1.6
    """Growth from failure to failure (gRPC connection-backoff)."""
    jitter: float = 0.2
    """Delays vary by this share in both directions (gRPC connection-backoff)."""

    def __post_init__(self) -> None:
        if not self.initial > 0:
            raise ValueError(f"initial must be above 0 seconds, not {self.initial!r}")
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"minimum must lie between 0 and maximum {self.maximum!r} seconds, not {self.minimum!r}")
        if self.multiplier < 1:
            raise ValueError(f"multiplier must be at least 1, not {self.multiplier!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be at least 0 and below 1, not {self.jitter!r}")


class Backoff:
    """The delays of one connection, from its failures and successes."""

    __slots__ = ("_next", "_policy", "_random", "failures")

    def __init__(self, policy: BackoffPolicy, random: Random) -> None:
        self._policy = policy
        self._random = random
        self._next = policy.initial
        self.failures = 0
        """Failures since the last success."""

    def __repr__(self) -> str:
        return f"<Backoff failures={self.failures} next={self._next:g}s>"

    def failed(self) -> float:
        """Seconds from the start of the attempt that failed to the start of the next."""
        policy = self._policy
        self.failures += 1
        delay = min(self._next, policy.maximum)
        self._next = min(delay * policy.multiplier, policy.maximum)
        return max(policy.minimum, delay * self._random.uniform(1 - policy.jitter, 1 + policy.jitter))

    def succeeded(self) -> None:
        """Begin anew: the next failure waits the initial delay."""
        self.failures = 0
        self._next = self._policy.initial
