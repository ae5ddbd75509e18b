"""TaskManagerService: signals of jobs, durable and in order; and polls that are held until there is one.

GetSignals tells what is pending for the caller's jobs (see `stores.signals`), at once if there is something. Otherwise
it is held: until a request comes, or shortly before the caller's deadline, or `HOLD` without one. A job that nobody has
heard of is held like any other, since its server may poll before START arrives. A request is told by every poll until
its job has answered it; who sends `SIGNALS_AFTER` gets it once.

A poll wakes in the scheduler's pass after the commit. Nothing waits for a poll: it has no lock, no place in a queue and
no thread, and one whose caller reads slowly holds its own reply.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from dk_trio.errors import DkTrioError
from dk_trio.extensions import SIGNALS_AFTER, SIGNALS_UPTO
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import (
    GetSignalsRequest,
    GetSignalsResponse,
    ListHeartbeatsRequest,
    ListHeartbeatsResponse,
    SendSignalsRequest,
    SendSignalsResponse,
    Task,
    TaskManagerServiceBase,
)
from dk_trio.services.record_models import date_of
from dk_trio.services.stores.signals import PURGED_AT_ONCE, NewSignal, Pending, SignalStore, ends, may_ask

from ._base import Servicer, refused, text
from ._heartbeats import Heartbeats
from ._polls import Polls

if TYPE_CHECKING:
    from dk_trio.services.stores.work import Work

    from ._options import ProviderOptions
    from ._stores import Stores
    from ._validation import Validation

_log = logging.getLogger("dk_trio.provider")

HOLD: Final = 20.0
"""Seconds for which a poll without a deadline is held: below the 30 s after which proxies think a call is dead."""

MARGIN: Final = 0.1
"""Seconds before the deadline at which a poll is answered, so that the caller gets an empty reply and not an error. Of
a short deadline it is a tenth."""

ROUNDED: Final = 0.01
"""Of the time that is left: clients round it up as they send it, by a hundredth (C-core and ours), and end their wait
when the real one has passed."""

JOBS_MAX: Final = 20_000
"""Jobs of one request: each costs a poll some 100 bytes for as long as it is held. No server runs so many."""

SIGNALS_MAX: Final = 20_000
"""Signals of one SendSignals, which is one transaction: a tenth of a second for those who write behind it. Servers send
50, and no more than 10,000 however they are set."""

REPLY_MAX: Final = 1_000_000
"""Bytes of signals in one reply to GetSignals, and one more signal; the rest comes with the next poll. Clients take 4
MB unless told otherwise."""

PURGE_EVERY: Final = 60.0
"""Seconds between two looks for jobs that ended long ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManagerStatistics:
    """What is going on, and was so far.

    Attributes:
        polls: GetSignals that are held.
        jobs_polled: Jobs for which one is held.
        jobs_asked: Jobs for which something may be pending.
        heartbeats: Jobs that are remembered as heard of.
        received: Signals that came, those that came again included.
        delivered: Signals that were told to polls.
        purged: Jobs whose signals were removed, since they had ended long ago.
    """

    polls: int
    jobs_polled: int
    jobs_asked: int
    heartbeats: int
    received: int
    delivered: int
    purged: int


class TaskManagerServicer(Servicer, TaskManagerServiceBase):
    """See the module's docstring."""

    def __init__(self, stores: Stores, options: ProviderOptions, validation: Validation) -> None:
        super().__init__(stores, options, validation)
        self._signals: SignalStore = stores.signals
        self._polls = Polls()
        self._heartbeats = Heartbeats(options.heartbeat_ttl)
        self._loaded = False
        self._loading = trio.Lock()
        self._received = self._delivered = self._purged = 0

    def statistics(self) -> TaskManagerStatistics:
        return TaskManagerStatistics(
            polls=self._polls.polls,
            jobs_polled=self._polls.jobs,
            jobs_asked=self._polls.jobs_asked,
            heartbeats=len(self._heartbeats),
            received=self._received,
            delivered=self._delivered,
            purged=self._purged,
        )

    def __drain__(self) -> None:
        """The server begins to drain: polls end, with nothing."""
        self._polls.release()

    async def run(self) -> None:
        """Remove what has ended long ago, now and then."""
        while True:
            try:
                while await self._purge() == PURGED_AT_ONCE:
                    pass
            except DkTrioError as error:  # it is not lost, and the next time comes
                _log.warning("signals of ended jobs could not be removed: %s", error.text)
            await trio.sleep(PURGE_EVERY)

    async def _purge(self) -> int:
        notes = self._polls.notes
        purged = await self._stores.database.write(partial(self._signals.purge_work, now=self._now()))
        self._polls.settled(purged, upto=notes)  # something new may have come with the same commit
        self._purged += len(purged)
        return len(purged)

    # --- signals come ------------------------------------------------------------------------------------------------

    async def send_signals(self, message: SendSignalsRequest) -> SendSignalsResponse:
        """Keep all of them, or none."""
        tasks, now = message.tasks, self._now()
        if len(tasks) > SIGNALS_MAX:
            raise refused("tasks", f"has {len(tasks)} signals, {SIGNALS_MAX} at most can be sent together")
        signals = [_new_signal(index, task, now) for index, task in enumerate(tasks)]

        def work() -> Work[int]:
            yield from self._signals.add_work(signals, now=now)
            return now

        try:
            came = await self._write_facts(work)  # earlier than now, if they come again
        finally:
            # Also when it failed: whether a database was cut off before or after its commit may not be known.
            self._polls.asked(task.task_id for task in tasks if may_ask(task.action, task.cancellation_reason))
        self._received += len(tasks)
        ended = [task.task_id for task in tasks if ends(task.action, task.cancellation_reason)]
        self._polls.settled(ended)
        alive = [task.task_id for task in tasks if task.heartbeat_at is not None]
        self._heartbeats.beat(alive, trio.current_time())
        self._heartbeats.forget(ended)
        for task in tasks:
            task.created_at = task.created_at or date_of(came)
        return SendSignalsResponse(success=True, tasks=tasks)

    # --- and go ------------------------------------------------------------------------------------------------------

    async def get_signals(self, message: GetSignalsRequest) -> GetSignalsResponse:
        """Held as the module's docstring says."""
        call = self._call
        jobs = _jobs(message.task_ids)
        after = _number(call.text(SIGNALS_AFTER))
        until = _hold_until(trio.current_time(), call.deadline_at)
        await self._load()
        with self._polled(jobs), self._polls.held(jobs) as poll:
            found = await self._pending(jobs, after)
            with trio.move_on_at(until):
                while not found and not poll.released:
                    await poll.wait()
                    found = await self._pending(jobs, after)
        told = list(_fitting(found))
        self._delivered += len(told)
        call.reply_metadata[SIGNALS_UPTO] = str(told[-1].place if told else after)
        return GetSignalsResponse(tasks=[Task.parse(signal.message) for signal in told])

    @contextmanager
    def _polled(self, jobs: Mapping[str, None]) -> Iterator[None]:
        self._heartbeats.beat(jobs, trio.current_time())
        yield
        self._heartbeats.beat(jobs, trio.current_time())  # not when it was cancelled: who has gone is not alive

    async def _pending(self, jobs: Mapping[str, None], after: int) -> list[Pending]:
        notes = self._polls.may_have(jobs)
        if not notes:
            return []
        pending = await self._stores.database.read(partial(self._signals.pending_work, notes))
        asked = {signal.task for signal in pending}
        self._polls.nothing_for({job: note for job, note in notes.items() if job not in asked})
        return [signal for signal in pending if signal.place > after]

    async def _load(self) -> None:
        """What was pending when the provider began, once."""
        if self._loaded:
            return
        async with self._loading:
            if not self._loaded:
                self._polls.asked(await self._stores.database.read(self._signals.asked_work, thread=True))
                self._loaded = True

    # --- heartbeats --------------------------------------------------------------------------------------------------

    async def list_heartbeats(self, message: ListHeartbeatsRequest) -> ListHeartbeatsResponse:
        """The last signals of those jobs that were heard of lately, with the time of that."""
        now, clock = trio.current_time(), self._options.now()
        heard: dict[str, float] = {}
        for job in _jobs(message.task_ids):
            at = now if self._polls.holds(job) else self._heartbeats.last(job, now)
            if at is not None:
                heard[job] = at
        last = await self._stores.database.read(partial(self._signals.last_work, heard))
        tasks = []
        for job, at in heard.items():
            if (found := last.get(job)) is not None:
                task = Task.parse(found)
                task.heartbeat_at = datetime.fromtimestamp(clock - (now - at), UTC)
                tasks.append(task)
        return ListHeartbeatsResponse(total_count=len(tasks), tasks=tasks)


def _new_signal(index: int, task: Task, now: int) -> NewSignal:
    text(task.task_id, f"tasks[{index}].task_id")
    text(task.action, f"tasks[{index}].action")
    # The digest is of the signal as it came, but for its heartbeat: a job that sends START again to say that it is
    # alive has not started twice. What is told has a date, by which clients of the existing SDK tell signals apart. The
    # request stays as it came: an idempotency key stands for its bytes.
    heartbeat, created = task.heartbeat_at, task.created_at
    task.heartbeat_at = None
    message = bytes(task)
    digest = blake2b(message, digest_size=16).digest()
    if created is None:
        task.created_at = date_of(now)
        message = bytes(task)
    task.heartbeat_at, task.created_at = heartbeat, created
    return NewSignal(task.task_id, task.action, task.cancellation_reason, digest, message)


def _jobs(task_ids: Iterable[str]) -> dict[str, None]:
    jobs = dict.fromkeys(filter(None, task_ids))
    if len(jobs) > JOBS_MAX:
        raise refused("task_ids", f"has {len(jobs)} jobs, {JOBS_MAX} at most can be asked for together")
    return jobs


def _number(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise refused(SIGNALS_AFTER, f"is {text[:40]!r}, it must be the number that {SIGNALS_UPTO} told")
    return int(text)


def _hold_until(now: float, deadline: float) -> float:
    """When a poll is answered at the latest, in seconds of Trio's clock as the two arguments."""
    if deadline == inf:
        return now + HOLD
    left = deadline - now
    return deadline - min(MARGIN, left / 10) - left * ROUNDED


def _fitting(pending: Iterable[Pending]) -> Iterator[Pending]:
    size = 0
    for signal in pending:
        if size > REPLY_MAX:
            return
        size += len(signal.message)
        yield signal
