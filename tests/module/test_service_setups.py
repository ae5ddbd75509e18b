"""Setups through the servicer: one fetch for many callers that belongs to none of them, and jobs that share nothing."""

from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio import SetupModel
from dk_trio.errors import SetupNotFoundError
from dk_trio.lifecycle import Reason

from .sample import Message
from .service_kit import GO, Source, assert_refused, begin, serving, settings_for, settings_of, start

CALLERS = 50


async def test_callers_share_one_fetch_although_the_first_leaves(autojump_clock: object) -> None:
    source = Source({"prefix": "> "}, delay=10)
    async with serving(setups=source) as (_, client), trio.open_nursery() as nursery:
        callers = [await begin(nursery, client, GO) for _ in range(CALLERS)]
        await trio.sleep(1)
        callers[0].scope.cancel()
        callers[25].scope.cancel()
        for caller in callers:
            await caller.told.ended.wait()
        stayed = [caller.told for number, caller in enumerate(callers) if number not in {0, 25}]
        assert {(told.status, tuple(told.texts[1:-1])) for told in stayed} == {(Status.OK, ("> go",))}
        assert {told.seconds for told in stayed} == {10}
        assert source.asked == ["setups:s"]


async def test_a_fetch_that_everybody_has_left_still_serves_the_next(autojump_clock: object) -> None:
    source = Source({"prefix": "> "}, delay=10)
    async with serving(setups=source) as (_, client):
        for _ in range(3):
            told = await start(client, timeout=2)
            assert told.status is Status.DEADLINE_EXCEEDED
        told = await start(client)
        assert (told.status, told.seconds) == (Status.OK, 4)
        assert source.asked == ["setups:s"]


async def test_a_caller_s_deadline_does_not_bound_the_fetch_of_others(autojump_clock: object) -> None:
    source = Source(delay=20)
    async with serving(setups=source) as (server, client), trio.open_nursery() as nursery:
        hurried = [await begin(nursery, client, GO, timeout=5) for _ in range(3)]
        patient = await begin(nursery, client, GO)
        for caller in [*hurried, patient]:
            await caller.told.ended.wait()
        assert {(caller.told.status, caller.told.seconds) for caller in hurried} == {(Status.DEADLINE_EXCEEDED, 5)}
        assert (patient.told.status, patient.told.seconds) == (Status.OK, 20)
        assert len(source.asked) == 1
        assert server.statistics().jobs.ended == {Reason.COMPLETED: 1}  # without a setup there is no job


async def test_a_failed_fetch_fails_for_all_who_wait_and_for_nobody_later(autojump_clock: object) -> None:
    source = Source(delay=10)
    source.failure = lambda: ConnectionResetError("gone")
    async with serving(setups=source) as (_, client), trio.open_nursery() as nursery:
        callers = [await begin(nursery, client, GO) for _ in range(CALLERS)]
        for caller in callers:
            await caller.told.ended.wait()
            assert_refused(
                caller.told,
                Status.UNAVAILABLE,
                "SETUP_UNAVAILABLE",
                "Setup 'setups:s' cannot be fetched: ConnectionResetError: gone",
            )
        assert len(source.asked) == 1
        source.failure = None
        assert (await start(client)).status is Status.OK
        assert len(source.asked) == 2


async def test_not_found_is_not_remembered(autojump_clock: object) -> None:
    source = Source()
    source.failure = lambda: SetupNotFoundError("Setup 'setups:s' not found.")
    async with serving(setups=source) as (_, client):
        assert (await start(client)).status is Status.NOT_FOUND
        source.failure = None  # it was made meanwhile
        assert (await start(client)).status is Status.OK


async def test_waiting_for_a_setup_takes_no_slot(autojump_clock: object) -> None:
    class Partly(Source):
        async def get_setup(self, setup_id: str, mission_id: str) -> Any:
            self.delay = 10 if setup_id == "setups:slow" else 0
            return await super().get_setup(setup_id, mission_id)

    async with (
        serving(setups=Partly(), settings=settings_for(slots=1, BACKPRESSURE_STRATEGY="reject")) as (_, client),
        trio.open_nursery() as nursery,
    ):
        slow = await begin(nursery, client, GO, setup_id="setups:slow")
        told = await start(client, setup_id="setups:fast")
        assert (told.status, told.seconds) == (Status.OK, 0)
        await slow.told.ended.wait()
        assert slow.told.status is Status.OK


async def test_a_setup_is_fetched_again_when_it_is_old(autojump_clock: object) -> None:
    source = Source()
    async with serving(setups=source, settings=settings_of(SETUP_CACHE_TTL=60)) as (_, client):
        for _ in range(3):
            await start(client)
            await trio.sleep(59)
        assert len(source.asked) == 2


async def test_what_a_job_does_to_its_setup_no_other_job_sees(autojump_clock: object) -> None:
    class Loose(SetupModel):
        prefix: str = ""
        options: dict[str, Any]
        anything: Any = None

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Message(text=repr((setup_data.options, setup_data.anything))))
        setup_data.options["names"].append("more")
        setup_data.options["new"] = 1
        setup_data.anything[0]["deep"].clear()

    source = Source({"options": {"names": ["one"]}, "anything": [{"deep": ["x"]}]})
    async with serving(setups=source, setup_format=Loose, handle=handle) as (_, client):
        seen = [(await start(client)).texts[1] for _ in range(3)]
        assert len(source.asked) == 1
    assert seen == [repr(({"names": ["one"]}, [{"deep": ["x"]}]))] * 3


@pytest.mark.parametrize("setup_id", ["setups:s", "s"])
async def test_the_ids_that_a_job_is_told_are_the_caller_s(autojump_clock: object, setup_id: str) -> None:
    async with (
        serving(setups=Source()) as (_, client),
        client.start({"protocol": "message"}, setup_id=setup_id, mission_id="missions:m") as outputs,
    ):
        info = (await anext(outputs))["root"]
        assert (info["setup_id"], info["setup_version_id"]) == (setup_id, "setup_versions:1")
        assert info["mission_id"] == "missions:m"
        async for _ in outputs:
            pass
