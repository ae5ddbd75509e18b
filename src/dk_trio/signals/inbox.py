"""Signals on their way in: one poller for all jobs of an exchange, and what becomes of that which it brings.

Theory of operation
-------------------
One task asks GetSignals for all jobs that listen, and hands on what is new: to the handler of its job, which acts in
the same step, and to those who have subscribed. `cancel` and `stop` of all jobs go first.

When it asks again depends on the provider. One that says that it holds polls (`LONG_POLL`) is asked again at once; a
signal then takes as long as a message does. A job that begins to listen meanwhile must not wait for the end of a poll
that does not name it. So a second poll is held beside it, for those who have come since, and begun anew when more of
them come, at most once in `RESTART_AGE` seconds. The first one goes on: a slow provider gets to answer at all, however
often jobs begin. With the next poll of all the second one ends. Any other provider is asked in intervals:
`initial_poll_interval` after a poll that brought something, and after the first that did not; from then on each empty
one doubles it, up to `poll_interval`. (So the seeds can be read. The existing SDK doubles before it first waits.) 0 to
50 % jitter come on top. A poll of theirs is never left: it may have taken a signal along. Of a provider that is away
for longer, a new connection is waited for; one that answers with errors is asked every `DEAD_INTERVAL`, and one that
says when to come back (`grpc-retry-pushback-ms`, google.rpc.RetryInfo) not sooner.

A signal is handed on once. It is known again by all that its sender has said, not by comparing its clock with that of
another: a cancel from a machine whose clock is behind is a cancel.

The cursor that our provider gives counts signals of all jobs, so it says nothing about a job that was not asked for
when it was given, nor to another server: it is used while jobs only leave, on the connection on which it came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from random import Random
from typing import Final, NamedTuple

import trio
from grpclib.const import Status

from dk_trio import buggify
from dk_trio.boundary import unwrapped
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import GetSignalsRequest, Task
from dk_trio.settings import SignalSettings

from ._calls import PUSHBACK_MAX, CallError, Calls, Encoded
from ._path import Path
from ._signal import Signal
from ._subscription import URGENT, Subscription
from ._tasks import identity, to_signal

_log = logging.getLogger("dk_trio.signals")

RESTART_AGE: Final = 0.01
"""Seconds that a poll of those who came last is at least left alone. Jobs that begin within them share one new poll; it
is a fifth of the 50 ms that a cancel may take."""

RESTART_AGE_PER_JOB: Final = 5e-6
"""Seconds more for each job that it names: about five times what encoding one id costs."""

DEAD_AFTER: Final = 5.0
"""Seconds without a good poll after which the path counts as dead, if `DEAD_POLLS` have failed in them."""

DEAD_POLLS: Final = 5
"""Polls; with long intervals few of them fail in `DEAD_AFTER`, and one or two may be chance."""

DEAD_INTERVAL: Final = 3.0
"""Seconds that intervals grow to while the path is dead, if they are not longer anyway: so little it is asked for, and
so soon it is found that it is not dead any more."""

UNANSWERED_AFTER: Final = 30.0
"""Seconds in which each poll ran into its deadline, from the first one on, after which that is told. It may be the way
of this provider to say that there is nothing; or nothing will ever come in, as `poll_timeout` is too short for it."""

REMEMBERED: Final = 64
"""Signals of one job that are known again. It gets one or two in its life."""

JOBS_AT_ONCE: Final = 20_000
"""Jobs that one poll names: our provider refuses more. Of more jobs, each poll asks for the next so many."""

TURN: Final = 1.0
"""Seconds that such a poll is held, so that the turn of all comes soon."""

SLICE: Final = 256
"""Signals between two checkpoints: cancelling 10,000 jobs in one step would stall the loop for 0.4 s."""

JITTER: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundStatistics:
    """What came in.

    Attributes:
        listening: Jobs that are polled for.
        polls: GetSignals in all.
        failed_polls: Of these, those that failed; DEADLINE_EXCEEDED is an empty poll, unless this provider never used
            to let a deadline pass.
        restarts: Of all, those that were left for another one that names more jobs.
        received: Signals that were handed on.
        repeated: Signals that came again.
        strays: Signals to jobs that are not here, or with an action that is not known.
        dropped: Signals that a slow subscriber lost.
        outages: Times at which the path was found dead.
    """

    listening: int
    polls: int
    failed_polls: int
    restarts: int
    received: int
    repeated: int
    strays: int
    dropped: int
    outages: int


class _Job:
    __slots__ = ("seen", "subscriptions", "users")

    def __init__(self) -> None:
        self.users = 0
        self.seen: dict[bytes, None] = {}
        self.subscriptions: list[Subscription] = []

    def first_time(self, task: Task) -> bool:
        """Whether this signal has not come before."""
        mark = identity(task)
        if mark in self.seen:
            return False
        if len(self.seen) >= REMEMBERED:
            del self.seen[next(iter(self.seen))]
        self.seen[mark] = None
        return True


class _Outcome(NamedTuple):
    tasks: Sequence[Task]
    again: bool
    """Whether a provider that holds polls may be asked again at once although there is nothing new."""


class Inbox:
    """Asks for signals, and hands them on; `run` does so.

    Args:
        calls: To the provider.
        settings: Sizes and times.
        hand_on: Gives a signal to the handler of its job. Must not wait.
        random: Source of jitter.
    """

    def __init__(
        self, calls: Calls, settings: SignalSettings, *, hand_on: Callable[[Signal], object], random: Random
    ) -> None:
        self.path = Path()
        self._calls = calls
        calls.on_honours = self._renew
        self._settings = settings
        self._hand_on = hand_on
        self._random = random
        self._jobs: dict[str, _Job] = {}
        self._request: Encoded | None = None  # for the jobs as they are now
        self._turn = 0  # where the next poll begins, of more jobs than one names
        self._joined = trio.Event()
        self._never = trio.Event()
        self._cursor: str | None = None
        self._cursor_peer: object = None
        self._joins = 0  # jobs that have joined so far
        self._fresh: dict[str, None] = {}  # those of them that came since the last poll of all began
        self._polling: trio.CancelScope | None = None  # of all
        self._beside: trio.CancelScope | None = None  # of those who came since
        self._beside_began = -inf
        self._wanted = trio.Event()
        self._quiet_until = -inf  # the provider asked for it
        self._failed_since = inf
        self._failures = 0  # in a row
        self._answers_empty = False  # this provider answers when it has nothing to say
        self._unanswered_since: float | None = None  # while no poll was answered at all; inf once that is settled
        self._polls = self._failed = self._restarts = 0
        self._received = self._repeated = self._strays = self._dropped = 0

    def __repr__(self) -> str:
        return f"<Inbox {len(self._jobs)} jobs, {self.path!r}>"

    def statistics(self) -> InboundStatistics:
        """How it stands now."""
        return InboundStatistics(
            listening=len(self._jobs),
            polls=self._polls,
            failed_polls=self._failed,
            restarts=self._restarts,
            received=self._received,
            repeated=self._repeated,
            strays=self._strays,
            dropped=self._dropped,
            outages=self.path.outages,
        )

    # -- who listens --------------------------------------------------------------------------------------------------

    def join(self, job_id: str, subscription: Subscription | None = None) -> None:
        """Ask for signals to this job from now on."""
        job = self._jobs.get(job_id)
        if job is None:
            job = self._jobs[job_id] = _Job()
            self._request = self._cursor = None
            self._joins += 1
            self._fresh[job_id] = None
            self._joined.set()
            self._renew()
        job.users += 1
        if subscription is not None:
            job.subscriptions.append(subscription)

    def leave(self, job_id: str, subscription: Subscription | None = None) -> None:
        """Undo one `join`."""
        job = self._jobs[job_id]
        job.users -= 1
        if subscription is not None:
            job.subscriptions.remove(subscription)
        if not job.users:
            del self._jobs[job_id]
            self._fresh.pop(job_id, None)
            self._request = None

    def deliver(self, signal: Signal) -> bool:
        """Hand a signal on to all who listen for its job; False when nobody does."""
        job = self._jobs.get(signal.task_id)
        if job is None:
            return False
        try:
            self._hand_on(signal)
        except Exception:  # noqa: BLE001  boundary: a handler that fails must not end the poller of all others
            _log.exception("the handler of signals of job %s failed at %s", signal.task_id, signal.action)
        for subscription in job.subscriptions:
            self._dropped += subscription.put(signal)
        return True

    def _renew(self) -> None:
        """Ask for those whom the held poll does not name, soon."""
        if self._polling is None or not self._calls.holds or not self._fresh:
            return
        if self._beside is None:
            self._wanted.set()
        else:
            age = max(RESTART_AGE, RESTART_AGE_PER_JOB * len(self._fresh))
            self._beside.deadline = min(self._beside.deadline, self._beside_began + age)

    # -- the tasks ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll while jobs listen, until cancelled."""
        async with unwrapped(), trio.open_nursery() as nursery:
            nursery.start_soon(self._poll_beside)
            await self._poll_all()

    async def _poll_all(self) -> None:
        interval = self._settings.initial_poll_interval
        while True:
            if not self._jobs:
                self._joined = trio.Event()
                await self._joined.wait()
                interval = self._settings.initial_poll_interval
            await self._quiet()
            outcome = await self._poll()
            if outcome is None:
                continue
            if await self._receive(outcome.tasks):
                interval = self._settings.initial_poll_interval
                if self._calls.holds:
                    continue
            elif outcome.again and self._calls.holds:
                continue
            dead = not self.path.ok
            longest = max(self._settings.poll_interval, DEAD_INTERVAL if dead else 0.0)
            interval = min(interval, longest)
            await self._calls.pause(interval * (1 + JITTER * self._random.random()), self._never, away=dead)
            interval *= 2

    async def _poll(self) -> _Outcome | None:
        """Ask once. None when the poll was left for another one."""
        settings, calls = self._settings, self._calls
        whole = len(self._jobs) <= JOBS_AT_ONCE
        timeout = settings.poll_timeout if whole else min(TURN, settings.poll_timeout)
        request = self._request
        if request is None or not whole:
            request = Encoded(GetSignalsRequest(task_ids=self._asked_for()).SerializeToString())
            self._request = request if whole else None
        joins, peer = self._joins, calls.peer
        self._fresh.clear()
        self._leave(self._beside)
        if peer is None or peer is not self._cursor_peer or not whole:
            self._cursor = None
        after = self._cursor
        reply = upto = None
        self._polls += 1
        began = trio.current_time()
        with trio.CancelScope() as scope:
            self._polling = scope
            await buggify.at("signals.poll")
            try:
                reply, upto = await calls.poll(request, after=after, timeout=timeout)
            except CallError as error:
                self._heed(error)
                self._note_failure(error)
        self._polling = None
        if scope.cancelled_caught:
            self._restarts += 1
            return None
        # One that claims to hold polls, and answers at once that there is nothing, must not be asked again at once.
        took = trio.current_time() - began
        again = not self._failures and took >= min(settings.initial_poll_interval, settings.poll_timeout / 2)
        if reply is None:
            return _Outcome((), again)
        self._note_reply(reply.tasks)
        again |= joins != self._joins  # who has come meanwhile was not asked for, and must not wait for it
        if whole and joins == self._joins and (after is None or peer is calls.peer):
            self._cursor, self._cursor_peer = upto, calls.peer
            again |= after is None and upto is not None  # what comes again without a cursor does not come with it
        return _Outcome(reply.tasks, again)

    async def _poll_beside(self) -> None:
        """Ask for those who have come since the poll of all began. What ends by itself ends that one, too."""
        while True:
            await self._wanted.wait()
            await trio.sleep_until(self._beside_began + RESTART_AGE)  # the last one may have failed at once
            await self._quiet()
            self._wanted = trio.Event()
            while self._polling is not None and self._fresh and self._calls.holds:
                jobs = list(islice(self._fresh, JOBS_AT_ONCE))
                request = Encoded(GetSignalsRequest(task_ids=jobs).SerializeToString())
                self._polls += 1
                self._beside_began = trio.current_time()
                tasks: Sequence[Task] = ()
                with trio.CancelScope() as self._beside:
                    await buggify.at("signals.poll")
                    try:
                        reply, _ = await self._calls.poll(request, after=None, timeout=self._settings.poll_timeout)
                        tasks = reply.tasks
                        self._note_reply(tasks)
                    except CallError as error:  # the poll of all finds out the same, and tells
                        self._heed(error)
                left, self._beside = self._beside.cancelled_caught, None
                if left:
                    self._restarts += 1
                    continue
                await self._receive(tasks)
                self._leave(self._polling)
                break

    def _leave(self, poll: trio.CancelScope | None) -> None:
        """End a poll for one that names more, unless it may have taken a signal along."""
        if poll is not None and self._calls.holds:
            poll.cancel()

    def _asked_for(self) -> list[str]:
        """The jobs of the next poll."""
        jobs = list(self._jobs)
        if len(jobs) <= JOBS_AT_ONCE:
            return jobs
        first = self._turn % len(jobs)
        self._turn = first + JOBS_AT_ONCE
        return (jobs[first:] + jobs[:first])[:JOBS_AT_ONCE]

    async def _receive(self, tasks: Sequence[Task]) -> int:
        """Hand on what is new; how much that was."""
        signals = []
        for number, task in enumerate(tasks, 1):
            if not number % SLICE:
                await trio.lowlevel.checkpoint()
            job = self._jobs.get(task.task_id)
            signal = None if job is None else to_signal(task)
            if job is None or signal is None:
                self._strays += 1
            elif job.first_time(task):
                signals.append(signal)
            else:
                self._repeated += 1
        signals.sort(key=lambda signal: signal.action not in URGENT)
        for number, signal in enumerate(signals, 1):
            if not number % SLICE:
                await trio.lowlevel.checkpoint()
            if self.deliver(signal):
                self._received += 1
            else:  # it has ended since
                self._strays += 1
        return len(signals)

    # -- whether polls get through ------------------------------------------------------------------------------------

    def _heed(self, error: CallError) -> None:
        if error.pushback is not None:  # negative: not soon
            seconds = min(error.pushback, PUSHBACK_MAX) if error.pushback >= 0 else DEAD_INTERVAL
            self._quiet_until = max(self._quiet_until, trio.current_time() + seconds)

    async def _quiet(self) -> None:
        if self._quiet_until > trio.current_time():
            await trio.sleep_until(self._quiet_until)

    def _note_reply(self, tasks: Sequence[Task]) -> None:
        self._answers_empty |= not tasks
        self._unanswered_since = inf
        self._note_success()

    def _note_success(self) -> None:
        self._failures = 0
        self._failed_since = inf
        self.path.works("signals to jobs come in again; they did not for")

    def _note_failure(self, error: CallError) -> None:
        if error.status is Status.DEADLINE_EXCEEDED and self._calls.connected and not self._answers_empty:
            self._note_success()
            self._note_unanswered()
            return
        now = trio.current_time()
        self._failed += 1
        self._failures += 1
        self._failed_since = min(self._failed_since, now)
        if now - self._failed_since > DEAD_AFTER and self._failures > DEAD_POLLS:
            self.path.fails(
                str(error),
                f"no signals come in, {self._failures} polls of the services-provider {self._calls.target} have failed "
                f"since {now - self._failed_since:.1f} s ({error}): jobs go on, but cannot be cancelled by it. Check "
                "that it runs and that DIGITALKIN_PROVIDER names it.",
            )

    def _note_unanswered(self) -> None:
        now = trio.current_time()
        if self._unanswered_since is None:
            self._unanswered_since = now
        elif now - self._unanswered_since > UNANSWERED_AFTER and self._polls > DEAD_POLLS:
            self._unanswered_since = inf
            _log.warning(
                "the services-provider %s has not answered any of %d polls within %g s: if jobs cannot be cancelled by "
                "it, raise DIGITALKIN_POLL_TIMEOUT. Nothing is wrong if it lets the time pass without a signal.",
                self._calls.target,
                self._polls,
                self._settings.poll_timeout,
            )
