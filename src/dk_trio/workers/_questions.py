"""Questions of one worker to the others, which go through the parent: where a job is that the one does not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import trio

from ._worker import Worker

ANSWER_WITHIN: Final = 1.0
"""Seconds for all siblings together. A worker answers within a turn of its loop, or has a problem."""
AT_ONCE: Final = 100
"""Questions of one worker at the same time. It keeps this bound itself; one that does not is answered `silent`."""

T = TypeVar("T")


class _Question(Generic[T]):
    """One that is under way."""

    def __init__(self, asker: Worker[T], number: int, waiting: set[Worker[T]]) -> None:
        self.asker = asker
        self.number = number
        self.waiting = waiting
        self.done = trio.Event()


class Questions(Generic[T]):
    """Those under way.

    Args:
        nursery: Where each of them waits.
        workers: Those who may be asked.
    """

    def __init__(self, nursery: trio.Nursery, workers: Callable[[], Sequence[Worker[T]]]) -> None:
        self._nursery = nursery
        self._workers = workers
        self._open: dict[int, _Question[T]] = {}
        self._asking: Counter[Worker[T]] = Counter()
        self._last = 0

    def asked(self, asker: Worker[T], number: int, question: Mapping[str, Any]) -> None:
        """Ask everybody else. Each answer is passed on as it comes, and an end follows, with how many were silent."""
        others = {worker for worker in self._workers() if worker is not asker}
        if self._asking[asker] >= AT_ONCE:
            asker.tell(do="end", id=number, silent=len(others))
            return
        self._last += 1
        now = trio.current_time()
        waiting = {
            worker
            for worker in others
            if not worker.share.silent(now) and worker.tell(do="ask", id=self._last, question=question)
        }
        under_way = self._open[self._last] = _Question(asker, number, waiting)
        self._asking[asker] += 1
        self._nursery.start_soon(self._wait, self._last, under_way, len(others) - len(waiting))

    def answered(self, worker: Worker[T], number: int, answer: Mapping[str, Any]) -> None:
        """Somebody has answered."""
        question = self._open.get(number)
        if question is not None and worker in question.waiting:
            if question.asker.tell(do="answer", id=question.number, answer=answer):
                question.waiting.discard(worker)
            if not question.waiting:
                question.done.set()

    async def _wait(self, number: int, question: _Question[T], silent: int) -> None:
        with trio.move_on_after(ANSWER_WITHIN):
            if question.waiting:
                await question.done.wait()
        del self._open[number]
        self._asking -= Counter({question.asker: 1})  # and an entry of 0 is gone
        question.asker.tell(do="end", id=question.number, silent=silent + len(question.waiting))
