"""The tasks of one server connection: reader, writer, keepalive, and one task for each RPC under way.

Tasks are reused. Starting a task and opening a cancel scope cost as much as everything else in a small call, so a task
whose handler has returned waits a while for the next call of its connection. Nothing of one call may reach the next:

* The next call starts in a fresh copy of the connection's `contextvars` context, put in place while the task is parked.
* The task's cancel scope serves one call at a time. A call takes its hands off the scope when it ends (`call.scope`),
  and a scope that was cancelled is never used again: its task ends with it.
* Nurseries and scopes that the handler opened are closed when it returns; that is what structured concurrency means.

Cancellation reaches a handler through that scope alone: reset by the client, loss of the connection, the deadline, the
end of a drain. Why it was cancelled decides the status, in `_end_cancelled`.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from multidict import MultiDict
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from dk_trio import buggify
from dk_trio.wire import ErrorCode, PeerError, PrefaceError, Refusal, RequestHead, ServerConnection, Stream
from dk_trio.wire.frames import error_name
from dk_trio.wire.metadata import decode_metadata, encode_metadata

from .interceptors import CallInfo, InterceptorStack, Watch, tell_ended
from .peer import Peer, client_of
from .server_call import ClientStalled, ServerCall
from .transport import CLOSE_TIMEOUT, FLUSH_TIMEOUT, Transport

if TYPE_CHECKING:
    from .server import Server

DRAIN_ROUND_TRIP: Final = 1.0
"""Seconds that a drained client has to answer the announcement before new streams are refused all the same."""
LINGER: Final = 1.0
"""Seconds that a drained connection waits for the client to close it."""
MAX_IDLE_WORKERS: Final = 1024
"""Parked tasks in one server, over all connections: about 3 MiB. A burst beyond it starts tasks, nothing else."""

_logger = logging.getLogger("dk_trio.rpc.server")


class _Worker:
    """A task that runs one call after another."""

    __slots__ = ("call", "scope", "task")

    def __init__(self, call: ServerCall) -> None:
        self.call: ServerCall = call
        self.scope = trio.CancelScope()
        self.task: Task | None = None


class ConnectionTasks:
    """One connection of a `Server`, from its first byte to the end of its last handler."""

    def __init__(self, server: Server, peer: Peer, stream: trio.abc.Stream) -> None:
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
            response_fields=encode_metadata(options.response_metadata),
        )
        self._transport = Transport(stream, self._wire, peer=peer)
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.copy_context()
        self._idle: list[_Worker] = []
        self._active = 0
        self._handshake_due = trio.current_time() + options.handshake_timeout
        self._handshake_scope = trio.CancelScope()
        self._read_scope = trio.CancelScope()
        self._written = trio.Event()
        self._draining = False
        self._cut = False
        self._pong = trio.Event()

    @property
    def bytes_received(self) -> int:
        """So far, without TLS."""
        return self._transport.received

    @property
    def bytes_sent(self) -> int:
        """So far, without TLS."""
        return self._transport.sent

    def __repr__(self) -> str:
        return f"<server connection, {self._active} RPCs, {self._wire!r}>"

    async def run(self) -> None:
        """Serve until the connection is over and its last handler has ended. Closes the stream."""
        server = self._server
        peer = self._transport.peer
        self._transport.broken = True  # until hands were shaken: what waits to be written would begin it anew
        try:
            with self._handshake_scope:
                welcome = await server.handshakes.done(self._stream, peer, self._options.handshake_timeout)
                self._transport.broken = not welcome
            if not self._transport.broken:
                with server.client_limit.one(client_of(peer)) as room:
                    await (self._serve() if room else self._turn_away())
        finally:
            with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                # Something is left only when the server itself was cancelled: statuses of its calls.
                await self._transport.write_rest()
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._write)
            nursery.start_soon(self._keep_alive)
            if self._server.draining:
                self.drain()
            if self._server.cutting:
                self._refuse_rest()
            try:
                await self._read()
            finally:
                self._nursery = None  # a drain that comes from now on has nothing to announce, and no nursery
            self._wire.close(ErrorCode.CANCEL, "the connection was lost", remote=True)
            self._transport.release()
            if self._wire.established or self._wire.error is not None:  # otherwise nobody listens
                with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                    await self._flush()
            await trio.aclose_forcefully(self._stream)
            nursery.cancel_scope.cancel()

    async def _turn_away(self) -> None:
        """The client has as many connections as it may: it is told so, and given the time to close this one itself."""
        limit, peer = self._server.client_limit, self._transport.peer
        text = f"{client_of(peer)} has {limit.limit} connections, which is the limit (max_connections_per_client)"
        self._server.handshakes.notices.say(logging.WARNING, peer.host(), "connections", f"connection refused: {text}")
        self._wire.goaway(ErrorCode.ENHANCE_YOUR_CALM, text.encode("ascii", "replace"), last_stream_id=0)
        with trio.move_on_after(LINGER):
            await self._transport.write_rest()
            while not self._transport.broken and await self._stream.receive_some():
                pass

    async def _read(self) -> None:
        with self._read_scope:
            try:
                await self._transport.read()
            except PeerError as error:
                if isinstance(error, PrefaceError) and error.tls:
                    self._server.handshakes.failed(self._transport.peer, "tls_to_plaintext")
                else:
                    self._tell_closed(error_name(error.code), str(error))

    def _tell_closed(self, reason: str, text: str) -> None:
        """Once for each client and reason: what is its fault must not be able to fill the log."""
        host = self._transport.peer.host()
        self._server.handshakes.notices.say(logging.INFO, host, reason, f"connection from {host} closed: {text}")

    async def _flush(self) -> None:
        # The end of the writer, not an empty queue: what it took last may still be on its way.
        self._transport.finish()
        await self._written.wait()

    async def _write(self) -> None:
        try:
            await self._transport.write()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._read_scope.cancel()
        finally:
            self._written.set()

    async def _keep_alive(self) -> None:
        """Ping a silent client, and give up one that does not answer within its time."""
        options, begun = self._options, trio.current_time()
        while True:
            # A time and not a duration: what is left of one may be too little to move a clock, and this would spin.
            now, due = trio.current_time(), max(begun, self._wire.now) + options.keepalive_time
            if not self._wire.established:
                if now >= self._handshake_due:
                    self._tell_closed("no preface", f"no HTTP/2 preface within {options.handshake_timeout:g} s")
                    self._read_scope.cancel()
                    return
                due = min(due, self._handshake_due) if now < due else self._handshake_due
            if now < due:
                await trio.sleep_until(due)
                continue
            self._wire.ping(b"dkalive\x00")
            self._transport.wake()
            with trio.move_on_after(options.keepalive_timeout) as scope:
                await self._pong.wait()
            if scope.cancelled_caught:
                self._tell_closed("no answer", f"no answer to a ping within {options.keepalive_timeout:g} s")
                self._read_scope.cancel()
                return

    # -- events of the wire -----------------------------------------------------------------------------------------

    def on_settings(self) -> None:
        """Nothing to do: the wire has applied them."""

    def on_pong(self, payload: bytes) -> None:
        """An answer to any ping shows that the client lives; one to the drain's ping also ends its round trip."""
        self._pong.set()
        self._pong = trio.Event()

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """A client that leaves may let its calls finish; it closes the connection by itself."""

    def _accept(self, stream_id: int, head: RequestHead) -> Stream | Refusal:
        server = self._server
        handler = server.route(head)
        if isinstance(handler, Refusal):
            if server.refused_to:
                self._tell_refused(head, handler.status)
            return handler
        call = ServerCall(self._transport, stream_id, head, handler, self._options)
        timeout = head.timeout
        if timeout is not None:
            call.deadline_at = self._wire.now + timeout
        self._active += 1
        idle = self._idle
        if idle:
            worker = idle.pop()
            server.idle_workers -= 1
            task = worker.task
            assert task is not None
            task.context = self._context.copy()
            task.name = head.path
            worker.call = call
            reschedule(task)
        else:
            worker = _Worker(call)
            assert self._nursery is not None
            self._nursery.start_soon(self._work, worker, name=head.path)
        call.scope = worker.scope
        if timeout is not None:
            worker.scope.deadline = call.deadline_at
        return call

    def _tell_refused(self, head: RequestHead, status: Status) -> None:
        try:
            metadata = decode_metadata(head.fields)
        except ValueError:
            metadata = MultiDict()
        call = CallInfo(
            path=head.path,
            cardinality=None,
            metadata=metadata,
            deadline=inf if head.timeout is None else self._wire.now + head.timeout,
            peer=self._transport.peer,
            side="server",
        )
        for refused in self._server.refused_to:
            try:
                refused(call, status)
            except Exception:  # boundary: an interceptor's defect is not that of the other calls of this connection
                _logger.exception("%s was refused, and an interceptor could not be told", head.path)

    # -- RPCs -------------------------------------------------------------------------------------------------------

    async def _work(self, worker: _Worker) -> None:
        server = self._server
        idle = self._idle
        worker.task = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            idle.remove(worker)
            server.idle_workers -= 1
            return Abort.SUCCEEDED

        scope = worker.scope
        with scope:
            while True:
                call = worker.call
                await self._run(call)
                if scope.cancel_called or server.idle_workers >= MAX_IDLE_WORKERS:
                    return
                if call.deadline_at != inf:
                    scope.deadline = inf
                del call, worker.call  # and with them what the client sent and nobody read
                idle.append(worker)
                server.idle_workers += 1
                await wait_task_rescheduled(abort)

    async def _run(self, call: ServerCall) -> None:
        """Run the handler of one call and end the call, whatever happens.

        Raises only what is not the handler's to decide: `Cancelled`, KeyboardInterrupt, SystemExit and their like.
        """
        server = self._server
        watches: list[Watch] = []
        since = 0.0
        try:
            if server.observers or server.interceptors:
                info = _describe(call)
                if server.observers:
                    since = trio.current_time()
                    watches += [observer.watch(info) for observer in server.observers]
            if server.interceptors:
                async with InterceptorStack(server.interceptors, info):
                    await call.handler.func(call)
                    while call.sending:
                        await call.flush()
            else:
                await call.handler.func(call)
                while call.sending:
                    await call.flush()
        except Exception as error:  # noqa: BLE001  boundary: a service; whatever it raises becomes a status
            _fail(call, error)
        except (trio.Cancelled, BaseExceptionGroup) as error:
            _end_cancelled(call)
            cancelled, rest = _split(error)
            if rest is not None:
                _logger.warning("%s failed while it was being cancelled", call.head.path, exc_info=rest)
            try:
                if cancelled is None:
                    raise
                raise cancelled from None
            finally:
                # What knows its own traceback lives until the next collection, and with it what could not be sent.
                del cancelled, rest
        else:
            if not call.done:
                _complete(call)
        finally:
            if watches:
                # A client who has left was told nothing, and has cancelled the call.
                status = Status.CANCELLED if call.status is None else call.status
                tell_ended(watches, status, trio.current_time() - since)
            call.scope = None
            if call.id in self._wire.streams:
                self._wire.finish(call)
            self._active -= 1
            server.release()
            if self._draining:
                self._leave_when_done()

    # -- drain ------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Announce the end; the connection closes when its last RPC has ended."""
        self._handshake_scope.deadline = min(self._handshake_scope.deadline, trio.current_time() + DRAIN_ROUND_TRIP)
        if self._draining or self._nursery is None:
            return
        self._draining = True
        self._wire.shut_down()
        self._transport.wake()
        self._nursery.start_soon(self._finish_drain)

    async def _finish_drain(self) -> None:
        with trio.move_on_after(DRAIN_ROUND_TRIP):
            while not self._wire.refusing_streams:
                await self._pong.wait()
        self._wire.refuse_new_streams()
        self._transport.wake()
        self._leave_when_done()

    def _leave_when_done(self) -> None:
        """End the connection after the last RPC; after a cut also when its handler goes on, with nothing left to say.

        The client closes by itself now, and is given the time for it, so that nothing which is still on its way to the
        client is lost to a TCP reset.
        """
        if self._wire.refusing_streams and (not self._active or (self._cut and not self._wire.streams)):
            self._read_scope.deadline = min(self._read_scope.deadline, trio.current_time() + LINGER)

    def cut(self) -> Iterator[Callable[[], None]]:
        """Steps that cancel what is left, with UNAVAILABLE. Other tasks may run between them."""
        yield self._refuse_rest
        for stream in list(self._wire.streams.values()):
            if isinstance(stream, ServerCall):
                yield stream.cut

    def _refuse_rest(self) -> None:
        self._cut = True
        self._wire.refuse_new_streams()
        self._transport.wake()
        self._leave_when_done()


def _describe(call: ServerCall) -> CallInfo:
    return CallInfo(
        path=call.head.path,
        cardinality=call.handler.cardinality,
        metadata=call.metadata,
        deadline=call.deadline_at,
        peer=call.peer,
        side="server",
        status_for=partial(_status_for, call),
    )


def _status_for(call: ServerCall, error: BaseException | None) -> Status:
    """What the call ends with when its handler ends like this; what follows does as it says."""
    if call.status is not None:
        return call.status
    if call.done:
        return Status.CANCELLED
    if error is None:
        if call.answered:
            return Status.OK
        return _cancelled_status(call) if call.scope is not None and call.scope.cancel_called else Status.UNKNOWN
    if not isinstance(error, Exception):
        return _cancelled_status(call)
    cause = _cause(error)
    if isinstance(cause, ClientStalled):
        return Status.DEADLINE_EXCEEDED
    return cause.status if isinstance(cause, GRPCError) and cause.status is not Status.OK else Status.UNKNOWN


def _cancelled_status(call: ServerCall) -> Status:
    """What the handler was cancelled by decides the status."""
    ours = call.shut_down or trio.current_time() < call.deadline_at
    return Status.UNAVAILABLE if ours else Status.DEADLINE_EXCEEDED


def _end_cancelled(call: ServerCall) -> None:
    """The handler was cancelled."""
    if call.done:
        return
    status = _cancelled_status(call)
    if status is Status.UNAVAILABLE:
        call.finish(status, "the server is shutting down")
    else:
        call.finish(status, f"the deadline of {call.head.timeout:g} s has passed")


def _complete(call: ServerCall) -> None:
    """The handler has returned."""
    buggify.fails("rpc.trailers")
    if call.answered:
        call.succeed()
    elif call.scope is not None and call.scope.cancel_called:  # the handler has swallowed its cancellation
        _end_cancelled(call)
    else:
        _logger.error("%s returned without a response message", call.head.path)
        call.finish(Status.UNKNOWN, "the handler returned without a response message")


def _fail(call: ServerCall, error: Exception) -> None:
    """The handler has raised."""
    buggify.fails("rpc.trailers")
    cause = _cause(error)
    path = call.head.path
    if call.done:
        if not isinstance(cause, GRPCError | ClientStalled):
            _logger.warning("%s failed after its call had ended", path, exc_info=error)
        return
    if isinstance(cause, ClientStalled):  # the client's doing, so no failure of ours
        _logger.info("%s ended: %s", path, cause)
        call.finish(Status.DEADLINE_EXCEEDED, str(cause))
        return
    if isinstance(cause, GRPCError) and cause.status is not Status.OK:
        try:
            call.finish(cause.status, cause.message, cause.details)
        except Exception:  # boundary: whatever a service has put into its error, it concerns this call alone
            _logger.exception("%s failed with an error that cannot be sent", path)
            call.finish(Status.UNKNOWN, "the handler failed with an error that cannot be sent")
        return
    _logger.error("%s failed", path, exc_info=error)
    call.finish(Status.UNKNOWN, f"the handler failed: {type(cause).__name__}")


def _cause(error: Exception) -> Exception:
    """What a service meant by an exception group: a GRPCError raised inside a nursery comes out of it in a group."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, GRPCError):
            return leaf
    return leaves[0]


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for child in error.exceptions:
            yield from _leaves(child)
    else:
        yield error


def _split(error: BaseException) -> tuple[BaseException | None, Exception | None]:
    """Part cancellation (and what else must not be stopped here) from ordinary exceptions."""
    if not isinstance(error, BaseExceptionGroup):
        return error, None
    ordinary, rest = error.split(Exception)
    return rest, ordinary
