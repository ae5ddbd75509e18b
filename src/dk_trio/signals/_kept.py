"""Signals that wait to be sent, without I/O: their order, what of them collapses, which go when it is too many.

In the order of publication. Of one job there is at most one signal of each kind (its start, its latest acknowledgement,
the latest request to it, its stop): a newer one takes the place of an older that still waits, at the end, since it is
what has been said last. So what waits is bounded by the number of jobs, however often each of them speaks.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import trio

from dk_trio.errors import TaskManagerServiceError

from ._signal import NO_REASON, Signal, SignalAction


class Kind(enum.IntEnum):
    """What a signal is to its job."""

    START = 0
    ACKNOWLEDGEMENT = 1
    REQUEST = 2
    """That the job shall end, from whoever it is."""
    STOP = 3
    """That the job has ended."""


_KINDS: Final = {
    SignalAction.START: Kind.START,
    SignalAction.ACK_START: Kind.ACKNOWLEDGEMENT,
    SignalAction.ACK_CANCEL: Kind.ACKNOWLEDGEMENT,
    SignalAction.ACK_STOP: Kind.ACKNOWLEDGEMENT,
    SignalAction.CANCEL: Kind.REQUEST,
}


def kind_of(signal: Signal) -> Kind:
    """A `stop` with a reason tells of an end, one without asks for it."""
    kind = _KINDS.get(signal.action)
    if kind is None:
        kind = Kind.STOP if signal.cancellation_reason not in {NO_REASON, ""} else Kind.REQUEST
    return kind


Failure: TypeAlias = Callable[[], TaskManagerServiceError]
"""Makes the error that one of those who wait raises: each its own, as each adds its traceback."""


class Delivery:
    """What becomes of one signal, for one who waits to know."""

    __slots__ = ("abandoned", "failure", "settled")

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.failure: Failure | None = None
        self.abandoned = False
        """Nobody waits any more."""


class Entry:
    """One signal that is kept."""

    __slots__ = ("before", "deliveries", "refusals", "refused_at", "signal", "since")

    def __init__(self, signal: Signal, since: float) -> None:
        self.signal = signal
        self.since = since
        """When it began to wait, `trio.current_time`; that of the signal in whose place it came, if there was one."""
        self.deliveries: list[Delivery] = []
        self.refusals = 0
        """How often the provider has refused it alone while it took others."""
        self.refused_at = -1
        """How many batches had been taken when that was last counted; -1 while it was not refused at all."""
        self.before = (0, 0)
        """How many batches had been taken, and how many calls had failed, when it was first refused."""

    def __repr__(self) -> str:
        return f"<Entry {self.signal.action} of {self.signal.task_id}>"

    def settle(self, failure: Failure | None) -> None:
        """Tell those who wait."""
        for delivery in self.deliveries:
            delivery.failure = failure
            delivery.settled.set()
        self.deliveries = []


class KeptSignals:
    """The signals that wait."""

    def __init__(self) -> None:
        self._order: OrderedDict[Entry, None] = OrderedDict()
        self._tasks: dict[str, dict[Kind, Entry]] = {}  # of each job in order of publication
        self._ended: OrderedDict[str, None] = OrderedDict()  # jobs whose signals may be dropped, oldest first
        self._unheard: OrderedDict[str, None] = OrderedDict()  # those of them whose start waits, too
        self.collapsed = 0

    def __repr__(self) -> str:
        return f"<KeptSignals {len(self._order)} of {len(self._tasks)} jobs>"

    def __len__(self) -> int:
        return len(self._order)

    @property
    def tasks(self) -> int:
        """Jobs of which a signal waits."""
        return len(self._tasks)

    @property
    def since(self) -> float:
        """When the first of them began to wait. There must be one."""
        return next(iter(self._order)).since

    def ids(self) -> list[str]:
        """The jobs of which a signal waits."""
        return list(self._tasks)

    def put(self, signal: Signal, now: float) -> Entry:
        """Add a signal at the end."""
        entry = Entry(signal, now)
        kind = kind_of(signal)
        kinds = self._tasks.setdefault(signal.task_id, {})
        older = kinds.pop(kind, None)
        if older is not None:
            del self._order[older]
            self._supersede(older, entry)
            entry.since = older.since
        kinds[kind] = entry
        self._order[entry] = None
        self._classify(signal.task_id)
        return entry

    def take(self, limit: int) -> list[Entry]:
        """Remove the first ones, and return them."""
        taken = []
        for _ in range(min(limit, len(self._order))):
            entry, _ = self._order.popitem(last=False)
            self._forget(entry)
            taken.append(entry)
        return taken

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Put what was taken where it was, in front of all others. What has been said anew meanwhile stays as it is."""
        for entry in reversed(list(entries)):
            task_id = entry.signal.task_id
            kind = kind_of(entry.signal)
            kinds = self._tasks.setdefault(task_id, {})
            newer = kinds.get(kind)
            if newer is not None:
                self._supersede(entry, newer)
                continue
            self._tasks[task_id] = {kind: entry, **kinds}
            self._order[entry] = None
            self._order.move_to_end(entry, last=False)
            new = [jobs for jobs in (self._ended, self._unheard) if task_id not in jobs]
            self._classify(task_id)
            for jobs in new:
                if task_id in jobs:  # it has ended before those that came meanwhile
                    jobs.move_to_end(task_id, last=False)

    def move_back(self, task_id: str) -> None:
        """Let all others go before the signals of one job."""
        for entry in self._tasks.get(task_id, {}).values():
            self._order.move_to_end(entry)

    def drop_ended(self) -> list[Entry]:
        """Remove the signals of one job that has ended, and return them; none when all jobs run.

        A job whose start still waits goes before all others: the provider has never heard of it, and would take one
        whose start it has for running for ever. Otherwise the job that has ended first goes. A job of which only
        requests wait counts as ended: it is not known to run here.
        """
        task_id = next(iter(self._unheard or self._ended), None)
        if task_id is None:
            return []
        dropped = list(self._tasks[task_id].values())
        for entry in dropped:
            del self._order[entry]
            self._forget(entry)
        return dropped

    def _supersede(self, older: Entry, newer: Entry) -> None:
        """Who waits for the older one learns what becomes of the newer."""
        self.collapsed += 1
        waiting = [delivery for delivery in older.deliveries if not delivery.abandoned]
        newer.deliveries = waiting + newer.deliveries

    def _forget(self, entry: Entry) -> None:
        task_id = entry.signal.task_id
        kinds = self._tasks[task_id]
        del kinds[kind_of(entry.signal)]
        if not kinds:
            del self._tasks[task_id]
        self._classify(task_id)

    def _classify(self, task_id: str) -> None:
        kinds = self._tasks.get(task_id, {})
        ended = bool(kinds) and (Kind.STOP in kinds or kinds.keys() == {Kind.REQUEST})
        for jobs, belongs in ((self._ended, ended), (self._unheard, ended and Kind.START in kinds)):
            if belongs:
                jobs.setdefault(task_id)
            else:
                jobs.pop(task_id, None)
