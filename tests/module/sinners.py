"""Badly written modules, each beside a job of the same server and connection that must not notice."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from dk_trio import ModuleClient, ModuleServer
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.module.v1 import GetModuleStatusRequest, ModuleServiceStub, ModuleStatus
from dk_trio.signals import Signal

from .ends import Job, begin
from .sample import Message, module_with
from .served import DAY, served

BYSTANDER = "missions:bystander"
BEGUN = "begun"

Sin = Callable[[Any], Awaitable[None]]
"""What a sinner does in a hook; it gets the context."""


async def nothing(context: Any) -> None:
    """Not a sin."""


async def waits(context: Any) -> None:
    """As good as for ever; but a test ends that finds nobody who cuts it."""
    await trio.sleep(DAY)


async def stubborn(context: Any, until: trio.Event | None = None) -> None:
    """Swallows every cancellation. Sleeps under a shield in between, because otherwise the clock could not jump.

    Gives up at last, so that a test that fails ends.
    """
    for _ in range(5000):
        if until is not None and until.is_set():
            return
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)


@dataclass
class World:
    """A server with a bystander's job that runs, and the means to sin."""

    server: ModuleServer
    client: ModuleClient
    nursery: trio.Nursery
    hooks: list[str] = field(default_factory=list)
    """The sinners' hooks that were called."""
    signals: list[Signal] = field(default_factory=list)
    sinners: list[Job] = field(default_factory=list)

    async def begin(self, **arguments: Any) -> Job:
        """Start a sinner's job; its first message has come."""
        job = await begin(self.nursery, self.client, {"protocol": "message"}, **arguments)
        self.sinners.append(job)
        return job

    async def sin(self, **arguments: Any) -> Job:
        """Run a sinner's job to its end, as its caller sees it."""
        job = await self.begin(**arguments)
        await job.ended.wait()
        return job

    async def sin_until_stopped(self, after: float = 5) -> Job:
        """Run a sinner's job, and stop it after some seconds."""
        job = await self.begin()
        await trio.sleep(after)
        await self.client.stop(job.job_id)
        await job.ended.wait()
        return job

    async def status_of(self, job: Job) -> ModuleStatus:
        stub = ModuleServiceStub(self.client.channel)
        return (await stub.get_module_status(GetModuleStatusRequest(job_id=job.job_id))).status

    async def freed(self) -> None:
        """Wait until no sinner has a slot."""
        with trio.fail_after(1000):
            while self.running:  # noqa: ASYNC110  nobody is told when that is
                await trio.sleep(0.1)

    @property
    def running(self) -> int:
        """Slots that are held, without the bystander's."""
        return self.server.statistics().admission.running - 1


@asynccontextmanager
async def sinners(
    sin: Sin = nothing,
    *,
    initialize: Sin = nothing,
    cleanup: Sin = nothing,
    construct: Callable[[], None] | None = None,
    ends: dict[Reason, int] | None = None,
    **arguments: Any,
) -> AsyncIterator[World]:
    """Serve a module whose jobs sin, all but the bystander's, which runs from before the block until after it.

    At the end the bystander's job must have succeeded, every slot must be free, each job must have one START and one
    STOP, and each sinner's `cleanup` must have run once if its `initialize` began.

    Args:
        sin: In the handler; likewise in `initialize`, `cleanup` and `__init__`.
        ends: How the sinners' jobs have ended.
        arguments: For `served`.
    """
    go = trio.Event()

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        if context.session.mission_id != BYSTANDER:
            await sin(context)
            return
        for number in range(5):
            await context.send(Message(count=number))
            await trio.sleep(1)
        await go.wait()
        await context.send(Message(text="in peace"))

    async def run_initialize(self: Any, context: Any, setup_data: Any) -> None:
        if context.session.mission_id != BYSTANDER:
            world.hooks.append("initialize")
            await initialize(context)

    async def run_cleanup(self: Any, context: Any) -> None:
        if context.session.mission_id != BYSTANDER:
            world.hooks.append("cleanup")
            await cleanup(context)

    def init(self: Any) -> None:
        if construct is not None and world.server.statistics().jobs.running > 1:
            construct()

    module = module_with(handle, initialize=run_initialize, cleanup=run_cleanup, __init__=init)
    async with served(module, **arguments) as (server, client), trio.open_nursery() as nursery:
        world = World(server, client, nursery)
        with server.signals.observe(world.signals.append):
            bystander = await begin(nursery, client, {"protocol": "message"}, mission_id=BYSTANDER)
            yield world
            go.set()
            await bystander.ended.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert (bystander.message, bystander.protocols[-1]) == ("", "end_of_stream")
            assert bystander.protocols.count("message") == 6
        now = server.statistics()
        assert (now.jobs.running, now.admission.running, now.admission.admitted, now.rpc.rpcs) == (0, 0, 0, 0)
        assert now.jobs.ended == Counter({Reason.COMPLETED: 1}) + Counter(ends or {})
        assert world.hooks.count("initialize") == world.hooks.count("cleanup")
        for job in [bystander, *world.sinners]:
            said = [signal.action.value for signal in world.signals if signal.task_id == job.job_id]
            assert [word for word in said if not word.startswith("ack")] == ["start", "stop"]
        nursery.cancel_scope.cancel()
