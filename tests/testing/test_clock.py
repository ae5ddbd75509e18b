"""The clock that jumps: threads hold it, a deadlock ends the run wherever its tasks wait, and a seed repeats a run."""

import gc
import random
import threading
import uuid
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from dk_trio import chance
from dk_trio.testing import (
    DeadlockError,
    FakeProvider,
    clock,
    context_in_memory,
    run,
    seed_scheduler,
    serve_in_memory,
    task_tree,
    virtual_clock,
)
from dk_trio.testing.clock import BEGINNING


def test_time_passes_by_jumps() -> None:
    async def main() -> float:
        with trio.move_on_after(3600):
            await trio.sleep(86_400)
        return trio.current_time()

    assert run(main) == 3600


def test_a_thread_holds_the_clock() -> None:
    """No deadline passes while it works, however soon it is in virtual time."""
    go = threading.Event()

    async def main() -> tuple[bool, float]:
        with trio.move_on_after(0.001) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(trio.to_thread.run_sync, go.wait, abandon_on_cancel=True))
                await trio.testing.wait_all_tasks_blocked(0.01)
                go.set()
        return scope.cancelled_caught, trio.current_time()

    assert run(main) == (False, 0)


def test_a_thread_that_does_not_end_does_not_hold_it_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "THREAD_PATIENCE", 0.01)
    go = threading.Event()

    async def main() -> bool:
        with trio.move_on_after(3600) as scope:
            await trio.to_thread.run_sync(go.wait, abandon_on_cancel=True)
        go.set()
        return scope.cancelled_caught

    assert run(main)


async def sleep_shielded() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def sleep_unreachable() -> None:
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


def told(error: BaseException) -> DeadlockError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DeadlockError)
    return error


@pytest.mark.parametrize("waits", [trio.sleep_forever, sleep_shielded])
@pytest.mark.parametrize("where", ["main", "child", "grandchild"])
def test_a_deadlock_unwinds_the_run(waits: Any, where: str) -> None:
    left: list[str] = []

    async def below(depth: int) -> None:
        try:
            if not depth:
                await waits()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(below, depth - 1)
        finally:
            left.append("cleaned up")

    depth = ["main", "child", "grandchild"].index(where)
    with pytest.raises((DeadlockError, ExceptionGroup)) as caught:
        run(below, depth)
    text = str(told(caught.value))
    assert "every task waits for ever" in text
    assert f"in {waits.__name__}" in text or "tests/testing/test_clock.py" in text
    assert left == ["cleaned up"] * (depth + 1)


def test_a_task_that_cannot_be_reached_does_not_keep_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeadlockError, match="sleep_unreachable") as caught:
        run(sleep_unreachable)
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)  # what Trio says of tasks that it had to give up
    del caught
    gc.collect()


def test_the_tree_tells_where_each_task_waits() -> None:
    async def main() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="the sleeper")
            await trio.testing.wait_all_tasks_blocked()
            tree = task_tree()
            nursery.cancel_scope.cancel()
            return tree

    assert "the sleeper - " in run(main)


async def order_of_tasks() -> tuple[list[int], uuid.UUID, float, float]:
    order: list[int] = []

    async def note(number: int) -> None:
        await trio.lowlevel.checkpoint()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(note, number)
    await trio.sleep(5)
    return order, chance.new_uuid(), chance.new_random().random(), chance.wall_time()


def test_a_seed_repeats_a_run() -> None:
    runs = [run(order_of_tasks, seed=seed) for seed in (1, 2, 1)]
    assert runs[0] == runs[2]
    assert runs[0][0] != runs[1][0]
    assert runs[0][1] != runs[1][1]
    assert runs[0][3] == BEGINNING + 5


def test_a_run_leaves_the_scheduler_and_chance_as_they_were() -> None:
    scheduler = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    run(trio.sleep, 1, seed=3)
    assert (scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()) == before
    assert abs(chance.wall_time() - BEGINNING) > 1


def test_the_scheduler_can_be_seeded_for_a_run_of_ones_own() -> None:
    state = trio._core._run._r.getstate()
    orders = []
    for seed in (1, 2, 1):
        seed_scheduler(seed)
        orders.append(trio.run(order_of_tasks, clock=virtual_clock())[0])
    trio._core._run._r.setstate(state)
    assert orders[0] == orders[2] != orders[1]


def test_what_is_run_gets_its_arguments_and_raises_what_it_raises() -> None:
    async def fail(text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="nothing"):
        run(fail, "nothing", seed=random.randrange(100))


def test_a_deadlock_names_the_threads_that_are_not_waited_for() -> None:
    go = threading.Event()

    async def main() -> None:
        threading.Thread(target=go.wait, name="poller", daemon=True).start()
        await trio.sleep_forever()

    with pytest.raises(DeadlockError, match="does not wait: poller; use "):
        run(main)
    go.set()


@pytest.mark.parametrize("enter", [serve_in_memory, context_in_memory, FakeProvider])
def test_outside_of_trio_it_is_said_how_a_test_is_run_by_it(enter: Any) -> None:
    with pytest.raises(RuntimeError, match=r"needs Trio, which does not run here: let pytest-trio run the test"):
        enter().__aenter__().send(None)
