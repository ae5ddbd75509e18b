"""SIGUSR1 writes the tree of tasks to the log: what a server that seems to hang is doing.

The handler of a signal runs between any two steps of the main thread, where neither the log nor the tree may be
touched. It puts a word into a queue, and a thread asks the loop. A loop that does not answer is blocked: then the
thread writes the stacks of all threads, and the tree as it stands. A second signal tells how long each task has waited
since the first.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Final

import trio

from dk_trio.boundary import unwrapped
from dk_trio.stalls import stacks_of_threads

from ._part import Observed, Part
from .task_tree import Survey, Surveyor, lines

_log = logging.getLogger("dk_trio.tasks")

PATIENCE: Final = 1.0
"""Seconds in which the loop answers, unless it is blocked."""

_JOIN_WITHIN: Final = 1.0  # seconds; longer only while a dump of a blocked loop is being written


class TaskDumps(Part):
    """Writes the tree of tasks to the log at each SIGUSR1. Does nothing outside of the main thread."""

    @asynccontextmanager
    async def opened(self, observed: Observed) -> AsyncIterator[None]:
        if threading.current_thread() is not threading.main_thread():  # no other may have handlers of signals
            yield
            return
        asked: SimpleQueue[bool] = SimpleQueue()  # its put may interrupt itself
        async with unwrapped(), trio.open_nursery() as nursery:
            answer = _Answer(nursery)
            thread = threading.Thread(target=answer.run, args=(asked,), name="dk-trio task dumps", daemon=True)
            thread.start()
            before = signal.signal(signal.SIGUSR1, lambda *_: asked.put(True))
            try:
                yield
            finally:
                signal.signal(signal.SIGUSR1, before)
                answer.close()
                asked.put(False)
                thread.join(_JOIN_WITHIN)
                nursery.cancel_scope.cancel()


class _Answer:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._surveyor = Surveyor()
        self._token = trio.lowlevel.current_trio_token()
        self._began = self._ended = threading.Event()
        self._closed = False

    def close(self) -> None:
        """On the loop, which is about to wait for the thread: that waits for the loop no longer."""
        self._closed = True
        self._began.set()
        self._ended.set()

    def run(self, asked: SimpleQueue[bool]) -> None:
        """In the thread, until there comes a False."""
        while asked.get():
            while not asked.empty():  # a storm of signals is one question
                if not asked.get():
                    return
            began, ended = self._began, self._ended = threading.Event(), threading.Event()
            if self._closed:
                return
            try:
                self._token.run_sync_soon(self._begin, began, ended)
            except trio.RunFinishedError:
                return
            if not began.wait(PATIENCE):
                self._beside_the_loop()
            else:
                ended.wait(PATIENCE)  # one at a time

    def _begin(self, began: threading.Event, ended: threading.Event) -> None:
        if not self._closed:  # or else the nursery may be, and what is raised here ends the whole process
            self._nursery.start_soon(self._on_the_loop, began, ended)

    async def _on_the_loop(self, began: threading.Event, ended: threading.Event) -> None:
        began.set()
        try:
            _log.warning("SIGUSR1: %s", _text(await self._surveyor.survey()))
        except Exception:  # noqa: BLE001  boundary: to look at a server must not end it
            _log.exception("SIGUSR1: the tasks could not be told")
        finally:
            ended.set()

    def _beside_the_loop(self) -> None:
        stacks = "\n".join(stacks_of_threads())
        try:
            tree = _text(self._surveyor.survey_now())
        except RuntimeError:  # it is not blocked any more, and tells by itself
            tree = "the loop has begun to run again"
        _log.warning("SIGUSR1: the event loop does not answer within %g s\n%s%s", PATIENCE, stacks, tree)


def _text(survey: Survey) -> str:
    return "\n  ".join(lines(survey))
