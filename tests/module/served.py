"""A module server and its client over memory, for tests in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.testing import serve_in_memory
from dk_trio.testing.memory import DAY as DAY


@asynccontextmanager
async def served(
    *modules: Any, settings: Settings | None = None, data_dir: Path | None = None, **arguments: Any
) -> AsyncIterator[tuple[ModuleServer, ModuleClient]]:
    """See `serve_in_memory`."""
    async with serve_in_memory(*modules, settings=settings, data_dir=data_dir, **arguments) as served:
        yield served.server, served.client


async def outputs_of(client: ModuleClient, data: dict[str, Any], **arguments: Any) -> list[dict[str, Any]]:
    """All outputs of one job."""
    async with client.start(data, **arguments) as outputs:
        return [output async for output in outputs]
