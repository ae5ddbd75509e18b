"""Jobs that another process behind the same address has: stopped, asked for and listed, or said to be unknown."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio

from dk_trio.errors import JobNotFoundError, WorkerUnavailableError
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus
from dk_trio.siblings import LISTED, JobDirectory, Replies


class FakeJobs(Jobs):
    """Jobs as they stand, without sessions."""

    def __init__(self, running: Sequence[str] = (), ended: Sequence[str] = ()) -> None:
        super().__init__()
        self.running = list(running)
        self.ended = list(ended)
        self.stopped: list[str] = []

    def knows(self, job_id: str) -> bool:
        return job_id in (*self.running, *self.ended)

    def stop(self, job_id: str, reason: Reason, why: str) -> None:
        if job_id not in self.running:
            raise JobNotFoundError(f"Job {job_id} {'has ended: completed' if job_id in self.ended else 'not found'}")
        assert reason is Reason.STOP_MODULE
        self.stopped.append(job_id)

    def status(self, job_id: str) -> ModuleStatus:
        if not self.knows(job_id):
            raise JobNotFoundError(f"Job {job_id} not found.")
        return ModuleStatus.PROCESSING if job_id in self.running else ModuleStatus.SUCCESS

    def statuses(self) -> Any:
        rows = (self.running, ModuleStatus.PROCESSING), (self.ended, ModuleStatus.SUCCESS)
        return ((job_id, status) for job_ids, status in rows for job_id in job_ids)


def connected(*others: FakeJobs, silent: int = 0) -> tuple[JobDirectory, FakeJobs]:
    """A directory that can ask those of others."""
    here = FakeJobs(["here"], ["was here"])
    directory = JobDirectory(here)

    async def ask(question: Mapping[str, Any]) -> Replies:
        await trio.lowlevel.checkpoint()
        return Replies(answers=[JobDirectory(jobs).answer(question) for jobs in others], silent=silent)

    directory.join(ask)
    return directory, here


async def test_a_job_that_is_elsewhere_is_stopped_there() -> None:
    there = FakeJobs(["there"])
    directory, here = connected(FakeJobs(), there)
    await directory.stop("there")
    assert there.stopped == ["there"]
    await directory.stop("here")
    assert here.stopped == ["here"]


async def test_a_job_that_has_ended_elsewhere_is_told_as_one_that_has_ended_here() -> None:
    directory, _ = connected(FakeJobs(), FakeJobs(ended=["was there"]))
    for job_id in ("was here", "was there"):
        with pytest.raises(JobNotFoundError, match=f"Job {job_id} has ended: completed"):
            await directory.stop(job_id)
        assert await directory.status(job_id) is ModuleStatus.SUCCESS


async def test_what_nobody_has_is_not_found() -> None:
    directory, _ = connected(FakeJobs(["there"]))
    with pytest.raises(JobNotFoundError, match="Job nowhere not found"):
        await directory.stop("nowhere")
    with pytest.raises(JobNotFoundError, match="Job nowhere not found"):
        await directory.status("nowhere")


async def test_nobody_is_asked_for_what_is_no_id() -> None:
    """A caller may send as many characters as a message has; the line between processes does not take them."""
    directory, _ = connected(FakeJobs(["there"]), silent=1)
    for call in (directory.stop, directory.status):
        with pytest.raises(JobNotFoundError):
            await call("x" * 3_000_000)


async def test_what_a_silent_sibling_may_have_is_not_called_unknown() -> None:
    directory, _ = connected(FakeJobs(["there"]), silent=1)
    assert await directory.status("there") is ModuleStatus.PROCESSING
    for call in (directory.stop, directory.status):
        with pytest.raises(WorkerUnavailableError, match="may be with one of 1 workers that did not answer"):
            await call("nowhere")


async def test_jobs_are_those_of_all(caplog: pytest.LogCaptureFixture) -> None:
    directory, _ = connected(FakeJobs(["a"]), FakeJobs(["b"], ["c"]), silent=2)
    assert [job_id for job_id, _ in await directory.statuses()] == ["here", "was here", "a", "b", "c"]
    assert "lacks the jobs of 2 workers" in caplog.text


async def test_one_process_tells_of_so_many_jobs_only() -> None:
    answer = JobDirectory(FakeJobs([str(number) for number in range(LISTED + 5)])).answer({"do": "list"})
    assert len(answer["jobs"]) == LISTED


async def test_a_server_without_siblings_asks_nobody() -> None:
    directory = JobDirectory(FakeJobs(["here"]))
    with pytest.raises(JobNotFoundError):
        await directory.stop("there")
    assert [job_id for job_id, _ in await directory.statuses()] == ["here"]
