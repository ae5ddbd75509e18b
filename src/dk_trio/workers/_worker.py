"""One worker process as its parent sees it: what it has said, what it was given, how it ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from ._control import Control, ControlError
from ._share import Share

_log = logging.getLogger("dk_trio.workers")

LAST_WORDS: Final = 1.0
"""Seconds for what a worker said last, once its process has ended: it is in the socket already, unless a child of the
worker's has inherited the other end."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Child(Protocol[T_contra]):
    """A process that was started, with its two sockets. `T_contra` is a connection."""

    pid: int
    control: trio.abc.Stream

    def hand(self, connection: T_contra) -> bool:
        """Give it a connection; False when there is no room."""
        ...

    async def wait(self) -> int:
        """Its exit code; the negative number of a signal that has ended it."""
        ...

    def send_signal(self, number: int) -> None:
        """Nothing happens when it has ended."""
        ...

    def kill(self) -> None:
        """SIGKILL. Nothing happens when it has ended."""
        ...

    def close(self) -> None:
        """Close both sockets."""
        ...


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the jobs that a worker had when its drain began."""

    finished: int
    cut: int


class Group(Protocol[T]):
    """Who has several workers, and is told what one of them has said. None of it may wait."""

    def took(self, connections: Sequence[T]) -> None:
        """A worker has these connections; the parent's own ends are needed no more."""

    def returned(self, connections: Sequence[T]) -> None:
        """A worker was given these connections, and will not serve them."""

    def changed(self) -> None:
        """A worker may have room for a connection that had none before."""

    def asked(self, worker: Worker[T], number: int, question: Mapping[str, Any]) -> None:
        """A worker asks its siblings."""

    def answered(self, worker: Worker[T], number: int, answer: Mapping[str, Any]) -> None:
        """A worker answers a question that it was asked."""


class Worker(Generic[T]):
    """A worker from the start of its process to its end.

    Args:
        number: From 0; its successor has the same.
        child: The process.
        group: Told what it says.
    """

    def __init__(self, number: int, child: Child[T], group: Group[T]) -> None:
        self.number = number
        self.child = child
        self.share: Share[T] = Share()
        self.ready = trio.Event()
        self.ended = trio.Event()
        self.exit_code: int | None = None
        self.failure = ""
        """Why it could not start, in its own words."""
        self.drained: Drained | None = None
        self.asked_to_end = False
        self.told_silent = False
        self._control = Control(child.control)
        self._group = group

    def __repr__(self) -> str:
        return f"<Worker {self}, {self.share!r}>"

    def __str__(self) -> str:
        return f"{self.number} (pid {self.child.pid})"

    @property
    def state(self) -> str:
        """In one word."""
        if self.ended.is_set():
            return "ended"
        if not self.ready.is_set():
            return "starting"
        return "serving" if self.share.serving else "draining"

    def tell(self, **message: Any) -> bool:
        """Say something to it; False when too much that it has not read waits already."""
        return self._control.offer(message)

    def give(self, connection: T, order: int) -> bool:
        """Hand a connection over; False when it takes none now."""
        if not self.child.hand(connection):
            self.share.blocked = True
            return False
        self.share.handed(connection, order)
        return True

    def drain(self, *, everybody: bool) -> None:
        """Let it end by itself.

        Args:
            everybody: So do all others: nobody is left at the address, and the registry is to know it.
        """
        self.asked_to_end = True
        self.share.serving = False
        if self.ready.is_set():
            self.tell(do="drain", all=everybody)
        else:
            self.child.kill()  # it has nothing that could be lost

    async def run(self) -> None:
        """Listen to it until its process has ended. Cancelling this kills it."""
        try:
            async with trio.open_nursery() as nursery:
                line = trio.CancelScope()
                nursery.start_soon(self._listen, line)
                self.exit_code = await self.child.wait()
                line.deadline = trio.current_time() + LAST_WORDS
        finally:
            self.child.kill()
            if self.exit_code is None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WORDS):
                    self.exit_code = await self.child.wait()
            self.child.close()
            self._group.returned(self.share.left())
            self.ended.set()

    async def _listen(self, line: trio.CancelScope) -> None:
        with line:
            try:
                await self._control.run(self._handle)
            except* ControlError as group:
                _log.error("worker %s has sent what cannot be understood, and is ended: %s", self, group.exceptions[0])
                self.child.kill()

    def _handle(self, message: dict[str, Any]) -> None:
        match message:
            case {
                "do": "load",
                "taken": int(taken),
                "lost": int(lost),
                "connections": int(connections),
                "rpcs": int(rpcs),
                "closed": bool(closed),
            }:
                now = trio.current_time()
                took, back = self.share.heard(now, taken=taken, lost=lost, connections=connections, rpcs=rpcs)
                if closed:
                    back += self.share.left()
                self._group.took(took)
                self._group.returned(back)
                self._group.changed()
            case {"do": "ready"}:
                self.share.serving = not self.asked_to_end
                self.share.heard_at = trio.current_time()
                self.ready.set()
                self._group.changed()
            case {"do": "failed", "text": str(text)}:
                self.failure = text
            case {"do": "drained", "finished": int(finished), "cut": int(cut)}:
                self.drained = Drained(finished, cut)
            case {"do": "ask", "id": int(number), "question": dict(question)}:
                self._group.asked(self, number, question)
            case {"do": "answer", "id": int(number), "answer": dict(answer)}:
                self._group.answered(self, number, answer)
            case _:
                _log.debug("worker %s has said %r, which means nothing here", self, message)
