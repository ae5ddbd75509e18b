"""Many callers of one server, and what each of them got. The client is ours; `grpcio_crowd.py` is the other one."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.rpc.wire_client import Call, WireClient

from dk_trio import ModuleClient, rpc
from dk_trio.client import START_MODULE
from dk_trio.pb.agentic_mesh_protocol.module.v1 import GetModuleJobsRequest, ModuleServiceStub, StartModuleRequest
from dk_trio.pb.google.protobuf import Struct

from .processes import PATIENCE

# Of the repository's smallest machine: a front door that is not what these tests are about.
ROOMY = {"DIGITALKIN_MAX_CONCURRENT_RPCS": "1000", "DIGITALKIN_MAX_CONCURRENT_TASKS": "400"}


@dataclass
class Caller:
    """What one caller got."""

    job_id: str = ""
    roots: list[dict[str, Any]] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    status: Status | None = None

    @property
    def protocols(self) -> list[str]:
        return [root["protocol"] for root in self.roots]

    @property
    def numbers(self) -> list[int]:
        return [root["i"] for root in self.roots if "i" in root]

    async def call(
        self, client: ModuleClient, root: dict[str, Any], *, task_status: Any = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read one job to its end; `started` with its first output."""
        try:
            async with client.start({"root": root}) as outputs:
                try:
                    async for output in outputs:
                        self.roots.append(output["root"])
                        if not self.job_id:
                            self.job_id = outputs.job_id
                            task_status.started()
                finally:
                    self.failure = outputs.failure
            self.status = Status.OK
        except GRPCError as error:
            self.status = error.status


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[ModuleClient]:
    """A client that shows what it gets: no retries."""
    async with ModuleClient.connect(address, options=rpc.ChannelOptions(retry=None)) as client:
        yield client


async def connection_to(address: str) -> trio.SocketStream:
    """A connection to do with as one likes."""
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


@asynccontextmanager
async def calling(
    client: ModuleClient, *crowd: tuple[int, dict[str, Any]], end: bool = False
) -> AsyncIterator[list[Caller]]:
    """So many jobs with each root, which have begun when the block is entered.

    When the block ends they are waited for, or else, with `end`, cancelled.
    """
    callers = []
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for count, root in crowd:
                for _ in range(count):
                    callers.append(Caller())
                    await nursery.start(callers[-1].call, client, root)
            yield callers
            if end:
                nursery.cancel_scope.cancel()


async def start_unread(client: WireClient, root: dict[str, Any]) -> Call:
    """Start a job over a connection of one's own, which nobody reads."""
    request = StartModuleRequest(input=Struct.from_dict({"root": root}), setup_id="setups:any", mission_id="missions:m")
    return await client.call(START_MODULE, request)


async def until_jobs_are(client: ModuleClient, expected: dict[str, int]) -> None:
    """Wait until the server's jobs, those that have ended included, have these states."""
    stub = ModuleServiceStub(client.channel)
    states: Counter[str | None] = Counter()
    with trio.move_on_after(PATIENCE):
        while states != expected:
            jobs = (await stub.get_module_jobs(GetModuleJobsRequest())).jobs
            states = Counter(job.job_status.name for job in jobs)
            await trio.sleep(0.05)
    assert states == expected
