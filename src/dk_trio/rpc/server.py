"""A gRPC server on Trio.

Theory of operation
-------------------
`serve` accepts from listeners and gives each connection a task; `serve_stream` is that task, for any trio stream. A
connection has a nursery of its own with a reader, a writer, a keepalive task and one task for each RPC, so lifetimes
nest: an RPC ends within its connection, a connection within `serve`. When the reader sees the end of the connection,
every RPC is cancelled; cleanup under a shield of the handler's may go on, the socket is closed without waiting for it.

An RPC counts against `max_concurrent_rpcs` from the moment its head is read until its handler has ended, cleanup
included, so a client that resets and starts anew cannot have more work going on than one that waits.

Drain: tell services whose calls have no end of their own (`__drain__`); stop accepting; tell each client with GOAWAY,
allow one round trip for calls already on their way; let the RPCs finish; after the grace cancel those that are left,
with status UNAVAILABLE. Clients are told, and calls cancelled, a slice at a time: whatever else runs in this process
goes on meanwhile, the answers of calls that are just ending above all. Each step may be repeated, so drains may overlap
or follow one another, and one that is cancelled half-way leaves the rest to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

import trio
from grpclib.const import Handler, Status

from dk_trio.wire import Refusal, RequestHead

from .accepting import accept_all
from .client_limit import ClientLimit
from .handshake import Handshakes
from .interceptors import CallInfo, Interceptor, observers_of
from .options import ServerOptions
from .peer import Peer
from .server_connection import ConnectionTasks

DRAIN_SLICE: Final = 25
"""Clients told, or calls cancelled, before other tasks run again. Cancelling a call that waits, and ending it, takes
about 0.1 ms, so nobody else waits longer than a few ms; ten thousand at once would stop the process for a second."""

VITAL_RPCS: Final = 100
"""RPCs in progress beyond `max_concurrent_rpcs`, for vital methods alone: a full server must not look like a dead one,
and can be asked to stop something. Enough for every prober there is, too few to matter."""

_logger = logging.getLogger("dk_trio.rpc.server")


class Service(Protocol):
    """A service object: what grpclib's and betterproto2's generated bases are.

    One that has calls without an end of their own may also have `__drain__()`, called once when the server begins to
    drain; it must end them. One that has short calls which matter most when a server is full, such as health checks,
    may also have `__vital__()`: their paths are let in beyond `max_concurrent_rpcs`, up to `VITAL_RPCS` more.
    """

    def __mapping__(self) -> dict[str, Handler]:
        """Path -> handler."""
        ...


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot of a server."""

    connections: int
    """Open now."""
    rpcs: int
    """In progress now."""
    rpcs_started: int
    """Since the server was made; refused ones are not counted."""
    rpcs_refused: int
    """Turned away by `max_concurrent_rpcs` or for an unknown method."""
    draining: bool
    connections_refused: int = 0
    """Turned away by `max_connections_per_client`."""
    handshakes_failed: Mapping[str, int] = field(default_factory=dict)
    """Connections that came to nothing, by the names of `HANDSHAKE_FAILURES`."""
    rpcs_limit: int | None = field(default=None, compare=False)
    """`max_concurrent_rpcs`."""
    connections_started: int = field(default=0, compare=False)
    """Since the server was made."""
    bytes_received: int = field(default=0, compare=False)
    """Of all connections since the server was made, headers of HTTP/2 included and those of TLS not."""
    bytes_sent: int = field(default=0, compare=False)


class Server:
    """Serves service objects over connections.

    Lifetime: `serve` (or `serve_stream`) runs until it is cancelled or the server is drained. Cancelling it cancels
    every RPC and closes every connection.
    """

    def __init__(
        self,
        services: Iterable[Service],
        *,
        options: ServerOptions | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.options = options or ServerOptions()
        self.observers = tuple(observers_of(interceptors))
        self.interceptors = tuple(interceptors[len(self.observers) :])
        """Those that are entered around each call, within what the observers see."""
        self.refused_to: list[Callable[[CallInfo, Status], object]] = [
            interceptor.refused for interceptor in interceptors if hasattr(interceptor, "refused")
        ]
        """Who is told of calls that are turned away."""
        self._handlers: dict[str, Handler] = {}
        self._drain_hooks: list[Callable[[], object]] = []
        self._vital: set[str] = set()
        for service in services:
            if hasattr(service, "__drain__"):
                self._drain_hooks.append(service.__drain__)
            if hasattr(service, "__vital__"):
                self._vital.update(service.__vital__())
            for path, handler in service.__mapping__().items():
                if path in self._handlers:
                    raise ValueError(f"two services serve {path}: register each service once")
                self._handlers[path] = handler
        self._connections: dict[ConnectionTasks, None] = {}
        self.idle_workers = 0
        """Tasks of all connections that wait for a call (see `server_connection`)."""
        self._rpcs = 0
        self._started = 0
        self._refused = 0
        self._connections_started = 0
        self._bytes_received = self._bytes_sent = 0  # of connections that have ended
        self._draining = False
        self.cutting = False
        """True once the grace of a drain has passed: a connection that comes now gets no call."""
        self.handshakes = Handshakes()
        self.client_limit = ClientLimit(self.options.max_connections_per_client)
        self._accepting: dict[trio.CancelScope, None] = {}
        self._changed = trio.Event()

    def __repr__(self) -> str:
        state = "draining" if self._draining else "open"
        return f"<rpc.Server {state}, {len(self._connections)} connections, {self._rpcs} RPCs>"

    @property
    def draining(self) -> bool:
        """True once `drain` was called."""
        return self._draining

    @property
    def methods(self) -> list[str]:
        """Paths of the methods served."""
        return sorted(self._handlers)

    def statistics(self) -> ServerStatistics:
        """What is going on now."""
        connections = self._connections
        return ServerStatistics(
            len(connections),
            self._rpcs,
            self._started,
            self._refused,
            self._draining,
            self.client_limit.refused,
            dict(self.handshakes.failures),
            rpcs_limit=self.options.max_concurrent_rpcs,
            connections_started=self._connections_started,
            bytes_received=self._bytes_received + sum(connection.bytes_received for connection in connections),
            bytes_sent=self._bytes_sent + sum(connection.bytes_sent for connection in connections),
        )

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[Sequence[trio.abc.Listener[trio.abc.Stream]]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept from `listeners` until cancelled or drained; then they are closed, and all connections have ended.

        `task_status.started(listeners)` is called once connections are accepted.
        """
        async with trio.open_nursery() as connections:
            with trio.CancelScope() as scope:
                self._accepting[scope] = None
                if self._draining:
                    scope.cancel()
                try:
                    async with trio.open_nursery() as accepting:
                        for listener in listeners:
                            accepting.start_soon(accept_all, listener, self._serve_guarded, connections)
                        task_status.started(listeners)
                finally:
                    del self._accepting[scope]
                    self._note_change()

    async def _serve_guarded(self, stream: trio.abc.Stream) -> None:
        try:
            await self.serve_stream(stream)
        except Exception:  # boundary: a defect of ours or of a stream class ends one connection, never the others
            _logger.exception("a connection ended by an unexpected error")

    async def serve_stream(self, stream: trio.abc.Stream, *, in_process: bool = False) -> None:
        """Serve one connection over any stream, until it ends or this is cancelled. Closes the stream.

        Args:
            stream: The server's end. TLS (`tls_stream`) shakes hands here.
            in_process: The other end is in this process, surely. Interceptors that ask strangers who they are may
                read it from `call.peer`.
        """
        peer = Peer(stream, in_process=in_process)
        task = ConnectionTasks(self, peer, stream)
        self._connections[task] = None
        self._connections_started += 1
        try:
            await task.run()
            if not self._draining:
                peer.gone()
        finally:
            del self._connections[task]
            self._bytes_received += task.bytes_received
            self._bytes_sent += task.bytes_sent
            self._note_change()

    async def drain(self, grace: float = inf) -> None:
        """Stop accepting, let RPCs finish for `grace` seconds, then cancel the rest with UNAVAILABLE.

        Returns when listeners are closed and no connection is left. May be called again, and while another call of it
        waits: the shortest grace counts. Cancelling it leaves the server draining, with no end to the grace; if that
        had passed, calls that were not reached yet go on until the next drain.
        """
        if not self._draining:
            self._draining = True
            for hook in self._drain_hooks:
                hook()
        for scope in list(self._accepting):
            scope.cancel()
        await _in_slices(connection.drain for connection in list(self._connections))
        with trio.move_on_after(grace):
            await self._until_idle()
            return
        self.cutting = True
        await _in_slices(step for connection in list(self._connections) for step in connection.cut())
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._connections or self._accepting:
            await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -- called by connections --------------------------------------------------------------------------------------

    def route(self, head: RequestHead) -> Handler | Refusal:
        """Find the handler of a request, and count it; a refusal says which limit or name was at fault."""
        handler = head.route
        if handler is None:
            handler = head.route = self._handlers.get(head.path)
            if handler is None:
                self._refused += 1
                return Refusal(200, Status.UNIMPLEMENTED, f"this server has no method {head.path}")
        limit = self.options.max_concurrent_rpcs
        if limit is not None and self._rpcs >= limit + (VITAL_RPCS if head.path in self._vital else 0):
            self._refused += 1
            text = f"{limit} RPCs are in progress, which is the limit of this server (max_concurrent_rpcs)"
            return Refusal(200, Status.RESOURCE_EXHAUSTED, text)
        self._rpcs += 1
        self._started += 1
        assert isinstance(handler, Handler)
        return handler

    def release(self) -> None:
        """An RPC's task has ended."""
        self._rpcs -= 1


async def _in_slices(steps: Iterable[Callable[[], None]]) -> None:
    """Take all steps, with a checkpoint after each slice of them and at the end."""
    for number, step in enumerate(steps, 1):
        step()
        if number % DRAIN_SLICE == 0:
            await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
