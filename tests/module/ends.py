"""Every reason for which a job can end, provoked through the whole stack, and what each observer is told of it."""

from dataclasses import dataclass, field
from typing import Any

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.module.v1 import GetModuleStatusRequest, ModuleServiceStub, ModuleStatus
from dk_trio.signals import Signal, SignalAction

from .sample import Message, module_with
from .served import served

WAIT = {"protocol": "message", "text": "wait"}
FAIL = {"protocol": "message", "text": "fail"}
GO = {"protocol": "message", "text": "go"}


async def does_as_told(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send(Message(text="begun"))
    if input_data.text == "fail":
        raise ValueError("as told")
    if input_data.text == "wait":
        await trio.sleep_forever()


@dataclass
class Job:
    """One job as its caller sees it."""

    job_id: str = ""
    status: Status | None = None
    message: str = ""
    protocols: list[str] = field(default_factory=list)
    failure: Any = None
    ended: trio.Event = field(default_factory=trio.Event)
    caller: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(
        self,
        client: ModuleClient,
        data: dict[str, Any],
        task_status: trio.TaskStatus["Job"] = trio.TASK_STATUS_IGNORED,
        **arguments: Any,
    ) -> None:
        """Call until the stream ends, or `caller` is cancelled. Started with the first message."""
        with self.caller:
            async with client.start(data, **arguments) as outputs:
                try:
                    async for output in outputs:
                        self.protocols.append(output["root"]["protocol"])
                        if not self.job_id:
                            self.job_id = outputs.job_id
                            task_status.started(self)
                except GRPCError as error:
                    self.status, self.message = error.status, str(error.message)
                else:
                    self.status = Status.OK
                self.failure = outputs.failure
        self.ended.set()
        if not self.job_id:
            task_status.started(self)


async def begin(nursery: trio.Nursery, client: ModuleClient, data: dict[str, Any], **arguments: Any) -> Job:
    """Start a job; it has begun when this returns."""
    job = Job()

    async def run(*, task_status: trio.TaskStatus[Job]) -> None:
        await job.run(client, data, task_status=task_status, **arguments)

    await nursery.start(run)
    return job


@dataclass
class End:
    """What the observers of one job were told."""

    job: Job
    module_status: ModuleStatus | None
    signals: list[Signal]
    server: ModuleServer


# What makes the server end a job for the reason.
SETTINGS = {
    Reason.TIMEOUT: {"DIGITALKIN_EXECUTION_TIMEOUT": "50"},
    Reason.REFUSED: {"DIGITALKIN_MAX_CONCURRENT_TASKS": "1", "DIGITALKIN_BACKPRESSURE_STRATEGY": "reject"},
}


async def end_by(reason: Reason, **hooks: Any) -> End:
    """Run one job that ends for this reason."""
    settings = Settings.from_environment(SETTINGS.get(reason, {}))
    data = {Reason.COMPLETED: GO, Reason.FAILED: FAIL}.get(reason, WAIT)
    arguments = {"timeout": 50} if reason is Reason.DEADLINE else {}
    signals: list[Signal] = []
    async with served(module_with(does_as_told, **hooks), settings=settings) as (server, client):
        stub = ModuleServiceStub(client.channel)
        async with trio.open_nursery() as nursery:
            if reason is Reason.REFUSED:
                await begin(nursery, client, WAIT)
            with server.signals.observe(signals.append):
                job = await begin(nursery, client, data, **arguments)
                await provoke(reason, server, client, job)
                await job.ended.wait()
                await trio.sleep(60)  # for what remains to be done when the caller has gone
                status = None
                if job.job_id:
                    if reason is Reason.SHUTDOWN:  # nobody can ask any more
                        status = server._servicer.jobs.status(job.job_id)
                    else:
                        status = (await stub.get_module_status(GetModuleStatusRequest(job_id=job.job_id))).status
            nursery.cancel_scope.cancel()
        return End(job, status, signals, server)


async def provoke(reason: Reason, server: ModuleServer, client: ModuleClient, job: Job) -> None:
    """End a job that waits; nothing is to be done for what ends by itself."""
    actions = {Reason.SIGNAL_CANCEL: SignalAction.CANCEL, Reason.SIGNAL_STOP: SignalAction.STOP}
    if reason in actions:
        assert server.signals.send(Signal(task_id=job.job_id, action=actions[reason]))
    elif reason is Reason.STOP_MODULE:
        await client.stop(job.job_id)
    elif reason is Reason.CLIENT_GONE:
        job.caller.cancel()
    elif reason is Reason.SHUTDOWN:
        assert await server.drain(1) == []
