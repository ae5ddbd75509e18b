"""ModuleServer: one module class on the network: rpc.Server, servicer, health and reflection, composed.

    server = ModuleServer(MyModule)
    async with server.running(port=0) as address:  # for the length of the block
        ...
    await server.serve(port=50055)  # until SIGTERM or SIGINT, then drain
    async with server.opened():  # no socket: serve_stream() takes connections over any stream
        ...

Health has two names besides the empty one: `liveness` is SERVING from the beginning, `readiness` while new jobs are
welcome; the service's own name follows `readiness`. A drain takes readiness away first and then, as in gRPC's own
servers, every name: the process is about to end.

A drain has three steps. Jobs that run, and those that wait for a slot, get the grace to end by themselves. What is left
is cancelled with reason SHUTDOWN: cleanup runs, the caller gets UNAVAILABLE. Connections close when nothing is left on
them. Code that goes on although it was cancelled cannot be ended from within; it is named, and `serve` says so.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from dk_trio import chance, rpc
from dk_trio.addresses import with_port
from dk_trio.admission import Admission
from dk_trio.boundary import unwrapped
from dk_trio.client import channel_options
from dk_trio.config_setup import ConfigSetup
from dk_trio.draining import Stuck, drain_report, drained
from dk_trio.hooks import JobHook
from dk_trio.hosting import (
    Edition,
    HostedModule,
    ModuleClass,
    Surroundings,
    data_directory,
    defined,
    files_by_module,
)
from dk_trio.jobs import Jobs
from dk_trio.lifecycle import SessionOptions
from dk_trio.listening import open_listeners, server_options
from dk_trio.module import ModuleDefinition
from dk_trio.routing import ModuleStream, Routing
from dk_trio.rpc.health import LIVENESS, READINESS
from dk_trio.security import Security
from dk_trio.server_statistics import DrainReport as DrainReport
from dk_trio.server_statistics import ServerStatistics as ServerStatistics
from dk_trio.servicer import ModuleServicer
from dk_trio.services.channels import ChannelCache, Connect, Dial
from dk_trio.services.config import SharedServices
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.setup import SetupSource
from dk_trio.services.setup_cache import SetupCacheStatistics
from dk_trio.services.strategy import ServicesMode
from dk_trio.session import Session
from dk_trio.settings import Settings
from dk_trio.siblings import JobDirectory
from dk_trio.signals import LocalSignals, SignalExchange
from dk_trio.stalls import StallWatch

if TYPE_CHECKING:
    from dk_trio.provider_link import ProviderLink
    from dk_trio.registration import RegistrationStatus

_log = logging.getLogger("dk_trio.server")

MODULE_SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"

# A third of the 30 s that Kubernetes gives a pod to end; the cleanup of what was cut takes another third.
DEFAULT_GRACE = 10.0


class ModuleServer:
    """Serves one module class, or several on one port.

    Several modules share everything but their code and their setups: port, limits, jobs, local data, the way to the
    provider. `dk_trio.routing` says how a call finds its module.

    Args:
        modules: The module classes, each with an id of its own.
        settings: Address, limits, times and module id; the defaults, not the environment, when None.
        setups: Where setups come from, in place of `setup_file`, the stored ones and the module's default. For one
            module.
        setup_file: A JSON file of setups by id, see `dk_trio.services.local.setup`. For several modules, their files by
            module id.
        strict_setup: An unknown setup id is NOT_FOUND also when the module has a default setup.
        session_options: Times of each session, in place of those in `settings.lifecycle`.
        signals: Where signals of jobs go and come from; by default the provider, and in local mode the process.
        platform: What local services keep, for servers of one process that share it; the caller opens it. The server's
            own when None, in a directory below `settings.services.data_dir` that has the modules' ids for its name.
        provider: Opens the byte stream to the services-provider of remote mode, in place of TCP.
        dial: The same to whatever the server calls, provider and modules, by `HOST:PORT`.
        interceptors: Code around each RPC, see `dk_trio.rpc`.
        client_interceptors: Code around each call that the server makes: to its provider, and to other modules.
        hooks: Around each job, see `dk_trio.hooks`.
        admission: What jobs have to pass, for servers of one process that share it; of the settings when None.

    Attributes:
        settings: As given.
        modules: What is served, by id without the prefix `modules:`.
        security: TLS, and who may call.
        jobs: The jobs that are here, of all modules.
        directory: Finds jobs here, and with siblings once it has some.

    Raises:
        ModuleDefinitionError: A class is not complete, or two have the same id.
        SettingError: DIGITALKIN_MODULE_ID is set, and there are several modules.
        SetupFileError: A setup file cannot be used.
        ConfigurationError: A file of TLS or tokens cannot be used.
    """

    def __init__(
        self,
        *modules: ModuleClass,
        settings: Settings | None = None,
        setups: SetupSource | None = None,
        setup_file: Path | Mapping[str, Path] | None = None,
        strict_setup: bool = False,
        session_options: SessionOptions | None = None,
        signals: SignalExchange | None = None,
        platform: LocalPlatform | None = None,
        provider: Connect | None = None,
        dial: Dial | None = None,
        interceptors: Sequence[rpc.Interceptor] = (),
        client_interceptors: Sequence[rpc.Interceptor] = (),
        hooks: Sequence[JobHook] = (),
        admission: Admission | None = None,
    ) -> None:
        settings = self.settings = settings or Settings()
        definitions = defined(modules, settings)
        if setups is not None and len(definitions) > 1:
            raise ValueError(f"setups is where those of one module come from, and there are {len(definitions)} modules")
        files = files_by_module(setup_file, definitions)
        self.security = Security(settings.security)
        self.platform = platform or LocalPlatform(data_directory(settings.services.data_dir, list(definitions)))
        self._owns_platform = platform is None
        client = self.security.client
        self._channels = ChannelCache(
            options=channel_options(settings.channel), interceptors=client_interceptors, security=client, dial=dial
        )
        self._link: ProviderLink | None = None
        if ServicesMode(settings.services.mode) is ServicesMode.REMOTE:
            from dk_trio.provider_link import ProviderLink  # with the remote strategies, which local mode does not load

            if provider is None:
                client.check(settings.services.provider)
                provider = dial and partial(dial, settings.services.provider)
            around = [*client_interceptors, *client.interceptors]
            self._link = ProviderLink(settings, self._channels, connect=provider, interceptors=around)
        self._admission = admission or Admission(settings.tasks)
        self.signals = signals or (LocalSignals() if self._link is None else self._link.signals)
        self.jobs = Jobs(hooks=hooks)
        self.directory = JobDirectory(self.jobs)
        self._config_setups: set[ConfigSetup] = set()
        self._open = False
        self._accepting = False
        lifecycle = settings.lifecycle
        surroundings = Surroundings(
            settings=settings,
            shared=SharedServices(
                platform=self.platform,
                channels=self._channels,
                providers=None if self._link is None else self._link.clients,
            ),
            admission=self._admission,
            signals=self.signals,
            jobs=self.jobs,
            directory=self.directory,
            config_setups=self._config_setups,
            threads=trio.CapacityLimiter(settings.server.thread_pool_workers),
            hooks=hooks,
            session_options=session_options
            or SessionOptions(
                completion_timeout=lifecycle.completion_timeout,
                cleanup_grace=lifecycle.cleanup_grace,
                execution_timeout=lifecycle.execution_timeout,
            ),
            accepting=lambda: self._accepting,
        )
        self.modules: Mapping[str, HostedModule] = {
            key: HostedModule(
                definition, surroundings, setups=setups, setup_file=files.get(key), strict_setup=strict_setup
            )
            for key, definition in definitions.items()
        }
        for module in self.modules.values():
            module.connect = partial(self._connect, module) if len(self.modules) > 1 else self._connect
            if self._link is not None:
                module.standing = self._link.health
        self.stalls = StallWatch(settings.observe.stall_threshold, jobs=self._working)
        self._nursery: trio.Nursery
        self.health = rpc.Health()
        self.health.set(LIVENESS, True)
        self._set_ready(ready=False)
        services: list[rpc.Service] = [Routing(self.modules.values())]
        if settings.server.health_check:
            services.append(self.health)
        if settings.server.reflection:
            services += rpc.reflection(services)
        self._rpc = rpc.Server(
            services,
            options=server_options(settings.server, settings.security),
            interceptors=self.security.among(interceptors),
        )

    def __repr__(self) -> str:
        names = ", ".join(module.name for module in self.modules.values())
        return f"<ModuleServer {names}, {self.jobs!r}, {self._admission!r}>"

    @property
    def definition(self) -> ModuleDefinition:
        """The module; of several the first."""
        return next(iter(self.modules.values())).definition

    @property
    def _servicer(self) -> ModuleServicer:
        return next(iter(self.modules.values())).edition.servicer

    def statistics(self) -> ServerStatistics:
        """What is going on now, and what has become of the jobs so far."""
        return ServerStatistics(
            jobs=self.jobs.statistics(),
            admission=self._admission.statistics(),
            setups=SetupCacheStatistics.total(module.setups.statistics() for module in self.modules.values()),
            channels=self._channels.statistics(),
            rpc=self._rpc.statistics(),
            provider=None if self._link is None else self._link.statistics(),
            loop=self.stalls.statistics(),
        )

    async def replace(self, editions: Mapping[str, Edition]) -> None:
        """Serve modules with other code from now on; calls that are under way end with the code they began with.

        Args:
            editions: What `HostedModule.prepare` has made of the new code, by the id of the module.

        Raises:
            ModuleDefinitionError: The id of a module has changed.
            StorageServiceError: The data cannot be used, which the old code had no need of.
        """
        for key, edition in editions.items():
            self.modules[key].check(edition)
        if any(edition.keeps_data for edition in editions.values()):
            await self.platform.database.open()
        for key, edition in editions.items():
            self.modules[key].take(edition)

    def _working(self) -> list[Session]:
        """Those whose module's code may run now."""
        return [session for session in self.jobs if session.running]

    async def serve(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        grace: float = DEFAULT_GRACE,
        on_ready: Callable[[str], object] | None = None,
        on_stuck: Callable[[DrainReport], object] | None = None,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] | None = None,
        signals: AsyncIterator[int] | None = None,
        others_stay: Callable[[], bool] = bool,
        instance: str = "",
    ) -> DrainReport:
        """Serve until SIGTERM or SIGINT, then drain; a second signal cancels what is left at once.

        Must be called in the main thread, as signals want it.

        Args:
            host: Address to listen on; the settings' when None.
            port: Port to listen on, 0 for any free one; the settings' when None.
            grace: Seconds that running jobs get to end by themselves.
            on_ready: Called once with `HOST:PORT` when RPCs are accepted.
            on_stuck: Called when everything has ended but code that goes on although it was cancelled. This waits for
                that code, as it must; a program that wants to end all the same ends the process here.
            listeners: See `running`.
            signals: Numbers of signals to obey, in place of those that the process gets.
            others_stay: Asked when the drain begins: whether other processes serve on at this address, so that the
                registry is told nothing.
            instance: See `running`.

        Raises:
            ListenError: The address cannot be listened on.
        """
        own = trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) if signals is None else nullcontext(signals)
        with own as orders:
            async with unwrapped(), trio.open_nursery() as nursery:
                drain_scope = trio.CancelScope()

                async def hurry() -> None:
                    async for number in orders:  # all of them: one that is left would be raised again at the end
                        _log.warning("%s again: cancelling", signal.Signals(number).name)
                        drain_scope.cancel()
                        if self._link is not None:
                            self._link.hasten()

                async with self.running(host=host, port=port, listeners=listeners, instance=instance) as address:
                    if on_ready is not None:
                        on_ready(address)
                    number = await anext(orders)
                    before = self.jobs.statistics()
                    name = signal.Signals(number).name
                    told = (name, before.running, before.queued, grace)
                    _log.info("%s: draining, %d running and %d waiting jobs get %g s", *told)
                    nursery.start_soon(hurry)
                    stuck: list[Stuck] = []
                    withdraw = not others_stay()
                    with drain_scope:
                        stuck = await self.drain(grace, withdraw=withdraw)
                    if drain_scope.cancelled_caught:
                        stuck = await self.drain(0, withdraw=withdraw)
                    report = drain_report(before, self.jobs.statistics(), stuck=len(stuck))
                    if stuck and on_stuck is not None:
                        on_stuck(report)
                nursery.cancel_scope.cancel()
        return drain_report(before, self.jobs.statistics(), stuck=len(stuck))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Be ready for `serve_stream` for the length of the block.

        The connections live where `serve_stream` is called, inside this block. At its end fetches of setups stop.

        Raises:
            ConfigurationError: The directory of local data is in use by another process, or cannot be made.
            StorageServiceError: The data cannot be used.
        """
        async with (
            self.platform.opened() if self._owns_platform else nullcontext(),
            self._channels.opened(),
            nullcontext() if self._link is None else self._link.opened(),
            self._modules_opened(),
            unwrapped(),  # here, or each of those above would add its lines to the caller's traceback
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self.jobs.watch)
            self._nursery = nursery
            self._open = self._accepting = True
            self._set_ready(ready=True)
            try:
                yield
            finally:
                self._open = self._accepting = False
                self._set_ready(ready=False)
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _modules_opened(self) -> AsyncIterator[None]:
        if any(module.edition.keeps_data for module in self.modules.values()):
            await self.platform.database.open()  # at the first use it would be a caller who is told
        async with AsyncExitStack() as stack:
            for module in self.modules.values():
                await stack.enter_async_context(module.opened())
            yield

    async def _connect(self, module: HostedModule | None = None) -> trio.abc.Stream:
        """A connection from this process, to one module where there are several."""
        from trio.testing import memory_stream_pair  # 15 ms, for the first one

        if not self._open:  # a channel may outlive the server that it leads to
            raise OSError(f"{(module or self.definition).name} is not served any more")
        ours, theirs = memory_stream_pair()
        told = theirs if module is None else ModuleStream(theirs, module)
        self._nursery.start_soon(partial(self._rpc.serve_stream, told, in_process=True))
        return ours

    @asynccontextmanager
    async def running(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] | None = None,
        instance: str = "",
    ) -> AsyncIterator[str]:
        """Serve for the length of the block, which gets `HOST:PORT`. At its end the registry is told, jobs cancelled.

        Args:
            host: Address to listen on; the settings' when None.
            port: Port to listen on, 0 for any free one; the settings' when None.
            listeners: What to accept from, before TLS, in place of listening; they are closed at the end. Then `host`
                and `port` are where others reach them.
            instance: Which one of several processes at this address it is, for the registry; a successor under the same
                name takes over the lease of one that was killed. One of its own when empty.

        Raises:
            ListenError: The address cannot be listened on.
        """
        host = self.settings.server.host if host is None else host
        port = self.settings.server.port if port is None else port
        self.security.warn(host)
        async with (
            self.opened(),
            self.security.opened(),
            self.stalls.opened(),
            unwrapped(),
            trio.open_nursery() as nursery,
        ):
            if listeners is None:
                sockets = await open_listeners(host, port)
                port, listeners = sockets[0].socket.getsockname()[1], sockets
            await nursery.start(self._rpc.serve, self.security.listeners(listeners))
            async with self._in_the_registry(host, port, instance):
                try:
                    yield with_port(host, port)
                finally:
                    self._set_ready(ready=False)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _in_the_registry(self, host: str, port: int, instance: str) -> AsyncIterator[None]:
        """Others find this server for the length of the block. It is ready when the registry has taken its modules."""
        with ExitStack() as here:
            if len(self.modules) == 1:  # several have one address, by which nobody could tell them apart
                module = next(iter(self.modules.values()))
                info = module.info(host, port)
                here.enter_context(self.platform.registry.serving(info, connect=module.connect))
            if self._link is None:
                yield
                return
            self._set_ready(ready=False, why=f"the services-provider {self._link.target} has not answered yet")
            registered = partial(self._link.registered, instance=instance or chance.new_uuid().hex)
            async with unwrapped(), trio.open_nursery() as nursery:
                for module in self.modules.values():
                    await nursery.start(self._keep_registered, registered, module, host, port)
                yield
                nursery.cancel_scope.cancel()

    async def _keep_registered(
        self,
        registered: Callable[..., AbstractAsyncContextManager[None]],
        module: HostedModule,
        host: str,
        port: int,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Keep one module known to the provider, as what its code says it is."""
        started: Callable[[], object] = task_status.started
        while True:
            changed = partial(self._registration_changed, module)
            async with registered(module.info(host, port), on_change=changed):
                started()
                started = bool  # once
                await module.changed()
                while not self._accepting:  # withdrawn, and new code is no reason to come back
                    await module.changed()

    def _registration_changed(self, module: HostedModule, status: RegistrationStatus) -> None:
        """Ready from the first registrations on: an outage later does not stop jobs, which may not even notice it."""
        module.found = module.found or status.registrations > 0
        if self._accepting:
            self._set_ready(ready=all(it.found for it in self.modules.values()), why=status.trouble)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream, until it ends; for tests and for transports of one's own.

        Raises:
            RuntimeError: Outside of `opened` and `running`.
        """
        if not self._open:
            await trio.aclose_forcefully(stream)
            raise RuntimeError("the server is not open: write `async with server.opened():` around serve_stream()")
        await self._rpc.serve_stream(stream)

    async def drain(self, grace: float = DEFAULT_GRACE, *, withdraw: bool = True) -> list[Stuck]:
        """Take readiness away, accept nothing new, let jobs end for `grace` seconds, cancel the rest.

        With `withdraw` the registry is told, so that it sends nobody here any more.

        Cancelling this leaves the server draining, with no end to the grace; it may be called again.

        Returns:
            The sessions and configurations whose code goes on although it was cancelled, and in words how many other
            calls do; empty unless a module misbehaves, or a disk hangs.
        """
        self._accepting = False
        self._set_ready(ready=False)
        async with unwrapped(), trio.open_nursery() as nursery:
            if withdraw and self._link is not None:
                nursery.start_soon(self._link.withdraw)
            elif self._link is not None:
                self._link.stays = True
            return await drained(self._rpc, self.jobs, self._config_setups, grace)
        raise AssertionError("unreachable")

    def _set_ready(self, *, ready: bool, why: str = "") -> None:
        self.health.set(READINESS, ready, why=why)
        self.health.set(MODULE_SERVICE, ready, why=why)
