"""A gRPC server on Trio.

Theory of operation
-------------------
`serve` accepts from listeners and gives each connection a task; `serve_stream` is that task, for any trio stream. A
connection has a nursery of its own with a reader, a writer, a keepalive task and one task for each RPC, so lifetimes
nest: an RPC ends within its connection, a connection within `serve`. When the reader sees the end of the connection,
every RPC is cancelled; cleanup under a shield of the handler's may go on, the socket is closed without waiting for it.

An RPC counts against `max_concurrent_rpcs` from the moment its head is read until its handler's task has ended, cleanup
included, so a client that resets and starts anew cannot have more work going on than one that waits.

Drain: stop accepting; tell each client with GOAWAY, allow one round trip for calls already on their way; let the RPCs
finish; after the grace cancel those that are left, with status UNAVAILABLE.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

import trio
from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError

from dk_trio.wire import ErrorCode, PeerError, Refusal, RequestHead, ServerConnection, Stream

from .interceptors import CallInfo, Interceptor, InterceptorStack
from .options import ServerOptions
from .server_call import ServerCall
from .transport import FLUSH_TIMEOUT, Transport

CLOSE_TIMEOUT: Final = 2.0
"""Seconds for the closing handshake of TLS, then the socket is closed without it."""
DRAIN_ROUND_TRIP: Final = 1.0
"""Seconds that a drained client has to answer the announcement before new streams are refused all the same."""
LINGER: Final = 1.0
"""Seconds that a drained connection waits for the client to close it."""

_logger = logging.getLogger("dk_trio.rpc.server")


class Service(Protocol):
    """A service object: what grpclib's and betterproto2's generated bases are."""

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
        self.interceptors = tuple(interceptors)
        self._handlers: dict[str, Handler] = {}
        for service in services:
            for path, handler in service.__mapping__().items():
                if path in self._handlers:
                    raise ValueError(f"two services serve {path}: register each service once")
                self._handlers[path] = handler
        self._connections: dict[_ServerConnectionTask, None] = {}
        self._rpcs = 0
        self._started = 0
        self._refused = 0
        self._draining = False
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
        return ServerStatistics(len(self._connections), self._rpcs, self._started, self._refused, self._draining)

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
                    await trio.serve_listeners(
                        self._serve_guarded, list(listeners), handler_nursery=connections, task_status=task_status
                    )
                finally:
                    del self._accepting[scope]

    async def _serve_guarded(self, stream: trio.abc.Stream) -> None:
        try:
            await self.serve_stream(stream)
        except Exception:  # a defect of ours or of a stream class ends one connection, never the others
            _logger.exception("a connection ended by an unexpected error")

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream, until it ends or this is cancelled. Closes the stream."""
        task = _ServerConnectionTask(self, stream)
        self._connections[task] = None
        try:
            await task.run()
        finally:
            del self._connections[task]
            self._note_change()

    async def drain(self, grace: float = inf) -> None:
        """Stop accepting, let RPCs finish for `grace` seconds, then cancel the rest with UNAVAILABLE.

        Returns when no connection is left. Cancelling this leaves the server draining, with no end to the grace.
        """
        self._draining = True
        for scope in list(self._accepting):
            scope.cancel()
        for connection in list(self._connections):
            connection.drain()
        with trio.move_on_after(grace):
            await self._until_idle()
            return
        for connection in list(self._connections):
            connection.cut()
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._connections:
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
        if limit is not None and self._rpcs >= limit:
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


class _ServerConnectionTask:
    """The tasks of one connection."""

    def __init__(self, server: Server, stream: trio.abc.Stream) -> None:
        options = server.options
        self._server = server
        self._stream = stream
        self._options = options
        self._wire = ServerConnection(
            self._accept,
            events=self,
            limits=options.limits,
            max_message_bytes=options.max_receive_message_bytes,
            max_streams=options.max_streams_per_connection,
            stream_window=options.stream_window_bytes,
        )
        self._transport = Transport(stream, self._wire)
        self._nursery: trio.Nursery | None = None
        self._calls: dict[ServerCall, None] = {}
        self._read_scope = trio.CancelScope()
        self._draining = False
        self._pong = trio.Event()

    def __repr__(self) -> str:
        return f"<server connection {self._wire!r}>"

    async def run(self) -> None:
        """Serve until the connection is over."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write)
                nursery.start_soon(self._keep_alive)
                if self._server.draining:
                    self.drain()
                await self._read()
                self._wire.close(ErrorCode.CANCEL, "the connection was lost", remote=True)
                with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                    await self._flush()
                await trio.aclose_forcefully(self._stream)
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()

    async def _read(self) -> None:
        with self._read_scope:
            try:
                await self._transport.read()
            except PeerError as error:
                _logger.info("connection closed: %s", error)

    async def _flush(self) -> None:
        self._transport.finish()
        try:
            while self._wire.out:
                await self._transport.drained()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _write(self) -> None:
        try:
            await self._transport.write()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._read_scope.cancel()

    async def _keep_alive(self) -> None:
        """Ping a silent client, and give up one that does not answer within its time."""
        options = self._options
        await trio.sleep(options.handshake_timeout)
        if not self._wire.established:
            _logger.info("connection closed: no HTTP/2 preface within %g s", options.handshake_timeout)
            self._read_scope.cancel()
            return
        while True:
            silence = trio.current_time() - self._wire.now
            if silence < options.keepalive_time:
                await trio.sleep(options.keepalive_time - silence)
                continue
            self._pong = trio.Event()
            self._wire.ping(b"dkalive\x00")
            self._transport.wake()
            with trio.move_on_after(options.keepalive_timeout) as scope:
                await self._pong.wait()
            if scope.cancelled_caught:
                _logger.info("connection closed: no answer to a ping within %g s", options.keepalive_timeout)
                self._read_scope.cancel()
                return

    # -- events of the wire -----------------------------------------------------------------------------------------

    def on_settings(self) -> None:
        """Nothing to do: the wire has applied them."""

    def on_pong(self, payload: bytes) -> None:
        """An answer to any ping shows that the client lives; one to the drain's ping also ends its round trip."""
        self._pong.set()

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """A client that leaves may let its calls finish; it closes the connection by itself."""

    def _accept(self, stream_id: int, head: RequestHead) -> Stream | Refusal:
        handler = self._server.route(head)
        if isinstance(handler, Refusal):
            return handler
        timeout = head.timeout
        deadline = inf if timeout is None else self._wire.now + timeout
        call = ServerCall(
            self._transport, stream_id, head=head, handler=handler, options=self._options, deadline=deadline
        )
        self._calls[call] = None
        assert self._nursery is not None
        self._nursery.start_soon(self._run_call, call, name=head.path)
        return call

    # -- one RPC ----------------------------------------------------------------------------------------------------

    async def _run_call(self, call: ServerCall) -> None:
        try:
            with call.scope:
                interceptors = self._server.interceptors
                if interceptors:
                    async with InterceptorStack(interceptors, self._describe(call)):
                        await call.handler.func(call)
                else:
                    await call.handler.func(call)
                while call.sending:
                    await call.flush()
        except Exception as error:  # noqa: BLE001  the boundary around a service's code: whatever it raises becomes a status
            self._fail(call, error)
        else:
            if not call.done:
                self._complete(call)
        finally:
            if not call.done:  # only when the connection's own nursery is cancelled: the server ends
                call.finish(Status.UNAVAILABLE, "the server is shutting down")
            self._wire.finish(call)
            del self._calls[call]
            self._server.release()
            if self._draining and not self._calls:
                self._leave()

    @staticmethod
    def _complete(call: ServerCall) -> None:
        if call.scope.cancelled_caught:
            if call.shut_down:
                call.finish(Status.UNAVAILABLE, "the server is shutting down")
            elif trio.current_time() >= call.scope.deadline:
                call.finish(Status.DEADLINE_EXCEEDED, f"the deadline of {call.head.timeout:g} s has passed")
            else:
                call.finish(Status.CANCELLED, "the call was cancelled")
        elif call.answered:
            call.finish(Status.OK)
        else:
            _logger.error("%s returned without a response message", call.head.path)
            call.finish(Status.UNKNOWN, "the handler returned without a response message")

    @staticmethod
    def _fail(call: ServerCall, error: Exception) -> None:
        cause = _unwrap(error)
        if isinstance(cause, GRPCError):
            call.finish(cause.status, cause.message, cause.details)
            return
        if call.done:
            _logger.warning("%s failed after its call had ended", call.head.path, exc_info=error)
            return
        _logger.error("%s failed", call.head.path, exc_info=error)
        call.finish(Status.UNKNOWN, f"the handler failed: {type(cause).__name__}")

    def _describe(self, call: ServerCall) -> CallInfo:
        return CallInfo(
            path=call.head.path,
            cardinality=call.handler.cardinality,
            metadata=call.metadata,
            deadline=call.scope.deadline,
            peer=call.peer,
            side="server",
        )

    # -- drain ------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Announce the end; the connection closes when its last RPC has ended."""
        if self._draining or self._nursery is None:
            return
        self._draining = True
        self._wire.shut_down()
        self._transport.wake()
        self._nursery.start_soon(self._finish_drain)

    async def _finish_drain(self) -> None:
        with trio.move_on_after(DRAIN_ROUND_TRIP):
            while not self._wire.refusing_streams:
                self._pong = trio.Event()
                await self._pong.wait()
        self._wire.refuse_new_streams()
        self._transport.wake()
        if not self._calls:
            self._leave()

    def _leave(self) -> None:
        # The last RPC has ended. A client closes by itself now, and is given the time for it, so that nothing which is
        # still on its way to the client is lost to a TCP reset.
        if self._wire.refusing_streams:
            self._read_scope.deadline = min(self._read_scope.deadline, trio.current_time() + LINGER)

    def cut(self) -> None:
        """Cancel what is left, with UNAVAILABLE."""
        for call in self._calls:
            call.shut_down = True
            call.scope.cancel(reason="the server is shutting down")


def _unwrap(error: Exception) -> Exception:
    """What a service meant by an exception group: a GRPCError raised in a nursery comes out of it in a group."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, GRPCError):
            return leaf
    return leaves[0]


def _leaves(error: Exception) -> Iterable[Exception]:
    if isinstance(error, ExceptionGroup):
        for child in error.exceptions:
            yield from _leaves(child)
    else:
        yield error
