"""A module and its caller in one process: over memory, without a port, and on the test's clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio
import trio.testing
from dk_trio import ModuleClient, ModuleServer, Settings, TrioModule, rpc

DAY = 86400
"""Seconds on a clock that jumps: what waits for ever fails here, at once."""


@asynccontextmanager
async def served(module: type[TrioModule[Any, Any, Any, Any]]) -> AsyncIterator[ModuleClient]:
    """Serve a module for the length of the block, and keep what it stores in memory."""
    settings = Settings()
    server = ModuleServer(module, settings=replace(settings, services=replace(settings.services, data_dir=None)))
    with trio.fail_after(DAY):
        async with server.opened(), trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                yield ModuleClient(channel)
            nursery.cancel_scope.cancel()


async def answers(client: ModuleClient, data: dict[str, Any], **arguments: Any) -> list[dict[str, Any]]:
    """What the module itself sends, without the first and the last message that every job has."""
    async with client.start(data, **arguments) as outputs:
        return [output["root"] async for output in outputs][1:-1]
