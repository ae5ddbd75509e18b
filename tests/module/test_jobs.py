"""The jobs of a server: who is in the table, what is remembered, stop, status, and the end of all of them."""

import gc
import logging
import weakref
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from dk_trio import jobs as jobs_module
from dk_trio.admission import Admission
from dk_trio.errors import JobNotFoundError
from dk_trio.jobs import KEPT, SLICE, Jobs
from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleJobsRequest,
    GetModuleStatusRequest,
    ModuleServiceStub,
    ModuleStatus,
)
from dk_trio.session import ABANDON_AFTER, Session
from dk_trio.settings import Settings, TaskSettings

from .ends import FAIL, GO, WAIT, Job, begin, does_as_told
from .sample import module_with, session_of
from .served import DAY, served

TOLD = module_with(does_as_told)


def job(number: int, text: str = "wait", module: Any = TOLD, **arguments: Any) -> Session:
    session = session_of(module, {"protocol": "message", "text": text}, [], **arguments)
    session.ids = replace(session.ids, job_id=f"j{number}")
    return session


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_job_is_in_the_table_as_long_as_it_runs(autojump_clock: object) -> None:
    jobs = Jobs()
    assert repr(jobs) == "<Jobs 0 running, 0 queued, 0 ended>"
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            sessions = [job(number) for number in range(3)]
            for session in sessions:
                nursery.start_soon(jobs.run, session)
            await settled()
            assert set(jobs) == set(sessions)
            assert len(jobs) == 3
            jobs.stop("j1", Reason.STOP_MODULE, "asked")
            await settled()
            assert set(jobs) == {sessions[0], sessions[2]}
            assert repr(jobs) == "<Jobs 2 running, 0 queued, 1 ended>"
            nursery.cancel_scope.cancel()
        await jobs.emptied()
    assert jobs.statistics().ended == {Reason.STOP_MODULE: 1, Reason.CLIENT_GONE: 2}


@pytest.mark.parametrize("prefix", ["", "jobs:"])
async def test_status_of_queued_running_stopping_and_ended_jobs(autojump_clock: object, prefix: str) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep(5)

    jobs, admission = Jobs(), Admission(TaskSettings(max_concurrent_tasks=1, max_queued_tasks=1))
    module = module_with(does_as_told, cleanup=cleanup)
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(jobs.run, job(number, module=module, admission=admission))
                await settled()
            assert jobs.status(prefix + "j1") is ModuleStatus.PROCESSING
            assert jobs.status(prefix + "j2") is ModuleStatus.STARTING
            assert (jobs.statistics().running, jobs.statistics().queued) == (1, 1)
            assert list(jobs.statuses()) == [("j1", ModuleStatus.PROCESSING), ("j2", ModuleStatus.STARTING)]
            jobs.stop(prefix + "j1", Reason.STOP_MODULE, "asked")
            await settled()
            assert jobs.status("j1") is ModuleStatus.PROCESSING  # its cleanup runs
            await trio.sleep(6)
            assert jobs.status(prefix + "j1") is ModuleStatus.STOPPED
            assert jobs.status("j2") is ModuleStatus.PROCESSING
            assert list(jobs.statuses()) == [("j2", ModuleStatus.PROCESSING), ("j1", ModuleStatus.STOPPED)]
            nursery.cancel_scope.cancel()


async def test_stopping_what_is_not_there(autojump_clock: object) -> None:
    jobs = Jobs()
    with pytest.raises(JobNotFoundError, match="Job jobs:x not found"):
        jobs.stop("jobs:x", Reason.STOP_MODULE, "asked")
    with pytest.raises(JobNotFoundError, match="Job x not found") as caught:
        jobs.status("x")
    assert f"Only the last {KEPT} jobs" in caught.value.hint
    with trio.fail_after(DAY):
        await jobs.run(job(1, "go"))
    with pytest.raises(JobNotFoundError, match="Job j1 has ended: completed"):
        jobs.stop("j1", Reason.STOP_MODULE, "asked")
    assert jobs.status("j1") is ModuleStatus.SUCCESS


async def test_only_the_last_jobs_are_remembered_but_all_are_counted(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "KEPT", 5)
    jobs = Jobs()
    with trio.fail_after(DAY):
        for number in range(12):
            await jobs.run(job(number, "go"))
    assert [job_id for job_id, _ in jobs.statuses()] == ["j7", "j8", "j9", "j10", "j11"]
    assert jobs.statistics().succeeded == 12
    with pytest.raises(JobNotFoundError):
        jobs.status("j6")


async def test_what_is_remembered_keeps_nothing_of_the_job_alive(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        of_the_handler = self.of_the_handler = Held()
        held.append(weakref.ref(of_the_handler))
        raise ValueError("with a traceback")

    monkeypatch.setattr(logging.getLogger("dk_trio.session"), "disabled", True)  # pytest keeps what is logged
    jobs = Jobs()
    with trio.fail_after(DAY):
        await jobs.run(job(1, module=module_with(handle)))
    gc.collect()
    assert held[0]() is None
    assert jobs.status("j1") is ModuleStatus.FAILED


async def test_a_refused_job_is_counted_and_not_remembered(autojump_clock: object) -> None:
    jobs = Jobs()
    admission = Admission(TaskSettings(max_concurrent_tasks=1, backpressure_strategy="reject"))
    with trio.fail_after(DAY):
        async with admission.admit(), trio.open_nursery() as nursery:  # a task has one slot at most
            nursery.start_soon(jobs.run, refused := job(1, admission=admission))
    assert refused.outcome is not None
    assert refused.outcome.reason is Reason.REFUSED
    assert jobs.statistics().refused == 1
    assert list(jobs.statuses()) == []


async def test_statistics_tell_the_kinds_of_ends_apart(autojump_clock: object) -> None:
    jobs = Jobs()
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            for number, text in enumerate(["go", "fail", "wait", "wait", "go"]):
                nursery.start_soon(jobs.run, job(number, text))
            await settled()
            jobs.stop("j2", Reason.STOP_MODULE, "asked")
            jobs.stop("j3", Reason.SHUTDOWN, "asked")
    now = jobs.statistics()
    assert (now.succeeded, now.failed, now.cancelled, now.refused) == (2, 1, 2, 0)
    assert (now.running, now.queued) == (0, 0)
    assert now.ended == {Reason.COMPLETED: 2, Reason.FAILED: 1, Reason.STOP_MODULE: 1, Reason.SHUTDOWN: 1}


# --- the end of all ----------------------------------------------------------------------------------------------


async def test_a_shutdown_goes_in_slices(autojump_clock: object) -> None:
    count = SLICE * 5
    jobs, admission = Jobs(), Admission(TaskSettings(max_concurrent_tasks=count))
    sessions = [job(number, admission=admission) for number in range(count)]
    seen = [0]

    async def watch() -> None:
        while True:
            seen.append(sum(session._cancelled() for session in sessions))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(jobs.run, session)
            await settled()
            async with trio.open_nursery() as watching:
                watching.start_soon(watch)
                await trio.lowlevel.checkpoint()
                assert await jobs.shut_down() == []
                watching.cancel_scope.cancel()
    # Others had their turn in between; two slices when the scheduler swaps that turn with the shutdown's.
    assert max(after - before for before, after in pairwise(seen)) <= 2 * SLICE
    assert jobs.statistics().ended == {Reason.SHUTDOWN: count}
    assert admission.statistics().admitted == 0


async def test_a_shutdown_names_the_code_that_goes_on(autojump_clock: object) -> None:
    async def shields_itself(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    jobs = Jobs()
    options = SessionOptions(cleanup_grace=20)
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jobs.run, job(1))
            nursery.start_soon(jobs.run, stuck := job(2, module=module_with(shields_itself), options=options))
            await settled()
            began = trio.current_time()
            assert await jobs.shut_down() == [stuck]
            assert trio.current_time() - began == pytest.approx(20 + ABANDON_AFTER, abs=2)
    assert jobs.statistics().ended == {Reason.SHUTDOWN: 2}


async def test_a_shutdown_waits_for_a_cleanup_within_its_grace(autojump_clock: object) -> None:
    ended: list[float] = []

    async def cleanup(self: Any) -> None:
        await trio.sleep(9)
        ended.append(trio.current_time())

    jobs = Jobs()
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            # One in its handler, one in the cleanup after its own end, for which it has more time until now.
            nursery.start_soon(jobs.run, job(1, module=module_with(does_as_told, cleanup=cleanup)))
            nursery.start_soon(jobs.run, job(2, "go", module=module_with(does_as_told, cleanup=forever)))
            nursery.start_soon(jobs.run, job(3, "fail", module=module_with(does_as_told, cleanup=forever)))
            await settled()
            began = trio.current_time()
            assert await jobs.shut_down() == []
    assert ended == [pytest.approx(began + 9)]
    assert trio.current_time() == pytest.approx(began + SessionOptions().cleanup_grace)
    assert jobs.statistics().ended == {Reason.SHUTDOWN: 2, Reason.FAILED: 1}


async def forever(self: Any) -> None:
    await trio.sleep(DAY)


async def test_a_job_that_comes_after_the_shutdown_is_cancelled_too(autojump_clock: object) -> None:
    jobs = Jobs()
    with trio.fail_after(DAY):
        assert await jobs.shut_down() == []
        late = job(1)
        assert (await jobs.run(late)).reason is Reason.SHUTDOWN
    assert late.outcome is not None
    assert late.outcome.ran == 0


# --- through the stack -------------------------------------------------------------------------------------------


async def test_a_caller_lists_and_asks_and_stops(autojump_clock: object) -> None:
    settings = Settings.from_environment({"DIGITALKIN_MAX_CONCURRENT_TASKS": "2", "DIGITALKIN_MAX_QUEUED_TASKS": "2"})
    async with served(TOLD, settings=settings) as (server, client), trio.open_nursery() as nursery:
        stub = ModuleServiceStub(client.channel)

        async def listed() -> dict[str, ModuleStatus]:
            reply = await stub.get_module_jobs(GetModuleJobsRequest())
            assert reply.success
            return {info.job_id: info.job_status for info in reply.jobs}

        assert await listed() == {}
        ended = await begin(nursery, client, GO)
        await ended.ended.wait()
        failed = await begin(nursery, client, FAIL)
        await failed.ended.wait()
        one, two, queued = await begin(nursery, client, WAIT), await begin(nursery, client, WAIT), Job()
        nursery.start_soon(queued.run, client, WAIT)
        await settled()
        statuses = await listed()
        waiting = next(job_id for job_id, status in statuses.items() if status is ModuleStatus.STARTING)
        assert statuses == {
            one.job_id: ModuleStatus.PROCESSING,
            two.job_id: ModuleStatus.PROCESSING,
            waiting: ModuleStatus.STARTING,
            ended.job_id: ModuleStatus.SUCCESS,
            failed.job_id: ModuleStatus.FAILED,
        }
        await client.stop(waiting)
        await queued.ended.wait()
        assert queued.protocols == []
        await client.stop(one.job_id)
        await one.ended.wait()
        status = await stub.get_module_status(GetModuleStatusRequest(job_id=f"jobs:{one.job_id}"))
        assert (status.success, status.status) == (True, ModuleStatus.STOPPED)
        now = server.statistics().jobs
        assert (now.running, now.queued, now.succeeded, now.failed, now.cancelled) == (1, 0, 1, 1, 2)
        nursery.cancel_scope.cancel()
