"""Authors who leave open what they opened, or reach into nurseries that are not theirs: their jobs fail alone."""

import gc
import re
import warnings
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio.lifecycle import Reason

from .sinners import nothing, sinners


async def leaves_a_nursery(context: Any) -> None:
    nursery = await trio.open_nursery().__aenter__()
    nursery.start_soon(trio.sleep_forever)


async def leaves_a_scope(context: Any) -> None:
    trio.CancelScope().__enter__()


async def leaves_a_cancelled_scope(context: Any) -> None:
    scope = trio.CancelScope()
    scope.__enter__()
    scope.cancel()
    await trio.sleep(1)


async def raises_a_kept_cancelled(context: Any) -> None:
    kept: list[trio.Cancelled] = []
    with trio.move_on_after(1):
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            kept.append(error)
            raise
    raise kept[0]


@pytest.mark.parametrize("hook", ["handler", "initialize", "cleanup"])
@pytest.mark.parametrize(
    ("sin", "text"),
    [
        (leaves_a_nursery, "The module returned with a nursery or a cancel scope still open"),
        (leaves_a_cancelled_scope, "A cancel scope was left open|a cancel scope still open"),
        (raises_a_kept_cancelled, "The module was ended by a cancellation of its own."),
    ],
)
async def test_what_corrupts_the_task_fails_its_job_alone(
    autojump_clock: object, hook: str, sin: Any, text: str
) -> None:
    sins = {hook: sin}
    async with sinners(
        sins.get("handler", nothing),
        initialize=sins.get("initialize", nothing),
        cleanup=sins.get("cleanup", nothing),
        ends={Reason.FAILED: 1},
    ) as world:
        job = await world.sin()
        assert job.status is Status.INTERNAL
        assert re.search(text, job.message)
        assert "corrupted" not in job.message  # Trio's text is about its insides, and long
        assert "end_of_stream" not in job.protocols


async def leaves_a_task(nursery: trio.Nursery) -> None:
    nursery.start_soon(trio.sleep_forever)


async def cancels(nursery: trio.Nursery) -> None:
    nursery.cancel_scope.cancel()
    await trio.sleep_forever()


async def leaves_a_task_that_raises(nursery: trio.Nursery) -> None:
    async def raises() -> None:
        await trio.sleep(1)
        raise SystemExit("from a task of its own")

    nursery.start_soon(raises)
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("leaves", "text"),
    [
        (leaves_a_task, "so tasks were left behind"),
        (leaves_a_task_that_raises, "ended by a cancellation of its own"),
        (cancels, "ended by a cancellation of its own"),
    ],
)
async def test_a_task_in_a_nursery_that_is_not_the_authors(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, leaves: Any, text: str
) -> None:
    async def sin(context: Any) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        await leaves(nursery)

    async with sinners(sin, ends={Reason.FAILED: 1}) as world:
        job = await world.sin()
        assert job.status is Status.INTERNAL
        assert text in job.message
        assert job.protocols == ["module_start_info"]
    assert ("SystemExit: from a task of its own" in caplog.text) == (leaves is leaves_a_task_that_raises)


async def test_a_scope_that_is_left_open_and_does_nothing(autojump_clock: object) -> None:
    async with sinners(leaves_a_scope, ends={Reason.COMPLETED: 1}) as world:
        assert (await world.sin()).status is Status.OK


async def test_an_async_generator_that_is_left_open(autojump_clock: object) -> None:
    closed: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            closed.append("numbers")

    async def leaves(context: Any) -> None:
        async for _ in numbers():
            break

    async with sinners(leaves, ends={Reason.COMPLETED: 1}) as world:
        with warnings.catch_warnings(record=True, action="always") as warned:
            assert (await world.sin()).status is Status.OK
            gc.collect()
            await trio.sleep(1)
    assert closed == ["numbers"]
    assert "numbers" in str(warned[0].message)  # Trio tells it
