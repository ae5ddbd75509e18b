"""The jobs of one server: those that are here now, and what has become of the last ones.

The table is the set of sessions that are inside `run`: an entry is made and removed by the task that runs the session,
so it cannot disagree with reality. What has ended is kept as one reason each, and only the last `KEPT` of them: an
outcome would keep the author's exception, and with its traceback all that the job had in its hands.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dk_trio.errors import JobNotFoundError
from dk_trio.hooks import JobHook, ended_of
from dk_trio.lifecycle import OUTCOMES, PROGRESS, Outcome, Reason, State
from dk_trio.log_context import CURRENT, of_job
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus
from dk_trio.session import Session

_log = logging.getLogger("dk_trio.jobs")

KEPT: Final = 1000
"""Ended jobs that GetModuleStatus can still tell of: about 0.2 MiB, and minutes of a busy server."""
SLICE: Final = 100
"""Jobs cancelled in one go: a job's cancellation costs about 0.05 ms of the loop, and other tasks want their turn."""

SLACK: Final = 1.0
"""Seconds more than a session waits for its own code, so that the session has spoken before anybody speaks of it."""

_PREFIX = "jobs:"
_SHUTTING_DOWN = "the server is shutting down"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatistics:
    """What the jobs of a server have come to since it was made.

    Attributes:
        queued: Waiting for admission now.
        running: Admitted and not ended now.
        ended: How many have ended for each reason; a reason that never came is missing.
    """

    queued: int
    running: int
    ended: Mapping[Reason, int]

    @property
    def succeeded(self) -> int:
        """Jobs that have completed."""
        return self.ended.get(Reason.COMPLETED, 0)

    @property
    def failed(self) -> int:
        """Jobs whose code has failed."""
        return self.ended.get(Reason.FAILED, 0)

    @property
    def refused(self) -> int:
        """Jobs that admission has refused."""
        return self.ended.get(Reason.REFUSED, 0)

    @property
    def cancelled(self) -> int:
        """Jobs that were ended from outside, for whatever reason."""
        return sum(self.ended.values()) - self.succeeded - self.failed - self.refused


class Jobs:
    """Runs sessions and knows which are running.

    Args:
        hooks: Told of each job's end.
    """

    def __init__(self, *, hooks: Sequence[JobHook] = ()) -> None:
        self._on_end = ended_of(hooks)
        self._sessions: dict[str, Session] = {}
        self._reasons: OrderedDict[str, Reason] = OrderedDict()
        self._ended: Counter[Reason] = Counter()
        self._emptied = trio.Event()
        self._shutting_down = False
        # One server's sessions have the same patience, so the order in which they were cancelled is that of their ends.
        self._expected: deque[tuple[float, weakref.ref[Session]]] = deque()
        self._expecting = trio.Event()

    def __repr__(self) -> str:
        statistics = self.statistics()
        return f"<Jobs {statistics.running} running, {statistics.queued} queued, {sum(self._ended.values())} ended>"

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def statistics(self) -> JobStatistics:
        """A snapshot. Costs a pass over the jobs that are here."""
        queued = sum(session.state is State.CREATED for session in self._sessions.values())
        return JobStatistics(queued=queued, running=len(self._sessions) - queued, ended=dict(self._ended))

    async def run(self, session: Session) -> Outcome:
        """Run a session; it is in the table exactly as long. Raises what `Session.run` raises."""
        job_id = session.ids.job_id
        if job_id in self._sessions:  # or this one's end would take the entry of the other along
            raise RuntimeError(f"there is a job {job_id} already")
        self._sessions[job_id] = session
        if self._shutting_down:  # its request came before; its setup did not
            session.stop(Reason.SHUTDOWN, _SHUTTING_DOWN)
        bound, ids = CURRENT.get(), of_job(job_id, session.ids.mission_id, session.ids.setup_id)
        token = CURRENT.set({**bound, **ids} if bound else ids)
        try:
            return await session.run()
        finally:
            CURRENT.reset(token)
            del self._sessions[job_id]
            if not self._sessions:
                self._emptied.set()
                self._emptied = trio.Event()
            outcome = session.outcome
            if outcome is not None:
                self._ended[outcome.reason] += 1
                if outcome.reason is not Reason.REFUSED:  # nobody was told its id
                    self._reasons[job_id] = outcome.reason
                    if len(self._reasons) > KEPT:
                        self._reasons.popitem(last=False)
                if self._on_end is not None:
                    self._on_end(session)

    def expect_end(self, session: Session) -> None:
        """A session's code was cancelled: `watch` looks for its end in due time."""
        self._expected.append((trio.current_time() + session.patience, weakref.ref(session)))
        self._expecting.set()

    async def watch(self) -> None:
        """Give up sessions whose code goes on although it was cancelled, for as long as this runs."""
        while True:
            while not self._expected:
                self._expecting = trio.Event()
                await self._expecting.wait()
            due, reference = self._expected.popleft()
            await trio.sleep_until(due)
            session = reference()
            if session is None or session.outcome is not None:
                continue
            try:
                session.give_up()
            except Exception:  # noqa: BLE001  boundary: one job's error that cannot be told must not end the watch over all the others
                _log.exception("job %s: its caller could not be told that its code goes on", session.ids.job_id)

    def stop(self, job_id: str, reason: Reason, why: str) -> None:
        """Cancel a job by its id, with or without the prefix `jobs:`. Returns at once.

        Raises:
            JobNotFoundError: It is not here, or has ended.
        """
        session = self._sessions.get(_bare(job_id))
        if session is None:
            known = self._reasons.get(_bare(job_id))
            gone = "not found" if known is None else f"has ended: {known.value.replace('_', ' ')}"
            raise JobNotFoundError(f"Job {job_id} {gone}")
        session.stop(reason, why)

    def status(self, job_id: str) -> ModuleStatus:
        """How a job is, or what has become of it.

        Raises:
            JobNotFoundError: It never was here, or ended before the last `KEPT` jobs.
        """
        bare = _bare(job_id)
        session = self._sessions.get(bare)
        if session is not None:
            return _status(session)
        reason = self._reasons.get(bare)
        if reason is None:
            raise JobNotFoundError(
                f"Job {job_id} not found.", hint=f"Only the last {KEPT} jobs that have ended are remembered."
            )
        return OUTCOMES[reason].module_status

    def knows(self, job_id: str) -> bool:
        """Whether a job is here, or is one of the last that have ended."""
        return _bare(job_id) in self._sessions or _bare(job_id) in self._reasons

    def statuses(self) -> Iterator[tuple[str, ModuleStatus]]:
        """Id and status of every job that is here, oldest first, then of the last that have ended."""
        for job_id, session in list(self._sessions.items()):
            yield job_id, _status(session)
        for job_id, reason in list(self._reasons.items()):
            yield job_id, OUTCOMES[reason].module_status

    async def shut_down(self) -> list[Session]:
        """Cancel every job, because the server stops, and wait for their ends. One that comes later is cancelled, too.

        Returns:
            The sessions whose code goes on although it was cancelled; they were waited for as long as their cleanup
            may take and a little more.
        """
        self._shutting_down = True
        patience = 0.0
        for number, session in enumerate(self):
            session.stop(Reason.SHUTDOWN, _SHUTTING_DOWN)
            patience = max(patience, session.patience)
            if number % SLICE == SLICE - 1:
                await trio.lowlevel.checkpoint()
        with trio.move_on_after(patience + SLACK):
            await self.emptied()
        return list(self)

    async def emptied(self) -> None:
        """Wait until no job is here."""
        while self._sessions:
            await self._emptied.wait()


def _bare(job_id: str) -> str:
    return job_id.removeprefix(_PREFIX)


def _status(session: Session) -> ModuleStatus:
    if session.outcome is not None:  # it has ended, and its entry leaves with its last words
        return session.outcome.row.module_status
    return PROGRESS[session.state]
