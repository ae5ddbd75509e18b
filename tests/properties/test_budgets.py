"""The token buckets behind the abuse limits of a connection: never more than they promise, never less."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.wire.limits import Budget, Limits, Rate

RATES = st.builds(Rate, burst=st.integers(0, 50), rate=st.floats(0, 100))
PAUSES = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.1, 1.0, 3600.0]), max_size=150)


@settings(deadline=None, max_examples=size(150, 20_000))
@given(rate=RATES, pauses=PAUSES, began=st.floats(0.1, 1e6))
def test_at_most_the_burst_and_then_the_rate(rate: Rate, pauses: list[float], began: float) -> None:
    """In any stretch of time; and who stays below is never refused. A refusal ends the connection, and the test."""
    budget, now = Budget(rate), began
    spent: list[float] = []
    for pause in pauses:
        now += pause
        granted = budget.spend(now)
        spent.append(now)
        worst = max(number + 1 - rate.rate * (now - since) for number, since in enumerate(reversed(spent)))
        if granted:
            assert worst <= rate.burst + 1e-6
            assert budget.tokens <= rate.burst
        else:
            assert worst > rate.burst - 1e-6
            return


@settings(deadline=None, max_examples=size(100, 5000))
@given(rate=RATES, refunds=st.lists(st.floats(0, 1000), max_size=20))
def test_what_is_given_back_never_makes_it_more_than_full(rate: Rate, refunds: list[float]) -> None:
    budget = Budget(rate)
    budget.spend(0.0)
    for tokens in refunds:
        before = budget.tokens
        budget.refund(tokens)
        assert before <= budget.tokens <= rate.burst


def test_a_clock_that_stands_still_gives_nothing_back() -> None:
    for name in ("young_resets", "pings", "settings", "idle_frames", "empty_data", "window_updates"):
        rate: Rate = getattr(Limits(), name)
        budget = Budget(rate)
        granted = sum(budget.spend(now) for now in [5.0] * (2 * rate.burst))
        assert granted == rate.burst, name
