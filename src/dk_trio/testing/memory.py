"""A module server and its client in one process, over memory: no sockets, no threads, nothing on disk.

    async with serve_in_memory(MyModule) as served:
        async with served.client.start({"protocol": "message", "text": "hi"}) as outputs:
            async for output in outputs: ...

It is the server of production, with everything that a call goes through: admission, setups, signals, HTTP/2. Only the
bytes go through memory, so it runs on any clock, and in virtual time deadlines, waits for a slot and polls take none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing

from dk_trio.boundary import unwrapped
from dk_trio.client import DEFAULT_MISSION_ID, DEFAULT_SETUP_ID, Metadata, ModuleClient
from dk_trio.errors import DkTrioError
from dk_trio.hosting import ModuleClass
from dk_trio.server import ModuleServer
from dk_trio.services.channels import Connect
from dk_trio.services.local.setup import LocalSetup
from dk_trio.services.setup import SetupSource, SetupVersion, bare
from dk_trio.settings import Settings, SignalSettings

from .clock import needs_trio, task_tree
from .jobs import JobResult, result_of

if TYPE_CHECKING:
    from .provider import FakeProvider

DAY: Final = 86_400.0
"""Seconds after which a block fails that is not over, unless told otherwise. On a clock that jumps this is at once."""

POLL_TIMEOUT: Final = 600.0
"""Seconds for which a provider holds a poll for signals. A poll each second is most of what an hour of waiting costs in
virtual time, and a signal ends a held poll at once, however long that is."""

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]

Setups = SetupSource | Mapping[str, Mapping[str, Any]]
"""Where setups come from: a source, or their contents by setup id."""


class MemoryServer:
    """A server that is reached over memory. Made by `serve_in_memory`.

    Attributes:
        server: The server.
        client: A client of it, on a channel of its own.
    """

    client: ModuleClient

    def __init__(self, server: ModuleServer, nursery: trio.Nursery) -> None:
        self.server = server
        self._nursery = nursery
        self._streams: set[MemoryStream] = set()

    def __repr__(self) -> str:
        return f"<MemoryServer {self.server!r}, {self.connections} connections>"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._streams)

    async def connect(self) -> trio.abc.Stream:
        """A new connection, as a raw stream of bytes.

        Raises:
            OSError: The server's block was left.
        """
        if self._nursery.cancel_scope.cancel_called:
            raise OSError(f"{self.server.definition.name} is not served any more")
        ours, theirs = trio.testing.memory_stream_pair()
        self._streams.add(ours)
        self._nursery.start_soon(self._serve, ours, theirs, name=f"connection of {self.server.definition.name}")
        await trio.lowlevel.checkpoint()
        return ours

    async def _serve(self, ours: MemoryStream, theirs: MemoryStream) -> None:
        try:
            await self.server.serve_stream(theirs)
        finally:
            self._streams.discard(ours)

    def cut(self) -> int:
        """Break all connections, without a word to either side. A client may connect again.

        Returns:
            How many there were.
        """
        cut, self._streams = self._streams, set()
        for stream in cut:
            stream.send_stream.close()
            stream.receive_stream.close()
        return len(cut)

    async def run_job(
        self,
        data: Mapping[str, Any],
        *,
        protocol: str | None = None,
        setup_id: str = DEFAULT_SETUP_ID,
        mission_id: str = DEFAULT_MISSION_ID,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> JobResult:
        """Run one job to its end. A failure of it is no exception here.

        Args:
            data: The whole input with its `root`, or only the root.
            protocol: Put into the root when it has none.
            setup_id: Id of the setup.
            mission_id: Id of the mission that the job is part of.
            timeout: Seconds for the job, as a caller's deadline.
            metadata: Sent with the request.
        """
        return await result_of(
            self.client,
            data,
            protocol=protocol,
            setup_id=setup_id,
            mission_id=mission_id,
            timeout=timeout,
            metadata=metadata,
        )

    @asynccontextmanager
    async def another_client(self, **channel_arguments: Any) -> AsyncIterator[ModuleClient]:
        """A client on a channel and connection of its own, for the length of the block.

        Args:
            channel_arguments: Of `ModuleClient.connect`, such as `options`.
        """
        async with ModuleClient.connect("memory", connect=self.connect, **channel_arguments) as client:
            yield client


@asynccontextmanager
async def serve_in_memory(
    *modules: ModuleClass,
    settings: Settings | None = None,
    provider: FakeProvider | Connect | None = None,
    setups: Setups | None = None,
    data_dir: Path | None = None,
    time_limit: float = DAY,
    **server_arguments: Any,
) -> AsyncIterator[MemoryServer]:
    """Serve modules for the length of the block, in this process and in memory.

    Args:
        modules: The module classes.
        settings: Of the server; the defaults when None, with polls of `POLL_TIMEOUT`. The environment is not read.
            Where they want data to be kept does not count.
        provider: A services-provider that the server works with, in remote mode, or what opens streams to one. None:
            the services are local.
        setups: Setups of the module. A mapping has contents by setup id, and no others are known; without, jobs get
            what the module's defaults or the provider say.
        data_dir: Where local services keep what modules store; in memory when None. On disk, threads write it.
        time_limit: Seconds for the block.
        server_arguments: More arguments of `ModuleServer`, such as `hooks`.

    Raises:
        ModuleDefinitionError: A class is not complete; says what is missing, and where.
        RuntimeError: Trio does not run here.
        trio.TooSlowError: The block took more than the limit; tells where each task was.
    """
    needs_trio("serve_in_memory")
    settings = settings or Settings(signals=SignalSettings(poll_timeout=POLL_TIMEOUT))
    services = replace(settings.services, data_dir=data_dir)
    if provider is not None:
        services = replace(services, mode="remote")
        server_arguments["provider"] = getattr(provider, "connect", provider)
    with hints_shown():
        server = ModuleServer(
            *modules, settings=replace(settings, services=services), setups=_source(setups), **server_arguments
        )
    async with unwrapped(), trio.open_nursery() as limits:
        limits.start_soon(_limit, time_limit)
        async with server.opened(), unwrapped(), trio.open_nursery() as nursery:
            served = MemoryServer(server, nursery)
            async with served.another_client() as served.client:
                yield served
            nursery.cancel_scope.cancel()
        limits.cancel_scope.cancel()


@contextmanager
def hints_shown() -> Iterator[None]:
    """An error's hint is a note of it, so that pytest and tracebacks show what to do about it."""
    try:
        yield
    except DkTrioError as error:
        if error.hint:
            error.add_note(error.hint)
        raise


async def _limit(seconds: float) -> None:
    await trio.sleep(seconds)
    raise trio.TooSlowError(f"serve_in_memory: its block was not over after {seconds:g} s:{task_tree()}")


def _source(setups: Setups | None) -> SetupSource | None:
    if not isinstance(setups, Mapping):
        return setups
    return LocalSetup(
        {
            setup_id: SetupVersion(id=f"setup_versions:{bare(setup_id)}-1", setup_id=setup_id, content=content)
            for setup_id, content in setups.items()
        }
    )
