"""StopModule, GetModuleStatus and GetModuleJobs: what is told of a job from its admission to after its end."""

from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleJobsRequest,
    GetModuleStatusRequest,
    ModuleServiceStub,
    ModuleStatus,
    StopModuleRequest,
)

from .sample import Message
from .service_kit import GO, WAIT, Job, assert_failed, begin, serving, settings_for, start, told_of

STARTING, PROCESSING = ModuleStatus.STARTING, ModuleStatus.PROCESSING
PREFIXES = pytest.mark.parametrize("prefix", ["", "jobs:"])


async def ended(job: Job) -> Job:
    await job.told.ended.wait()
    await trio.testing.wait_all_tasks_blocked()
    return job


# --- StopModule ------------------------------------------------------------------------------------------------------


@PREFIXES
async def test_stopping_a_running_job(autojump_clock: object, prefix: str) -> None:
    async with serving() as (_, client), trio.open_nursery() as nursery:
        job = await begin(nursery, client)
        reply = await ModuleServiceStub(client.channel).stop_module(StopModuleRequest(job_id=prefix + job.job_id))
        assert (reply.success, reply.job_id) == (True, prefix + job.job_id)
        await ended(job)
        message = f"Job {job.job_id} was stopped: StopModule was called."
        assert_failed(job.told, Status.CANCELLED, "JOB_STOPPED", message)
        assert job.told.job_ids == {job.job_id}
        assert await client.status(prefix + job.job_id) is ModuleStatus.STOPPED


async def test_the_answer_does_not_wait_for_the_cleanup(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep(5)

    async with serving(cleanup=cleanup) as (_, client), trio.open_nursery() as nursery:
        job = await begin(nursery, client)
        told = await told_of(client.stop(job.job_id))
        assert (told.status, told.seconds) == (Status.OK, 0)
        assert await client.status(job.job_id) is PROCESSING
        # Twice is once: it is being stopped, which is no error.
        assert (await told_of(client.stop(job.job_id))).status is Status.OK
        await ended(job)
        assert job.told.seconds == pytest.approx(5)


@PREFIXES
async def test_stopping_a_queued_job(autojump_clock: object, prefix: str) -> None:
    hooks: list[str] = []

    async def initialize(self: Any, context: Any, setup_data: Any) -> None:
        hooks.append(context.session.job_id)

    async with (
        serving(settings=settings_for(slots=1, MAX_QUEUED_TASKS=1), initialize=initialize) as (server, client),
        trio.open_nursery() as nursery,
    ):
        running = await begin(nursery, client)
        queued = await begin(nursery, client)
        assert server.statistics().admission.queued == 1
        await client.stop(prefix + queued.job_id)
        await ended(queued)
        assert_failed(queued.told, Status.CANCELLED, "JOB_STOPPED", "StopModule was called")
        assert (queued.told.protocols, queued.told.seconds) == ([], 0)
        assert queued.told.job_ids == {queued.job_id}
        assert await client.status(queued.job_id) is ModuleStatus.STOPPED
        assert hooks == [running.job_id]  # no code of the module has run for it
        assert server.statistics().admission.queued == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("call", ["stop", "status"])
async def test_a_job_that_nobody_knows(autojump_clock: object, call: str) -> None:
    async with serving() as (_, client):
        for job_id in ("nobody", "jobs:nobody", "jobs:"):
            told = await told_of(getattr(client, call)(job_id))
            assert (told.status, told.reason) == (Status.NOT_FOUND, "JOB_NOT_FOUND")
            what = {
                "stop": f"Job {job_id} not found",
                "status": f"Job {job_id} not found. Only the last 1000 jobs that have ended are remembered.",
            }
            assert told.message == what[call]


@pytest.mark.parametrize(
    ("text", "how"),
    [(GO, "completed"), ("fail", "failed"), (WAIT, "stop module"), ("leave", "client gone")],
)
async def test_stopping_a_job_that_has_ended_tells_how(autojump_clock: object, text: str, how: str) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        if input_data.text == "fail":
            raise ValueError("as told")
        await trio.sleep(5 if input_data.text == GO else 1000)

    async with serving(handle=handle) as (_, client), trio.open_nursery() as nursery:
        job = await begin(nursery, client, text)
        if not job.job_id:
            (job.job_id,) = await client.jobs()
        if text == WAIT:
            await client.stop(job.job_id)
        elif text == "leave":
            job.scope.cancel()
        await ended(job)
        told = await told_of(client.stop(job.job_id))
        assert (told.status, told.reason) == (Status.NOT_FOUND, "JOB_NOT_FOUND")
        assert told.message == f"Job {job.job_id} has ended: {how}"


async def test_stopping_one_job_leaves_the_others(autojump_clock: object) -> None:
    async with serving() as (_, client), trio.open_nursery() as nursery:
        jobs = [await begin(nursery, client) for _ in range(5)]
        await client.stop(jobs[2].job_id)
        await ended(jobs[2])
        assert [job.told.ended.is_set() for job in jobs] == [False, False, True, False, False]
        nursery.cancel_scope.cancel()


# --- GetModuleStatus -------------------------------------------------------------------------------------------------


@PREFIXES
async def test_the_life_of_a_job(autojump_clock: object, prefix: str) -> None:
    async def hook(self: Any, *_: Any) -> None:
        await trio.sleep(10)

    async with (
        serving(settings=settings_for(slots=1, MAX_QUEUED_TASKS=1), initialize=hook, handle=hook, cleanup=hook) as (
            _,
            client,
        ),
        trio.open_nursery() as nursery,
    ):
        first = await begin(nursery, client)
        second = await begin(nursery, client)
        life = []
        for _ in range(7):
            await trio.sleep(9.5)
            life.append(tuple([await client.status(prefix + job.job_id) for job in (first, second)]))
            await trio.sleep(0.5)
        assert life == [
            (STARTING, STARTING),  # one initializes, the other is queued
            (PROCESSING, STARTING),
            (PROCESSING, STARTING),  # its cleanup runs, and so it has its slot
            (ModuleStatus.SUCCESS, STARTING),
            (ModuleStatus.SUCCESS, PROCESSING),
            (ModuleStatus.SUCCESS, PROCESSING),
            (ModuleStatus.SUCCESS, ModuleStatus.SUCCESS),
        ]


async def test_a_status_answers_with_the_id_that_was_asked_for(autojump_clock: object) -> None:
    async with serving() as (_, client):
        (job_id,) = (await start(client)).job_ids
        for asked in (job_id, f"jobs:{job_id}"):
            reply = await ModuleServiceStub(client.channel).get_module_status(GetModuleStatusRequest(job_id=asked))
            assert (reply.success, reply.status, reply.job_id) == (True, ModuleStatus.SUCCESS, asked)


async def test_a_failed_job_has_failed_when_its_caller_knows(autojump_clock: object) -> None:
    async def handle(self: Any, *_: Any) -> None:
        raise ValueError("as told")

    async with serving(handle=handle) as (_, client):
        (job_id,) = (await start(client)).job_ids
        assert await client.status(job_id) is ModuleStatus.FAILED


# --- GetModuleJobs ---------------------------------------------------------------------------------------------------


async def test_jobs_are_listed_oldest_first_then_those_that_have_ended(autojump_clock: object) -> None:
    async with (
        serving(settings=settings_for(slots=2, MAX_QUEUED_TASKS=5)) as (_, client),
        trio.open_nursery() as nursery,
    ):
        assert await client.jobs() == {}
        jobs = [await begin(nursery, client) for _ in range(4)]
        assert list((await client.jobs()).items()) == [
            (jobs[0].job_id, PROCESSING),
            (jobs[1].job_id, PROCESSING),
            (jobs[2].job_id, STARTING),
            (jobs[3].job_id, STARTING),
        ]
        await client.stop(jobs[1].job_id)
        await ended(jobs[1])
        assert list((await client.jobs()).items()) == [
            (jobs[0].job_id, PROCESSING),
            (jobs[2].job_id, PROCESSING),
            (jobs[3].job_id, STARTING),
            (jobs[1].job_id, ModuleStatus.STOPPED),
        ]
        nursery.cancel_scope.cancel()


async def test_the_listing_tells_what_each_status_tells(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Message(text=input_data.text))
        if input_data.text == "fail":
            raise ValueError("as told")
        if input_data.text == WAIT:
            await trio.sleep_forever()

    async with serving(handle=handle) as (_, client), trio.open_nursery() as nursery:
        for text in (GO, "fail", WAIT):
            await begin(nursery, client, text)
        late = await begin(nursery, client, timeout=10)
        await ended(late)
        listing = await client.jobs()
        assert sorted(listing.values()) == sorted(
            [ModuleStatus.SUCCESS, ModuleStatus.FAILED, PROCESSING, ModuleStatus.EXPIRED]
        )
        for job_id, status in listing.items():
            assert await client.status(job_id) is status
        reply = await ModuleServiceStub(client.channel).get_module_jobs(GetModuleJobsRequest())
        assert reply.success
        nursery.cancel_scope.cancel()


async def test_requests_that_were_refused_are_no_jobs(autojump_clock: object) -> None:
    async with (
        serving(settings=settings_for(slots=1, BACKPRESSURE_STRATEGY="reject")) as (_, client),
        trio.open_nursery() as nursery,
    ):
        job = await begin(nursery, client)
        await start(client)
        await start(client, root={"protocol": "mesage"})
        assert await client.jobs() == {job.job_id: PROCESSING}
        nursery.cancel_scope.cancel()
