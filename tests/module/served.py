"""A module server and its client over memory, for tests in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
import trio.testing

from dk_trio import ModuleClient, ModuleServer, Settings, rpc

# Nothing in virtual time takes longer; a deadlock ends here instead of never.
DAY = 86400


@asynccontextmanager
async def served(
    *modules: Any, settings: Settings | None = None, data_dir: Path | None = None, **arguments: Any
) -> AsyncIterator[tuple[ModuleServer, ModuleClient]]:
    """Serve modules for the length of the block; each connection is a pair of memory streams.

    Without `data_dir` local services keep everything in memory and need no threads, which virtual time does not know.
    """
    settings = settings or Settings()
    settings = replace(settings, services=replace(settings.services, data_dir=data_dir))
    server = ModuleServer(*modules, settings=settings, **arguments)
    with trio.fail_after(DAY):
        async with server.opened(), trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                yield server, ModuleClient(channel)
            nursery.cancel_scope.cancel()


async def outputs_of(client: ModuleClient, data: dict[str, Any], **arguments: Any) -> list[dict[str, Any]]:
    """All outputs of one job."""
    async with client.start(data, **arguments) as outputs:
        return [output async for output in outputs]
