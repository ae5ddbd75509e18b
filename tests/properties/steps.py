"""A run of Trio in virtual time that goes on only while a state machine wants it to."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio
import trio.testing

from dk_trio.testing import seed_scheduler, virtual_clock


class Steps:
    """A guest run in virtual time, whose host is the test: no thread, and no step that is not asked for.

    Args:
        seed: Decides in which order tasks run that could run at the same time.
    """

    nursery: trio.Nursery

    def __init__(self, seed: int) -> None:
        self._ticks: deque[Callable[[], object]] = deque()
        self._result: outcome.Outcome[None] | None = None
        self._commands, self._received = trio.open_memory_channel[Callable[[], Awaitable[object]]](1)
        self._done = True
        seed_scheduler(seed)
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._ticks.append,
            done_callback=self._end,
            clock=virtual_clock(),  # as it jumps, Trio never waits for events in a thread
        )

    async def _main(self) -> None:
        async with trio.open_nursery() as self.nursery:
            async for command in self._received:
                await command()
                self._done = True
            self.nursery.cancel_scope.cancel()

    def _end(self, result: outcome.Outcome[None]) -> None:
        self._result = result

    def do(self, function: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Call this in the run, and let all tasks go on until it has returned."""
        if self._result is not None:
            raise RuntimeError("the run has ended")
        self._done = False
        self._commands.send_nowait(lambda: function(*arguments))
        while not self._done:
            self._tick()

    def settle(self) -> None:
        """Let all tasks go on until every one of them waits."""
        self.do(trio.testing.wait_all_tasks_blocked)

    def now(self) -> float:
        """The run's time."""
        return trio.current_time()

    def pass_time(self, seconds: float) -> None:
        """Let this much time pass."""
        self.do(trio.sleep, seconds)

    def close(self) -> None:
        """Cancel what is left, and end the run. Does not repeat what has been raised already."""
        self._commands.close()
        while self._result is None:
            self._ticks.popleft()()

    def _tick(self) -> None:
        self._ticks.popleft()()
        if self._result is not None:
            self._result.unwrap()
            raise RuntimeError("the run has ended")
