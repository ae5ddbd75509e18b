"""A task that is cancelled, or fails, gives back what it held, wherever it was."""

import pytest
import trio
import trio.testing

from dk_trio.admission import Admission
from dk_trio.settings import TaskSettings

from .kit import assert_empty, crowd

QUEUE = {"max_concurrent_tasks": 1, "max_queued_tasks": 1, "admission_timeout": 60}


async def test_cancelled_before_it_asks(autojump_clock: trio.testing.MockClock) -> None:
    """It does not run, although a slot is free; and it has waited for nothing."""
    admission = Admission()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with admission.admit():
            pytest.fail("was admitted")
    assert scope.cancelled_caught
    assert (admission.statistics().started, admission.statistics().abandoned) == (0, 0)
    assert_empty(admission)


async def test_cancelled_first_in_line_at_the_gate(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(**QUEUE) as tasks:
        await tasks.arrive("runs", "queued", "first", "second", hold=10)
        tasks.leave("first")
        await trio.testing.wait_all_tasks_blocked()
        now = tasks.admission.statistics()
        assert (now.admitted, now.at_gate, now.abandoned) == (2, 1, 1)
    assert tasks.began == ["runs", "queued", "second"]


async def test_cancelled_behind_the_first_at_the_gate(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(**QUEUE) as tasks:
        await tasks.arrive("runs", "queued", "first", "second", "third", hold=10)
        tasks.leave("second")
        await trio.testing.wait_all_tasks_blocked()
        assert (tasks.admission.statistics().at_gate, tasks.admission.statistics().abandoned) == (2, 1)
    assert tasks.began == ["runs", "queued", "first", "third"]


async def test_cancelled_while_queued_makes_room_at_the_gate(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(**QUEUE) as tasks:
        await tasks.arrive("runs", "queued", "at gate", hold=10)
        tasks.leave("queued")
        await trio.testing.wait_all_tasks_blocked()
        now = tasks.admission.statistics()
        assert (now.running, now.queued, now.at_gate, now.abandoned) == (1, 1, 0, 1)
    assert tasks.began == ["runs", "at gate"]


async def test_cancelled_while_it_waits_for_a_slot_in_legacy_mode(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1) as tasks:
        await tasks.arrive("runs", "first", "second", hold=10)
        tasks.leave("first")
        await trio.testing.wait_all_tasks_blocked()
        assert (tasks.admission.statistics().queued, tasks.admission.statistics().abandoned) == (1, 1)
    assert tasks.began == ["runs", "second"]


async def test_cancelled_in_the_scheduler_pass_in_which_it_passes_the_gate(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It holds a place and has not run since: it leaves the line for a slot before it has joined it."""
    async with crowd(**QUEUE) as tasks:
        async with tasks.admission.admit():
            await tasks.arrive("queued", "at gate", "behind", hold=10)
        tasks.leave("at gate")
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.admission.statistics().abandoned == 1
    assert tasks.began == ["queued", "behind"]


async def test_cancelled_in_the_scheduler_pass_in_which_it_gets_the_slot(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The slot is its own by then: it begins, and its first checkpoint is its end."""
    async with crowd(**QUEUE) as tasks:
        async with tasks.admission.admit():
            await tasks.arrive("queued", "at gate", hold=10)
        tasks.leave("queued")
    assert tasks.began == ["queued", "at gate"]
    assert tasks.scopes["queued"].cancelled_caught
    assert tasks.admission.statistics().abandoned == 0


async def test_cancelled_when_its_timeout_ends(autojump_clock: trio.testing.MockClock) -> None:
    """Cancelled from outside counts for more than a timeout: nobody is there to be told of a full queue."""
    admission = Admission(TaskSettings(max_concurrent_tasks=1, task_wait_timeout=30))
    async with admission.admit(), trio.open_nursery() as nursery:

        async def waits() -> None:
            with trio.move_on_after(30) as scope:
                async with admission.admit():
                    pytest.fail("was admitted")
            assert scope.cancelled_caught

        nursery.start_soon(waits)
    now = admission.statistics()
    assert (now.abandoned, now.rejected_by_slot) == (1, 0)
    assert_empty(admission)


@pytest.mark.parametrize("queued", [0, 1])
async def test_a_body_that_fails_gives_back_what_it_held(queued: int, autojump_clock: trio.testing.MockClock) -> None:
    admission = Admission(TaskSettings(max_concurrent_tasks=1, max_queued_tasks=queued))
    for kind in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(kind):
            async with admission.admit():
                raise kind
        assert_empty(admission)
    assert admission.statistics().started == 4


async def test_a_body_that_is_cancelled_gives_back_what_it_held(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(**QUEUE) as tasks:
        await tasks.arrive("runs", "queued", hold=1000)
        tasks.leave("runs")
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.began == ["runs", "queued"]
        tasks.leave("queued")


async def test_leaving_does_not_wait_and_is_no_place_to_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    admission = Admission(TaskSettings(max_queued_tasks=5))
    with trio.CancelScope() as scope:
        async with admission.admit():
            scope.cancel()
        assert_empty(admission)
    assert not scope.cancelled_caught


async def test_a_task_may_leave_for_another(autojump_clock: trio.testing.MockClock) -> None:
    """The tokens are those of the task that entered, whoever leaves."""
    admission = Admission(TaskSettings(max_queued_tasks=5))
    admit = admission.admit()
    await admit.__aenter__()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admit.__aexit__, None, None, None)
    assert_empty(admission)
