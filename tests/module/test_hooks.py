"""Hooks around jobs: where they run, what they see, and that a server without them does nothing for them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import inf

import pytest
import trio
import trio.testing

from dk_trio.hooks import Job, JobHook, around_of, ended_of
from dk_trio.lifecycle import Reason
from dk_trio.log_context import CURRENT, bound

from .sample import module_with
from .served import outputs_of, served


class Notes(JobHook):
    def __init__(self) -> None:
        self.told: list[str] = []
        self.ends: list[Job] = []

    @contextmanager
    def around(self, job: Job) -> Iterator[None]:
        self.told.append(f"in {job.protocol} {job.outputs} {job.outcome}")
        try:
            yield
        finally:
            self.told.append(f"out {job.state.value}")

    def ended(self, job: Job) -> None:
        self.ends.append(job)


async def answer(self: object, data: object, setup: object, context: object) -> None:
    logging.getLogger("author").info("here")
    await context.send({"root": {"protocol": "message", "text": CURRENT.get()["job"]}})  # type: ignore[attr-defined]


async def test_a_hook_is_around_the_authors_code_and_sees_the_end(autojump_clock: object) -> None:
    notes, second = Notes(), Notes()
    async with served(module_with(answer), hooks=[notes, second, JobHook()]) as (server, client):
        outputs = await outputs_of(
            client, {"text": "x"}, protocol="message", setup_id="setups:s", mission_id="missions:m"
        )
    assert notes.told == second.told == ["in message 0 None", "out stopping"]
    [job] = notes.ends
    assert (job.ids.setup_id, job.module_name, job.outcome is not None and job.outcome.reason) == (
        "setups:s",
        server.definition.name,
        Reason.COMPLETED,
    )
    assert job.created_at <= job.admitted_at < inf
    # What the author logs is about the job; nothing is left of that outside.
    assert outputs[1]["root"]["text"] == job.ids.job_id
    assert not CURRENT.get()
    assert job.outputs == len(outputs) == 3


async def test_a_job_that_fails_and_one_that_is_cancelled_leave_their_hooks(autojump_clock: object) -> None:
    async def fail(self: object, data: object, *_: object) -> None:
        if data.text == "wait":  # type: ignore[attr-defined]
            await trio.sleep_forever()
        raise ValueError("no")

    notes = Notes()
    async with served(module_with(fail), hooks=[notes]) as (_, client):
        with pytest.raises(Exception, match="no"):
            await outputs_of(client, {"text": "x"}, protocol="message")
        with trio.move_on_after(1):
            await outputs_of(client, {"text": "wait"}, protocol="message")
        await trio.testing.wait_all_tasks_blocked()
    assert notes.told == ["in message 0 None", "out stopping"] * 2
    assert [job.outcome.reason for job in notes.ends if job.outcome] == [Reason.FAILED, Reason.DEADLINE]


def test_hooks_that_do_nothing_cost_nothing() -> None:
    assert around_of([JobHook(), JobHook()]) is None
    assert ended_of([JobHook()]) is None


class Broken(JobHook):
    """Has a defect at one place of three."""

    def __init__(self, where: str) -> None:
        self.where = where

    @contextmanager
    def around(self, job: Job) -> Iterator[None]:
        if self.where == "enter":
            raise LookupError("a defect of a hook")
        try:
            yield
        except BaseException:
            if self.where == "swallow":
                return
            raise
        finally:
            if self.where == "exit":
                raise LookupError("a defect of a hook")

    def ended(self, job: Job) -> None:
        if self.where == "ended":
            raise LookupError("a defect of a hook")


@pytest.mark.parametrize("where", ["enter", "exit", "swallow", "ended"])
async def test_the_defect_of_a_hook_is_neither_the_jobs_nor_that_of_other_hooks(
    where: str, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(self: object, data: object, setup: object, context: object) -> None:
        if data.text == "wait":  # type: ignore[attr-defined]
            await trio.sleep_forever()
        if data.text == "fail":  # type: ignore[attr-defined]
            raise ValueError("the author's own")

    first, last = Notes(), Notes()
    async with served(module_with(work), hooks=[first, Broken(where), last]) as (server, client):
        await outputs_of(client, {"text": "x"}, protocol="message")
        with pytest.raises(Exception, match="the author's own"):
            await outputs_of(client, {"text": "fail"}, protocol="message")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(outputs_of, client, {"text": "wait"}, protocol="message"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not len(server.jobs)
        assert server.statistics().admission.running == 0
    reasons = [Reason.COMPLETED, Reason.FAILED, Reason.CLIENT_GONE]
    for notes in (first, last):
        assert notes.told == ["in message 0 None", "out stopping"] * 3
        assert [job.outcome.reason for job in notes.ends if job.outcome] == reasons
    told = [record for record in caplog.records if record.name == "dk_trio.hooks"]
    assert len(told) == (0 if where == "swallow" else 3)
    assert all("Broken" in record.getMessage() for record in told)


def test_ids_are_bound_for_the_length_of_a_block() -> None:
    with bound(request="r", job=""):
        with bound(job="j"):
            assert CURRENT.get() == {"request": "r", "job": "j"}
        assert CURRENT.get() == {"request": "r"}
    assert not CURRENT.get()
