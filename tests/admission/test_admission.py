"""Both modes: who runs, who waits, in which order, and what can be seen of it."""

import logging
import math

import pytest
import trio
import trio.testing

from dk_trio.admission import WARNING_INTERVAL, Admission, AdmissionStatistics
from dk_trio.errors import NoFreeSlotError, QueueFullError
from dk_trio.settings import TaskSettings

from .kit import assert_empty, crowd


async def test_slots_bound_what_runs(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=2, max_queued_tasks=3) as tasks:
        await tasks.arrive(*range(5), hold=10)
        assert tasks.began == [0, 1]
        now = tasks.admission.statistics()
        assert (now.running, now.queued, now.at_gate, now.admitted) == (2, 3, 0, 5)


async def test_queued_tasks_are_patient_and_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, max_queued_tasks=50) as tasks:
        await tasks.arrive(*range(51), hold=1000)  # longer than every timeout of the defaults
        start = trio.current_time()
    assert tasks.began == list(range(51))
    assert not tasks.refused
    assert trio.current_time() - start == pytest.approx(51_000)


async def test_a_full_queue_refuses_after_the_admission_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, max_queued_tasks=1, admission_timeout=5) as tasks:
        await tasks.arrive("runs", "queued", hold=60)
        start = trio.current_time()
        await tasks.arrive("refused")
        assert tasks.admission.statistics().at_gate == 1
        await trio.sleep(4.9)
        assert not tasks.refused
        await trio.sleep(0.2)
        assert isinstance(tasks.refused["refused"], QueueFullError)
        assert tasks.refused["refused"].waited == pytest.approx(5)
        assert trio.current_time() - start == pytest.approx(5.1)
    assert tasks.began == ["runs", "queued"]


async def test_a_place_that_becomes_free_within_the_admission_timeout_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(max_concurrent_tasks=1, max_queued_tasks=1, admission_timeout=5) as tasks:
        await tasks.arrive("runs", "queued", hold=4)
        await tasks.arrive("late")
    assert tasks.began == ["runs", "queued", "late"]


async def test_the_order_holds_through_the_gate(autojump_clock: trio.testing.MockClock) -> None:
    """Eight places become free at once; Trio wakes those who take them in random order."""
    queued, late = [f"queued {i}" for i in range(8)], [f"late {i}" for i in range(8)]
    async with crowd(max_concurrent_tasks=1, max_queued_tasks=8, admission_timeout=60) as tasks:
        await tasks.arrive("runs", hold=30)
        await tasks.arrive(*queued, *late)
        assert tasks.admission.statistics().at_gate == 8
        tasks.leave(*queued)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.admission.statistics().queued == 8
    assert tasks.began == ["runs", *late]


async def test_a_newcomer_does_not_overtake_a_task_that_passes_the_gate(autojump_clock: trio.testing.MockClock) -> None:
    """Place and slot become free in one scheduler pass, in which the first in line and somebody new are to run."""

    async def once() -> list[str]:
        admission = Admission(TaskSettings(max_concurrent_tasks=1, max_queued_tasks=1))
        began: list[str] = []
        end, ended = trio.Event(), trio.Event()

        async def enter(name: str) -> None:
            async with admission.admit():
                began.append(name)
                if name == "runs":
                    await end.wait()
            ended.set()

        async def newcomer() -> None:
            await ended.wait()
            await enter("newcomer")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(newcomer)
            for name in ("runs", "queued", "first in line"):
                nursery.start_soon(enter, name)
                await trio.testing.wait_all_tasks_blocked()
            end.set()
        return began

    with trio.fail_after(86_400):
        for _ in range(50):  # one in six without the door: the scheduler tosses a coin
            assert await once() == ["runs", "queued", "first in line", "newcomer"]


async def test_legacy_mode_waits_for_a_slot_as_long_as_the_shorter_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(max_concurrent_tasks=1, task_wait_timeout=30, backpressure_timeout=20) as tasks:
        await tasks.arrive("runs", hold=25)
        await tasks.arrive("refused")
        await trio.sleep(15)
        await tasks.arrive("waits")
        assert tasks.admission.statistics().queued == 2
    assert tasks.began == ["runs", "waits"]
    assert isinstance(tasks.refused["refused"], NoFreeSlotError)
    assert tasks.refused["refused"].waited == pytest.approx(20)


async def test_legacy_mode_has_an_order(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1) as tasks:
        await tasks.arrive(*range(20))
    assert tasks.began == list(range(20))


async def test_reject_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, backpressure_strategy="reject") as tasks:
        await tasks.arrive("runs")
        start = trio.current_time()
        await tasks.arrive("refused")
        assert tasks.refused["refused"].waited == 0
        assert trio.current_time() == start


async def test_an_admission_timeout_of_nothing_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, max_queued_tasks=1, admission_timeout=0) as tasks:
        await tasks.arrive("runs", "queued", "refused")
        assert tasks.refused["refused"].waited == 0
    assert tasks.began == ["runs", "queued"]


async def test_a_queued_task_is_refused_only_when_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, max_queued_tasks=2, queue_slot_timeout=50) as tasks:
        await tasks.arrive("runs", "queued", hold=45)
        await tasks.arrive("refused")
    assert tasks.began == ["runs", "queued"]
    assert isinstance(tasks.refused["refused"], NoFreeSlotError)
    assert tasks.refused["refused"].waited == pytest.approx(50)


@pytest.mark.parametrize("queued", [0, 5])
async def test_a_free_slot_costs_no_scheduler_pass(queued: int, autojump_clock: trio.testing.MockClock) -> None:
    admission = Admission(TaskSettings(max_queued_tasks=queued))
    passed = trio.Event()

    async def note() -> None:
        passed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note)
        async with admission.admit():
            pass
        assert not passed.is_set()


@pytest.mark.parametrize("queued", [0, 5])
async def test_a_task_holds_one_slot_at_a_time(queued: int, autojump_clock: trio.testing.MockClock) -> None:
    admission = Admission(TaskSettings(max_queued_tasks=queued))
    async with admission.admit():
        with pytest.raises(RuntimeError, match="already holding"):
            async with admission.admit():
                pass
        assert admission.statistics().running == admission.statistics().admitted == 1
    async with admission.admit():
        pass
    assert admission.statistics().started == 2
    assert_empty(admission)


async def test_what_admit_gives_is_for_one_use(autojump_clock: trio.testing.MockClock) -> None:
    admission = Admission()
    admit = admission.admit()
    async with admit:
        pass
    with pytest.raises(RuntimeError, match="one use"):
        await admit.__aenter__()
    assert admission.statistics().running == 0


async def test_statistics_and_repr(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=2, max_queued_tasks=2, admission_timeout=5, queue_slot_timeout=12) as tasks:
        admission = tasks.admission
        assert repr(admission) == "<Admission 0/2 running, 0/2 queued, 0 at the gate>"
        await tasks.arrive("a", "b", hold=10)
        await tasks.arrive("c", hold=10)
        await tasks.arrive("d", "e", "f", "g")
        assert repr(admission) == "<Admission 2/2 running, 2/2 queued, 3 at the gate>"
        await trio.sleep(2)
        tasks.leave("d", "g")  # one from the queue, whose place "e" takes, and one from the gate
        await trio.sleep(30)
        await tasks.arrive("h")  # need not wait
    assert admission.statistics() == AdmissionStatistics(
        slots=2,
        running=0,
        queue=2,
        queued=0,
        at_gate=0,
        admitted=0,
        started=5,
        rejected_by_gate=1,
        rejected_by_slot=0,
        abandoned=2,
        longest_wait=pytest.approx(10),
        total_wait=pytest.approx(20),
    )


async def test_repr_of_the_legacy_mode(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1) as tasks:
        await tasks.arrive("a", "b")
        assert repr(tasks.admission) == "<Admission 1/1 running, 1 waiting>"
        now = tasks.admission.statistics()
        assert (now.queue, now.queued, now.at_gate, now.admitted) == (0, 1, 0, 1)


async def test_a_burst_of_the_guides_size_is_served_whole(autojump_clock: trio.testing.MockClock) -> None:
    """3,704 tasks of 229 s at once on 200 slots: 19 generations, and nobody is turned away."""
    async with crowd(max_concurrent_tasks=200, max_queued_tasks=3600) as tasks:
        start = trio.current_time()
        tasks.burst(3704, hold=229)
    now = tasks.admission.statistics()
    assert trio.current_time() - start == pytest.approx(4351)
    assert (now.started, now.rejected_by_gate, now.rejected_by_slot) == (3704, 0, 0)
    assert now.longest_wait == pytest.approx(18 * 229)


async def test_a_burst_without_a_queue_loses_all_but_the_slots(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=200) as tasks:
        start = trio.current_time()
        tasks.burst(3704, hold=229)
    now = tasks.admission.statistics()
    assert trio.current_time() - start == pytest.approx(229)
    assert (now.started, now.rejected_by_gate, now.rejected_by_slot) == (200, 0, 3504)


# --- the warning -----------------------------------------------------------------------------------------------------


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "dk_trio.admission"]


@pytest.mark.parametrize("slots", [1, 4, 5, 6, 10, 99, 100, 101])
async def test_few_free_slots_are_told_when_they_become_few(
    slots: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    low_at = next(taken for taken in range(slots + 1) if (slots - taken) / slots < 0.2)
    async with crowd(max_concurrent_tasks=slots) as tasks:
        await tasks.arrive(*range(low_at - 1))
        assert warnings_in(caplog) == []
        await tasks.arrive(*range(low_at - 1, slots + 3))
        (warning,) = warnings_in(caplog)
        assert warning.startswith(f"Free slots: {slots - low_at} of {slots}.")


async def test_the_warning_names_what_happens_then_and_the_remedy(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with crowd(max_concurrent_tasks=10) as tasks:
        await tasks.arrive(*range(10))
    async with crowd(max_concurrent_tasks=10, max_queued_tasks=20) as tasks:
        await tasks.arrive(*range(10))
    legacy, queue = warnings_in(caplog)
    assert legacy == (
        "Free slots: 1 of 10. When there is none, tasks are refused after 30 s (DIGITALKIN_TASK_WAIT_TIMEOUT); "
        "DIGITALKIN_MAX_QUEUED_TASKS gives them a queue. For more slots, raise DIGITALKIN_MAX_CONCURRENT_TASKS."
    )
    assert queue == (
        "Free slots: 1 of 10. When there is none, up to 20 tasks wait in the queue (DIGITALKIN_MAX_QUEUED_TASKS). "
        "For more slots, raise DIGITALKIN_MAX_CONCURRENT_TASKS."
    )
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_the_warning_does_not_flood(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with crowd(max_concurrent_tasks=1) as tasks:
        for second in range(math.ceil(3 * WARNING_INTERVAL)):
            await tasks.arrive(second, hold=0.5)
            await trio.sleep(1)
    assert len(tasks.began) == 90
    assert len(warnings_in(caplog)) == 3
