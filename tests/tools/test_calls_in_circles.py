"""Modules of one process that call themselves, or each other: what waits for itself must end, and so must a server."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.sample import Message, module_with

from dk_trio import ModuleClient, ModuleServer, Settings, rpc
from dk_trio.module import ModuleContext
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.settings import ModuleSettings, TaskSettings

from .neighbours import DAY


def module_of(calls: Callable[[int], str | None], log: list[str]) -> Any:
    """A module whose jobs call the module that `calls` names for their depth."""

    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        depth = input_data.count
        name = calls(depth)
        try:
            if name is not None:
                root = {"protocol": "message", "count": depth + 1}
                call = context.communication.call_module(f"{name}.memory", 0, root, "setups:s", "missions:m")
                async for answer in call:
                    if answer["output"]["root"]["protocol"] == "message":
                        await context.send(Message(count=depth))
            else:
                await trio.sleep(10)
                await context.send(Message(count=depth))
        finally:
            log.append(f"{depth} ended")

    return module_with(handle)


@asynccontextmanager
async def serving(platform: LocalPlatform, module: Any, name: str, tasks: TaskSettings) -> AsyncIterator[ModuleServer]:
    settings = replace(Settings(tasks=tasks), module=ModuleSettings(module_id=f"modules:{name}"))
    server = ModuleServer(module, settings=settings, platform=platform)
    async with server.opened():
        yield server


@asynccontextmanager
async def client_of(server: ModuleServer) -> AsyncIterator[ModuleClient]:
    async with rpc.open_channel("memory", connect=server._connect) as channel:
        yield ModuleClient(channel)


async def outputs_of(client: ModuleClient, **arguments: Any) -> list[Any]:
    async with client.start({"protocol": "message", "count": 0}, **arguments) as outputs:
        return [output["root"]["protocol"] async for output in outputs]


QUEUE = TaskSettings(max_concurrent_tasks=1, max_queued_tasks=5)
NO_QUEUE = TaskSettings(max_concurrent_tasks=1)


@pytest.mark.parametrize(("tasks", "seconds"), [(NO_QUEUE, 30), (QUEUE, 5)])
@pytest.mark.parametrize("ring", [["a"], ["a", "b"], ["a", "b", "c"]])
async def test_a_job_that_waits_for_a_slot_of_its_own_callers_is_refused(
    autojump_clock: trio.abc.Clock, ring: list[str], tasks: TaskSettings, seconds: float
) -> None:
    """However patient the queue is: nobody could ever leave it."""
    log: list[str] = []
    platform = LocalPlatform(None)
    with trio.fail_after(DAY):
        async with platform.opened(), AsyncExitStack() as stack:
            depth = len(ring)
            module = module_of(lambda count: ring[(count + 1) % depth] if count < depth else None, log)
            servers = [await stack.enter_async_context(serving(platform, module, name, tasks)) for name in ring]
            async with client_of(servers[0]) as client:
                began = trio.current_time()
                with pytest.raises(GRPCError, match=f"RESOURCE_EXHAUSTED.*none became free within {seconds} s"):
                    await outputs_of(client)
                assert trio.current_time() - began == pytest.approx(seconds, abs=0.1)
            await trio.testing.wait_all_tasks_blocked()
            assert [server.statistics().admission.admitted for server in servers] == [0] * depth
    assert sorted(log) == [f"{count} ended" for count in range(depth)]


async def test_those_who_wait_for_nobody_wait_as_long_as_it_takes(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    platform = LocalPlatform(None)
    with trio.fail_after(DAY):
        async with (
            platform.opened(),
            serving(platform, module_of(lambda _: None, log), "b", QUEUE),
            serving(platform, module_of(lambda count: "b" if count == 0 else None, log), "a", TaskSettings()) as a,
            client_of(a) as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(3):  # in the queue of b, for 20 s
                nursery.start_soon(outputs_of, client)
    assert sorted(log) == ["0 ended"] * 3 + ["1 ended"] * 3


async def test_a_server_that_is_gone_is_unavailable_to_those_who_have_its_channel(
    autojump_clock: trio.abc.Clock,
) -> None:
    server = ModuleServer(module_of(lambda _: None, []), platform=LocalPlatform(None))
    with trio.fail_after(DAY):
        async with server.platform.opened(), client_of(server) as client:
            async with server.opened():
                await client.input_schema()
            with pytest.raises(GRPCError, match="is not served any more") as caught:
                await client.input_schema(timeout=5)
    assert caught.value.status is Status.UNAVAILABLE


@pytest.mark.parametrize("end", ["caller", "first drains", "both drain"])
async def test_modules_that_call_each_other_end(autojump_clock: trio.abc.Clock, end: str) -> None:
    log: list[str] = []
    platform = LocalPlatform(None)
    with trio.fail_after(DAY):
        async with (
            platform.opened(),
            serving(platform, module_of(lambda count: "b" if count < 5 else None, log), "a", TaskSettings()) as a,
            serving(platform, module_of(lambda count: "a" if count < 5 else None, log), "b", TaskSettings()) as b,
            client_of(a) as client,
            trio.open_nursery() as nursery,
        ):

            async def call() -> None:
                with pytest.raises(GRPCError) as caught:
                    await outputs_of(client)
                assert caught.value.status is Status.UNAVAILABLE

            nursery.start_soon(call)
            await trio.sleep(5)
            assert (a.statistics().jobs.running, b.statistics().jobs.running) == (3, 3)
            if end == "caller":
                nursery.cancel_scope.cancel()
            else:
                nursery.start_soon(a.drain, 1)
                if end == "both drain":
                    nursery.start_soon(b.drain, 1)
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            for server in (a, b):
                now = server.statistics()
                assert (now.jobs.running, now.rpc.rpcs, now.admission.admitted, now.channels.leases) == (0, 0, 0, 0)
    assert sorted(log) == [f"{count} ended" for count in range(6)]
