"""A module server and its provider that are observed, all in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import trio
import trio.testing
from tests.module.remote_kit import REMOTE, Network, module, stored_setup, wall_clock
from tests.provider.kit import Provided, provided

from dk_trio import ModuleClient, ModuleServer, Settings, rpc
from dk_trio.observe import Observed, Part


@dataclass(frozen=True)
class Watched:
    """What a test has in its hands."""

    server: ModuleServer
    client: ModuleClient
    provider: Provided
    setup_id: str

    @property
    def observed(self) -> Observed:
        return Observed(modules=lambda: [self.server], provider=self.provider.provider)


@asynccontextmanager
async def watched(
    part: Part, handle: Any, *, settings: Settings = REMOTE, hooks: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Watched]:
    """A server in remote mode and its provider, both observed by one part; `options` are the provider's."""
    async with provided(now=wall_clock, interceptors=part.interceptors, **options) as provider:
        setup_id = await stored_setup(provider, {"prefix": "> "})
        server = ModuleServer(
            module(handle, **(hooks or {})),
            settings=replace(settings),
            provider=Network(provider).connect,
            interceptors=part.interceptors,
            client_interceptors=part.client_interceptors,
            hooks=part.hooks,
        )
        async with server.opened(), trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                yield Watched(server, ModuleClient(channel), provider, setup_id)
            nursery.cancel_scope.cancel()
