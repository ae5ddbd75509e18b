"""The decisions of the retry policy (gRFC A6), without a clock."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st

from dk_trio.rpc.retry import Attempts, RetryBudget, RetryPolicy, RetryThrottling, parse_pushback

STEADY = RetryPolicy(jitter=0.0)


def attempts(policy: RetryPolicy = STEADY, budget: RetryBudget | None = None) -> Attempts:
    return Attempts(policy, budget or RetryBudget(policy.throttling), Random(1))


def fail(
    call: Attempts,
    status: Status = Status.UNAVAILABLE,
    pushback: str | None = None,
    now: float = 0.0,
    deadline: float = inf,
) -> float | None:
    return call.after_failure(status, pushback, now=now, deadline=deadline)


def test_five_attempts_with_growing_delays() -> None:
    call = attempts()
    assert [fail(call) for _ in range(5)] == [0.1, 0.2, 0.4, 0.8, None]
    assert call.made == 5


def test_delays_are_capped() -> None:
    policy = RetryPolicy(max_attempts=9, initial_backoff=1, max_backoff=3, jitter=0)
    call = attempts(policy)
    assert [fail(call) for _ in range(5)] == [1, 2, 3, 3, 3]
    assert RetryPolicy(max_attempts=10_000).backoff(9_999) == 10.0


@given(st.integers(), st.integers(1, 20))
def test_jitter_is_a_fifth_both_ways_and_repeatable(seed: int, number: int) -> None:
    policy = RetryPolicy(max_attempts=100)
    first = Attempts(policy, RetryBudget(None), Random(seed))
    second = Attempts(policy, RetryBudget(None), Random(seed))
    delays = [fail(first) for _ in range(number)]
    assert delays == [fail(second) for _ in range(number)]
    for index, delay in enumerate(delays, start=1):
        assert delay is not None
        assert 0.8 <= delay / policy.backoff(index) <= 1.2


@pytest.mark.parametrize("status", sorted(set(Status) - STEADY.statuses, key=lambda status: status.value))
def test_other_statuses_are_final(status: Status) -> None:
    assert fail(attempts(), status) is None


@pytest.mark.parametrize("status", sorted(STEADY.statuses, key=lambda status: status.value))
def test_retryable_statuses(status: Status) -> None:
    assert fail(attempts(), status) == 0.1


def test_no_attempt_begins_after_the_deadline() -> None:
    assert fail(attempts(), now=10.0, deadline=10.1) is None
    assert fail(attempts(), now=10.0, deadline=10.11) == 0.1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1500", 1.5),
        ("2147483647", 2147483.647),
        ("-1", -0.001),
        ("2147483648", -1.0),
        ("01", -1.0),
        ("1.5", -1.0),
        ("soon", -1.0),
        ("", -1.0),
        (" 1", -1.0),
        ("٣", -1.0),
    ],
)
def test_pushback_is_strict(text: str | None, seconds: float | None) -> None:
    assert parse_pushback(text) == seconds


def test_pushback_sets_the_delay_and_restarts_the_backoff() -> None:
    call = attempts()
    assert fail(call) == 0.1
    assert fail(call, pushback="3000") == 3.0
    assert fail(call) == 0.1
    assert fail(call, pushback="0") == 0.0
    assert fail(call) is None  # five attempts, pushback or not


def test_a_delay_that_is_asked_for_is_the_least_and_is_spread() -> None:
    call = attempts(RetryPolicy(max_attempts=100, jitter=0.2))
    waits = [call.after_failure(Status.UNAVAILABLE, None, now=0.0, deadline=inf, retry_delay=60.0) for _ in range(50)]
    assert all(wait is not None and 60.0 <= wait <= 72.0 for wait in waits)
    assert len(set(waits)) == 50


def test_pushback_can_forbid() -> None:
    assert fail(attempts(), pushback="-1") is None
    assert fail(attempts(), pushback="later") is None


def test_throttling_stops_retries_below_half_of_the_tokens() -> None:
    policy = RetryPolicy(max_attempts=100, jitter=0.0, throttling=RetryThrottling(max_tokens=4, token_ratio=0.5))
    budget = RetryBudget(policy.throttling)
    assert fail(attempts(policy, budget)) is not None  # 3 left
    assert fail(attempts(policy, budget)) is None  # 2 left: half
    assert fail(attempts(policy, budget), Status.INVALID_ARGUMENT) is None  # not the server's failure: not counted
    assert budget.tokens == 2
    for _ in range(3):
        budget.succeeded()
    assert budget.tokens == 3.5
    assert fail(attempts(policy, budget)) is not None
    for _ in range(10):
        budget.succeeded()
    assert budget.tokens == 4  # never above the maximum


def test_transparent_retries() -> None:
    call = attempts()
    assert [call.after_refusal(left_the_client=False) for _ in range(20)] == [True] * 20
    assert call.after_refusal(left_the_client=True)
    assert not call.after_refusal(left_the_client=True)
    assert call.made == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("initial_backoff", 0),
        ("max_backoff", -1),
        ("multiplier", 0),
        ("jitter", 1),
        ("buffer_bytes", -1),
        ("statuses", frozenset({Status.OK})),
    ],
)
def test_bad_options_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        RetryPolicy(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("max_tokens", 0), ("max_tokens", 1001), ("token_ratio", 0)])
def test_bad_throttling_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        RetryThrottling(**{field: value})


def test_state_is_visible() -> None:
    assert repr(attempts()) == "<Attempts 1 of 5>"
    assert repr(RetryBudget(None)) == "<RetryBudget unlimited>"
    assert repr(RetryBudget(RetryThrottling())) == "<RetryBudget 10 of 10 tokens>"
