"""Signals on their way out: batched, sent in order, kept through outages.

Theory of operation
-------------------
`publish` puts a signal into memory and returns. One task, `run`, takes the first `max_batch_size` that wait, once there
are so many or the oldest has waited for `flush_interval`, and sends them with one SendSignals; only when it is settled
what has become of these does it take the next. So there is one call at a time, and signals arrive in the order in which
they were published, those of one job above all.

What becomes of a batch is decided by how its call fails:

- UNAVAILABLE, DEADLINE_EXCEEDED: an outage. After `send_retries` retries it is told once, and the same batch, with the
  same idempotency key, is tried again after pauses that grow up to `PAUSE_MAX`. Jobs do not notice. Of a batch that ran
  into its deadline it is the first half, under a key of its own: the provider may have no time for more.
- UNIMPLEMENTED, UNAUTHENTICATED: the same, without retries: it is about the provider or about us, not about a signal.
- INVALID_ARGUMENT and the like: one of the signals is poison. They are put back and tried again at once, half as many;
  whatever is refused alone is dropped and told, and each success doubles the number again.
- Anything else, `success=false` too, may be either: as before, but with pauses, and a signal is dropped only when it
  was refused alone so often while others were taken that chance is no explanation. A provider that refuses everybody,
  or half of all calls whatever is in them, loses nothing.
- `grpc-retry-pushback-ms`, or a google.rpc.RetryInfo, is obeyed in all of them.

Half of a batch is a call with a key of its own, so what the provider had taken of the whole, while the reply was lost,
comes again, and after it all that the same jobs have said since. Ours knows each signal again. One that does not sees a
job go back for a moment, and end where it has ended.

What waits is bounded: of each job by `KeptSignals`, and by `max_tasks` jobs. Above that the signals of a job that has
ended are dropped, counted and told: of one whose start waits, too, or else of the one that ended first. Those of
running jobs never are.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final

import trio
from grpclib.const import Status

from dk_trio import buggify, chance
from dk_trio.errors import TaskManagerServiceError
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest
from dk_trio.settings import SignalSettings

from ._calls import PUSHBACK_MAX, CallError, Calls, Encoded
from ._kept import Delivery, Entry, Failure, KeptSignals
from ._path import Path
from ._signal import Signal
from ._tasks import to_task

if TYPE_CHECKING:
    from tenacity import RetryCallState

_log = logging.getLogger("dk_trio.signals")

MAX_TASKS: Final = 10_000
"""Jobs whose signals are kept through an outage, by default: 10 minutes of 16 jobs per second, in about 30 MB."""

PAUSE_MIN: Final = 0.1
"""Seconds; what pauses begin with at least, for a `send_backoff` of 0 must not mean calls without a pause."""

PAUSE_MAX: Final = 5.0
"""Seconds that no pause exceeds: so long may a provider be back before it is noticed, if no new connection tells it."""

PAUSE_CLOSING: Final = 0.25
"""The same while the exchange closes and has little time left."""

JITTER: Final = 0.5
"""Share by which a delay may be longer (seed: 0 to 50 %)."""

IDS_TOLD: Final = 20
"""Jobs that one line of the log names."""

RETRIED: Final = frozenset({Status.DEADLINE_EXCEEDED, Status.UNAVAILABLE, Status.INTERNAL})
"""What layer C retries (tuning guide)."""

_KEPT: Final = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.UNIMPLEMENTED, Status.UNAUTHENTICATED})
_POISON: Final = frozenset(
    {
        Status.INVALID_ARGUMENT,
        Status.FAILED_PRECONDITION,
        Status.OUT_OF_RANGE,
        Status.NOT_FOUND,
        Status.ALREADY_EXISTS,
    }
)
_WAITERS_TOLD: Final = frozenset({Status.UNIMPLEMENTED, Status.UNAUTHENTICATED, Status.PERMISSION_DENIED})
_OVERLOADED: Final = frozenset({Status.RESOURCE_EXHAUSTED})
"""What may mean that a batch is too large, but also that there are too many calls."""

CHANCE: Final = 1e-6
"""With which probability a signal may be dropped that was refused by chance, by a provider that fails now and then."""

_REMEDIES: Final = {
    Status.UNAVAILABLE: "Check that the services-provider runs and that DIGITALKIN_PROVIDER names it.",
    Status.DEADLINE_EXCEEDED: "The services-provider is slow or hangs; DIGITALKIN_GRPC_TIMEOUT says how long it may.",
    Status.UNIMPLEMENTED: "What DIGITALKIN_PROVIDER names does not serve TaskManagerService.",
    Status.UNAUTHENTICATED: "Check the credentials of the channel to the services-provider.",
    Status.PERMISSION_DENIED: "Check what the services-provider allows this server.",
}
_REMEDY: Final = "Look into the log of the services-provider."


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundStatistics:
    """What went out.

    Attributes:
        pending: Signals that wait or are being sent.
        pending_tasks: Jobs that they are of.
        delivered: Signals that the provider has taken.
        batches: SendSignals that ended well.
        calls: SendSignals in all.
        collapsed: Signals in whose place a newer one of the same job was sent.
        refused: Signals that were dropped because the provider refused them.
        lost: Signals that were given up: too many waited, or the exchange was closed.
        outages: Times at which signals ceased to get through.
    """

    pending: int
    pending_tasks: int
    delivered: int
    batches: int
    calls: int
    collapsed: int
    refused: int
    lost: int
    outages: int


class _Batch:
    __slots__ = ("entries", "key", "request")

    def __init__(self, entries: list[Entry], request: Encoded) -> None:
        self.entries = entries
        self.request = request
        self.key = str(chance.new_uuid())


class Outbox:
    """Sends signals in its own time; `run` does so.

    Args:
        calls: To the provider.
        settings: Sizes and times.
        random: Source of jitter.
        max_tasks: Jobs whose signals are kept.
    """

    def __init__(self, calls: Calls, settings: SignalSettings, *, random: Random, max_tasks: int = MAX_TASKS) -> None:
        self.path = Path()
        self._calls = calls
        self._settings = settings
        self._random = random
        self._max_tasks = max_tasks
        self._kept = KeptSignals()
        self._batch: _Batch | None = None
        self._size = settings.max_batch_size  # of the next batch
        self._ceiling = self._size  # that the provider has time for; rises with each success
        self._failures = 0  # in a row, since the last success
        self._bad = 0  # calls in all that failed, other than because of a signal for sure
        self._wake = trio.Event()
        self._closing = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._over = False
        self._delivered = self._batches = self._made = self._refused = self._lost = 0
        self._lost_before = 0  # the present outage

    def __repr__(self) -> str:
        return f"<Outbox {self.pending} pending, {self.path!r}>"

    @property
    def pending(self) -> int:
        """Signals that wait or are being sent."""
        return len(self._kept) + (0 if self._batch is None else len(self._batch.entries))

    def statistics(self) -> OutboundStatistics:
        """How it stands now."""
        tasks = {entry.signal.task_id for entry in self._batch.entries} if self._batch is not None else set()
        return OutboundStatistics(
            pending=self.pending,
            pending_tasks=len(tasks.union(self._kept.ids())),
            delivered=self._delivered,
            batches=self._batches,
            calls=self._made,
            collapsed=self._kept.collapsed,
            refused=self._refused,
            lost=self._lost,
            outages=self.path.outages,
        )

    def publish(self, signal: Signal) -> None:
        """Send a signal soon. Does not wait, and does not raise."""
        self._put(signal, None)

    async def deliver(self, signal: Signal) -> None:
        """Send a signal, and wait until the provider has taken it.

        In an outage this waits for its end: put it into `trio.move_on_after` to wait for less.

        Raises:
            TaskManagerServiceError: It was refused, or given up. With UNIMPLEMENTED, UNAUTHENTICATED and
                PERMISSION_DENIED it is kept all the same, as what is published, and sent should that change.

        Cancellation:
            Nobody waits any more; the signal is sent as what is published.
        """
        delivery = Delivery()
        self._put(signal, delivery)
        try:
            await delivery.settled.wait()
        finally:
            delivery.abandoned = True
        if delivery.failure is not None:
            raise delivery.failure()

    def _put(self, signal: Signal, delivery: Delivery | None) -> None:
        kept = self._kept
        first = not kept
        entry = kept.put(signal, trio.current_time())
        if delivery is not None:
            entry.deliveries.append(delivery)
        if self._over:
            self._give_up(kept.take(len(kept)), "it came after the exchange was closed", Status.UNAVAILABLE)
            return
        if kept.tasks > self._max_tasks:
            self._make_room()
        if first or len(kept) >= self._size:
            self._wake.set()

    # -- the task -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send, until `close`.

        Cancellation:
            Shielded: what is cancelled around it is what signals tell of. Whoever runs it calls `close`, which bounds
            the rest of its life.
        """
        try:
            with self._scope:
                while await self._due():
                    await self._flush()
        finally:  # also after a defect: nobody may wait for ever
            self._over = True
            entries = [] if self._batch is None else self._batch.entries
            self._batch = None
            left = [*entries, *self._kept.take(len(self._kept))]
            self._give_up(left, "the exchange was closed before the services-provider took it", Status.UNAVAILABLE)

    def close(self, timeout: float) -> None:
        """Send what waits, without waiting for more, and end `run`, after `timeout` seconds in any case."""
        self._scope.deadline = trio.current_time() + timeout
        self._closing.set()
        self._wake.set()

    async def _due(self) -> bool:
        """Wait until a batch is due; False when there will be none any more."""
        kept = self._kept
        while self._batch is None:
            if self._closing.is_set():
                return len(kept) > 0
            due = kept.since + self._settings.flush_interval if kept else inf
            if len(kept) >= self._size or due <= trio.current_time():
                return True
            self._wake = trio.Event()
            with trio.move_on_at(due):
                await self._wake.wait()
        return True

    async def _flush(self) -> None:
        """Send the batch, and settle it or pause."""
        batch = self._batch = self._batch or self._next_batch()
        if batch is None:
            return
        error = await self._attempt(batch)
        if error is None:
            self._succeeded(batch)
        elif error.status in _POISON and error.pushback is None:
            self._works()
            self._divide(batch, error)
        else:
            self._bad += 1
            await self._doubtful(batch, error)

    async def _doubtful(self, batch: _Batch, error: CallError) -> None:
        """A call failed, perhaps because of one of its signals, perhaps of all of them: find out, and pause."""
        status, obeyed = error.status, error.pushback is not None
        if status in _WAITERS_TOLD:
            self._tell(batch.entries, error)
        may_be_one = status not in _KEPT
        at_once = may_be_one and len(batch.entries) > 1 and not obeyed and status not in _OVERLOADED
        if may_be_one and self._divide(batch, error) and not obeyed:
            self._works()  # others were taken
            return
        if at_once and status not in RETRIED:
            return
        if status is Status.DEADLINE_EXCEEDED and len(batch.entries) > 1:
            self._halve(batch)
            self._ceiling = self._size
        self.path.fails(str(error), self._outage(error))
        if not at_once:
            self._failures += 1
            closing = self._closing.is_set()
            await self._calls.pause(self._pause(error), trio.Event() if closing else self._closing, away=not closing)

    def _next_batch(self) -> _Batch | None:
        entries = self._kept.take(min(self._size, self._settings.max_batch_size))
        try:
            request = SendSignalsRequest(tasks=[to_task(entry.signal) for entry in entries])
            return _Batch(entries, Encoded(request.SerializeToString()))
        except Exception:  # noqa: BLE001  boundary: see `_encodes`
            good = [entry for entry in entries if self._encodes(entry)]
        self._kept.put_back(good)
        return None

    def _encodes(self, entry: Entry) -> bool:
        try:
            to_task(entry.signal).SerializeToString()
        except Exception as error:  # noqa: BLE001  boundary: a payload may be anything, and raise whatever it likes
            self._refuse(entry, f"it cannot be sent: {error}", Status.INVALID_ARGUMENT)
            return False
        return True

    async def _attempt(self, batch: _Batch) -> CallError | None:
        """Send a batch: once while signals do not get through, otherwise with the retries of layer C."""
        error = await self._call(batch)
        retries = self._settings.send_retries
        if not _transient(error) or not self.path.ok or not retries:
            return error
        # Built only now: tenacity's way to a success costs 24 µs, and it brings asyncio along.
        from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt

        await trio.sleep(self._backoff(0, error))
        retrying = AsyncRetrying(
            sleep=trio.sleep,
            stop=stop_after_attempt(retries),
            wait=self._wait,
            retry=retry_if_result(_transient),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        last: CallError | None = await retrying(self._call, batch)
        return last

    async def _call(self, batch: _Batch) -> CallError | None:
        self._made += 1
        await buggify.at("signals.flush")
        try:
            reply = await self._calls.send(batch.request, key=batch.key, timeout=self._settings.send_timeout)
        except CallError as error:
            return error
        await buggify.at("signals.flushed")
        return None if reply.success else CallError(Status.UNKNOWN, "success=false")

    def _backoff(self, retry: int, error: CallError | None) -> float:
        if error is not None and error.pushback is not None:
            return min(error.pushback, PUSHBACK_MAX)
        base: float = self._settings.send_backoff * 2.0 ** min(retry, 20)
        return base * (1 + JITTER * self._random.random())

    def _wait(self, state: RetryCallState) -> float:
        error: CallError | None = state.outcome.result() if state.outcome is not None else None
        return self._backoff(state.attempt_number, error)

    def _pause(self, error: CallError) -> float:
        if self._closing.is_set():
            return PAUSE_CLOSING
        if error.pushback is not None and error.pushback >= 0:
            return max(PAUSE_MIN, min(error.pushback, PUSHBACK_MAX))
        pause = min(PAUSE_MAX, max(PAUSE_MIN, self._settings.send_backoff) * 2.0 ** min(self._failures, 20))
        return pause * (1 - JITTER * self._random.random())  # shorter, for the longest is the longest

    # -- what becomes of signals --------------------------------------------------------------------------------------

    def _succeeded(self, batch: _Batch) -> None:
        self._batch = None
        self._failures = 0
        self._ceiling = min(self._settings.max_batch_size, self._ceiling + self._ceiling // 4 + 1)
        self._size = min(self._ceiling, self._size * 2)
        self._batches += 1
        self._delivered += len(batch.entries)
        for entry in batch.entries:
            entry.settle(None)
        self._works()

    def _works(self) -> None:
        lost = self._lost - self._lost_before
        self._lost_before = self._lost
        and_lost = f", {lost} were lost meanwhile" if lost else ""
        self.path.works(f"the services-provider answers signals again: {self.pending} wait{and_lost}; it did not for")

    def _divide(self, batch: _Batch, error: CallError) -> bool:
        """A batch was refused: find out which of its signals it is because of. Whether it was found, and dropped."""
        entries = batch.entries
        for entry in entries:
            if entry.refused_at < 0:
                entry.refused_at, entry.before = self._batches, (self._batches, self._bad)
        if len(entries) == 1:
            entry = entries[0]
            if error.status in _POISON or self._hopeless(entry):
                self._batch = None
                self._refuse(entry, str(error), error.status)
                return True
        self._halve(batch)
        if len(entries) == 1:
            self._kept.move_back(entries[0].signal.task_id)
        return False

    def _halve(self, batch: _Batch) -> None:
        self._batch = None
        self._size = max(1, len(batch.entries) // 2)
        self._kept.put_back(batch.entries)
        self._make_room()

    def _hopeless(self, entry: Entry) -> bool:
        """Whether a signal was refused alone so often, while others were taken, that it must be the signal."""
        if entry.refused_at == self._batches:  # nothing was taken since: it says nothing about this signal
            return False
        entry.refused_at = self._batches
        entry.refusals += 1
        good = self._batches - entry.before[0]
        bad = self._bad - entry.before[1] - entry.refusals  # of others; a few too many, which is the safe side
        failing = (bad + 1) / (good + bad + 2)
        return bool(failing**entry.refusals < CHANCE)

    def _refuse(self, entry: Entry, why: str, status: Status) -> None:
        signal = entry.signal
        self._refused += 1
        _log.error("the %s signal of job %s is dropped, it was refused: %s", signal.action, signal.task_id, why)
        text = f"The {signal.action} signal of job {signal.task_id} was refused: {why}."
        entry.settle(lambda: TaskManagerServiceError(text, status=status))

    def _tell(self, entries: list[Entry], error: CallError) -> None:
        """Let nobody wait for an answer that has come; the signals are kept."""
        text = f"The services-provider takes no signals: {error}."
        hint = _REMEDIES.get(error.status, _REMEDY)
        for entry in entries:
            entry.settle(lambda: TaskManagerServiceError(text, hint=hint, status=error.status))

    def _make_room(self) -> None:
        kept = self._kept
        while kept.tasks > self._max_tasks:
            dropped = kept.drop_ended()
            if not dropped:  # all of them run, and jobs that run are bounded by admission
                return
            why = f"signals of more than {self._max_tasks} jobs wait, and those of ended jobs are dropped"
            first = self._lost == self._lost_before
            self._give_up(dropped, why, Status.RESOURCE_EXHAUSTED, tell=first)

    def _give_up(self, entries: list[Entry], why: str, status: Status, *, tell: bool = True) -> None:
        if not entries:
            return
        self._lost += len(entries)
        ids = list(dict.fromkeys(entry.signal.task_id for entry in entries))
        named = ", ".join(ids[:IDS_TOLD]) + (f" and {len(ids) - IDS_TOLD} more" if len(ids) > IDS_TOLD else "")
        if tell:
            signals, are = ("1 signal", "is") if len(entries) == 1 else (f"{len(entries)} signals", "are")
            jobs = "1 job" if len(ids) == 1 else f"{len(ids)} jobs"
            _log.error("%s of %s (%s) %s lost: %s", signals, jobs, named, are, why)
        for entry in entries:
            entry.settle(_lost(entry.signal, why, status))

    def _outage(self, error: CallError) -> str:
        remedy = _REMEDIES.get(error.status, _REMEDY)
        return (
            f"the services-provider {self._calls.target} takes no signals ({error}): {self.pending} are kept "
            f"and tried again until it does; jobs go on. {remedy}"
        )


def _transient(error: CallError | None) -> bool:
    """Whether a retry is worth it, and the server has not said that it is not."""
    return error is not None and error.status in RETRIED and (error.pushback is None or error.pushback >= 0)


def _lost(signal: Signal, why: str, status: Status) -> Failure:
    text = f"The {signal.action} signal of job {signal.task_id} is lost: {why}."
    return lambda: TaskManagerServiceError(text, status=status)
