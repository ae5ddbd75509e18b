"""Delays between attempts to connect."""

from __future__ import annotations

from random import Random

import pytest

from dk_trio.rpc.backoff import Backoff, BackoffPolicy


def test_schedule_without_jitter() -> None:
    backoff = Backoff(BackoffPolicy(jitter=0), Random(1))
    delays = [backoff.failed() for _ in range(7)]
    assert delays == pytest.approx([1, 1.6, 2.56, 4.096, 6.5536, 10, 10])
    assert backoff.failures == 7


def test_success_begins_anew() -> None:
    backoff = Backoff(BackoffPolicy(jitter=0), Random(1))
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed() == 1


def test_jitter_stays_within_its_share_and_above_the_floor() -> None:
    policy = BackoffPolicy(initial=0.5, maximum=2.0, minimum=0.5)
    backoff = Backoff(policy, Random(7))
    delays = [backoff.failed() for _ in range(200)]
    assert min(delays) >= 0.5
    assert min(delays[10:]) >= 1.6
    assert max(delays) <= 2.4
    assert delays == [again.failed() for again in [Backoff(policy, Random(7))] for _ in range(200)]


@pytest.mark.parametrize(
    "options",
    [{"initial": 0}, {"minimum": -1}, {"minimum": 11}, {"multiplier": 0.5}, {"jitter": 1}],
    ids=lambda options: next(iter(options)),
)
def test_bad_options_are_named(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BackoffPolicy(**options)


def test_state_is_visible() -> None:
    assert repr(Backoff(BackoffPolicy(), Random(1))) == "<Backoff failures=0 next=1s>"
