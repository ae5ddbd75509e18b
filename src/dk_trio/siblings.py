"""Jobs behind one address: those of this process, and those of its siblings (`dk-trio serve --workers`).

A caller of StopModule has a job's id and a connection, and the connection may lead to another process than the one that
has the job. What is not here is asked of all siblings. One of them may not answer: then nobody can say that there is
no such job, and the caller is told to try again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from dk_trio.errors import JobNotFoundError, WorkerUnavailableError
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus

_log = logging.getLogger("dk_trio.siblings")

LISTED: Final = 10_000
"""Jobs that one process tells its siblings of: about 0.5 MiB. Those that are here come first."""

ID_MAX: Final = 200
"""Characters of a job's id; those that are given out have 36. What is longer is nobody's, and nobody is asked."""

_CALLED: Final = "StopModule was called"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """What siblings have said to a question.

    Attributes:
        answers: JSON objects of those that answered.
        silent: How many did not answer in time.
    """

    answers: Sequence[Mapping[str, Any]]
    silent: int = 0


Ask: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Replies]]
"""Asks all siblings a question, a JSON object, within a bounded time."""


class JobDirectory:
    """Finds jobs by id.

    Args:
        jobs: Of this process.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._ask: Ask | None = None

    def join(self, ask: Ask) -> None:
        """From now on ask siblings of what is not here."""
        self._ask = ask

    async def stop(self, job_id: str) -> None:
        """Cancel a job by its id, with or without the prefix `jobs:`, wherever it is.

        Raises:
            JobNotFoundError: There is no such job, or it has ended.
            WorkerUnavailableError: It is not here, and a sibling did not answer.
        """
        try:
            self._jobs.stop(job_id, Reason.STOP_MODULE, _CALLED)
        except JobNotFoundError as error:
            if self._ask is None or len(job_id) > ID_MAX or self._jobs.knows(job_id):
                raise
            for answer in await self._answers("stop", job_id, error):
                if "ended" in answer:
                    raise JobNotFoundError(str(answer["ended"])) from None

    async def status(self, job_id: str) -> ModuleStatus:
        """How a job is, or what has become of it.

        Raises:
            JobNotFoundError: There is no such job, or it ended long ago.
            WorkerUnavailableError: It is not here, and a sibling did not answer.
        """
        try:
            return self._jobs.status(job_id)
        except JobNotFoundError as error:
            if self._ask is None or len(job_id) > ID_MAX:
                raise
            return ModuleStatus((await self._answers("status", job_id, error))[0]["status"])

    async def statuses(self) -> list[tuple[str, ModuleStatus]]:
        """Id and status of every job: of this process first, then of each sibling that answered."""
        found = [*self._jobs.statuses()]
        if self._ask is not None:
            replies = await self._ask({"do": "list"})
            for answer in replies.answers:
                found += [(job_id, ModuleStatus(status)) for job_id, status in answer.get("jobs", ())]
            if replies.silent:
                _log.warning("GetModuleJobs lacks the jobs of %d workers, which did not answer", replies.silent)
        return found

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What this process says to a question of a sibling; empty when it knows nothing of it."""
        jobs = self._jobs
        if question.get("do") == "list":
            return {"jobs": [(job_id, status.value) for job_id, status in islice(jobs.statuses(), LISTED)]}
        job_id = str(question.get("job", ""))
        if not jobs.knows(job_id):
            return {}
        if question.get("do") == "stop":
            try:
                jobs.stop(job_id, Reason.STOP_MODULE, _CALLED)
            except JobNotFoundError as error:
                return {"ended": error.message}
        return {"status": jobs.status(job_id).value}

    async def _answers(self, do: str, job_id: str, missing: JobNotFoundError) -> list[Mapping[str, Any]]:
        """What siblings know of a job: at least one answer."""
        assert self._ask is not None
        replies = await self._ask({"do": do, "job": job_id})
        found = [answer for answer in replies.answers if answer]
        if found:
            return found
        if replies.silent:
            raise WorkerUnavailableError(
                f"Job {job_id} may be with one of {replies.silent} workers that did not answer.", hint="Try again."
            )
        raise missing
