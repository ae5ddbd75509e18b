"""Signals of all jobs: what jobs report about themselves, and what is asked of them. A job is a task, as on the wire.

A report is a job's own word: it has started, has taken a cancel or a stop to heart, has ended. A request is somebody
else's: `cancel`, or a `stop` that gives no reason. It is pending until its job reports that it ends, so it reaches a
job whose server was away, or which nobody had heard of when the request came. Nothing is ever pending for a job that
has reported an end, whatever comes later: a second `cancel` that crosses the first one's acknowledgement is nobody's.

A `stop` with the reason of a signal is both: who asks may say why, and a job that was asked says so when it has ended.
It is a report if the job has acknowledged before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from .database import Database
from .work import Statement, Work

ENDED_KEPT: Final = 3600 * 1_000_000
"""Microseconds for which signals of an ended job are kept: far longer than a client sends a batch again whose reply was
lost, so that a signal which comes twice is still known."""

IDLE_KEPT: Final = 7 * 24 * ENDED_KEPT
"""Microseconds for which signals of a job are kept of which nothing was heard: it died with its server. A request that
nobody has fetched for a week is nobody's."""

SIGNALS_MAX: Final = 64
"""Reports, and as many requests, that are kept of one job; the oldest go first. A job makes four reports and gets one
or two requests; a client that makes a loop of it must not fill the disk."""

PURGED_AT_ONCE: Final = 500
"""Jobs that are removed in one transaction: some milliseconds for those who write behind it."""

_IN_ONE: Final = 500  # parameters of one IN: engines bound them, the smallest bound is 32,766

# Append only, see `Database.declare`. `place` is the order in which signals came. In `signal_tasks`, `last` is the
# place of the last signal, and `stored` counts all that came.
_SCHEMA: Final = (
    """CREATE TABLE signals (
        place {place},
        task TEXT NOT NULL,
        digest BYTEA NOT NULL,
        request BIGINT NOT NULL,
        message BYTEA NOT NULL,
        UNIQUE (task, digest)
    )""",
    """CREATE TABLE signal_tasks (
        task TEXT NOT NULL PRIMARY KEY,
        asked BIGINT NOT NULL,
        acknowledged BIGINT NOT NULL,
        ended BIGINT NOT NULL,
        stored BIGINT NOT NULL,
        last BIGINT NOT NULL,
        expires BIGINT NOT NULL
    )""",
    "CREATE INDEX signal_tasks_expire ON signal_tasks (expires)",
)
_INSERT: Final = """INSERT INTO signals (task, digest, request, message) VALUES (?, ?, ?, ?)
    ON CONFLICT (task, digest) DO NOTHING RETURNING place"""
_NOTE: Final = """INSERT INTO signal_tasks (task, asked, acknowledged, ended, stored, last, expires)
    VALUES (?, ?, ?, ?, 1, ?, ?) ON CONFLICT (task) DO UPDATE SET
    asked = CASE WHEN excluded.asked = 1 THEN 1 ELSE signal_tasks.asked END,
    acknowledged = CASE WHEN excluded.acknowledged = 1 THEN 1 ELSE signal_tasks.acknowledged END,
    ended = CASE WHEN excluded.ended = 1 THEN 1 ELSE signal_tasks.ended END,
    stored = signal_tasks.stored + 1,
    last = excluded.last,
    expires = CASE WHEN signal_tasks.ended = 1 THEN CAST(? AS BIGINT) ELSE excluded.expires END
    RETURNING stored"""
_ACKNOWLEDGED: Final = "SELECT acknowledged FROM signal_tasks WHERE task = ?"
_TRIM: Final = """DELETE FROM signals WHERE task = ? AND request = ? AND place <= (SELECT place FROM signals
    WHERE task = ? AND request = ? ORDER BY place DESC LIMIT 1 OFFSET ?)"""
_ASKED: Final = "SELECT task FROM signal_tasks WHERE asked = 1 AND ended = 0"
_PENDING: Final = """SELECT s.task, s.place, s.message FROM signals s JOIN signal_tasks t ON t.task = s.task
    WHERE s.request = 1 AND t.ended = 0 AND s.task IN ({marks}) ORDER BY s.place"""
_LAST: Final = """SELECT t.task, s.message FROM signal_tasks t JOIN signals s ON s.place = t.last
    WHERE t.task IN ({marks})"""
_EXPIRED: Final = "SELECT task FROM signal_tasks WHERE expires <= ? ORDER BY expires LIMIT ?"
_PURGE: Final = "DELETE FROM signals WHERE task IN ({marks})"
_PURGE_TASKS: Final = "DELETE FROM signal_tasks WHERE task IN ({marks})"

_ACKNOWLEDGEMENTS: Final = frozenset({"ack_cancel", "ack_stop"})
_NO_REASON: Final = frozenset({"", "none"})
_REASONS_OF_SIGNALS: Final = frozenset({"signal_service_cancel", "signal_service_stop"})


def may_ask(action: str, reason: str) -> bool:
    """Whether a signal may be a request, whatever its job has reported."""
    return action == "cancel" or (action == "stop" and reason in _NO_REASON | _REASONS_OF_SIGNALS)


def asks(action: str, reason: str, *, acknowledged: bool) -> bool:
    """Whether a signal is a request.

    Args:
        action: What the signal says.
        reason: Its `cancellation_reason`.
        acknowledged: Whether its job has acknowledged a cancel or a stop before.
    """
    return may_ask(action, reason) and not (acknowledged and action == "stop" and reason in _REASONS_OF_SIGNALS)


def ends(action: str, reason: str) -> bool:
    """Whether a signal is a report after which nothing is pending for its job, whatever the job has reported before."""
    return action in _ACKNOWLEDGEMENTS or (action == "stop" and not may_ask(action, reason))


@dataclass(frozen=True, slots=True)
class NewSignal:
    """A signal to keep.

    Attributes:
        task: Id of its job.
        action: What it says.
        reason: Its `cancellation_reason`.
        digest: The same for a signal that comes a second time, and for no other of this job.
        message: The signal as it is told.
    """

    task: str
    action: str
    reason: str
    digest: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that its job has not answered; `place` counts up in the order in which requests came."""

    task: str
    place: int
    message: bytes


class SignalStore:
    """Signals in the database. Times are in microseconds since the epoch.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        database.declare("signals", _SCHEMA)

    def __repr__(self) -> str:
        return f"<SignalStore in {self.database!r}>"

    def add_work(self, signals: Iterable[NewSignal], *, now: int) -> Work[None]:
        """Keep signals in their order. One that is there already changes nothing."""
        for signal in signals:
            request = may_ask(signal.action, signal.reason)
            if request and signal.reason in _REASONS_OF_SIGNALS:
                known = (yield Statement(_ACKNOWLEDGED, (signal.task,))).rows
                request = asks(signal.action, signal.reason, acknowledged=bool(known and known[0][0]))
            added = yield Statement(_INSERT, (signal.task, signal.digest, int(request), signal.message))
            if added.rows:
                yield from self._note(signal, request=request, place=added.rows[0][0], now=now)

    def _note(self, signal: NewSignal, *, request: bool, place: int, now: int) -> Work[None]:
        acknowledged = signal.action in _ACKNOWLEDGEMENTS
        ended = acknowledged or (signal.action == "stop" and not request)
        expires = now + (ENDED_KEPT if ended else IDLE_KEPT)
        values = (signal.task, int(request), int(acknowledged), int(ended), place, expires, now + ENDED_KEPT)
        ((stored,),) = (yield Statement(_NOTE, values)).rows
        if stored > SIGNALS_MAX:
            kind = (signal.task, int(request))
            yield Statement(_TRIM, (*kind, *kind, SIGNALS_MAX))

    def asked_work(self) -> Work[list[str]]:
        """Ids of all jobs for which something is pending."""
        return [task for (task,) in (yield Statement(_ASKED)).rows]

    def pending_work(self, tasks: Collection[str]) -> Work[list[Pending]]:
        """What is pending for these jobs, oldest first."""
        found = []
        for some in _batches(tasks):
            rows = (yield _of(_PENDING, some)).rows
            found += [Pending(task, place, bytes(message)) for task, place, message in rows]
        return sorted(found, key=_place)

    def last_work(self, tasks: Collection[str]) -> Work[dict[str, bytes]]:
        """The last signal of each of these jobs that is known."""
        found: dict[str, bytes] = {}
        for some in _batches(tasks):
            found.update((task, bytes(message)) for task, message in (yield _of(_LAST, some)).rows)
        return found

    def purge_work(self, *, now: int) -> Work[list[str]]:
        """Remove some jobs that ended long ago, `PURGED_AT_ONCE` at most; their ids."""
        expired = [task for (task,) in (yield Statement(_EXPIRED, (now, PURGED_AT_ONCE))).rows]
        if expired:
            yield _of(_PURGE, expired)
            yield _of(_PURGE_TASKS, expired)
        return expired


def _batches(tasks: Collection[str]) -> Iterator[list[str]]:
    rest = iter(tasks)
    while some := list(islice(rest, _IN_ONE)):
        yield some


def _of(sql: str, tasks: Sequence[str]) -> Statement:
    return Statement(sql.format(marks=", ".join("?" * len(tasks))), tuple(tasks))


def _place(pending: Pending) -> int:
    return pending.place
