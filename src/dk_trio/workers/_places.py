"""Who stands in for whom: each place of a group has a worker, or is about to get one.

A worker that ends by itself has its successor at once, or after a pause that grows with each failure in a row. One that
is to be replaced, because there is new code, goes when its successor is ready: there is no gap, and a successor that
cannot start leaves everything as it was.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, Generic, TypeVar

import trio

from dk_trio.rpc.backoff import Backoff, BackoffPolicy

from ._worker import Worker

_log = logging.getLogger("dk_trio.workers")

RESTARTS: Final = BackoffPolicy(initial=0.5, maximum=30.0, minimum=0.0, multiplier=2.0, jitter=0.2)
"""From the start of a worker that has failed to the start of the next. One that ran for longer is replaced at once."""
STEADY_AFTER: Final = 60.0
"""Seconds of service after which a worker's end is the first again, and not one more of a row."""
SLOW_START: Final = 30.0
"""Seconds after which a worker that is not ready yet is told of: most often its module waits for something."""

T = TypeVar("T")


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


class Places(Generic[T]):
    """The places of a group.

    Args:
        count: How many.
        start: Starts a worker with this number, which may run beside its predecessor; None when the system has no room.
        drain_within: Seconds that a worker which was replaced may take to end.
        random: For the jitter of restarts.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int, bool], Awaitable[Worker[T] | None]],
        *,
        drain_within: float,
        random: Random | None = None,
    ) -> None:
        random = random or Random()  # noqa: S311  spreads restarts, keeps no secret
        self._places: list[_Place[T]] = [_Place(number, random) for number in range(count)]
        self._start_worker = start
        self._drain_within = drain_within
        self._roll = trio.Event()

    async def start(self, stopping: trio.Event) -> None:
        """Start all at the same time. Returns when they are ready, or everything is to stop.

        Raises:
            WorkerStartError: The first that has ended before.
        """
        failed: list[WorkerStartError] = []
        done = trio.Event()

        async def wait(place: _Place[T]) -> None:
            if not await _got_ready(place.worker):
                failed.append(_start_error(place.worker))
                done.set()

        async def start_each() -> None:
            async with trio.open_nursery() as nursery:
                for place in self._places:
                    worker = await self._start(place)
                    if worker is None:
                        failed.append(WorkerStartError("The system has no room for the process of a worker.", 1))
                        done.set()
                        return
                    place.worker = worker
                    nursery.start_soon(wait, place)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_each)
            await either(done, stopping)
            nursery.cancel_scope.cancel()
        if failed and not stopping.is_set():
            raise failed[0]

    async def keep(self) -> None:
        """There are workers in all places, until this is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._replace_all)
            for place in self._places:
                nursery.start_soon(self._keep, place)

    def renew(self) -> None:
        """Replace all workers, one after the other."""
        self._roll.set()

    async def _start(self, place: _Place[T], *, beside: bool = False) -> Worker[T] | None:
        place.started_at = trio.current_time()
        return await self._start_worker(place.number, beside)

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
            _log.error("%s%s; another one starts %s", end_of(worker), again, f"in {pause:.1f} s" if pause else "now")
            await trio.sleep(pause)
            successor = await self._start(place)
            if successor is None:
                continue
            place.worker = successor
            if await _got_ready(successor):
                _log.info("worker %s serves", successor)
                return

    async def _replace_living(self, place: _Place[T]) -> None:
        """Start a successor, and let the worker go when that is ready. A successor that fails changes nothing."""
        old = place.worker
        successor = await self._start(place, beside=True)
        if successor is not None:
            if await _got_ready(successor):
                _log.info("worker %s serves, in place of %s", successor, old)
                place.worker, place.retired = successor, old
                old.drain(everybody=False)
            else:
                _log.error("%s; worker %s stays", end_of(successor), old)
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
                place.worker.tell(do="alone")
            else:
                _log.info("all workers were replaced")


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


def end_of(worker: Worker[Any]) -> str:
    """How a worker has ended, for the log."""
    code = worker.exit_code or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
    when = "" if worker.ready.is_set() else " before it was ready"
    return f"worker {worker} {how}{when}{f' ({worker.failure})' if worker.failure else ''}"


async def _got_ready(worker: Worker[T]) -> bool:
    """Wait until a worker serves, True, or has ended before."""
    with trio.move_on_after(SLOW_START) as scope:
        await either(worker.ready, worker.ended)
    if scope.cancelled_caught:
        _log.warning(
            "worker %s is not ready after %g s: look what its module does when it is loaded", worker, SLOW_START
        )
        await either(worker.ready, worker.ended)
    return worker.ready.is_set()


def _start_error(worker: Worker[Any]) -> WorkerStartError:
    code = worker.exit_code or 0
    text = worker.failure or f"No server was started: {end_of(worker)}."
    return WorkerStartError(text, 128 - code if code < 0 else code or 1)
