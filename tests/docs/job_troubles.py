"""What goes wrong with jobs, done on purpose: each function gives the text that a caller or the log gets."""

import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from grpclib import GRPCError
from tests.module.sample import module_class, module_with
from tests.module.served import outputs_of, served

from dk_trio import ModuleClient, Settings
from dk_trio.errors import DkTrioError
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ConfigSetupModuleRequest, ModuleServiceStub
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion
from dk_trio.settings import LifecycleSettings, ServerSettings, TaskSettings

JOB_ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def settled(text: str) -> str:
    """The text with an example in place of what differs from run to run."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", JOB_ID, text)
    return re.sub(rf"{re.escape(__file__)}:\d+", "module.py:12", text)


async def status_of(client: ModuleClient, **arguments: Any) -> str:
    with pytest.raises(GRPCError) as caught:
        await outputs_of(client, {}, protocol="message", **arguments)
    return settled(f"{caught.value.status.name}: {caught.value.message}")


@contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that come from WARNING on."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                lines.append(settled(record.getMessage()))

    handler = Keep()
    logging.getLogger("dk_trio").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("dk_trio").removeHandler(handler)


# -- handlers ---------------------------------------------------------------------------------------------------------


async def wait(*_: Any) -> None:
    await trio.sleep_forever()


async def end(*_: Any) -> None:
    return


async def fail(*_: Any) -> None:
    raise ValueError("no such file")


async def pour(self: Any, input_data: Any, setup_data: Any, context: Any) -> AsyncIterator[dict[str, str]]:
    while True:
        yield {"protocol": "message", "text": "x" * 100_000}


async def leave_open(*_: Any) -> None:
    await trio.open_nursery().__aenter__()


async def go_on(seconds: float, *_: Any) -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)


async def block(clock: trio.testing.MockClock, *_: Any) -> None:
    clock.jump(1.6)  # as a blocking call does: time goes on, nobody else does
    await trio.sleep(1)


# -- at the start -----------------------------------------------------------------------------------------------------


def drop_oldest() -> str:
    with pytest.raises(DkTrioError) as caught:
        Settings.from_environment({"DIGITALKIN_BACKPRESSURE_STRATEGY": "drop_oldest"})
    return caught.value.message


def narrow_front_door() -> str:
    names = ("MAX_CONCURRENT_RPCS", "MAX_CONCURRENT_TASKS", "MAX_QUEUED_TASKS")
    environ = dict(zip((f"DIGITALKIN_{name}" for name in names), ("2000", "200", "3000"), strict=True))
    (warning,) = Settings.from_environment(environ).warnings
    return warning


# -- what the caller gets ---------------------------------------------------------------------------------------------


async def refused(**sizes: int) -> str:
    """The job after those that fill the server."""
    settings = Settings(server=ServerSettings(max_concurrent_rpcs=4000), tasks=TaskSettings(**sizes))
    async with served(module_with(wait), settings=settings) as (_, client), trio.open_nursery() as nursery:
        for _ in range(sum(sizes.values())):
            nursery.start_soon(partial(outputs_of, client, {}, protocol="message"))
        await trio.testing.wait_all_tasks_blocked()
        text = await status_of(client)
        nursery.cancel_scope.cancel()
    return text


async def stalled_reader() -> str:
    async with served(module_with(pour)) as (_, client), client.start({}, protocol="message") as outputs:
        await trio.sleep(400)
        with pytest.raises(GRPCError) as caught:
            async for _ in outputs:
                pass
    return settled(f"{caught.value.status.name}: {caught.value.message}")


async def ran_too_long() -> str:
    settings = Settings(lifecycle=LifecycleSettings(execution_timeout=600))
    async with served(module_with(wait), settings=settings) as (_, client):
        return await status_of(client)


async def authors_exception() -> str:
    async with served(module_with(fail)) as (_, client):
        return await status_of(client)


async def nursery_left_open() -> str:
    async with served(module_with(leave_open)) as (_, client):
        return await status_of(client)


async def cut_by_a_drain() -> str:
    async with served(module_with(wait)) as (server, client), trio.open_nursery() as nursery:

        async def stop() -> None:
            await trio.sleep(1)
            await server.drain(grace=10)

        nursery.start_soon(stop)
        return await status_of(client)


async def configured_too_long() -> str:
    module = module_class(run=wait, run_config_setup=wait)
    async with served(module) as (_, client):
        request = ConfigSetupModuleRequest(setup_version=SetupVersion(id="setup_versions:1", setup_id="setups:1"))
        with pytest.raises(GRPCError) as caught:
            await ModuleServiceStub(client.channel).config_setup_module(request)
    return f"{caught.value.status.name}: {caught.value.message}"


# -- what the log says ------------------------------------------------------------------------------------------------


async def few_slots() -> str:
    settings = Settings(tasks=TaskSettings(max_concurrent_tasks=200, max_queued_tasks=3600))
    with logged() as lines:
        async with served(module_with(wait), settings=settings) as (_, client), trio.open_nursery() as nursery:
            for _ in range(161):
                nursery.start_soon(partial(outputs_of, client, {}, protocol="message"))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    return lines[0]


async def cancelled_after_a_second(module: Any, patience: float, line: int = 0) -> str:
    """The log of a job whose caller leaves."""
    with logged() as lines:
        async with served(module) as (_, client):
            with trio.move_on_after(1):
                await outputs_of(client, {}, protocol="message")
            await trio.sleep(patience)
    return lines[line]


async def slow_cleanup() -> str:
    return await cancelled_after_a_second(module_with(wait, cleanup=wait), 20)


async def goes_on() -> str:
    return await cancelled_after_a_second(module_with(partial_method(go_on, 30)), 60)


async def went_on() -> str:
    return await cancelled_after_a_second(module_with(partial_method(go_on, 3)), 60)


async def loop_blocked(clock: trio.testing.MockClock) -> str:
    with logged() as lines:
        async with (
            served(module_with(partial_method(block, clock))) as (server, client),
            server.stalls.opened(),
        ):
            await outputs_of(client, {}, protocol="message")
    return lines[0]


async def failure_logged() -> str:
    with logged() as lines:
        await authors_exception()
    return lines[0]


def partial_method(function: Any, argument: object) -> Any:
    async def handle(self: Any, *arguments: Any) -> None:
        await function(argument, *arguments)

    return handle
