"""StartModule of a job that is ended from outside: what its caller is told in the stream and by the status."""

from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio import ModuleClient, ModuleServer
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus
from dk_trio.signals import Signal, SignalAction

from .service_kit import GO, Job, assert_failed, begin, serving, settings_for, settings_of, start


async def cancel_signal(server: ModuleServer, client: ModuleClient, job: Job) -> None:
    assert server.signals.send(Signal(task_id=job.job_id, action=SignalAction.CANCEL))


async def stop_signal(server: ModuleServer, client: ModuleClient, job: Job) -> None:
    assert server.signals.send(Signal(task_id=job.job_id, action=SignalAction.STOP))


async def stop_module(server: ModuleServer, client: ModuleClient, job: Job) -> None:
    await client.stop(job.job_id)


async def shutdown(server: ModuleServer, client: ModuleClient, job: Job) -> None:
    assert await server.drain(5) == []


async def nothing(server: ModuleServer, client: ModuleClient, job: Job) -> None:
    pass


# What ends the job, and variables of the server; then the status, the reason and the text that its caller is told.
ENDS = {
    "cancel signal": (cancel_signal, {}, Status.CANCELLED, "JOB_CANCELLED", "was stopped: a cancel signal came."),
    "stop signal": (stop_signal, {}, Status.CANCELLED, "JOB_STOPPED", "was stopped: a stop signal came."),
    "StopModule": (stop_module, {}, Status.CANCELLED, "JOB_STOPPED", "was stopped: StopModule was called."),
    "shutdown": (shutdown, {}, Status.UNAVAILABLE, "SHUTDOWN", "was stopped: the server is shutting down."),
    "execution": (
        nothing,
        {"EXECUTION_TIMEOUT": 50},
        Status.DEADLINE_EXCEEDED,
        "JOB_TIMEOUT",
        "was cancelled: it ran for 50 s (DIGITALKIN_EXECUTION_TIMEOUT). Do less in one job, or raise the limit.",
    ),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_running_job(autojump_clock: object, end: str) -> None:
    provoke, variables, status, reason, message = ENDS[end]
    async with (
        serving(settings=settings_of(**variables)) as (server, client),
        trio.open_nursery() as nursery,
    ):
        job = await begin(nursery, client)
        await provoke(server, client, job)
        await job.told.ended.wait()
        assert_failed(job.told, status, reason, f"Job {job.job_id} {message}")
        assert job.told.protocols == ["module_start_info", "message"]
        assert job.told.job_ids == {job.job_id}


@pytest.mark.parametrize("end", ["cancel signal", "stop signal", "StopModule", "shutdown"])
async def test_a_queued_job(autojump_clock: object, end: str) -> None:
    provoke, _, status, reason, message = ENDS[end]
    async with (
        serving(settings=settings_for(slots=1, MAX_QUEUED_TASKS=1)) as (server, client),
        trio.open_nursery() as nursery,
    ):
        await begin(nursery, client)
        job = await begin(nursery, client)
        await provoke(server, client, job)
        await job.told.ended.wait()
        assert_failed(job.told, status, reason, f"Job {job.job_id} {message}")
        assert job.told.protocols == []
        nursery.cancel_scope.cancel()


async def test_the_execution_timeout_does_not_bound_the_queue(autojump_clock: object) -> None:
    settings = settings_for(slots=1, MAX_QUEUED_TASKS=1, EXECUTION_TIMEOUT=50)
    async with serving(settings=settings) as (_, client), trio.open_nursery() as nursery:
        jobs = [await begin(nursery, client) for _ in range(2)]
        for job in jobs:
            await job.told.ended.wait()
        assert [job.told.seconds for job in jobs] == [50, 100]
        assert {job.told.reason for job in jobs} == {"JOB_TIMEOUT"}


async def test_cleanup_takes_too_long(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep_forever()

    async with serving(cleanup=cleanup, settings=settings_of(COMPLETION_TIMEOUT=70)) as (_, client):
        told = await start(client)
        assert_failed(told, Status.DEADLINE_EXCEEDED, "JOB_TIMEOUT", "(DIGITALKIN_COMPLETION_TIMEOUT)")
        assert told.seconds == 70
        assert told.protocols == ["module_start_info", "message"]


@pytest.mark.parametrize("slots", [1, 2], ids=["queued", "running"])
async def test_the_caller_s_deadline(autojump_clock: object, slots: int) -> None:
    settings = settings_for(slots=slots, MAX_QUEUED_TASKS=1)
    async with serving(settings=settings) as (_, client), trio.open_nursery() as nursery:
        await begin(nursery, client)
        job = await begin(nursery, client, timeout=30)
        await job.told.ended.wait()
        assert (job.told.status, job.told.seconds) == (Status.DEADLINE_EXCEEDED, 30)
        await trio.testing.wait_all_tasks_blocked()
        assert await client.status(job.job_id) is ModuleStatus.EXPIRED
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("slots", [1, 2], ids=["queued", "running"])
async def test_a_caller_that_leaves(autojump_clock: object, slots: int) -> None:
    settings = settings_for(slots=slots, MAX_QUEUED_TASKS=1)
    async with serving(settings=settings) as (server, client), trio.open_nursery() as nursery:
        first = await begin(nursery, client)
        job = await begin(nursery, client)
        job.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert await client.status(job.job_id) is ModuleStatus.CANCELED
        assert server.statistics().admission.admitted == 1
        # Its place is free again.
        other = await begin(nursery, client, GO)
        await client.stop(first.job_id)
        await other.told.ended.wait()
        assert other.told.status is Status.OK
