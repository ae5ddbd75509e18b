"""Whether, and when, a failed call is tried again: gRFC A6 as a policy and pure decisions, without waiting or sending.

Two kinds of retry exist, and they are not the same thing:

* By *policy*: the server answered with a retryable status, or the connection was lost with the request under way. The
  server may have done the work. Counted against `max_attempts`, delayed by the backoff, subject to throttling.
* *Transparent*: the server surely never saw the call. Not counted and not delayed, because nothing can have happened
  twice. A call that left this process and was refused there gets one of these; the next refusal goes by policy, or an
  overloaded server and its clients would play ping-pong.

A call is retried only while nothing of a response was handed on and everything it sent is still at hand: it becomes
*committed* by the arrival of response headers (a trailers-only response is none) and by sending more than
`buffer_bytes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from random import Random

from grpclib.const import Status

PUSHBACK_HEADER = "grpc-retry-pushback-ms"
"""Trailer by which a server sets the delay of the next attempt; negative or unreadable forbids it (gRFC A6)."""

PREVIOUS_ATTEMPTS_HEADER = b"grpc-previous-rpc-attempts"
"""Request header that tells the server how many attempts came before (gRFC A6); absent in the first."""

TRANSPARENT_RETRIES = 1
"""Free retries of a call that reached a server which did not process it (gRFC A6, "Transparent Retries")."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,9})")
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryThrottling:
    """Stop retrying while too many calls fail: a token bucket for each channel (gRFC A6, `retryThrottling`).

    A call that fails in a way that could be retried takes one token, a call that succeeds brings `token_ratio` back.
    Retries stop while half of the tokens or fewer are left.
    """

    max_tokens: float = 10.0
    """Tokens at the start and at most; up to 1000."""
    token_ratio: float = 0.1
    """Tokens for each success. 0.1 lets about one retry in ten calls pass in the long run."""

    def __post_init__(self) -> None:
        if not 0 < self.max_tokens <= 1000:
            raise ValueError(f"max_tokens must be above 0 and at most 1000, not {self.max_tokens!r}")
        if not self.token_ratio > 0:
            raise ValueError(f"token_ratio must be above 0, not {self.token_ratio!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Layer A of the tuning guide: which calls a channel repeats by itself, and after how long."""

    max_attempts: int = 5
    """Attempts of one call including the first; 1 disables retries. `DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS`."""
    initial_backoff: float = 0.1
    """Seconds before the second attempt. `DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF`."""
    max_backoff: float = 10.0
    """Seconds that no delay exceeds, jitter aside. `DIGITALKIN_GRPC_RETRY_MAX_BACKOFF`."""
    multiplier: float = 2.0
    """Growth of the delay from one attempt to the next. `DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER`."""
    jitter: float = 0.2
    """Delays are multiplied by a random number in 1 - jitter to 1 + jitter; gRFC A6 says 0.2."""
    statuses: frozenset[Status] = frozenset({Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED})
    """What is worth another attempt (tuning guide, `retryableStatusCodes`)."""
    buffer_bytes: int = 256 * 1024
    """Request messages that one call keeps for the next attempt, in bytes; a call that sends more is committed. The
    default is gRPC core's `grpc.per_rpc_retry_buffer_size`."""
    throttling: RetryThrottling | None = None
    """Shared by the calls of a channel; None, as without a service config entry, never throttles."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts!r}")
        if not self.initial_backoff > 0:
            raise ValueError(f"initial_backoff must be above 0 seconds, not {self.initial_backoff!r}")
        if not self.max_backoff > 0:
            raise ValueError(f"max_backoff must be above 0 seconds, not {self.max_backoff!r}")
        if not self.multiplier > 0:
            raise ValueError(f"multiplier must be above 0, not {self.multiplier!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be at least 0 and below 1, not {self.jitter!r}")
        if self.buffer_bytes < 0:
            raise ValueError(f"buffer_bytes must not be negative, not {self.buffer_bytes!r}")
        if Status.OK in self.statuses:
            raise ValueError("statuses must not contain OK: a call that succeeded is not tried again")

    def backoff(self, number: int) -> float:
        """Seconds before retry `number` (1 is the second attempt), jitter aside."""
        # Compared as logarithms would be: the power overflows long after the cap is reached.
        try:
            delay = self.initial_backoff * self.multiplier ** (number - 1)
        except OverflowError:
            return self.max_backoff
        return min(delay, self.max_backoff)


class RetryBudget:
    """The token bucket of one channel; the state that belongs to `RetryThrottling`."""

    __slots__ = ("_limit", "tokens")

    def __init__(self, throttling: RetryThrottling | None) -> None:
        self._limit = throttling
        self.tokens = throttling.max_tokens if throttling is not None else 0.0

    def __repr__(self) -> str:
        if self._limit is None:
            return "<RetryBudget unlimited>"
        return f"<RetryBudget {self.tokens:g} of {self._limit.max_tokens:g} tokens>"

    @property
    def max_tokens(self) -> float:
        """The whole budget; inf without a limit."""
        return inf if self._limit is None else self._limit.max_tokens

    @property
    def allows(self) -> bool:
        """Whether a retry is allowed now."""
        return self._limit is None or self.tokens > self._limit.max_tokens / 2

    def succeeded(self) -> None:
        """Record a call that ended well."""
        if self._limit is not None:
            self.tokens = min(self.tokens + self._limit.token_ratio, self._limit.max_tokens)

    def failed(self) -> bool:
        """Record an attempt that failed; True when a retry is allowed."""
        if self._limit is None:
            return True
        self.tokens = max(self.tokens - 1.0, 0.0)
        return self.allows


def parse_pushback(text: str | None) -> float | None:
    """Seconds that a server asks to wait; None when it said nothing, negative when it forbids a retry."""
    if text is None:
        return None
    if not _INTEGER.fullmatch(text) or not -_INT32_MAX <= int(text) <= _INT32_MAX:
        return -1.0
    return int(text) / 1000


class Attempts:
    """The attempts of one call: counts them and decides about the next. Makes no attempt itself."""

    __slots__ = ("_backoffs", "_budget", "_policy", "_random", "_transparent", "made")

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, random: Random) -> None:
        self._policy = policy
        self._budget = budget
        self._random = random
        self._backoffs = 0
        self._transparent = TRANSPARENT_RETRIES
        self.made = 1
        """Attempts that count, the one under way included."""

    def __repr__(self) -> str:
        return f"<Attempts {self.made} of {self._policy.max_attempts}>"

    def after_refusal(self, *, left_the_client: bool) -> bool:
        """True when a call which no server processed may go again at once, uncounted."""
        if not left_the_client:
            return True
        if self._transparent > 0:
            self._transparent -= 1
            return True
        return False

    def left_for(self, status: Status) -> bool:
        """True while another attempt may follow one that has failed with `status`."""
        return status in self._policy.statuses and self.made < self._policy.max_attempts

    def after_failure(
        self,
        status: Status,
        pushback: str | None,
        *,
        now: float,
        deadline: float,
        connected: bool = True,
        retry_delay: float = 0.0,
    ) -> float | None:
        """Seconds to wait before the next attempt, or None when `status` is the call's final one.

        `pushback` is the text of the server's pushback trailer, if any. Without one, `retry_delay` is what it asks for
        in its details (google.rpc.RetryInfo), and the least that is waited. No attempt is begun that could not start
        before `deadline`: then the failure at hand says more than DEADLINE_EXCEEDED would.

        Without `connected` there was no connection to try it on, so nobody has had any work by it, and the budget has
        no say: it spares servers, and would be spent by one that restarts under many calls.
        """
        policy = self._policy
        if status not in policy.statuses:
            return None
        if (connected and not self._budget.failed()) or self.made >= policy.max_attempts:
            return None
        wait = parse_pushback(pushback)
        if wait is None:
            self._backoffs += 1
            wait = policy.backoff(self._backoffs) * self._random.uniform(1 - policy.jitter, 1 + policy.jitter)
            if retry_delay > 0:  # not sooner; and not all who were refused at once in the same moment
                wait = max(wait, retry_delay * self._random.uniform(1, 1 + policy.jitter))
        elif wait < 0:
            return None
        else:
            self._backoffs = 0
        if now + wait >= deadline:
            return None
        self.made += 1
        return wait
