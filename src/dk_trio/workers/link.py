"""A worker's side: its line to the parent, the connections that it is handed, the orders that it gets.

The parent is the one whom signals concern. A terminal's Ctrl-C, and a service manager that signals every process of a
group, reach workers too: for them any number of signals means one drain, and only the parent says `hasten`.

A worker whose parent has died serves nobody new. It drains and ends, so that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Final

import trio

from dk_trio.boundary import unwrapped
from dk_trio.siblings import Replies

from ._control import Control, line_of
from ._handover import HandedListener
from ._post import Post
from ._questions import ANSWER_WITHIN, AT_ONCE
from ._unkept import UnkeptPlatform as UnkeptPlatform

_log = logging.getLogger("dk_trio.workers")

HEARTBEAT: Final = 0.5
"""Seconds between two reports of a worker that has nothing new to say."""
LAST_WORDS: Final = 1.0
"""Seconds for what a worker has said last to be read. The parent waits for its end, and can do without."""


class _Question:
    """One to the siblings, under way."""

    def __init__(self) -> None:
        self.answers: list[Mapping[str, Any]] = []
        self.silent = 1  # nobody has said how many
        self.ended = trio.Event()


class WorkerLink:
    """The worker's end of everything that it shares with its parent. Owns the descriptors of its post.

    Attributes:
        post: See `Post`.
        listener: Where connections come from, inside of `opened`.
    """

    listener: HandedListener

    def __init__(self, post: Post) -> None:
        self.post = post
        for descriptor in (post.control, post.handover):  # children of the module must not hold them
            os.set_inheritable(descriptor, False)
        self._line = socket.socket(fileno=post.control)
        self._channel = socket.socket(fileno=post.handover)
        self._channel.setblocking(False)
        self._all_drain = False
        self._draining = False
        self._alone = trio.Event()
        if not post.beside:
            self._alone.set()
        self._orders, self._ordered = trio.open_memory_channel[int](inf)  # two at most: a drain, and its haste
        self._rpcs: Callable[[], int] = int
        self._answer: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
        self._questions: dict[int, _Question] = {}
        self._asked = 0
        self._asking = trio.CapacityLimiter(AT_ONCE)
        self._control: Control

    def __repr__(self) -> str:
        return f"<WorkerLink of worker {self.post.number}, {'draining' if self._draining else 'serving'}>"

    @asynccontextmanager
    async def opened(
        self, *, rpcs: Callable[[], int], answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> AsyncIterator[None]:
        """Talk to the parent for the length of the block. Must be entered in the main thread, as signals want it.

        Args:
            rpcs: How many RPCs are running.
            answer: Answers a question of a sibling. Must not wait.
        """
        self._rpcs, self._answer = rpcs, answer
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._line.dup()))
        self._control = Control(stream)
        self.listener = HandedListener(self._channel, self._tell_load)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with unwrapped(), stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                nursery.start_soon(self._beat)
                nursery.start_soon(self._heed, signals)
                try:
                    yield
                finally:
                    with trio.move_on_after(LAST_WORDS, shield=True):
                        await self._control.flushed()
                    nursery.cancel_scope.cancel()

    @property
    def orders(self) -> AsyncIterator[int]:
        """Signals as a server that stands alone would get them: the first drains, the next hastens."""
        return self._ordered

    def others_stay(self) -> bool:
        """Whether others serve on when this one drains: then the registry, which knows one address, is told nothing."""
        return not self._all_drain

    async def alone(self) -> None:
        """Wait until no predecessor has the ports that belong to this worker's number."""
        await self._alone.wait()

    def ready(self) -> None:
        """Connections are taken."""
        self._control.offer({"do": "ready"})

    def drained(self, *, finished: int, cut: int) -> None:
        """Tell what became of the jobs. The process may end right after: this is sent before anything else can be."""
        self._send_now({"do": "drained", "finished": finished, "cut": cut})

    def failed(self, text: str) -> None:
        """Tell why the worker cannot serve. Also outside of `opened`."""
        self._send_now({"do": "failed", "text": text})

    def close(self) -> None:
        """Close the descriptors. The end of the process does it, too."""
        self._line.close()
        self._channel.close()

    def _send_now(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a parent that is gone, or stopped: then there is nobody to be told
            self._line.send(line_of(message))

    # --- siblings ----------------------------------------------------------------------------------------------------

    async def ask(self, question: Mapping[str, Any]) -> Replies:
        """Ask all siblings; see `dk_trio.siblings.Ask`."""
        async with self._asking:
            self._asked += 1
            number = self._asked
            under_way = self._questions[number] = _Question()
            try:
                if self._control.offer({"do": "ask", "id": number, "question": question}):
                    with trio.move_on_after(2 * ANSWER_WITHIN):
                        await under_way.ended.wait()
            finally:
                del self._questions[number]
        return Replies(answers=under_way.answers, silent=under_way.silent)

    # --- the line ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        await self._control.run(self._handle)
        if not self._draining:
            _log.error("the parent process has ended: draining")
        self._all_drain = True
        self._drain(signal.SIGTERM)

    def _handle(self, message: dict[str, Any]) -> None:
        match message:
            case {"do": "drain", "all": bool(everybody)}:
                self._all_drain = everybody
                self._drain(signal.SIGTERM)
            case {"do": "alone"}:
                self._alone.set()
            case {"do": "hasten"}:
                self._drain(signal.SIGTERM)
                self._orders.send_nowait(signal.SIGTERM)
            case {"do": "ask", "id": int(number), "question": dict(question)}:
                self._control.offer({"do": "answer", "id": number, "answer": self._answer(question)})
            case {"do": "answer", "id": int(number), "answer": dict(answer)}:
                if number in self._questions:
                    self._questions[number].answers.append(answer)
            case {"do": "end", "id": int(number), "silent": int(silent)}:
                if number in self._questions:
                    self._questions[number].silent = silent
                    self._questions[number].ended.set()
            case _:
                _log.debug("the parent has said %r, which means nothing here", message)

    async def _beat(self) -> None:
        while True:
            self._tell_load()
            await trio.sleep(HEARTBEAT)

    def _tell_load(self) -> None:
        listener = self.listener
        self._control.offer(
            {
                "do": "load",
                "taken": listener.taken,
                "lost": listener.lost,
                "connections": listener.connections,
                "rpcs": self._rpcs(),
                "closed": listener.closed,
            }
        )

    # --- orders ------------------------------------------------------------------------------------------------------

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number != signal.SIGHUP:  # which is for the parent
                self._drain(number)

    def _drain(self, number: int) -> None:
        if not self._draining:
            self._draining = True
            self._orders.send_nowait(number)
