"""A provider and a channel to it over memory, for tests in virtual time."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
import trio.testing

from dk_trio import rpc
from dk_trio.boundary import unwrapped
from dk_trio.provider import Provider, ProviderOptions
from dk_trio.services.stores.database import Database
from dk_trio.services.stores.sqlite import SqliteDatabase

# Nothing in virtual time takes longer; a deadlock ends here instead of never.
DAY = 86400


@dataclass
class Provided:
    """A provider that is open, and ways to reach it."""

    provider: Provider
    channel: rpc.Channel
    connect: Callable[[], Any]
    """Gives a stream to the provider, for a channel of one's own."""
    streams: list[trio.abc.Stream] = field(default_factory=list)

    async def cut(self) -> None:
        """Break all connections, as a network does."""
        streams, self.streams[:] = [*self.streams], []
        for stream in streams:
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def another(self, **arguments: Any) -> AsyncIterator[rpc.Channel]:
        """A channel of another client."""
        async with rpc.open_channel("memory", connect=self.connect, **arguments) as channel:
            yield channel


@asynccontextmanager
async def provided(
    *,
    database: Database | None = None,
    directory: Path | None = None,
    interceptors: Sequence[rpc.Interceptor] = (),
    **options: Any,
) -> AsyncIterator[Provided]:
    """Open a provider for the length of the block; each connection is a pair of memory streams.

    Without `database` and `directory` everything is in memory and needs no threads, which virtual time does not know.
    `options` are those of `ProviderOptions`.
    """
    database = SqliteDatabase(directory) if database is None else database
    provider = Provider(database, directory=directory, options=ProviderOptions(**options), interceptors=interceptors)
    with trio.fail_after(DAY):
        async with provider.opened(), unwrapped(), trio.open_nursery() as nursery:
            streams: list[trio.abc.Stream] = []

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                streams.append(ours)
                nursery.start_soon(provider.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                yield Provided(provider, channel, connect, streams)
            nursery.cancel_scope.cancel()
