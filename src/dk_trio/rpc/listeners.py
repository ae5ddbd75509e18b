"""Where connections come from: TCP, Unix sockets, TLS on top. All give plain trio listeners."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import trio

BACKLOG: Final = 1024
"""Connections that may wait to be accepted; Linux cuts it to net.core.somaxconn."""

StreamListener = trio.abc.Listener[trio.abc.Stream]


async def open_tcp_listeners(
    port: int, *, host: str | None = None, backlog: int = BACKLOG
) -> Sequence[trio.SocketListener]:
    """Listen on a TCP port; 0 takes a free one. `host` None means every interface, IPv4 and IPv6.

    Raises OSError that names the address when the port is in use or the host unknown. TCP_NODELAY is set by trio.
    """
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    except OSError as error:
        hint = ": another process listens there" if error.errno == errno.EADDRINUSE else f": {error.strerror or error}"
        raise OSError(error.errno, f"cannot listen on {host or '*'}:{port}{hint}") from error


async def open_unix_listener(path: str | os.PathLike[str], *, backlog: int = BACKLOG) -> trio.SocketListener:
    """Listen on a Unix socket. A socket file that nobody listens on any more is replaced; any other file is not.

    Raises OSError that names the path when it is in use.
    """
    name = os.fspath(path)
    file = trio.Path(name)
    if await file.is_socket() and not await _is_served(name):
        await file.unlink()
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(name)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on unix:{name}: {error.strerror}") from error
    return trio.SocketListener(sock)


async def _is_served(name: str) -> bool:
    try:
        stream = await trio.open_unix_socket(name)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:  # not allowed to ask: then it is not ours to replace
        return True
    await stream.aclose()
    return True


def tls_stream(stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.SSLStream[trio.abc.Stream]:
    """A server's end of TLS on top of an accepted connection. The handshake is `rpc.Server`'s, or of the first use.

    HTTP/2 tells ends by itself (GOAWAY, END_STREAM), so a peer that closes without TLS's closing message is tolerated.
    """
    return trio.SSLStream(stream, context, server_side=True, https_compatible=True)


class _TLSListener(trio.abc.Listener[trio.abc.Stream]):
    def __init__(self, listener: StreamListener, context: Callable[[], ssl.SSLContext]) -> None:
        self.transport_listener = listener
        self._context = context

    async def accept(self) -> trio.abc.Stream:
        return tls_stream(await self.transport_listener.accept(), self._context())

    async def aclose(self) -> None:
        await self.transport_listener.aclose()


def tls_listeners(
    listeners: Sequence[StreamListener], context: ssl.SSLContext | Callable[[], ssl.SSLContext]
) -> Sequence[StreamListener]:
    """Put TLS on top of listeners. The context must offer ALPN "h2" (`server_tls_context` makes one).

    A function is asked for each connection: what it gives next may have another certificate, and other authorities.
    """
    current = context if callable(context) else lambda: context
    return [_TLSListener(listener, current) for listener in listeners]


def server_tls_context(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    client_ca: str | os.PathLike[str] | None = None,
) -> ssl.SSLContext:
    """A context for gRPC: TLS 1.2 or later, ALPN h2; with `client_ca`, clients must show a certificate of that CA.

    Arguments are PEM files. Raises OSError or ssl.SSLError for files that are missing or do not fit together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
