"""StartModule: what is refused before a job exists, and how that is told, in the stream and by the status."""

import logging
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio.errors import InvalidSetupError, SetupNotFoundError

from .service_kit import GO, WAIT, Source, assert_refused, begin, logged, serving, settings_for, start


async def test_what_succeeds_is_as_existing_callers_know_it(autojump_clock: object) -> None:
    async with serving() as (_, client):
        told = await start(client)
    assert told.protocols == ["module_start_info", "message", "end_of_stream"]
    assert told.successes == [True] * 3
    assert (told.status, told.failure) == (Status.OK, None)
    (job_id,) = told.job_ids
    assert len(job_id) == 36
    assert ":" not in job_id


# --- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "reason", "message"),
    [
        ({"protocol": "message", "count": "many"}, "INVALID_INPUT", "count: input should be a valid integer"),
        ("text", "INVALID_INPUT", "The input has no root object: root is 'text'. Send {\"root\""),
        ({"protocol": "mesage"}, "UNKNOWN_PROTOCOL", "Unknown protocol 'mesage'; Sample knows message."),
        ({"protocol": "number", "value": 1}, "UNKNOWN_PROTOCOL", "Unknown protocol 'number'"),
    ],
)
async def test_an_input_that_does_not_fit(autojump_clock: object, root: Any, reason: str, message: str) -> None:
    source = Source()
    async with serving(setups=source) as (server, client):
        told = await start(client, root=root)
        assert_refused(told, Status.INVALID_ARGUMENT, reason, message)
        assert await client.jobs() == {}
        assert server.statistics().admission.started == 0
    assert source.asked == []  # what is cheap to refuse is refused first


# --- the setup -------------------------------------------------------------------------------------------------------


async def test_a_setup_that_is_not_there(autojump_clock: object) -> None:
    async with serving(strict_setup=True) as (_, client):
        told = await start(client, setup_id="setups:other")
        assert_refused(told, Status.NOT_FOUND, "SETUP_NOT_FOUND", "Setup 'setups:other' not found (known: none).")


async def test_a_source_that_says_not_found(autojump_clock: object) -> None:
    source = Source()
    source.failure = lambda: SetupNotFoundError("Setup 'setups:s' not found at the provider.")
    async with serving(setups=source) as (_, client):
        told = await start(client)
        assert_refused(told, Status.NOT_FOUND, "SETUP_NOT_FOUND", "not found at the provider")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ConnectionRefusedError(111, "refused"), "'setups:s' cannot be fetched: ConnectionRefusedError"),
        (trio.TooSlowError(), "'setups:s' cannot be fetched: TooSlowError"),
    ],
)
async def test_a_source_that_is_down(autojump_clock: object, failure: Exception, message: str) -> None:
    source = Source()
    source.failure = lambda: failure
    async with serving(setups=source) as (_, client):
        assert_refused(await start(client), Status.UNAVAILABLE, "SETUP_UNAVAILABLE", message)
        assert len(source.asked) == 1  # a response has begun, so the channel repeats nothing
        source.failure = None
        assert (await start(client)).status is Status.OK


async def test_a_source_that_does_not_answer(autojump_clock: object) -> None:
    async with serving(setups=Source(delay=1000)) as (_, client):
        told = await start(client)
        assert_refused(told, Status.UNAVAILABLE, "SETUP_UNAVAILABLE", "'setups:s' was not fetched within 30 s")
        assert told.seconds == pytest.approx(30)


async def test_a_stored_setup_that_does_not_fit(autojump_clock: object) -> None:
    async with serving(setups=Source({"prefix": 3})) as (_, client):
        told = await start(client)
        assert_refused(
            told,
            Status.INVALID_ARGUMENT,
            "INVALID_SETUP",
            "Setup 'setups:s' does not fit Sample: prefix: input should be a valid string (got 3).",
        )


async def test_a_source_that_calls_a_setup_invalid(autojump_clock: object) -> None:
    source = Source()
    source.failure = lambda: InvalidSetupError("Setup 'setups:s' is of another module.")
    async with serving(setups=source) as (_, client):
        assert_refused(await start(client), Status.INVALID_ARGUMENT, "INVALID_SETUP", "is of another module")


async def test_a_refused_request_costs_no_slot_and_one_line_of_the_log(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with serving(setups=Source({"prefix": 3}), settings=settings_for(slots=1)) as (server, client):
        for _ in range(3):
            await start(client)
        assert server.statistics().jobs.ended == {}
        assert server.statistics().admission.started == 0
    told = "StartModule of mission 'missions:m', setup 'setups:s' failed: INVALID_SETUP (setup.prefix)"
    assert [record.getMessage() for record in caplog.records] == [told] * 3


# --- admission -------------------------------------------------------------------------------------------------------

SLOTS, QUEUED = "DIGITALKIN_MAX_CONCURRENT_TASKS", "DIGITALKIN_MAX_QUEUED_TASKS"
NO_SLOT = f"Every slot ({SLOTS}=1) is taken, and "
NO_PLACE = f"Every slot ({SLOTS}=1) and every place in the queue ({QUEUED}=1) is taken, and "
NEEDS_QUEUE = f"Retry in about 10 s, or set {QUEUED}, so that a burst waits in a queue."
NO_TIMEOUT = "unset DIGITALKIN_QUEUE_SLOT_TIMEOUT, so that a queued task waits as long as it takes."

# Variables beside one slot, seconds that a job waits in vain, the limit that the details name, and the whole text.
FULL = {
    "reject": (
        {"BACKPRESSURE_STRATEGY": "reject"},
        0,
        SLOTS,
        f"{NO_SLOT}DIGITALKIN_BACKPRESSURE_STRATEGY=reject does not wait for one. {NEEDS_QUEUE}",
    ),
    "legacy": (
        {"TASK_WAIT_TIMEOUT": 20},
        20,
        SLOTS,
        f"{NO_SLOT}none became free within 20 s (DIGITALKIN_TASK_WAIT_TIMEOUT). {NEEDS_QUEUE}",
    ),
    "legacy with a shorter backpressure": (
        {"BACKPRESSURE_TIMEOUT": 7},
        7,
        SLOTS,
        f"{NO_SLOT}none became free within 7 s (DIGITALKIN_BACKPRESSURE_TIMEOUT). {NEEDS_QUEUE}",
    ),
    "full queue": (
        {"MAX_QUEUED_TASKS": 1, "ADMISSION_TIMEOUT": 3},
        3,
        QUEUED,
        (
            f"{NO_PLACE}none became free within 3 s (DIGITALKIN_ADMISSION_TIMEOUT). "
            f"Retry in about 10 s, or raise {QUEUED}."
        ),
    ),
    "impatient queue": (
        {"MAX_QUEUED_TASKS": 5, "QUEUE_SLOT_TIMEOUT": 40},
        40,
        SLOTS,
        f"{NO_SLOT}none became free within 40 s (DIGITALKIN_QUEUE_SLOT_TIMEOUT). Retry in about 10 s, or {NO_TIMEOUT}",
    ),
}


@pytest.mark.parametrize("mode", FULL)
async def test_a_full_server(autojump_clock: object, mode: str) -> None:
    variables, waited, limit, message = FULL[mode]
    async with (
        serving(settings=settings_for(slots=1, **variables)) as (server, client),
        trio.open_nursery() as nursery,
    ):
        for _ in range(2 if limit == QUEUED else 1):
            await begin(nursery, client)
        before = await client.jobs()
        told = await start(client)
        reason = "QUEUE_FULL" if limit == QUEUED else "NO_FREE_SLOT"
        assert_refused(told, Status.RESOURCE_EXHAUSTED, reason, message)
        assert told.message == message
        assert told.seconds == pytest.approx(waited)
        assert told.facts == {"limit": limit, "size": "1", "waited": f"{waited:g}"}
        assert told.retry_after == 10
        assert await client.jobs() == before  # whoever was refused has no job
        assert server.statistics().jobs.refused == 1
        nursery.cancel_scope.cancel()


async def test_the_estimate_of_when_to_come_back_follows_what_ends(autojump_clock: object) -> None:
    async with (
        serving(settings=settings_for(slots=1, BACKPRESSURE_STRATEGY="reject")) as (_, client),
        trio.open_nursery() as nursery,
    ):
        job = await begin(nursery, client)
        await trio.sleep(25)
        await client.stop(job.job_id)
        await job.told.ended.wait()
        await begin(nursery, client)
        told = await start(client)
        assert told.retry_after == pytest.approx(25)
        assert "Retry in about 25 s" in told.message
        nursery.cancel_scope.cancel()


async def test_a_refused_job_leaves_room_for_the_next(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(settings=settings_for(slots=1, TASK_WAIT_TIMEOUT=1)) as (server, client),
        trio.open_nursery() as nursery,
    ):
        job = await begin(nursery, client)
        for _ in range(5):
            assert (await start(client, WAIT)).reason == "NO_FREE_SLOT"
        await client.stop(job.job_id)
        assert (await start(client, GO)).status is Status.OK
        assert server.statistics().admission.rejected_by_slot == 5
        assert not logged(caplog, "Traceback")


async def test_an_operator_is_warned_of_what_comes_next(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(settings=settings_for(slots=1, BACKPRESSURE_STRATEGY="reject")) as (_, client):
        await start(client)
    assert logged(caplog, "When there is none, tasks are refused at once (DIGITALKIN_BACKPRESSURE_STRATEGY);")


async def test_nothing_is_sent_while_a_job_waits_for_its_slot(autojump_clock: object) -> None:
    async with (
        serving(settings=settings_for(slots=1, MAX_QUEUED_TASKS=1)) as (_, client),
        trio.open_nursery() as nursery,
    ):
        first = await begin(nursery, client)
        second = await begin(nursery, client, GO)
        await trio.sleep(3600)
        assert second.told.successes == []
        await client.stop(first.job_id)
        await second.told.ended.wait()
        assert second.told.protocols == ["module_start_info", "message", "end_of_stream"]
        assert second.told.seconds == pytest.approx(3600)
