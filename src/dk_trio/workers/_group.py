"""The parent of several workers: accepts connections, hands each to the least loaded worker, keeps the workers alive.

What it guarantees. A connection that a worker has not taken goes to another one when that worker dies, and nothing is
accepted while nobody could serve it: it waits in the system's queue. A worker that dies is replaced, at once the first
time, then after pauses that grow to `RESTARTS.maximum`; its share goes to the others meanwhile. A worker that says
nothing gets no connections, and is killed when it stays so. A drain reaches all workers at the same time, and ends.

It runs nothing of the module's, so nothing of the module's can hold it up; and it waits for no worker, whatever that
does with its sockets (`Control.offer`).
"""

from __future__ import annotations

import errno
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from dk_trio.boundary import unwrapped
from dk_trio.rpc.backoff import Backoff, BackoffPolicy

from ._questions import Questions
from ._share import SILENT_AFTER, least_loaded
from ._worker import Child, Worker

_log = logging.getLogger("dk_trio.workers")

RESTARTS: Final = BackoffPolicy(initial=0.5, maximum=30.0, minimum=0.0, multiplier=2.0, jitter=0.2)
"""From the start of a worker that has failed to the start of the next. One that ran for longer is replaced at once."""
STEADY_AFTER: Final = 60.0
"""Seconds of service after which a worker's end is the first again, and not one more of a row."""
KILL_AFTER: Final = 60.0
"""Seconds of silence after which a worker is ended: whoever waits for it has given up, and a loop that an author has
blocked for a minute does not come back."""
WATCH_EVERY: Final = 0.5

FULL_PAUSES: Final = (0.1, 1.0)
"""First and longest pause, in seconds, while the system has no room for another connection."""

_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Where connections come from."""

    async def accept(self) -> T_co:
        """The next one. Raises OSError when there is no room for it."""
        ...

    async def aclose(self) -> None:
        """Take no more."""
        ...


class WorkerStartError(Exception):
    """A worker has ended before all were ready.

    Attributes:
        text: Why, in one paragraph.
        exit_code: The worker's.
    """

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.text = text
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """How workers have ended.

    Attributes:
        finished: Jobs that ended by themselves while draining.
        cut: Jobs that were cancelled.
        exit_codes: Of the workers that were there when the drain began, other than those it killed at once because they
            had not begun to serve.
        killed: Workers that did not end in time.
    """

    finished: int
    cut: int
    exit_codes: Sequence[int]
    killed: int


class _Place(Generic[T]):
    """The place of one worker among the others, which its successors take."""

    def __init__(self, number: int, random: Random) -> None:
        self.number = number
        self.backoff = Backoff(RESTARTS, random)
        self.worker: Worker[T]
        self.started_at = 0.0
        self.renew = trio.Event()
        """Its worker is to be replaced, although it is well."""
        self.renewed = trio.Event()
        """That was tried."""
        self.retired: Worker[T] | None = None
        """The predecessor, when it worked."""

    def ask_renewal(self) -> None:
        """Replace the worker; `renewed` tells when that was tried."""
        self.renewed, self.retired = trio.Event(), None
        self.renew.set()


class WorkerGroup(Generic[T]):
    """Runs workers.

    Args:
        count: How many.
        start: Starts the process of the worker with this number.
        drain_within: Seconds that a drain may take before workers are killed, and again as many after it was hastened.
        grace: Seconds of `drain_within` that a second signal saves.
        close: Closes the parent's end of a connection. Must not wait.
        random: For the jitter of restarts.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int], Awaitable[Child[T]]],
        *,
        drain_within: float,
        grace: float,
        close: Callable[[T], object],
        random: Random | None = None,
    ) -> None:
        random = random or Random()  # noqa: S311  spreads restarts, keeps no secret
        self._places: list[_Place[T]] = [_Place(number, random) for number in range(count)]
        self._start_child = start
        self._drain_within = drain_within
        self._grace = grace
        self._close = close
        self._alive: dict[Worker[T], None] = {}
        self._order = 0
        self._room = trio.Event()
        self._roll = trio.Event()
        self._stopping = trio.Event()
        self._hurry = trio.Event()
        self._questions: Questions[T]
        self._nursery: trio.Nursery

    def __repr__(self) -> str:
        return f"<WorkerGroup {', '.join(f'{worker}: {worker.state}' for worker in self._alive) or 'not running'}>"

    async def run(
        self, sources: Sequence[Source[T]], *, orders: AsyncIterator[int], on_ready: Callable[[], object]
    ) -> GroupReport:
        """Serve until ordered to stop, then drain.

        Args:
            sources: Where connections come from. They are closed.
            orders: Numbers of signals as they come: SIGHUP replaces all workers one after the other, the first of any
                other drains, the next hastens the drain.
            on_ready: Called once, when all workers are ready.

        Raises:
            WorkerStartError: A worker has ended before all were ready. None is left.
        """
        async with unwrapped(), trio.open_nursery() as nursery:
            self._nursery = nursery
            self._questions = Questions(nursery, lambda: [worker for worker in self._alive if worker.ready.is_set()])
            nursery.start_soon(self._obey, orders)
            accepting = trio.CancelScope()
            try:
                await self._start_all()
                if not self._stopping.is_set():
                    on_ready()
                    nursery.start_soon(self._serve, sources, accepting)
                await self._stopping.wait()
                accepting.cancel()
            finally:
                with trio.CancelScope(shield=True):  # it closes sockets, and waits for nobody
                    for source in sources:
                        await source.aclose()
            report = await self._drain()
            nursery.cancel_scope.cancel()
        return report

    async def _obey(self, orders: AsyncIterator[int]) -> None:
        async for number in orders:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                if not self._stopping.is_set():
                    _log.info("%s: replacing the workers, one after the other", name)
                    self._roll.set()
            elif self._stopping.is_set():
                _log.warning("%s again: cancelling", name)
                self._hurry.set()
            else:
                _log.info("%s: draining %d workers, their jobs get %g s", name, len(self._alive), self._grace)
                self._stopping.set()

    # --- starting ----------------------------------------------------------------------------------------------------

    async def _start(self, place: _Place[T]) -> Worker[T] | None:
        """A process that has begun to start; None when the system has no room for it."""
        place.started_at = trio.current_time()
        try:
            child = await self._start_child(place.number)
        except OSError as error:
            _log.error("no process can be started for worker %d: %s", place.number, error)
            return None
        worker = Worker(place.number, child, self)
        self._alive[worker] = None
        self._nursery.start_soon(self._run_worker, worker)
        return worker

    async def _run_worker(self, worker: Worker[T]) -> None:
        try:
            await worker.run()
        finally:
            del self._alive[worker]
            self.changed()

    async def _start_all(self) -> None:
        """All workers at the same time. Returns when they are ready, or everything is to stop."""
        failed: list[WorkerStartError] = []
        ready = trio.Event()

        async def start(place: _Place[T]) -> None:
            worker = await self._start(place)
            if worker is None:
                failed.append(WorkerStartError("No process can be started for a worker.", 1))
            else:
                place.worker = worker
                await either(worker.ready, worker.ended)
                if not worker.ready.is_set():
                    failed.append(_start_error(worker))
            if failed:
                ready.set()

        async def start_each() -> None:
            async with trio.open_nursery() as nursery:
                for place in self._places:
                    nursery.start_soon(start, place)
            ready.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_each)
            await either(ready, self._stopping)
            nursery.cancel_scope.cancel()
        if failed and not self._stopping.is_set():
            raise failed[0]

    # --- serving -----------------------------------------------------------------------------------------------------

    async def _serve(self, sources: Sequence[Source[T]], accepting: trio.CancelScope) -> None:
        with accepting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                nursery.start_soon(self._replace_all)
                for place in self._places:
                    nursery.start_soon(self._keep, place)
                for source in sources:
                    nursery.start_soon(self._accept, source)

    async def _accept(self, source: Source[T]) -> None:
        pause, longest = FULL_PAUSES
        full = False
        while True:
            while self._next() is None:
                await self._room.wait()
            try:
                connection = await source.accept()
            except OSError as error:
                if not full:
                    why = error.strerror or error
                    hint = "raise ulimit -n" if error.errno in _FULL else "it is tried again"
                    _log.error("no connection can be accepted: %s; %s", why, hint)
                full = True
                await trio.sleep(pause)
                pause = min(pause * 2, longest)
                continue
            if full:
                _log.info("connections are accepted again")
                pause, full = FULL_PAUSES[0], False
            await self._hand(connection)

    def _next(self) -> Worker[T] | None:
        """Who gets the next connection."""
        return least_loaded(self._alive, trio.current_time())

    async def _hand(self, connection: T) -> None:
        """Give a connection to whoever takes it. When nobody does before the drain, it is closed."""
        given = False
        try:
            while not (given or self._stopping.is_set()):
                worker = self._next()
                if worker is None:
                    await either(self._room, self._stopping)
                else:
                    self._order += 1
                    given = worker.give(connection, self._order)
        finally:
            if not given:
                self._close(connection)

    async def _watch(self) -> None:
        """Tell of workers that have fallen silent, and end those that stay so."""
        while True:
            due = trio.current_time() + WATCH_EVERY
            await trio.sleep_until(due)
            now = trio.current_time()
            for worker in self._alive:
                if not worker.ready.is_set():
                    continue
                if now - due > WATCH_EVERY:  # it was this process that was stopped: what was said waits to be read
                    worker.share.heard_at += now - due
                if now - worker.share.heard_at > KILL_AFTER:
                    _log.error("worker %s has said nothing for %g s: it is killed", worker, KILL_AFTER)
                    worker.child.kill()
                    worker.share.heard_at = now  # said once
                elif worker.share.silent(now) and not worker.told_silent:
                    worker.told_silent = True
                    _log.warning(
                        "worker %s has said nothing for %g s: it is stopped, or code of a module blocks its loop. It "
                        "gets no connections; after %g s it is killed",
                        worker,
                        SILENT_AFTER,
                        KILL_AFTER,
                    )
                elif worker.told_silent and not worker.share.silent(now):
                    worker.told_silent = False
                    _log.info("worker %s answers again", worker)

    # --- keeping workers alive ---------------------------------------------------------------------------------------

    async def _keep(self, place: _Place[T]) -> None:
        """There is a worker in this place."""
        while True:
            await either(place.worker.ended, place.renew)
            if place.worker.ended.is_set():
                await self._replace_dead(place)
            else:
                await self._replace_living(place)

    async def _replace_dead(self, place: _Place[T]) -> None:
        while True:
            worker = place.worker
            now = trio.current_time()
            if worker.ready.is_set() and now - place.started_at > STEADY_AFTER:
                place.backoff.succeeded()
            pause = max(0.0, place.started_at + place.backoff.failed() - now)
            again = f", for the {place.backoff.failures}. time in a row" if place.backoff.failures > 1 else ""
            _log.error("%s%s; another one starts %s", _end_of(worker), again, f"in {pause:.1f} s" if pause else "now")
            await trio.sleep(pause)
            successor = await self._start(place)
            if successor is None:
                continue
            place.worker = successor
            await either(successor.ready, successor.ended)
            if successor.ready.is_set():
                _log.info("worker %s serves", successor)
                return

    async def _replace_living(self, place: _Place[T]) -> None:
        """Start a successor, and let the worker go when that is ready. A successor that fails changes nothing."""
        old = place.worker
        successor = await self._start(place)
        if successor is not None:
            await either(successor.ready, successor.ended)
            if successor.ready.is_set():
                _log.info("worker %s serves, in place of %s", successor, old)
                place.worker, place.retired = successor, old
                old.drain(everybody=False)
            else:
                _log.error("%s; worker %s stays", _end_of(successor), old)
        place.renew = trio.Event()
        place.renewed.set()

    async def _replace_all(self) -> None:
        """One after the other, whenever asked to. The first that cannot be replaced ends it: the others work."""
        while True:
            await self._roll.wait()
            self._roll = trio.Event()
            for place in self._places:
                place.ask_renewal()
                await place.renewed.wait()
                old = place.retired
                if old is None:
                    _log.error("the workers from %d on were not replaced", place.number)
                    break
                with trio.move_on_after(self._drain_within):
                    await old.ended.wait()
                if not old.ended.is_set():
                    _log.error("worker %s did not end within %g s: it is killed", old, self._drain_within)
                    old.child.kill()
            else:
                _log.info("all workers were replaced")

    # --- stopping ----------------------------------------------------------------------------------------------------

    async def _drain(self) -> GroupReport:
        workers = [*self._alive]
        began = [worker for worker in workers if worker.ready.is_set()]
        for worker in workers:
            worker.drain(everybody=True)
        killed = 0
        with trio.move_on_after(self._drain_within) as bound:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hasten, workers, bound)
                for worker in workers:
                    await worker.ended.wait()
                nursery.cancel_scope.cancel()
        for worker in [*self._alive]:
            killed += 1
            _log.critical("worker %s did not end in time: it is killed", worker)
            worker.child.kill()
            await worker.ended.wait()
        drained = [worker.drained for worker in began if worker.drained is not None]
        for worker in began:
            if worker.drained is None:
                _log.error("%s before it had told what became of its jobs", _end_of(worker))
        return GroupReport(
            finished=sum(report.finished for report in drained),
            cut=sum(report.cut for report in drained),
            exit_codes=[worker.exit_code or 0 for worker in began],
            killed=killed,
        )

    async def _hasten(self, workers: Sequence[Worker[T]], bound: trio.CancelScope) -> None:
        await self._hurry.wait()
        bound.deadline = min(bound.deadline, trio.current_time() + self._drain_within - self._grace)
        for worker in workers:
            worker.tell(do="hasten")

    # --- what workers say --------------------------------------------------------------------------------------------

    def took(self, connections: Sequence[T]) -> None:
        """See `_worker.Group`."""
        for connection in connections:
            self._close(connection)

    def returned(self, connections: Sequence[T]) -> None:
        """See `_worker.Group`."""
        for connection in connections:
            self._nursery.start_soon(self._hand, connection)

    def changed(self) -> None:
        """See `_worker.Group`."""
        self._room.set()
        self._room = trio.Event()

    def asked(self, worker: Worker[T], number: int, question: Mapping[str, Any]) -> None:
        """See `_worker.Group`."""
        self._questions.asked(worker, number, question)

    def answered(self, worker: Worker[T], number: int, answer: Mapping[str, Any]) -> None:
        """See `_worker.Group`."""
        self._questions.answered(worker, number, answer)


async def either(one: trio.Event, other: trio.Event) -> None:
    """Wait until one of two things has happened."""
    if one.is_set() or other.is_set():
        return
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, one)
        nursery.start_soon(wait, other)


def _end_of(worker: Worker[Any]) -> str:
    """How a worker has ended, for the log."""
    code = worker.exit_code or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
    when = "" if worker.ready.is_set() else " before it was ready"
    return f"worker {worker} {how}{when}{f' ({worker.failure})' if worker.failure else ''}"


def _start_error(worker: Worker[Any]) -> WorkerStartError:
    code = worker.exit_code or 0
    return WorkerStartError(
        worker.failure or f"{_end_of(worker)}: no server was started.".capitalize(),
        128 - code if code < 0 else code or 1,
    )
