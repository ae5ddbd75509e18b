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
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from dk_trio import rpc
from dk_trio.admission import Admission
from dk_trio.boundary import unwrapped
from dk_trio.client import channel_options
from dk_trio.config_setup import ConfigSetup
from dk_trio.hooks import JobHook
from dk_trio.jobs import SLACK, Jobs, JobStatistics
from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.listening import address_of, open_listeners
from dk_trio.module import ArchetypeModule, Environment, ModuleDefinition, ToolModule, TrioModule
from dk_trio.server_statistics import DrainReport as DrainReport
from dk_trio.server_statistics import ServerStatistics as ServerStatistics
from dk_trio.servicer import LAST_WORDS, ModuleServicer
from dk_trio.services.channels import ChannelCache, Connect
from dk_trio.services.config import ServicesConfig, SharedServices
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.setup import LocalSetup
from dk_trio.services.registry import ModuleInfo, RegistryModuleType, SetupInfo, bare_module_id
from dk_trio.services.setup import SetupSource
from dk_trio.services.setup_cache import SetupCache
from dk_trio.services.strategy import ServicesMode
from dk_trio.session import ABANDON_AFTER, Session
from dk_trio.settings import Settings
from dk_trio.setup_source import setup_source
from dk_trio.siblings import JobDirectory
from dk_trio.signals import LocalSignals, SignalExchange
from dk_trio.stalls import StallWatch

if TYPE_CHECKING:
    from dk_trio.provider_link import ProviderLink
    from dk_trio.registration import RegistrationStatus

_log = logging.getLogger("dk_trio.server")

LIVENESS = "liveness"
READINESS = "readiness"
MODULE_SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"

# The seeds' server channel options: 100 MB both ways.
MAX_MESSAGE_BYTES = 100 * 1024 * 1024

# A third of the 30 s that Kubernetes gives a pod to end; the cleanup of what was cut takes another third.
DEFAULT_GRACE = 10.0

_NO_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_KEEP_DATA: Final = frozenset({"cost", "filesystem", "setup", "snapshot", "storage"})
_KEEP_DATA_REMOTE: Final = frozenset({"snapshot"})  # the others are the provider's
_UNKNOWN: Final = "unknown"  # the id of a module that names none


class ModuleServer:
    """Serves one module class.

    Args:
        module: The module class.
        settings: Address, limits, times and module id; the defaults, not the environment, when None.
        setups: Where setups come from, in place of `setup_file`, the stored ones and the module's default.
        setup_file: A JSON file of setups by id, see `dk_trio.services.local.setup`.
        strict_setup: An unknown setup id is NOT_FOUND also when the module has a default setup.
        session_options: Times of each session, in place of those in `settings.lifecycle`.
        signals: Where signals of jobs go and come from; by default the provider, and in local mode the process.
        platform: What local services keep, for servers of one process that share it; the caller opens it. The server's
            own when None, in a directory for this module below `settings.services.data_dir`.
        provider: Opens the byte stream to the services-provider of remote mode, in place of TCP.
        interceptors: Code around each RPC, see `dk_trio.rpc`.
        client_interceptors: Code around each call that the server makes: to its provider, and to other modules.
        hooks: Around each job, see `dk_trio.hooks`.
        admission: What jobs have to pass, for servers of one process that share it; of the settings when None.
        stalls: Watches the loop, for servers of one process that share it; the caller opens it. The server's own when
            None, which `running` opens.

    Raises:
        ModuleDefinitionError: The class is not complete.
        SetupFileError: The setup file cannot be used.
    """

    def __init__(
        self,
        module: type[TrioModule[Any, Any, Any, Any]],
        *,
        settings: Settings | None = None,
        setups: SetupSource | None = None,
        setup_file: Path | None = None,
        strict_setup: bool = False,
        session_options: SessionOptions | None = None,
        signals: SignalExchange | None = None,
        platform: LocalPlatform | None = None,
        provider: Connect | None = None,
        interceptors: Sequence[rpc.Interceptor] = (),
        client_interceptors: Sequence[rpc.Interceptor] = (),
        hooks: Sequence[JobHook] = (),
        admission: Admission | None = None,
        stalls: StallWatch | None = None,
    ) -> None:
        settings = self._settings = settings or Settings()
        lifecycle = settings.lifecycle
        self.definition = ModuleDefinition.of(module, module_id=settings.module.module_id)
        self.platform = platform or LocalPlatform(_directory(settings.services.data_dir, self._module_id))
        self._owns_platform = platform is None
        config = ServicesConfig(
            module.services_config_strategies,
            module.services_config_params,
            mode=ServicesMode(settings.services.mode),
            owner=self.definition.name,
        )
        self._channels = ChannelCache(options=channel_options(settings.channel), interceptors=client_interceptors)
        remote = config.mode is ServicesMode.REMOTE
        self._link = _link(settings, self._channels, provider, client_interceptors) if remote else None
        shared = SharedServices(
            platform=self.platform,
            channels=self._channels,
            providers=None if self._link is None else self._link.clients,
        )
        made = config.rehearse(shared.offered())
        self._keeps_data = not made.isdisjoint(_KEEP_DATA if self._link is None else _KEEP_DATA_REMOTE)
        if setups is None:
            setups = setup_source(
                self.definition,
                module_id=self._module_id,
                setup_file=setup_file,
                strict=strict_setup,
                config=config,
                offered=shared.offered(),
            )
        self._local_setups = setups if isinstance(setups, LocalSetup) else None
        self._setups = SetupCache(setups, max_entries=lifecycle.setup_cache_max, ttl=lifecycle.setup_cache_ttl)
        self._admission = admission or Admission(settings.tasks)
        self.signals = signals or (LocalSignals() if self._link is None else self._link.signals)
        self._servicer = ModuleServicer(
            self.definition,
            setups=self._setups,
            admission=self._admission,
            signals=self.signals,
            environment=Environment(
                settings=settings.services,
                config=config,
                shared=shared,
                signals=self.signals,
            ),
            accepting=lambda: self._accepting,
            store=None if self._local_setups is None else self._local_setups.store,
            configured=lambda setup_id: self.platform.registry.put_setup(self._setup_info(setup_id)),
            session_options=session_options
            or SessionOptions(
                completion_timeout=lifecycle.completion_timeout,
                cleanup_grace=lifecycle.cleanup_grace,
                execution_timeout=lifecycle.execution_timeout,
            ),
            settings=lifecycle,
            hooks=hooks,
        )
        self.stalls = stalls or StallWatch(settings.observe.stall_threshold, jobs=self._working)
        self._owns_stalls = stalls is None
        self._nursery: trio.Nursery
        self._open = False
        self._accepting = False
        self.health = rpc.Health()
        self.health.set(LIVENESS, True)
        self._set_ready(ready=False)
        services: list[rpc.Service] = [self._servicer, self.health]
        self._rpc = rpc.Server(
            [*services, *rpc.reflection(services)],
            options=rpc.ServerOptions(
                max_concurrent_rpcs=settings.server.max_concurrent_rpcs,
                max_receive_message_bytes=MAX_MESSAGE_BYTES,
                max_send_message_bytes=MAX_MESSAGE_BYTES,
            ),
            interceptors=interceptors,
        )

    def __repr__(self) -> str:
        return f"<ModuleServer {self.definition.name}, {self._servicer.jobs!r}, {self._admission!r}>"

    @property
    def jobs(self) -> Jobs:
        """The jobs that are here."""
        return self._servicer.jobs

    @property
    def directory(self) -> JobDirectory:
        """Finds jobs here, and with siblings once it has some."""
        return self._servicer.directory

    def statistics(self) -> ServerStatistics:
        """What is going on now, and what has become of the jobs so far."""
        return ServerStatistics(
            jobs=self._servicer.jobs.statistics(),
            admission=self._admission.statistics(),
            setups=self._setups.statistics(),
            channels=self._channels.statistics(),
            rpc=self._rpc.statistics(),
            provider=None if self._link is None else self._link.statistics(),
            loop=self.stalls.statistics(),
        )

    def _working(self) -> list[Session]:
        """Those whose module's code may run now."""
        return [session for session in self._servicer.jobs if session.running]

    async def serve(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        grace: float = DEFAULT_GRACE,
        on_ready: Callable[[str], object] | None = None,
        on_stuck: Callable[[DrainReport], object] | None = None,
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

        Raises:
            ListenError: The address cannot be listened on.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with unwrapped(), trio.open_nursery() as nursery:
                drain_scope = trio.CancelScope()

                async def hurry() -> None:
                    async for number in signals:  # all of them: one that is left would be raised again at the end
                        _log.warning("%s again: cancelling", signal.Signals(number).name)
                        drain_scope.cancel()
                        if self._link is not None:
                            self._link.hasten()

                async with self.running(host=host, port=port) as address:
                    if on_ready is not None:
                        on_ready(address)
                    number = await anext(signals)
                    before = self.statistics().jobs
                    name = signal.Signals(number).name
                    told = (name, before.running, before.queued, grace)
                    _log.info("%s: draining, %d running and %d waiting jobs get %g s", *told)
                    nursery.start_soon(hurry)
                    stuck: list[Session | ConfigSetup | str] = []
                    with drain_scope:
                        stuck = await self.drain(grace)
                    if drain_scope.cancelled_caught:
                        stuck = await self.drain(0)
                    report = self._report(before, stuck=len(stuck))
                    if stuck and on_stuck is not None:
                        on_stuck(report)
                nursery.cancel_scope.cancel()
        return self._report(before, stuck=len(stuck))

    def _report(self, before: JobStatistics, *, stuck: int) -> DrainReport:
        after = self._servicer.jobs.statistics()
        cut = after.ended.get(Reason.SHUTDOWN, 0) - before.ended.get(Reason.SHUTDOWN, 0)
        ended = sum(after.ended.values()) - sum(before.ended.values())
        return DrainReport(finished=ended - cut, cut=cut, stuck=stuck)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Be ready for `serve_stream` for the length of the block.

        The connections live where `serve_stream` is called, inside this block. At its end fetches of setups stop.

        Raises:
            ConfigurationError: The directory of local data is in use by another process, or cannot be made.
            StorageServiceError: The data cannot be used.
        """
        async with (
            unwrapped(),
            self.platform.opened() if self._owns_platform else nullcontext(),
            self._channels.opened(),
            nullcontext() if self._link is None else self._link.opened(),
            self._setups.opened(),
            trio.open_nursery() as nursery,
        ):
            if self._keeps_data:
                await self.platform.database.open()  # at the first use it would be a caller who is told
            nursery.start_soon(self._servicer.jobs.watch)
            self._nursery = nursery
            self._servicer.health_checks.opened_at = trio.current_time()
            if self._link is not None:
                self._servicer.health_checks.standing = self._link.health
            with self._registered(), self.platform.setups.watched(self._stored):
                self._open = self._accepting = True
                self._set_ready(ready=True)
                try:
                    yield
                finally:
                    self._open = self._accepting = False
                    self._set_ready(ready=False)
                    nursery.cancel_scope.cancel()

    async def _connect(self) -> trio.abc.Stream:
        """A connection from this process."""
        from trio.testing import memory_stream_pair  # 15 ms, for the first one

        if not self._open:  # a channel may outlive the server that it leads to
            raise OSError(f"{self.definition.name} is not served any more")
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._rpc.serve_stream, theirs)
        return ours

    @contextmanager
    def _registered(self, address: str = "", port: int = 0) -> Iterator[None]:
        """Other modules of this process find this one for the length of the block."""
        info = self._info(address, port)
        setups = map(self._setup_info, self._local_setups.ids() if self._local_setups is not None else ())
        with self.platform.registry.serving(info, connect=self._connect, setups=setups):
            yield

    def _info(self, address: str, port: int) -> ModuleInfo:
        """What the registry is told."""
        definition = self.definition
        kinds = ((ToolModule, RegistryModuleType.TOOL), (ArchetypeModule, RegistryModuleType.ARCHETYPE))
        unspecified = RegistryModuleType.UNSPECIFIED
        return ModuleInfo(
            module_id=self._module_id,
            module_type=next((kind for cls, kind in kinds if issubclass(definition.cls, cls)), unspecified),
            address=address,
            port=port,
            version=str(definition.cls.metadata.get("version", "0.0.0")),
            module_name=definition.name,
            documentation=definition.cls.description,
        )

    def _stored(self, setup_id: str, module_id: str) -> None:
        """A stored setup has changed: the next job runs with what is stored now."""
        if self._local_setups is not None and bare_module_id(module_id) == bare_module_id(self._module_id):
            self._local_setups.forget(setup_id)
            self._setups.forget(setup_id)

    def _setup_info(self, setup_id: str) -> SetupInfo:
        definition = self.definition
        return SetupInfo(
            setup_id=setup_id,
            module_id=self._module_id,
            name=definition.name,
            documentation=definition.cls.description,
        )

    @property
    def _module_id(self) -> str:
        """The id in the registry, where a module that names none goes by its name."""
        return self.definition.name if self.definition.id == _UNKNOWN else self.definition.id

    @asynccontextmanager
    async def running(self, *, host: str | None = None, port: int | None = None) -> AsyncIterator[str]:
        """Serve for the length of the block, which gets `HOST:PORT`. At its end every job is cancelled.

        Args:
            host: Address to listen on; the settings' when None.
            port: Port to listen on, 0 for any free one; the settings' when None.

        Raises:
            ListenError: The address cannot be listened on.
        """
        host = self._settings.server.host if host is None else host
        port = self._settings.server.port if port is None else port
        watched = self.stalls.opened() if self._owns_stalls else nullcontext()
        async with self.opened(), watched, unwrapped(), trio.open_nursery() as nursery:
            listeners = await open_listeners(host, port)
            await nursery.start(self._rpc.serve, listeners)
            port = listeners[0].socket.getsockname()[1]
            async with self._in_the_registry(host, port):
                try:
                    yield address_of(host, listeners)
                finally:
                    self._set_ready(ready=False)
                    nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _in_the_registry(self, host: str, port: int) -> AsyncIterator[None]:
        """Others find this server for the length of the block. It is ready when the registry has taken it."""
        with self._registered(host, port):
            if self._link is None:
                yield
                return
            self._set_ready(ready=False, why=f"the services-provider {self._link.target} has not answered yet")
            async with self._link.registered(self._info(host, port), on_change=self._registration_changed):
                yield

    def _registration_changed(self, status: RegistrationStatus) -> None:
        """Ready from the first registration on: an outage later does not stop jobs, which may not even notice it."""
        if self._accepting:
            self._set_ready(ready=status.registrations > 0, why=status.trouble)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream, until it ends; for tests and for transports of one's own.

        Raises:
            RuntimeError: Outside of `opened` and `running`.
        """
        if not self._open:
            await trio.aclose_forcefully(stream)
            raise RuntimeError("the server is not open: write `async with server.opened():` around serve_stream()")
        await self._rpc.serve_stream(stream)

    async def drain(self, grace: float = DEFAULT_GRACE) -> list[Session | ConfigSetup | str]:
        """Take readiness away, accept nothing new, let jobs end for `grace` seconds, cancel the rest.

        Cancelling this leaves the server draining, with no end to the grace; it may be called again.

        Returns:
            The sessions and configurations whose code goes on although it was cancelled, and in words how many other
            calls do; empty unless a module misbehaves, or a disk hangs.
        """
        self._accepting = False
        self._set_ready(ready=False)
        async with unwrapped(), trio.open_nursery() as nursery:
            if self._link is not None:
                nursery.start_soon(self._link.withdraw)
            return await self._drain(grace)
        raise AssertionError("unreachable")

    async def _drain(self, grace: float) -> list[Session | ConfigSetup | str]:
        with trio.move_on_after(grace):
            await self._rpc.drain()
            return []
        stuck: list[Session | ConfigSetup | str] = [*await self._servicer.jobs.shut_down()]
        if not stuck:
            # Authors' code runs in configurations, health checks and schemas too, and would hold its call for ever.
            with trio.move_on_after(LAST_WORDS + ABANDON_AFTER + SLACK):
                await self._rpc.drain(LAST_WORDS)
            stuck = [*self._servicer.config_setups]
            others = self._rpc.statistics().rpcs - len(stuck)
            if others > 0:
                stuck.append(f"{others} health checks or schemas")
        if stuck:
            _log.critical("jobs that go on although they were cancelled: %d, %r", len(stuck), stuck)
        return stuck

    def _set_ready(self, *, ready: bool, why: str = "") -> None:
        self.health.set(READINESS, ready, why=why)
        self.health.set(MODULE_SERVICE, ready, why=why)


def _directory(data_dir: Path | None, module_id: str) -> Path | None:
    """A directory for each module: two modules that are served from one place do not meet in it."""
    if data_dir is None:
        return None
    return data_dir / (_NO_FILE_NAME.sub("-", bare_module_id(module_id)).strip(".-") or "module")


def _link(
    settings: Settings, channels: ChannelCache, connect: Connect | None, interceptors: Sequence[rpc.Interceptor]
) -> ProviderLink:
    from dk_trio.provider_link import ProviderLink  # with the remote strategies, which local mode does not load

    return ProviderLink(settings, channels, connect=connect, interceptors=interceptors)
