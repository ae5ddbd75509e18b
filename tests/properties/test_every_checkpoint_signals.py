"""A job is cancelled by way of the provider, at each single step that the server, the provider and others take.

Or it begins to listen at each step, for a cancel that has long been there. Other jobs come and go around it, so that
polls are left and begun anew; they are cancelled, so that the cursor is ahead of what this one was not told; and some
steps later all connections break, or the provider dies, so that a reply is lost wherever it is by then. Whatever the
step, the cancel arrives, soon and once.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random

import pytest
import trio
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals, Signal, SignalAction

from .test_every_checkpoint_mesh import AWAY, AtStep, Mesh
from .world import replay, run_seeded, seeds

BOUNDS = {"nothing": 0.05, "cut": 1.0, "crash": AWAY + 3.0}
"""Seconds that a cancel may take, from the moment at which it is known to be kept and its job listens. What is broken
is connected anew at once, and what does not answer after 1 s."""

LATER = 60
"""Steps from a cancel to what goes wrong, at most: its way to the provider, the commit, the reply, and the way back."""

STRIDE = 30
"""Of so many steps one is struck with each seed."""


def cancel(job: str) -> SendSignalsRequest:
    task = Task(task_id=job, mission_id="missions:m", setup_id="setups:s", setup_version_id="setup_versions:v")
    task.action, task.cancellation_reason = "cancel", "none"
    return SendSignalsRequest(tasks=[task])


async def one_cancel(what: str, wrong: str, step: int | None) -> int:
    """The cancel is sent at this step, or its job listens from then on; None: at the end. Returns the steps."""
    async with Mesh().opened() as mesh:
        struck, over = trio.Event(), trio.Event()
        known: list[float] = []  # when it was kept, and when its job began to listen
        came: list[float] = []
        goes_wrong: Callable[[], None] = getattr(mesh, wrong, lambda: None)
        after = None if step is None else step + Random(step).randrange(LATER)
        steps = AtStep(struck.set, step)

        async def send(job: str) -> None:
            """As a platform does that has a connection for this alone: until it is said to be kept."""
            async with rpc.open_channel("mesh", connect=mesh.connect, random=mesh.random) as channel:
                while True:
                    try:
                        await TaskManagerServiceStub(channel).send_signals(cancel(job))
                        return
                    except GRPCError:
                        await trio.sleep(0.05)

        async def turn(of: str, otherwise: float) -> None:
            if what == of:
                await struck.wait()
            else:
                await trio.sleep_until(start + otherwise)

        async def platform() -> None:
            await turn("cancel", 0.05)
            await send("struck")
            known.append(trio.current_time())

        def on_struck(_: Signal) -> None:
            came.append(trio.current_time())
            over.set()

        async def job(name: str, begins: float, ends: float, cancelled: float = inf) -> None:
            await trio.sleep_until(start + begins)
            with exchange.listen(name, lambda _: None), trio.move_on_at(start + ends):
                await trio.sleep_until(start + cancelled)
                await send(name)
                await trio.sleep_forever()

        async def job_in_question() -> None:
            await turn("listen", 0.2)
            with exchange.listen("struck", on_struck):
                known.append(trio.current_time())
                await over.wait()
                await trio.sleep(0.2)  # in which it must not come again

        async with (
            rpc.open_channel("mesh", connect=mesh.connect, random=mesh.random) as channel,
            RemoteSignals(channel, SignalSettings(), random=mesh.random).opened() as exchange,
        ):
            # By its reply the server knows that polls are held, so that it may leave one for a job that comes.
            await exchange.deliver(Signal(task_id="before", action=SignalAction.START))
            start = trio.current_time()
            with steps, AtStep(goes_wrong, after):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(platform)
                    nursery.start_soon(job_in_question)
                    nursery.start_soon(job, "before", 0.0, 0.25, 0.1)
                    nursery.start_soon(job, "beside", 0.203, 0.6, 0.208)  # before the poll of `struck` may be left
                    nursery.start_soon(job, "later", 0.3, 0.4, 0.3)
                    await trio.sleep(0.7)
                    struck.set()
        assert len(came) == 1
        assert came[0] - max(known) < BOUNDS[wrong], (came, known)
        return steps.steps


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("wrong", BOUNDS)
@pytest.mark.parametrize("what", ["cancel", "listen"])
def test_a_cancel_arrives_whatever_the_step(what: str, wrong: str, seed: int) -> None:
    steps = run_seeded(seed, one_cancel, what, wrong, None)
    assert steps > 100
    for step in range(1 + seed % STRIDE, steps + 1, STRIDE):
        with replay(what=what, wrong=wrong, seed=seed, step=step):
            run_seeded(seed, one_cancel, what, wrong, step)
