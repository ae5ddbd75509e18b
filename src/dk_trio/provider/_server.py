"""Provider: the services of `_servicers` on the network, with health and reflection.

    provider = Provider(database, directory=directory)
    async with provider.running(port=0) as address:  # for the length of the block
        ...
    await provider.serve(port=50051)  # until SIGTERM or SIGINT, then drain
    async with provider.opened():  # no socket: serve_stream() takes connections over any stream
        ...

Health has the names of a module's server: `liveness` is SERVING from the beginning, `readiness` and each service while
the store can be written. That is looked at when the provider opens and every `ProviderOptions.health_interval`.

A drain takes readiness away, ends held polls, lets calls end for the grace, and cancels the rest with UNAVAILABLE. A
write that was begun is waited for, so what a caller was told is what the store has.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from dk_trio import extensions, rpc
from dk_trio.boundary import unwrapped
from dk_trio.errors import DkTrioError
from dk_trio.listening import address_of, open_listeners
from dk_trio.rpc.health import LIVENESS, READINESS
from dk_trio.security import Security, SecurityStatistics
from dk_trio.settings import SecuritySettings
from dk_trio.stalls import LoopStatistics, StallWatch

from ._large import MESSAGE_MAX
from ._options import ProviderOptions
from ._servicers import SERVICERS
from ._stores import Stores
from ._validation import Validation, ValidationStatistics

if TYPE_CHECKING:
    from pathlib import Path

    from dk_trio.services.stores.database import Database, DatabaseStatistics

    from ._base import Servicer

_log = logging.getLogger("dk_trio.provider")

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 50051

# What a received message may lack to `MESSAGE_MAX`: what is stored is told with some facts around it, and must
# fit into a message then, too.
_AROUND: Final = 64 * 1024


# A third of the 30 s that Kubernetes gives a pod to end; the end of what was cut and the store's close take the rest.
DEFAULT_GRACE: Final = 10.0

# Seconds that cancelled calls get to end: a write that was begun is waited for.
CUT_GRACE: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What became of the calls that were here when a drain began.

    Attributes:
        cut: Cancelled when the grace was over.
        stuck: Of those that were cut, the ones that go on all the same: their disk or database does not answer.
    """

    cut: int = 0
    stuck: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStatistics:
    """A snapshot of a provider, part by part.

    Attributes:
        ready: Whether the store could be written when it was looked at last.
        rpc: Connections and calls.
        database: The store.
        security: What was refused, and files that were loaded again.
        validation: Rules of the contract that were broken.
        services: What single services have to tell, by the name of the service.
        loop: The event loop, while the provider is `running`.
    """

    ready: bool
    rpc: rpc.ServerStatistics
    database: DatabaseStatistics
    security: SecurityStatistics
    validation: ValidationStatistics
    services: Mapping[str, object]
    loop: LoopStatistics


class Provider:
    """Serves what modules share.

    Args:
        database: Where all but contents of files is kept; the provider opens it.
        directory: Where contents of files are kept; None: in memory.
        options: How clients are treated.
        interceptors: Code around each RPC, see `dk_trio.rpc`.
        security: TLS, and who may call; the caller opens it. None: plaintext, for everybody.

    Attributes:
        servicers: What is served; a derived class may serve it otherwise.
    """

    servicers: ClassVar[tuple[type[Servicer], ...]] = SERVICERS

    def __init__(
        self,
        database: Database,
        *,
        directory: Path | None = None,
        options: ProviderOptions | None = None,
        interceptors: Sequence[rpc.Interceptor] = (),
        security: Security | None = None,
    ) -> None:
        security = self._security = security or Security(SecuritySettings())
        options = self._options = options or ProviderOptions()
        self._stores = Stores.of(database, directory, options=options)
        self._validation = Validation(options.validate)
        self._servicers = [servicer(self._stores, options, self._validation) for servicer in self.servicers]
        names = {path.split("/")[1] for servicer in self._servicers for path in servicer.__mapping__()}
        self._follow_readiness = (READINESS, *sorted(names))
        self._open = False
        self._draining = False
        self._stalls = StallWatch(options.stall_threshold)
        self._ready = False
        self.health = rpc.Health()
        self.health.set(LIVENESS, True)
        self._set_ready(ready=False)
        services: list[rpc.Service] = [*self._servicers, self.health]
        self._rpc = rpc.Server(
            [*services, *rpc.reflection(services)],
            options=rpc.ServerOptions(
                max_concurrent_rpcs=options.max_concurrent_rpcs,
                max_connections_per_client=security.max_connections_per_client,
                max_receive_message_bytes=MESSAGE_MAX - _AROUND,
                max_send_message_bytes=MESSAGE_MAX,
                response_metadata={extensions.HONOURS: ",".join(sorted(extensions.ALL))},
            ),
            interceptors=security.among(interceptors),
        )

    def __repr__(self) -> str:
        state = "draining" if self._draining else "ready" if self._ready else "open" if self._open else "closed"
        return f"<Provider {state}, {self._stores.database!r}, {self._rpc!r}>"

    def statistics(self) -> ProviderStatistics:
        """What is going on now, and what was so far."""
        told = {type(servicer).__name__: servicer.statistics() for servicer in self._servicers}
        return ProviderStatistics(
            ready=self._ready,
            rpc=self._rpc.statistics(),
            database=self._stores.database.statistics(),
            security=self._security.statistics(),
            validation=self._validation.statistics(),
            services={name: statistics for name, statistics in told.items() if statistics is not None},
            loop=self._stalls.statistics(),
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Be ready for `serve_stream` for the length of the block.

        The connections live where `serve_stream` is called, inside this block.

        Raises:
            ConfigurationError: Another process has the store, it cannot be made, or the contents of files beside it
                are those of another one.
            StorageServiceError: It is damaged, or from a newer release.
        """
        async with self._stores.database.opened():
            await self._stores.database.open()  # at the first use it would be a caller who is told
            await self._stores.files.open()
            async with unwrapped(), trio.open_nursery() as nursery:
                for run in (self._stores.once.run, *(servicer.run for servicer in self._servicers)):
                    nursery.start_soon(self._kept_up, run)
                await self._look()
                nursery.start_soon(self._watch_store)
                self._open = True
                try:
                    yield
                finally:
                    self._open = False
                    self._set_ready(ready=False)
                    nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def running(self, *, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> AsyncIterator[str]:
        """Serve for the length of the block, which gets `HOST:PORT`. At its end every call is cancelled.

        Args:
            host: Address to listen on.
            port: Port to listen on, 0 for any free one.

        Raises:
            ListenError: The address cannot be listened on.
            ConfigurationError: See `opened`.
            StorageServiceError: See `opened`.
        """
        async with self.opened(), self._stalls.opened(), unwrapped(), trio.open_nursery() as nursery:
            listeners = await open_listeners(host, port)
            self._security.warn(host)
            await nursery.start(self._rpc.serve, self._security.listeners(listeners))
            try:
                yield address_of(host, listeners)
            finally:
                self._set_ready(ready=False)
                nursery.cancel_scope.cancel()

    async def put_user_profile(self, mission_id: str, profile: Mapping[str, Any]) -> None:
        """Keep who a mission is for: the contract can only ask. Inside of `opened` and `running`.

        Args:
            mission_id: With or without its prefix.
            profile: JSON values by the names of `UserProfile`; dates are RFC 3339 texts. Instead of what was there.

        Raises:
            UserProfileServiceError: It is not JSON, or cannot be written.
        """
        await self._stores.profiles.put(mission_id, profile)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream, until it ends; for tests and for transports of one's own.

        TLS is theirs (`Security.stream`); a token is asked for here.

        Raises:
            RuntimeError: Outside of `opened` and `running`.
        """
        if not self._open:
            await trio.aclose_forcefully(stream)
            raise RuntimeError("the provider is not open: write `async with provider.opened():` around serve_stream()")
        await self._rpc.serve_stream(stream)

    async def serve(
        self,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        grace: float = DEFAULT_GRACE,
        on_ready: Callable[[str], object] | None = None,
        on_stuck: Callable[[DrainReport], object] | None = None,
    ) -> DrainReport:
        """Serve until SIGTERM or SIGINT, then drain; a second signal cancels what is left at once.

        Must be called in the main thread, as signals want it.

        Args:
            host: Address to listen on.
            port: Port to listen on, 0 for any free one.
            grace: Seconds that calls get to end by themselves.
            on_ready: Called once with `HOST:PORT` when RPCs are accepted.
            on_stuck: Called when everything has ended but calls whose disk or database does not answer. They are
                waited for; a program that wants to end all the same ends the process here.

        Raises:
            ListenError: The address cannot be listened on.
            ConfigurationError: See `opened`.
            StorageServiceError: See `opened`.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            # Around the end of the store, too: a signal that nobody takes is raised again, and would end the process.
            async with unwrapped(), trio.open_nursery() as nursery:
                patience = trio.CancelScope()

                async def hurry() -> None:
                    async for number in signals:
                        _log.warning("%s again: cancelling", signal.Signals(number).name)
                        patience.cancel()

                async with self.running(host=host, port=port) as address:
                    if on_ready is not None:
                        on_ready(address)
                    number = await anext(signals)
                    told = (signal.Signals(number).name, self._rpc.statistics().rpcs, grace)
                    _log.info("%s: draining, %d calls get %g s", *told)
                    nursery.start_soon(hurry)
                    with patience:
                        report = await self.drain(grace)
                    if patience.cancelled_caught:
                        report = await self.drain(0)
                    if report.stuck and on_stuck is not None:
                        on_stuck(report)
                nursery.cancel_scope.cancel()
        return report

    async def drain(self, grace: float = DEFAULT_GRACE) -> DrainReport:
        """Take readiness away, accept nothing new, let calls end for `grace` seconds, cancel the rest.

        Cancelling this leaves the provider draining, with no end to the grace; it may be called again.
        """
        self._draining = True
        self._set_ready(ready=False)
        with trio.move_on_after(grace):
            await self._rpc.drain()
            return DrainReport()
        cut = self._rpc.statistics().rpcs
        with trio.move_on_after(CUT_GRACE):
            await self._rpc.drain(0)
            return DrainReport(cut=cut)
        stuck = self._rpc.statistics().rpcs
        _log.critical("calls that go on although they were cancelled: %d. The store does not answer", stuck)
        return DrainReport(cut=cut, stuck=stuck)

    # --- health ------------------------------------------------------------------------------------------------------

    async def _kept_up(self, run: Callable[[], Awaitable[None]]) -> None:
        """What goes on in the background outlives a store that cannot be written for a while."""
        while True:
            try:
                await run()
                return
            except DkTrioError as error:
                _log.error("work in the background failed, and is begun anew: %s", error.text)
            await trio.sleep(self._options.health_interval)

    async def _watch_store(self) -> None:
        while True:
            await trio.sleep(self._options.health_interval)
            await self._look()

    async def _look(self) -> None:
        """Write something: a store that cannot be written is not ready, whatever it can still read."""
        try:
            await self._stores.database.check_health()
        except DkTrioError as error:
            if self._ready or not self._open:
                _log.error("not ready: %s", error.text)
            self._set_ready(ready=False, why=error.text)
        else:
            if self._open and not self._ready and not self._draining:
                _log.info("ready again: %r can be written", self._stores.database)
            self._set_ready(ready=not self._draining)

    def _set_ready(self, *, ready: bool, why: str = "the provider is not open") -> None:
        self._ready = ready
        for name in self._follow_readiness:
            self.health.set(name, ready, why=why)
