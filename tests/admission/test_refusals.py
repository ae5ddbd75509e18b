"""What a refusal says: which limit, how long it waited, what to change, and when to come back."""

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio.admission import RETRY_AFTER_MAX, RETRY_AFTER_MIN, RETRY_AFTER_UNKNOWN
from dk_trio.errors import AdmissionError, Fault, NoFreeSlotError, QueueFullError

from .kit import crowd

SLOTS_TAKEN = "Every slot (DIGITALKIN_MAX_CONCURRENT_TASKS=2) is taken, and "


async def refusal(arrivals: int, **settings: object) -> AdmissionError:
    """Of the last of so many tasks, which come while the first two run for longer than any timeout."""
    async with crowd(max_concurrent_tasks=2, **settings) as tasks:
        await tasks.arrive(*range(arrivals), hold=1000)
    return tasks.refused[arrivals - 1]


@pytest.mark.parametrize(
    ("arrivals", "settings", "kind", "limit", "size", "waited", "text"),
    [
        (
            6,
            {"max_queued_tasks": 3},
            QueueFullError,
            "DIGITALKIN_MAX_QUEUED_TASKS",
            3,
            5,
            (
                "Every slot (DIGITALKIN_MAX_CONCURRENT_TASKS=2) and every place in the queue "
                "(DIGITALKIN_MAX_QUEUED_TASKS=3) is taken, and none became free within 5 s "
                "(DIGITALKIN_ADMISSION_TIMEOUT). "
                "Retry in about 10 s, or raise DIGITALKIN_MAX_QUEUED_TASKS."
            ),
        ),
        (
            3,
            {"max_queued_tasks": 1, "queue_slot_timeout": 600},
            NoFreeSlotError,
            "DIGITALKIN_MAX_CONCURRENT_TASKS",
            2,
            600,
            (
                f"{SLOTS_TAKEN}none became free within 600 s (DIGITALKIN_QUEUE_SLOT_TIMEOUT). Retry in about 10 s, "
                "or unset DIGITALKIN_QUEUE_SLOT_TIMEOUT, so that a queued task waits as long as it takes."
            ),
        ),
        (
            3,
            {},
            NoFreeSlotError,
            "DIGITALKIN_MAX_CONCURRENT_TASKS",
            2,
            30,
            (
                f"{SLOTS_TAKEN}none became free within 30 s (DIGITALKIN_TASK_WAIT_TIMEOUT). Retry in about 10 s, "
                "or set DIGITALKIN_MAX_QUEUED_TASKS, so that a burst waits in a queue."
            ),
        ),
        (
            3,
            {"backpressure_timeout": 7.5},
            NoFreeSlotError,
            "DIGITALKIN_MAX_CONCURRENT_TASKS",
            2,
            7.5,
            (
                f"{SLOTS_TAKEN}none became free within 7.5 s (DIGITALKIN_BACKPRESSURE_TIMEOUT). Retry in about 10 s, "
                "or set DIGITALKIN_MAX_QUEUED_TASKS, so that a burst waits in a queue."
            ),
        ),
        (
            3,
            {"backpressure_strategy": "reject"},
            NoFreeSlotError,
            "DIGITALKIN_MAX_CONCURRENT_TASKS",
            2,
            0,
            (
                f"{SLOTS_TAKEN}DIGITALKIN_BACKPRESSURE_STRATEGY=reject does not wait for one. Retry in about 10 s, "
                "or set DIGITALKIN_MAX_QUEUED_TASKS, so that a burst waits in a queue."
            ),
        ),
    ],
    ids=["gate", "queue", "legacy", "backpressure", "reject"],
)
async def test_a_refusal_names_limit_wait_and_remedy(
    arrivals: int,
    settings: dict[str, object],
    kind: type[AdmissionError],
    limit: str,
    size: int,
    waited: float,
    text: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    error = await refusal(arrivals, **settings)
    assert type(error) is kind
    assert error.text == text
    assert (error.limit, error.size) == (limit, size)
    assert error.waited == pytest.approx(waited)
    assert error.retry_after == RETRY_AFTER_UNKNOWN


@pytest.mark.parametrize(("kind", "code"), [(QueueFullError, "QUEUE_FULL"), (NoFreeSlotError, "NO_FREE_SLOT")])
def test_a_refusal_is_the_operators_and_may_be_tried_again(kind: type[AdmissionError], code: str) -> None:
    assert kind.code == code
    assert kind.status is Status.RESOURCE_EXHAUSTED
    assert kind.fault is Fault.OPERATOR
    assert kind.short_description != AdmissionError.short_description


# --- when to come back -----------------------------------------------------------------------------------------------


async def test_retry_after_follows_the_rate_at_which_slots_become_free(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, backpressure_strategy="reject") as tasks:
        await tasks.arrive("first", hold=8)
        await trio.sleep(10)
        await tasks.arrive("second", hold=8)
        await trio.sleep(6)
        await tasks.arrive("refused")  # one end since the first began, 16 s ago
        assert tasks.refused["refused"].retry_after == pytest.approx(16)
        assert "Retry in about 16 s, or" in tasks.refused["refused"].text
        await trio.sleep(4)
        await tasks.arrive("third", hold=8)
        await trio.sleep(1)
        await tasks.arrive("late")  # one end in the 13 s since the end of the first
        assert tasks.refused["late"].retry_after == pytest.approx(13)


async def test_retry_after_counts_those_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, max_queued_tasks=1, admission_timeout=2) as tasks:
        await tasks.arrive("first", hold=4)
        await trio.sleep(4.5)
        await tasks.arrive("second", "queued", hold=4)
        await tasks.arrive("refused")
        await trio.sleep(1)
        await tasks.arrive("waits", "waits too")
    # Two waited at the gate when it was refused, 6.5 s after the first began; one task had ended.
    assert tasks.refused["refused"].retry_after == pytest.approx(3 * 6.5)


async def test_tasks_that_end_together_do_not_look_like_a_fast_server(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=20, backpressure_strategy="reject") as tasks:
        await tasks.arrive(*range(20), hold=100)
        await trio.sleep(101)
        await tasks.arrive(*range(20, 40), hold=100)
        await trio.sleep(9)
        await tasks.arrive("refused")
    assert tasks.refused["refused"].retry_after == pytest.approx(110 / 20)


@pytest.mark.parametrize(("hold", "retry_after"), [(0.01, RETRY_AFTER_MIN), (500, RETRY_AFTER_MAX)])
async def test_retry_after_is_bounded(hold: float, retry_after: float, autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(max_concurrent_tasks=1, backpressure_strategy="reject") as tasks:
        for name in range(3):
            await tasks.arrive(name, hold=hold)
            await trio.sleep(hold)
            await trio.testing.wait_all_tasks_blocked()
        await tasks.arrive("runs", "refused")
    assert tasks.refused["refused"].retry_after == retry_after
