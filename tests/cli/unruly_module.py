"""A module that ends when it is told to, or does what no module should do. Served by tests in a process of its own.

A job sends one output first, so that its caller knows that it has begun.
"""

import time
from pathlib import Path
from typing import Literal

import trio

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TrioModule

POLL = 0.05


class Work(DataTrigger):
    """What to do, in this order."""

    protocol: Literal["work"] = "work"
    block_s: float = 0  # of the whole loop
    thread_s: float = 0  # in a thread, which cannot be cancelled
    swallow: bool = False  # every cancellation, for ever
    until: str = ""  # go on until this file is there; for ever without one
    cleanup_s: float = 0


class Unruly(TrioModule[DataModel[Work], DataModel[Work], SetupModel]):
    name = "unruly"
    cleanup_s = 0.0

    async def run(self, input_data: DataModel[Work], setup_data: SetupModel, context: ModuleContext) -> None:
        work = input_data.root
        self.cleanup_s = work.cleanup_s
        await context.send(work)
        if work.block_s:
            await trio.sleep(POLL)  # the output gets on its way before
            time.sleep(work.block_s)  # noqa: ASYNC251 - the fault that is wanted
        if work.thread_s:
            await trio.to_thread.run_sync(time.sleep, work.thread_s)
        while work.swallow:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                with trio.CancelScope(shield=True):  # else it would spin, and nobody would run any more
                    await trio.sleep(POLL)
        while not (work.until and Path(work.until).exists()):  # noqa: ASYNC110 - an event would need a second caller
            await trio.sleep(POLL)

    async def cleanup(self) -> None:
        if self.cleanup_s:
            await trio.sleep(self.cleanup_s)
            print(f"a cleanup of {self.cleanup_s:g} s has ended")
