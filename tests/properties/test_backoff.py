"""Delays between attempts to connect, held against a model: for any policy, any failures and successes."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.sizes import size

from dk_trio.rpc.backoff import Backoff, BackoffPolicy

SECONDS = st.floats(0.001, 1000)
POLICIES = st.builds(
    lambda initial, ends, multiplier, jitter: BackoffPolicy(
        initial=initial, minimum=min(ends), maximum=max(ends), multiplier=multiplier, jitter=jitter
    ),
    SECONDS, st.tuples(st.floats(0, 100), st.floats(0.001, 1000)), st.floats(1, 10), st.floats(0, 0.99),
)  # fmt: skip


class Delays(RuleBasedStateMachine):
    """The model: the delay without jitter, from the number of failures since the last success."""

    @initialize(policy=POLICIES, seed=st.integers(0, 100))
    def begin(self, policy: BackoffPolicy, seed: int) -> None:
        self.policy = policy
        self.backoff = Backoff(policy, Random(seed))
        self.failures = 0
        self.last = 0.0

    @rule()
    def fails(self) -> None:
        policy = self.policy
        wanted = min(policy.initial * policy.multiplier**self.failures, policy.maximum)
        self.failures += 1
        delay = self.backoff.failed()
        slack = 1 + 1e-9 * self.failures
        assert delay <= max(policy.minimum, wanted * (1 + policy.jitter)) * slack
        assert delay * slack >= max(policy.minimum, wanted * (1 - policy.jitter))
        if not policy.jitter:
            assert delay * slack >= self.last
        self.last = delay
        assert self.backoff.failures == self.failures

    @rule()
    @precondition(lambda self: self.failures)
    def fails_often(self) -> None:
        for _ in range(30):
            self.fails()

    @rule()
    def succeeds(self) -> None:
        self.backoff.succeeded()
        self.failures, self.last = 0, 0.0


TestDelays = Delays.TestCase
TestDelays.settings = settings(max_examples=size(50, 5000), stateful_step_count=12, deadline=None)
