"""What is sent arrives: each output once and in order, at whatever pace it is read, and bounded while it is not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests.rpc.wire_client import Call, WireClient

from dk_trio import ModuleClient, ModuleServer
from dk_trio.client import START_MODULE
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleRequest, StartModuleResponse
from dk_trio.pb.google.protobuf import Struct
from dk_trio.settings import LifecycleSettings, Settings, TaskSettings

from .sample import Message, module_with
from .served import outputs_of, served

# The main job of the benchmarks: a hundred outputs between the first message and the last.
OUTPUTS = 100
SIZE = 1000


async def send_many(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
    for i in range(input_data.count):
        await context.send({"protocol": "message", "i": i, "text": input_data.text})


def job(count: int, text: str = "") -> dict[str, Any]:
    return {"protocol": "message", "count": count, "text": text}


def assert_whole(roots: list[dict[str, Any]], count: int) -> None:
    assert [root["protocol"] for root in roots] == ["module_start_info", *["message"] * count, "end_of_stream"]
    assert [root["i"] for root in roots[1:-1]] == list(range(count))


async def read(client: ModuleClient, count: int, *, pause: float = 0, text: str = "x" * SIZE) -> None:
    """A caller that pauses after its first message, and then takes everything."""
    roots = []
    async with client.start(job(count, text)) as outputs:
        async for output in outputs:
            roots.append(output["root"])
            if len(roots) == 1:
                await trio.sleep(pause)
    assert_whole(roots, count)


@pytest.mark.parametrize("pause", [0, 2])
async def test_streams_side_by_side(autojump_clock: object, pause: float) -> None:
    async with served(module_with(send_many)) as (server, client):
        async with trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(lambda: read(client, OUTPUTS, pause=pause))
        assert server.statistics().jobs.succeeded == 64


@pytest.mark.parametrize("pause", [0, 2])
async def test_a_long_stream(autojump_clock: object, pause: float) -> None:
    async with served(module_with(send_many)) as (_, client):
        await read(client, 10_000, pause=pause, text="x")


async def start(client: WireClient, root: dict[str, Any]) -> Call:
    request = StartModuleRequest(input=Struct.from_dict({"root": root}), setup_id="setups:any", mission_id="missions:m")
    return await client.call(START_MODULE, request)


async def roots_of(call: Call, *, pace: float = 0) -> list[dict[str, Any]]:
    """What one call has to give, a message every `pace` seconds."""
    roots = []
    while (data := await call.receive_bytes()) is not None:
        output = StartModuleResponse.FromString(data).output
        assert output is not None
        roots.append(output.to_dict().get("root", {}))
        await trio.sleep(pace)
    return roots


@asynccontextmanager
async def by_hand(server: ModuleServer, *, pair: Any, reads: bool = True, **options: Any) -> AsyncIterator[WireClient]:
    """A client that grants what it is told to, over a connection of its own."""
    ours, theirs = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        client = WireClient(ours, **options)
        await client.flush()
        if reads:
            nursery.start_soon(client.read)
            await trio.testing.wait_all_tasks_blocked()  # the settings of both sides hold
        yield client
        await ours.aclose()


@pytest.mark.parametrize("window", [5, 50, 3000])
@pytest.mark.parametrize("pair", [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair])
async def test_slow_readers_with_small_windows(autojump_clock: object, window: int, pair: Any) -> None:
    async def visit(client: WireClient, pace: float) -> None:
        call = await start(client, job(OUTPUTS, "x" * 100))
        assert_whole(await roots_of(call, pace=pace), OUTPUTS)
        assert await call.status() == (Status.OK, None)

    async with (
        served(module_with(send_many)) as (server, _),
        by_hand(server, pair=pair, stream_window=window) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(8):
            nursery.start_soon(visit, client, number / 10)


class Endless:
    """A module that sends as much as it may, and knows how many sends have returned, and who was cleaned up after."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        self.cleaned: list[str] = []

        async def handle(handler: Any, input_data: Message, setup_data: Any, context: Any) -> None:
            if input_data.count:
                await send_many(handler, input_data, setup_data, context)
                return
            job_id = context.session.job_id
            self.sent[job_id] = 0
            while self.sent[job_id] < 5000:  # nobody who is not held up gets this far
                await context.send({"protocol": "message", "i": self.sent[job_id], "text": "x" * SIZE})
                self.sent[job_id] += 1

        async def cleanup(module: Any, context: Any) -> None:
            self.cleaned.append(context.session.job_id)

        self.module = module_with(handle, cleanup=cleanup)


# A window that stays shut, or one that never would, over a connection that takes nothing.
SHUT_WINDOW = {"pair": trio.testing.memory_stream_pair, "stream_window": 50_000}
FULL_SOCKET = {
    "pair": trio.testing.lockstep_stream_pair,
    "reads": False,
    "stream_window": 1 << 30,
    "connection_window": 1 << 30,
}


@pytest.mark.parametrize(
    ("client", "bound"),
    # Of a connection, 256 KiB are queued beside what is being written, and a message is begun while there is room.
    [(SHUT_WINDOW, 50_000), (FULL_SOCKET, 600_000)],
    ids=["window", "socket"],
)
async def test_callers_that_stop_reading(autojump_clock: object, client: dict[str, Any], bound: int) -> None:
    endless = Endless()
    settings = Settings(
        lifecycle=LifecycleSettings(stream_drain_timeout=60), tasks=TaskSettings(max_concurrent_tasks=51)
    )
    async with served(endless.module, settings=settings) as (server, bystander), trio.open_nursery() as nursery:

        async def stall() -> None:
            async with by_hand(server, **client) as stalled:
                await start(stalled, job(0))
                await trio.sleep_forever()

        for _ in range(50):
            nursery.start_soon(stall)
        await trio.sleep(1)
        sent = dict(endless.sent)
        assert len(sent) == 50
        assert 0 < min(sent.values()) <= max(sent.values()) <= bound / SIZE
        for _ in range(58):
            assert len(await outputs_of(bystander, job(OUTPUTS))) == OUTPUTS + 2
            await trio.sleep(1)
        assert endless.sent == sent  # their modules are inside of `send`, all of them
        assert server.statistics().jobs.running == 50
        await trio.sleep(3)
        statistics = server.statistics()
        assert statistics.jobs.ended == {Reason.TIMEOUT: 50, Reason.COMPLETED: 58}
        assert (statistics.jobs.running, statistics.admission.running) == (0, 0)
        assert len(endless.cleaned) == 50 + 58
        nursery.cancel_scope.cancel()


async def test_who_has_stopped_reading_is_told(autojump_clock: object) -> None:
    """What came before is there, in order, and what was cut off is no message; the status says why."""
    settings = Settings(lifecycle=LifecycleSettings(stream_drain_timeout=60))
    async with (
        served(Endless().module, settings=settings) as (server, _),
        by_hand(server, **SHUT_WINDOW) as client,
    ):
        call = await start(client, job(0))
        await trio.sleep(100)
        status, message = await call.status()
        assert status is Status.DEADLINE_EXCEEDED
        assert "the client has read nothing for 60 s" in str(message)
        roots = await roots_of(call)
        assert roots[0]["protocol"] == "module_start_info"
        assert [root["i"] for root in roots[1:]] == list(range(len(roots) - 1))
        assert len(roots) > 1


async def test_a_caller_that_reads_now_and_then_is_not_given_up(autojump_clock: object) -> None:
    settings = Settings(lifecycle=LifecycleSettings(stream_drain_timeout=60))
    async with (
        served(module_with(send_many), settings=settings) as (server, _),
        by_hand(server, pair=trio.testing.memory_stream_pair, stream_window=1000) as client,
    ):
        call = await start(client, job(OUTPUTS, "x" * SIZE))
        assert_whole(await roots_of(call, pace=59), OUTPUTS)
        assert await call.status() == (Status.OK, None)


async def test_callers_that_leave_while_jobs_wait_for_their_slots(autojump_clock: object) -> None:
    seen: list[str] = []

    async def handle(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
        if input_data.text == "go":
            return
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append(context.session.job_id)
            raise

    tasks = TaskSettings(max_concurrent_tasks=100, max_queued_tasks=100)
    async with served(module_with(handle), settings=Settings(tasks=tasks)) as (server, client):

        async def visit() -> None:
            async with client.start(job(0)) as outputs:
                await anext(outputs)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(visit)
            await trio.sleep(1)
            assert (server.statistics().admission.running, server.statistics().admission.queued) == (100, 100)
            nursery.cancel_scope.cancel()
        await trio.sleep(1)
        assert len(set(seen)) == len(seen) == 100
        statistics = server.statistics()
        assert statistics.jobs.ended == {Reason.CLIENT_GONE: 200}
        assert (statistics.admission.running, statistics.admission.queued, statistics.admission.admitted) == (0, 0, 0)
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(outputs_of, client, job(0, "go"))
        assert server.statistics().jobs.succeeded == 200
