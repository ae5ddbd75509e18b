"""The parent of several workers: accepts connections, hands each to the least loaded worker, keeps the workers alive.

What it guarantees. A connection that a worker has not taken goes to another one when that worker dies, and nothing is
accepted while nobody could serve it: it waits in the system's queue. A worker that dies is replaced, at once the first
time, then after pauses that grow to half a minute; its share goes to the others meanwhile. A worker that says
nothing gets no connections, and is killed when it stays so. A drain reaches all workers at the same time, and ends.

It runs nothing of the module's, so nothing of the module's can hold it up; and it waits for no worker, whatever that
does with its sockets (`Control.offer`).
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from dk_trio.boundary import unwrapped
from dk_trio.rpc.accepting import NO_ROOM

from ._places import Places, either, end_of
from ._questions import Questions
from ._share import SILENT_AFTER, least_loaded
from ._worker import Child, Worker

_log = logging.getLogger("dk_trio.workers")

KILL_AFTER: Final = 60.0
"""Seconds of silence after which a worker is ended: whoever waits for it has given up, and a loop that an author has
blocked for a minute does not come back."""
WATCH_EVERY: Final = 0.5

FULL_PAUSES: Final = (0.1, 1.0)
"""First and longest pause, in seconds, while the system has no room for another connection."""

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


class WorkerGroup(Generic[T]):
    """Runs workers.

    Args:
        count: How many.
        start: Starts the process of the worker with this number; True when it runs beside its predecessor.
        drain_within: Seconds that a drain may take before workers are killed, and again as many after it was hastened.
        grace: Seconds of `drain_within` that a second signal saves.
        close: Closes the parent's end of a connection. Must not wait.
        random: For the jitter of restarts.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int, bool], Awaitable[Child[T]]],
        *,
        drain_within: float,
        grace: float,
        close: Callable[[T], object],
        random: Random | None = None,
    ) -> None:
        self._places = Places(count, self._start, drain_within=drain_within, random=random)
        self._start_child = start
        self._drain_within = drain_within
        self._grace = grace
        self._close = close
        self._alive: dict[Worker[T], None] = {}
        self._order = 0
        self._room = trio.Event()
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
            orders: Numbers of signals as they come: SIGHUP replaces all workers one after the other, SIGUSR1 is for
                the workers, the first of any other drains, the next hastens the drain.
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
                await self._places.start(self._stopping)
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
            if number == signal.SIGUSR1:
                for worker in self._alive:
                    if worker.ready.is_set():
                        worker.child.send_signal(number)
            elif number == signal.SIGHUP:
                if not self._stopping.is_set():
                    _log.info("%s: replacing the workers, one after the other", name)
                    self._places.renew()
            elif self._stopping.is_set():
                _log.warning("%s again: cancelling", name)
                self._hurry.set()
            else:
                _log.info("%s: draining %d workers, their jobs get %g s", name, len(self._alive), self._grace)
                self._stopping.set()

    # --- starting ----------------------------------------------------------------------------------------------------

    async def _start(self, number: int, beside: bool) -> Worker[T] | None:
        """A process that has begun to start; None when the system has no room for it."""
        try:
            child = await self._start_child(number, beside)
        except OSError as error:
            _log.error("no process can be started for worker %d: %s", number, error)
            return None
        worker = Worker(number, child, self)
        self._alive[worker] = None
        self._nursery.start_soon(self._run_worker, worker)
        return worker

    async def _run_worker(self, worker: Worker[T]) -> None:
        try:
            await worker.run()
        finally:
            del self._alive[worker]
            self.changed()

    # --- serving -----------------------------------------------------------------------------------------------------

    async def _serve(self, sources: Sequence[Source[T]], accepting: trio.CancelScope) -> None:
        with accepting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                nursery.start_soon(self._places.keep)
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
                    hint = "raise ulimit -n" if error.errno in NO_ROOM else "it is tried again"
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
                _log.error("%s before it had told what became of its jobs", end_of(worker))
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
