"""The wall clock jumps by hours, forwards and back: what goes by it is right again soon, and nothing else does.

No clock is set: `dk_trio.chance` says what the time of day is, and virtual time goes on as always.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests.module.ends import begin
from tests.module.remote_kit import MODULE_ID, REMOTE, Network, module, stored_setup, told
from tests.module.remote_kit import signal as send_signal
from tests.module.sample import Message
from tests.provider.kit import Provided, provided

from dk_trio import ModuleClient, ModuleServer, chance, extensions, rpc
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import GetModuleRequest, ModuleStatus, RegistryServiceStub
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    StorageServiceStub,
    StoreRecordRequest,
)
from dk_trio.pb.google.protobuf import Struct

HOUR = 3600.0
LEASE = 30.0
BEAT = REMOTE.server.heartbeat_interval * 1.3  # with its jitter, and the time for a call


@dataclass
class WallClock:
    """Goes with virtual time, and jumps."""

    shift: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.shift + trio.current_time()


@dataclass
class World:
    clock: WallClock
    client: ModuleClient
    provider: Provided
    network: Network
    setup_id: str

    async def active(self) -> bool:
        stub = RegistryServiceStub(self.provider.channel)
        return (await stub.get_module(GetModuleRequest(module_id=MODULE_ID))).status is ModuleStatus.ACTIVE


async def handle(self: Any, data: Message, setup: Any, context: Any) -> None:
    await context.send(Message(text="begun"))
    if data.text == "keep":
        await context.storage.store("notes", str(data.count), {"text": data.text})
    else:
        await trio.sleep_forever()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A provider, and a server that is registered with it, over memory; they have the same wall clock."""
    clock = WallClock()
    with trio.fail_after(86400), chance.decided_by(Random(1), clock):
        async with provided() as provider:
            network = Network(provider)
            setup_id = await stored_setup(provider, {"prefix": "> "})
            server = ModuleServer(module(handle), settings=REMOTE, provider=network.connect)
            async with server.running(host="here", port=1, listeners=[]), trio.open_nursery() as nursery:

                async def connect() -> trio.abc.Stream:
                    ours, theirs = trio.testing.memory_stream_pair()
                    nursery.start_soon(server.serve_stream, theirs)
                    return ours

                async with rpc.open_channel("memory", connect=connect) as channel:
                    await trio.sleep(1)
                    yield World(clock, ModuleClient(channel), provider, network, setup_id)
                nursery.cancel_scope.cancel()


steps = pytest.mark.parametrize("step", [5 * HOUR, -5 * HOUR, 48 * HOUR, -48 * HOUR], ids="{:g}".format)


@steps
async def test_a_lease_is_right_again_with_the_next_heartbeat(autojump_clock: object, step: float) -> None:
    async with world() as it:
        assert await it.active()
        it.clock.shift += step
        assert not await it.active()  # its lease has run out, or is one of a time that has not come
        await trio.sleep(BEAT)
        for _ in range(10):
            assert await it.active()
            await trio.sleep(7)
        await it.network.fail()  # it dies: nobody is sent to it for longer than a lease
        await trio.sleep(LEASE + 1)
        assert not await it.active()


@steps
async def test_jobs_and_their_signals_do_not_go_by_it(autojump_clock: object, step: float) -> None:
    async with world() as it, trio.open_nursery() as nursery:
        wait = {"protocol": "message", "text": "wait"}
        began = trio.current_time()
        late = await begin(nursery, it.client, wait, setup_id=it.setup_id, timeout=50)
        cancelled = await begin(nursery, it.client, wait, setup_id=it.setup_id)
        await trio.sleep(1)
        it.clock.shift += step
        await send_signal(it.network, cancelled.job_id, "cancel", at=chance.utc_now())
        with trio.fail_after(1):
            await cancelled.ended.wait()
        assert cancelled.status is Status.CANCELLED
        it.clock.shift -= step
        await late.ended.wait()
        assert late.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - began == pytest.approx(50, abs=1)
        await trio.sleep(1)
        for job, asked in ((late, []), (cancelled, ["cancel"])):
            said = [task.action for task in await told(it.network) if task.task_id == job.job_id]
            assert [word for word in said if not word.startswith("ack")] == ["start", *asked, "stop"]


@pytest.mark.parametrize("step", [5 * HOUR, -5 * HOUR, -48 * HOUR], ids="{:g}".format)
async def test_what_was_acknowledged_is_not_done_again(autojump_clock: object, step: float) -> None:
    """The reply to a key is kept for a day, and longer when the clock is set back."""
    async with world() as it:
        stub = StorageServiceStub(it.provider.channel)
        names = {"context": "missions:m", "collection": "c", "record_id": "r"}
        request = StoreRecordRequest(**names, data=Struct.from_dict({"n": 1}), data_type=DataType.OUTPUT)
        key = {extensions.IDEMPOTENCY_KEY: str(chance.new_uuid())}
        first = await stub.store_record(request, metadata=key)
        it.clock.shift += step
        assert await stub.store_record(request, metadata=key) == first
        reply = await stub.list_records(ListRecordsRequest(context="missions:m", collection="c"))
        assert len(reply.records) == 1


@steps
async def test_jobs_keep_what_they_keep(autojump_clock: object, step: float) -> None:
    async with world() as it, trio.open_nursery() as nursery:
        for number in range(3):
            keep = {"protocol": "message", "text": "keep", "count": number}
            job = await begin(nursery, it.client, keep, setup_id=it.setup_id)
            await job.ended.wait()
            assert job.status is Status.OK
            it.clock.shift += step
