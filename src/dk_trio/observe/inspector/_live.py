"""Snapshots for those who look: taken when somebody asks, and shared by all who ask at about the same time."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

from dk_trio.observe.task_tree import Surveyor

EVERY: Final = 1.0
"""Seconds between two snapshots for one who looks on."""

SHARE: Final = 0.05
"""The share of the loop's time that snapshots may take, however many tasks there are: they come less often then."""

VIEWERS_MAX: Final = 8
"""Pages that may look on at the same time: an operator has two or three, and each costs its copy of what is sent."""

FORGET_AFTER: Final = 60.0
"""Seconds without a snapshot after which it is of no use how the tasks stood in the last one."""


class Live:
    """Takes snapshots.

    Args:
        surveyor: Looks at the tasks.
        rest: What else there is to tell.
    """

    def __init__(self, surveyor: Surveyor, rest: Callable[[], dict[str, Any]]) -> None:
        self._surveyor = surveyor
        self._rest = rest
        self._lock = trio.Lock()
        self._at = float("-inf")
        self._cost = 0.0
        self._snapshot: dict[str, Any] = {}
        self._text = ""
        self._closing = trio.Event()
        self.viewers = 0

    async def snapshot(self) -> tuple[dict[str, Any], str]:
        """How things are, at most about a second old: as JSON values, and as their text on one line."""
        async with self._lock:
            age = trio.current_time() - self._at
            if age >= max(EVERY * 0.9, self._cost / SHARE):
                if age > FORGET_AFTER:
                    self._surveyor.forget()
                began = trio.current_time()
                survey = await self._surveyor.survey()
                self._snapshot = {**self._rest(), "viewers": self.viewers, "tasks": survey.to_dict()}
                self._text = json.dumps(self._snapshot, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
                self._at = trio.current_time()
                self._cost = self._at - began
            return self._snapshot, self._text

    @contextmanager
    def viewing(self) -> Iterator[bool]:
        """Be one of those who look on, for the length of the block, which gets whether there is room."""
        if self.viewers >= VIEWERS_MAX:
            yield False
            return
        self.viewers += 1
        try:
            yield True
        finally:
            self.viewers -= 1

    async def snapshots(self) -> AsyncGenerator[str, None]:
        """Snapshots as they come, until `close`."""
        while not self._closing.is_set():
            yield (await self.snapshot())[1]
            with trio.move_on_after(EVERY):
                await self._closing.wait()

    def close(self) -> None:
        """End what `snapshots` gives."""
        self._closing.set()
