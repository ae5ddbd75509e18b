"""ConfigSetupModule whose code fails, takes too long, or minds no cancellation: told at once, or in time."""

from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio.session import ABANDON_AFTER

from .sample import Message
from .service_kit import (
    FORM,
    Source,
    begin,
    configure,
    goes_on,
    logged,
    serving,
    settings_for,
    settings_of,
    sleeps,
    start,
    told_of,
)

# --- the author's code -----------------------------------------------------------------------------------------------


def returning(value: object) -> Any:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        return value

    return {"run_config_setup": run_config_setup}


def raising(error: BaseException) -> Any:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        raise error

    return {"run_config_setup": run_config_setup}


async def sends(self: Any, context: Any, config_setup_data: Any) -> None:
    await context.send(Message(text="x"))


async def leaves_a_nursery_open(self: Any, context: Any, config_setup_data: Any) -> Any:
    self.nursery = trio.open_nursery()
    (await self.nursery.__aenter__()).start_soon(trio.sleep_forever)
    return config_setup_data


class Boom:
    def __init__(self) -> None:
        raise OSError("no")


DEEP: dict[str, Any] = {}
for _ in range(500):
    DEEP = {"d": DEEP}

FAILURES = {
    "raises": (raising(ValueError("no such model")), "CONFIG_SETUP_FAILED", "ValueError: no such model"),
    "raises in a nursery": (
        raising(ExceptionGroup("n", [ValueError("no such model")])),
        "CONFIG_SETUP_FAILED",
        "ValueError: no such model",
    ),
    "gives up in time": (raising(trio.TooSlowError()), "CONFIG_SETUP_FAILED", "TooSlowError"),
    "exits": (raising(SystemExit(3)), "CONFIG_SETUP_FAILED", "SystemExit: 3"),
    "constructor": ({"__init__": Boom.__init__}, "CONFIG_SETUP_FAILED", "OSError: no"),
    "returns nothing": (returning(None), "CONFIG_SETUP_FAILED", "run_config_setup returned a NoneType: None. Return "),
    "returns nonsense": (returning("x" * 1000), "CONFIG_SETUP_FAILED", f"returned a str: '{'x' * 79}. Return"),
    "returns no setup": (
        returning({"prefix": 3}),
        "CONFIG_SETUP_FAILED",
        "run_config_setup returned what is no setup: Setup 'setups:s' does not fit Sample: prefix: ",
    ),
    "returns no JSON": (
        returning({"prefix": "x", "when": datetime(2026, 1, 1, tzinfo=UTC)}),
        "CONFIG_SETUP_FAILED",
        "run_config_setup returned what is not JSON: ",
    ),
    "returns half a character": (returning({"prefix": "\ud800"}), "CONFIG_SETUP_FAILED", "is not JSON: "),
    "returns too deep a nesting": (returning({"prefix": "x", "d": DEEP}), "CONFIG_SETUP_FAILED", "is not JSON: "),
    "sends": ({"run_config_setup": sends}, "INVALID_OUTPUT", "A config setup has no stream to send to. Return"),
    "leaves a nursery open": (
        {"run_config_setup": leaves_a_nursery_open},
        "TASK_LEFT_BEHIND",
        "tasks were left behind",
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_failure_is_told_at_once_with_its_cause(autojump_clock: object, kind: str) -> None:
    hooks, reason, message = FAILURES[kind]
    async with serving(setups=Source({"prefix": "old "}), **hooks) as (server, client):
        told = await told_of(configure(client))
        assert (told.status, told.reason) == (Status.INTERNAL, reason)
        assert message in told.message
        assert told.seconds == 0
        assert server.statistics().setups.entries == 0  # nothing of it is kept
        if kind != "constructor":
            assert (await start(client, "hi")).texts[1] == "old hi"


async def test_a_cancellation_of_the_author_s_own_is_a_failure(autojump_clock: object) -> None:
    kept: list[trio.Cancelled] = []

    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                kept.append(error)
                raise
        raise kept.pop()

    async with serving(run_config_setup=run_config_setup) as (_, client):
        told = await told_of(configure(client))
        assert (told.status, told.reason) == (Status.INTERNAL, "CONFIG_SETUP_FAILED")
        assert "let trio.Cancelled out" in told.message


# --- times -----------------------------------------------------------------------------------------------------------


async def test_the_timeout(autojump_clock: object) -> None:
    began: list[float] = []

    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> None:
        began.append(trio.current_time())
        await trio.sleep_forever()

    settings = settings_of(CONFIG_SETUP_TIMEOUT=40)
    async with serving(run_config_setup=run_config_setup, settings=settings) as (_, client):
        told = await told_of(configure(client))
        assert (told.status, told.reason) == (Status.DEADLINE_EXCEEDED, "CONFIG_SETUP_TIMEOUT")
        assert told.message == (
            "run_config_setup of Sample took longer than 40 s and was cancelled. "
            "Make it faster, or raise DIGITALKIN_CONFIG_SETUP_TIMEOUT."
        )
        # The status is one that channels retry; but they must not run the author's code again.
        assert told.seconds == 40
        assert len(began) == 1


async def test_the_timeout_bounds_the_work_and_not_the_queue(autojump_clock: object) -> None:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        await trio.sleep(25)
        return config_setup_data

    async with (
        serving(run_config_setup=run_config_setup, settings=settings_for(slots=1, MAX_QUEUED_TASKS=5)) as (_, client),
        trio.open_nursery() as nursery,
    ):
        job = await begin(nursery, client)
        told = []

        async def call() -> None:
            told.append(await told_of(configure(client)))

        nursery.start_soon(call)
        await trio.sleep(1000)
        assert told == []
        await client.stop(job.job_id)
        await trio.sleep(26)
        assert [(each.status, each.seconds) for each in told] == [(Status.OK, 1025)]


@pytest.mark.parametrize("way", ["returns", "raises"])
async def test_what_code_makes_of_its_cancellation_changes_nothing(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if way == "raises":
                raise ValueError("on the way out") from None
            return config_setup_data

    async with serving(run_config_setup=run_config_setup, setups=Source()) as (server, client):
        told = await told_of(configure(client))
        assert (told.reason, told.seconds) == ("CONFIG_SETUP_TIMEOUT", 30)
        assert server.statistics().setups.entries == 0
    assert ("on the way out" in caplog.text) == (way == "raises")


async def test_code_that_goes_on_holds_its_slot_but_not_its_caller(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(run_config_setup=goes_on, setups=Source()) as (server, client):
        told = await told_of(configure(client))
        assert (told.status, told.reason) == (Status.DEADLINE_EXCEEDED, "CONFIG_SETUP_TIMEOUT")
        assert told.seconds == 30 + ABANDON_AFTER
        assert server.statistics().admission.running == 1
        assert logged(caplog, "<ConfigSetup of setups:s of Sample>: its code goes on 5 s after it was cancelled")
        assert logged(caplog, "in goes_on")
        await trio.sleep(1000)
        assert server.statistics().admission.running == 0
        assert server.statistics().setups.entries == 0


async def test_a_caller_s_deadline_cancels_it(autojump_clock: object) -> None:
    async with serving(run_config_setup=sleeps) as (server, client):
        told = await told_of(client.config_setup(FORM, timeout=10))
        assert (told.status, told.seconds) == (Status.DEADLINE_EXCEEDED, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().admission.running == 0
