"""A circuit breaker: while a server cannot be reached, calls fail at once, and not one by one after all their retries.

    CLOSED --`failures` in a row--> OPEN --a probe is due--> HALF OPEN --it was answered--> CLOSED
                                     ^                           |
                                     +------- it failed ---------+

What counts is whether the server can be reached: UNAVAILABLE and nothing else. Any other answer of the server,
NOT_FOUND or INTERNAL, shows that it can. A deadline that passed shows neither, unless it was a probe's.

A probe is the next caller's own call, made once: it needs no RPC that the server may not have, and what it finds out is
what callers want to know. One is under way at a time. Whoever comes meanwhile waits for its outcome, no longer than
`patience` and its own deadline: to fail them would lose the calls of the very moment in which the server came back.
Whoever comes before a probe is due fails at once.

A probe is due after a delay that begins as reconnecting does and doubles up to the same cap, or as soon as the channel
has a new connection, which is a better reason than any delay. The first one is due at once if all that happened is that
a connection was lost: that fails every call on it, and says nothing of the next connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import chance

_logger = logging.getLogger("dk_trio.services.breaker")

# Of a delay, both ways: as gRFC A6 has it for retries.
_JITTER: Final = 0.2


class BreakerState(Enum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """When a breaker opens, and when it tries again.

    Attributes:
        failures: Calls in a row that open it. Five is what Envoy's outlier detection takes, and each of ours has been
            tried up to five times before.
        probe_initial: Seconds from opening to the first probe: the first delay of reconnecting in the tuning guide.
        probe_max: Seconds between two probes at most: the cap of reconnecting in the tuning guide.
        patience: Seconds that a caller waits for the probe of another one, at most: an answer that takes longer is no
            sign of health.
    """

    failures: int = 5
    probe_initial: float = 1.0
    probe_max: float = 10.0
    patience: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatistics:
    """A snapshot of a breaker.

    Attributes:
        state: `closed`, `open` or `half open`.
        failures: In a row, up to now.
        opened: How often it went from closed to open.
        probes: Calls that were let through to find out.
        refused: Calls that failed at once.
        next_probe: Seconds until the next probe is due; 0 when closed.
    """

    state: str
    failures: int
    opened: int
    probes: int
    refused: int
    next_probe: float


class CircuitBreaker:
    """The breaker of one target. Ask `admit` when it is not closed, and tell it how each call has ended.

    Args:
        target: Named in errors and logs.
        options: When it opens.
        connects: How many connections there have been; one more makes a probe due.
        lost: Whether the connection is gone, and nobody has tried yet to make another.
        random: Source of jitter.
    """

    def __init__(
        self,
        target: str,
        *,
        options: BreakerOptions | None = None,
        connects: Callable[[], int] = lambda: 0,
        lost: Callable[[], bool] = lambda: False,
        random: Random | None = None,
    ) -> None:
        self.target = target
        self.closed = True
        self._options = options or BreakerOptions()
        self._connects = connects
        self._lost = lost
        self._random = random or chance.new_random()
        self._state = BreakerState.CLOSED
        self._failures = self._opened = self._probes = self._refused = 0
        self._failing_since = 0.0
        self._reason = ""
        self._delay = 0.0
        self._due = 0.0
        self._seen_connects = 0
        self._decided = trio.Event()

    def __repr__(self) -> str:
        more = "" if self.closed else f", next probe in {self._due_in():.1f} s"
        return f"<CircuitBreaker {self.target!r} {self._state.value}, {self._failures} failures in a row{more}>"

    @property
    def state(self) -> BreakerState:
        """Whether calls go through."""
        return self._state

    def statistics(self) -> BreakerStatistics:
        """What it does, and has done."""
        return BreakerStatistics(
            state=self._state.value,
            failures=self._failures,
            opened=self._opened,
            probes=self._probes,
            refused=self._refused,
            next_probe=0.0 if self.closed else self._due_in(),
        )

    async def admit(self, deadline: float) -> bool:
        """Let a call through, or raise. True: it is the probe, whose owner owes `ended` or `abandoned`.

        Raises:
            GRPCError: UNAVAILABLE, with the target, since when it is not reached, why, and when it is tried again.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        patience = min(deadline, trio.current_time() + self._options.patience)
        while self._state is BreakerState.HALF_OPEN:
            if trio.current_time() >= patience:
                raise self._refuse("its answer is being waited for")
            with trio.move_on_at(patience):
                await self._decided.wait()
        if self._state is BreakerState.CLOSED:
            return False
        if self._due_in() > 0 and self._connects() == self._seen_connects:
            raise self._refuse(f"the next call is tried in {self._due_in():.1f} s")
        self._decided = trio.Event()
        self._probes += 1
        self._become(BreakerState.HALF_OPEN)
        return True

    def ended(self, status: Status, reason: str = "", *, probe: bool = False) -> None:
        """Take note of how a call has ended, OK included."""
        if status is Status.CANCELLED:  # by us: nothing was learnt
            if probe:
                self.abandoned()
            return
        if status is Status.UNAVAILABLE or (probe and status is Status.DEADLINE_EXCEEDED):
            self._failed(reason, probe=probe)
        elif status is not Status.DEADLINE_EXCEEDED:
            self._answered()

    def abandoned(self) -> None:
        """The probe was given up by its caller: the next one makes another."""
        if self._state is BreakerState.HALF_OPEN:
            self._due = trio.current_time()
            self._become(BreakerState.OPEN)

    def _answered(self) -> None:
        self._failures = 0
        if not self.closed:
            _logger.info("%s answers again after %.1f s: calls go through", self.target, self._failing_for())
            self._become(BreakerState.CLOSED)

    def _failed(self, reason: str, *, probe: bool) -> None:
        if not self._failures:
            self._failing_since = trio.current_time()
        self._failures += 1
        self._reason = reason
        if probe and self._state is BreakerState.HALF_OPEN:
            self._delay = min(2 * self._delay, self._options.probe_max)
        elif self.closed and self._failures >= self._options.failures:
            self._opened += 1
            self._delay = self._options.probe_initial
            _logger.warning(
                "%s is not reached: %d calls in a row have failed in %.1f s, the last one with: %s. Until it answers, "
                "calls fail at once",
                self.target,
                self._failures,
                self._failing_for(),
                reason,
            )
        else:
            return
        wait = 0.0 if self.closed and self._lost() else self._delay
        self._due = trio.current_time() + wait * self._random.uniform(1 - _JITTER, 1 + _JITTER)
        self._seen_connects = self._connects()
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        _logger.debug("%s: %s -> %s", self.target, self._state.value, state.value)
        self._state = state
        self.closed = state is BreakerState.CLOSED
        if state is not BreakerState.HALF_OPEN:
            self._decided.set()

    def _due_in(self) -> float:
        return max(0.0, self._due - trio.current_time())

    def _failing_for(self) -> float:
        return trio.current_time() - self._failing_since

    def _refuse(self, outlook: str) -> GRPCError:
        self._refused += 1
        text = f"{self.target} has not been reached for {self._failing_for():.1f} s ({self._reason}); {outlook}"
        return GRPCError(Status.UNAVAILABLE, text)
