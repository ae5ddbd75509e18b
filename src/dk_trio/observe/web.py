"""A small web server beside the module server: an ASGI app on hypercorn, within the caller's nursery.

    address = await nursery.start(partial(serve_app, app, host="127.0.0.1", port=0, setting="DIGITALKIN_INSPECTOR"))

For pages that an operator looks at: it serves few connections, and what a peer does here costs no job. hypercorn
speaks HTTP; three things are ours, since a page must not hold up the server that it tells of: listening, with the
errors of `dk-trio serve`; a number of connections; and an end. hypercorn sends under a shield without a deadline, so a
browser that stops reading would keep the process alive for ever: here every send has a deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import trio

from dk_trio.errors import ListenError, MissingPackageError
from dk_trio.listening import address_of, open_listeners
from dk_trio.rpc.accepting import accept_all

_log = logging.getLogger("dk_trio.web")

MAX_CONNECTIONS: Final = 64
"""At the same time; those beyond are closed at once. A browser opens six for a page, a scraper one."""

GRACE: Final = 2.0
"""Seconds that requests get to end when the server ends. Streams without an end are to be ended by their app."""

SEND_TIMEOUT: Final = 5.0
"""Seconds after which a peer that takes nothing of what is sent is cut off."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


async def serve_app(
    app: App,
    *,
    host: str,
    port: int,
    setting: str = "DIGITALKIN_INSPECTOR",
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI app until cancelled.

    When cancelled, it takes no new connections and gives requests `GRACE` seconds to end.

    Args:
        app: Answers HTTP requests; there are no other scopes, lifespan neither.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        setting: What the variables of host and port begin with, for errors.
        task_status: Gets `HOST:PORT` when connections are taken.

    Raises:
        ListenError: The address cannot be listened on.
        MissingPackageError: The extra `inspector` is not installed.
    """
    try:
        from hypercorn.app_wrappers import ASGIWrapper
        from hypercorn.config import Config
        from hypercorn.trio.tcp_server import TCPServer
        from hypercorn.trio.worker_context import WorkerContext
        from hypercorn.typing import ConnectionState
    except ImportError as error:
        raise MissingPackageError(
            f"Serving pages ({setting}_PORT) needs the package hypercorn, which cannot be imported: {error}.",
            hint="Install the extra: pip install 'dk-trio[inspector]'.",
        ) from error

    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("dk_trio.web.http")
    config.include_server_header = False
    config.read_timeout = 60  # a request that does not come, and a peer that has gone without a word
    context = WorkerContext(None)
    wrapped = ASGIWrapper(_http_only(app))  # type: ignore[arg-type]

    async def connection(stream: trio.SocketStream) -> None:
        if len(connections.child_tasks) > MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        try:
            await TCPServer(wrapped, config, context, ConnectionState({}), _Bounded(stream)).run()  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001  boundary: what one peer sends, and a defect of the HTTP library, end that connection alone
            _log.warning("a connection to %s was ended by an error", address, exc_info=True)

    try:
        listeners = await open_listeners(host, port)
    except ListenError as error:
        raise ListenError(
            error.message, hint=f"Choose another address with {setting}_HOST and {setting}_PORT."
        ) from None
    address = address_of(host, listeners)
    closing = trio.Event()
    async with trio.open_nursery() as nursery:
        connections = await nursery.start(_connections, closing)
        task_status.started(address)
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(_accept, listener, connection, connections)
        finally:
            closing.set()
            await context.terminated.set()  # idle connections close; it does not wait


async def _accept(
    listener: trio.abc.Listener[trio.SocketStream],
    serve: Callable[[trio.SocketStream], Awaitable[None]],
    connections: trio.Nursery,
) -> None:
    try:
        await accept_all(listener, serve, connections)
    except OSError as error:  # a page that cannot be asked for any more is no reason to end what it tells of
        _log.error("pages are served no more: %s", error.strerror or error)


async def _connections(closing: trio.Event, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """The nursery of the connections, which outlives the cancellation of the server by `GRACE` seconds."""
    with trio.CancelScope(shield=True) as scope:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await closing.wait()
            scope.deadline = trio.current_time() + GRACE


def _http_only(app: App) -> App:
    async def http(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    return http


class _Bounded:
    """A TCP stream as hypercorn wants it, whose sends have a deadline."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.receive_some = stream.receive_some
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            with trio.fail_after(SEND_TIMEOUT):
                await self._stream.send_all(data)
        except trio.TooSlowError as error:
            raise trio.BrokenResourceError(f"the peer has taken nothing for {SEND_TIMEOUT:g} s") from error
