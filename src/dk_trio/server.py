"""ModuleServer: one module class on the network: rpc.Server, servicer, health and reflection, composed.

    server = ModuleServer(MyModule)
    async with server.running(port=0) as address:  # for the length of the block
        ...
    await server.serve(port=50055)  # until SIGTERM or SIGINT, then drain

Health has two names besides the empty one: `liveness` is SERVING from the beginning, `readiness` while new jobs are
welcome; the service's own name follows `readiness`. A drain takes readiness away first and then, as in gRPC's own
servers, every name: the process is about to end.
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from dk_trio import rpc
from dk_trio.errors import InvalidSetupError, ListenError
from dk_trio.module import ModuleDefinition, TrioModule
from dk_trio.servicer import ModuleServicer, ServicerStatistics
from dk_trio.services.local.setup import LocalSetup, read_setups
from dk_trio.services.setup import SetupSource
from dk_trio.session import SessionOptions
from dk_trio.settings import Settings

_log = logging.getLogger("dk_trio.server")

LIVENESS = "liveness"
READINESS = "readiness"
MODULE_SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"

# The seeds' server channel options: 100 MB both ways.
MAX_MESSAGE_BYTES = 100 * 1024 * 1024

# A third of the 30 s that Kubernetes gives a pod to end; the cleanup of what was cut takes another third.
DEFAULT_GRACE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What became of the jobs that were running when a drain began: ended by themselves, or cancelled."""

    finished: int
    cut: int


class ModuleServer:
    """Serves one module class.

    Args:
        module: The module class.
        settings: Address, limits and module id; the defaults, not the environment, when None.
        setups: Where setups come from, in place of `setup_file` and the module's default.
        setup_file: A JSON file of setups by id, see `dk_trio.services.local.setup`.
        strict_setup: An unknown setup id is NOT_FOUND also when the module has a default setup.
        session_options: Times of each session.
        interceptors: Code around each RPC, see `dk_trio.rpc`.

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
        interceptors: Sequence[rpc.Interceptor] = (),
    ) -> None:
        self._settings = settings or Settings()
        self.definition = ModuleDefinition.of(module, module_id=self._settings.module.module_id)
        if setups is None:
            setups = _local_setups(self.definition, setup_file=setup_file, strict=strict_setup)
        self._servicer = ModuleServicer(self.definition, setups=setups, session_options=session_options)
        self.health = rpc.Health()
        self.health.set(LIVENESS, True)
        self._set_ready(ready=False)
        services: list[rpc.Service] = [self._servicer, self.health]
        self._rpc = rpc.Server(
            [*services, *rpc.reflection(services)],
            options=rpc.ServerOptions(
                max_concurrent_rpcs=self._settings.server.max_concurrent_rpcs,
                max_receive_message_bytes=MAX_MESSAGE_BYTES,
                max_send_message_bytes=MAX_MESSAGE_BYTES,
            ),
            interceptors=interceptors,
        )

    def __repr__(self) -> str:
        return f"<ModuleServer {self.definition.name}, {self.statistics().running} jobs>"

    def statistics(self) -> ServicerStatistics:
        """Counts of jobs."""
        return self._servicer.statistics()

    async def serve(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        grace: float = DEFAULT_GRACE,
        on_ready: Callable[[str], object] | None = None,
    ) -> DrainReport:
        """Serve until SIGTERM or SIGINT, then drain; a second signal cancels what is left at once.

        Must be called in the main thread, as signals want it.

        Args:
            host: Address to listen on; the settings' when None.
            port: Port to listen on, 0 for any free one; the settings' when None.
            grace: Seconds that running jobs get to end by themselves.
            on_ready: Called once with `HOST:PORT` when RPCs are accepted.

        Raises:
            ListenError: The address cannot be listened on.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with self.running(host=host, port=port) as address, trio.open_nursery() as nursery:
                if on_ready is not None:
                    on_ready(address)
                number = await anext(signals)
                running = self.statistics().running
                _log.info("%s: draining, %d jobs get %g s", signal.Signals(number).name, running, grace)

                async def hurry() -> None:
                    number = await anext(signals)
                    _log.warning("%s again: cancelling", signal.Signals(number).name)
                    drain_scope.cancel()

                before = self.statistics()
                nursery.start_soon(hurry)
                with trio.CancelScope() as drain_scope:
                    await self.drain(grace)
                if drain_scope.cancelled_caught:
                    await self.drain(0)
                nursery.cancel_scope.cancel()
        after = self.statistics()
        return DrainReport(
            finished=after.succeeded + after.failed - before.succeeded - before.failed,
            cut=after.cancelled - before.cancelled,
        )

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
        listeners = await _open_listeners(host, port)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._rpc.serve, listeners)
                self._set_ready(ready=True)
                try:
                    yield _address(host, listeners)
                finally:
                    self._set_ready(ready=False)
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The nursery is ours, not the caller's: an exception of the block goes on as it was.
            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream, until it ends; for tests and for transports of one's own."""
        self._set_ready(ready=True)
        await self._rpc.serve_stream(stream)

    async def drain(self, grace: float = DEFAULT_GRACE) -> None:
        """Take readiness away, accept nothing new, let running jobs end for `grace` seconds, cancel the rest."""
        self._set_ready(ready=False)
        await self._rpc.drain(grace)

    def _set_ready(self, *, ready: bool) -> None:
        self.health.set(READINESS, ready)
        self.health.set(MODULE_SERVICE, ready)


def _local_setups(definition: ModuleDefinition, *, setup_file: Path | None, strict: bool) -> LocalSetup:
    setups = {}
    if setup_file is not None:
        setups = read_setups(
            setup_file, check=lambda content, setup_id: definition.parse_setup(content, setup_id=setup_id)
        )
    if strict:
        return LocalSetup(setups, missing_hint="Give it with --setup FILE.json.")
    try:
        definition.parse_setup({}, setup_id="default")
    except InvalidSetupError:
        name = definition.cls.setup_format.__name__
        return LocalSetup(
            setups, missing_hint=f"{name} has fields without defaults, so it must be given with --setup FILE.json."
        )
    return LocalSetup(setups, default={})


async def _open_listeners(host: str, port: int) -> Sequence[trio.SocketListener]:
    where = f"port {port} on {host}"
    try:
        return await _on_one_port(host, port)
    except OSError as error:
        hint = "Choose another address with --host and --port."
        if isinstance(error.__cause__, socket.gaierror):
            message = f"The host {host!r} is not an address: {error.__cause__.strerror}."
            hint = "Try 127.0.0.1, 0.0.0.0 or [::]."
        elif error.errno == errno.EADDRINUSE:
            message = f"Cannot listen: {where} is in use."
            hint = "Stop the process that has it, or choose another with --port; --port 0 takes any free one."
        elif error.errno == errno.EACCES:
            message = f"Cannot listen: {where} needs more rights."
            hint = "Ports below 1024 belong to root; choose another with --port."
        elif error.errno == errno.EADDRNOTAVAIL:
            message = f"Cannot listen: {host} is not an address of this machine."
        else:
            message = f"Cannot listen on {where}: {error.strerror or error}."
        raise ListenError(message, hint=hint) from None


async def _on_one_port(host: str, port: int) -> Sequence[trio.SocketListener]:
    """Listen on every address of the host, with the same port: 0 would give each address a port of its own."""
    listeners = await rpc.open_tcp_listeners(port, host=host)
    if len({listener.socket.getsockname()[1] for listener in listeners}) > 1:
        port = listeners[0].socket.getsockname()[1]
        for listener in listeners:
            await listener.aclose()
        listeners = await rpc.open_tcp_listeners(port, host=host)
    return listeners


def _address(host: str, listeners: Sequence[trio.SocketListener]) -> str:
    port = listeners[0].socket.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
