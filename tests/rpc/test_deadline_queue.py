"""The queue of deadlines: order, dropping, sweeping."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from dk_trio.rpc.deadline_queue import SWEEP_ABOVE, DeadlineQueue


class Target:
    def __init__(self, log: list[tuple[float, int]], number: int) -> None:
        self._log = log
        self._number = number

    def expire(self) -> None:
        self._log.append((trio.current_time(), self._number))


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=50))
def test_those_that_were_kept_expire_in_order_and_on_time(plan: list[tuple[int, bool]]) -> None:
    log: list[tuple[float, int]] = []

    async def main() -> None:
        queue = DeadlineQueue()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run)
            await trio.lowlevel.checkpoint()
            entries = [queue.add(when, Target(log, number)) for number, (when, _) in enumerate(plan)]
            for entry, (_, kept) in zip(entries, plan, strict=True):
                if not kept:
                    queue.drop(entry)
                    queue.drop(entry)
            assert len(queue) == sum(kept for _, kept in plan)
            await trio.sleep(21)
            assert len(queue) == 0
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    expected = [(when, number) for number, (when, kept) in enumerate(plan) if kept]
    assert log == sorted(expected)


async def test_an_earlier_deadline_is_noticed(autojump_clock) -> None:
    log: list[tuple[float, int]] = []
    queue = DeadlineQueue()
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run)
            await trio.sleep(1)
            queue.add(50, Target(log, 1))
            await trio.sleep(1)
            queue.add(10, Target(log, 2))
            queue.add(0, Target(log, 3))
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
    assert log == [(2, 3), (10, 2), (50, 1)]


def test_dropped_deadlines_take_no_memory() -> None:
    async def main() -> None:
        queue = DeadlineQueue()
        kept = queue.add(1e9, Target([], 0))
        for number in range(10_000):
            queue.drop(queue.add(1000 + number, Target([], number)))
        assert len(queue._heap) <= 2 * SWEEP_ABOVE
        assert len(queue) == 1
        assert repr(queue) == "<DeadlineQueue 1 pending>"
        queue.drop(kept)

    trio.run(main)
