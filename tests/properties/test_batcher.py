"""P7: signals that go out, whatever jobs say and whatever the provider does about it.

Jobs publish at seeded times; the provider takes its time, fails, hangs, and loses replies. Then it behaves, and what
must hold is what was promised: at least once, in the order of each job, nothing lost, batches within their bounds.

A provider that takes a batch, loses the reply, and then is too slow or fails is asked for half of the batch, which is
another call to it. If it does not tell signals apart, as this one does not, it sees a job go back: then all that the
job said since comes again, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import trio
from grpclib.const import Status
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.signals.fake import ack, exchange_with, settled, start, stop
from tests.sizes import size

from dk_trio.testing.clock import run

DIVIDING = {"hang", Status.DEADLINE_EXCEEDED, Status.INTERNAL}  # a batch is sent by halves

BEHAVIOURS = [
    None,
    None,
    None,
    0.05,
    0.7,
    "drop",
    "hang",
    Status.UNAVAILABLE,
    Status.DEADLINE_EXCEEDED,
    Status.INTERNAL,
]


@dataclass(frozen=True)
class Plan:
    """What jobs say and when, as (seconds since the last, number of the job), and what the provider does at first."""

    said: list[tuple[float, int]]
    provider: list[Any]
    batch: int
    interval: float


PLANS = st.builds(
    Plan,
    said=st.lists(
        st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.2, 2.0]), st.integers(0, 7)), min_size=1, max_size=40
    ),
    provider=st.lists(st.sampled_from(BEHAVIOURS), max_size=12),
    batch=st.integers(1, 6),
    interval=st.sampled_from([0.0, 0.05, 0.5]),
)


def replays(said: list[str], taken: list[str]) -> bool:
    """Whether what was taken of a job, immediate repetitions apart, is what it said, or goes back and repeats it."""
    places = [said.index(action) for action in taken]
    steps = zip([-1, *places], places, strict=False)
    return all(place <= before + 1 for before, place in steps) and taken[-1:] == said[-1:]


GOES_BACK = Plan([(0.0, 0)] * 3, [None, "drop", "drop", "drop", "hang"], 2, 0.0)


async def carry_out(plan: Plan) -> None:
    options = {"max_batch_size": plan.batch, "flush_interval": plan.interval, "send_timeout": 1.0}
    async with exchange_with(send_plan=list(plan.provider), **options) as (exchange, provider):
        published: dict[str, list[str]] = {}
        times: list[float] = []
        for pause, number in plan.said:
            await trio.sleep(pause)
            name = f"j{number}"
            said = published.setdefault(name, [])
            if len(said) < 3:
                signal = (start, ack, stop)[len(said)](name)
                said.append(signal.action.value)
                exchange.publish(signal)
                times.append(trio.current_time())
        await settled(exchange)
        outbound = exchange.statistics().outbound
        assert (outbound.pending, outbound.lost, outbound.refused, outbound.collapsed) == (0, 0, 0, 0)
        assert outbound.delivered == len(times)
        divides = "drop" in plan.provider and not DIVIDING.isdisjoint(plan.provider)
        for name, said in published.items():
            taken = provider.of(name)
            assert replays(said, taken) if divides else taken == said
        assert provider.most_sending <= 1 + sum(what in ("hang", "drop", 0.7) for what in plan.provider)
        assert all(len(sent.tasks) <= plan.batch for sent in provider.sent)
        keys: dict[str, list[tuple[str, str]]] = {}
        for sent in provider.sent:
            assert keys.setdefault(sent.key, sent.said) == sent.said, "one key, two batches"
        if not any(plan.provider):
            delivered = [sent.at for sent in provider.sent for _ in sent.tasks]
            assert all(at - since <= plan.interval + 0.01 for at, since in zip(delivered, times, strict=True))


@settings(deadline=None, max_examples=size(30, 5000))
@given(PLANS, st.integers(0, 1000))
@example(GOES_BACK, 0)
@example(replace(GOES_BACK, provider=[*GOES_BACK.provider[:-1], Status.INTERNAL]), 0)
def test_signals_arrive(plan: Plan, seed: int) -> None:
    run(carry_out, plan, seed=seed)
