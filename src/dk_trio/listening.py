"""How a server listens: its address, what to say when it cannot, and what its settings mean to the transport."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import replace

import trio

from dk_trio import rpc
from dk_trio.addresses import with_port
from dk_trio.errors import ListenError
from dk_trio.settings import SecuritySettings, ServerSettings
from dk_trio.wire.limits import Rate


async def open_listeners(host: str, port: int) -> Sequence[trio.SocketListener]:
    """Listen on every address of a host, with one port.

    Raises:
        ListenError: Says what is in the way, and the remedy.
    """
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
    except UnicodeError:  # before a name server is asked
        raise ListenError(
            f"The host {host!r} is not a name: a part of it is empty, or longer than 63 characters.",
            hint="Try 127.0.0.1, 0.0.0.0 or [::].",
        ) from None


async def _on_one_port(host: str, port: int) -> Sequence[trio.SocketListener]:
    """Listen on every address of the host, with the same port: 0 would give each address a port of its own."""
    listeners = await rpc.open_tcp_listeners(port, host=host)
    if len({listener.socket.getsockname()[1] for listener in listeners}) > 1:
        port = listeners[0].socket.getsockname()[1]
        for listener in listeners:
            await listener.aclose()
        listeners = await rpc.open_tcp_listeners(port, host=host)
    return listeners


def address_of(host: str, listeners: Sequence[trio.SocketListener]) -> str:
    """The listeners' address as `HOST:PORT`."""
    return with_port(host, listeners[0].socket.getsockname()[1])


def server_options(settings: ServerSettings, security: SecuritySettings) -> rpc.ServerOptions:
    """What the settings mean to the transport."""
    limits = rpc.ServerOptions().limits
    interval = settings.min_ping_interval
    if interval:
        # The burst stays: clients that measure the way also ping, and are honest.
        limits = replace(limits, pings=Rate(burst=limits.pings.burst, rate=1 / interval))
    return rpc.ServerOptions(
        max_concurrent_rpcs=settings.max_concurrent_rpcs,
        max_connections_per_client=security.max_connections_per_client,
        max_receive_message_bytes=settings.max_receive_message_bytes,
        max_send_message_bytes=settings.max_send_message_bytes,
        compression="identity" if settings.compression == "none" else settings.compression,
        keepalive_time=settings.keepalive_time,
        keepalive_timeout=settings.keepalive_timeout,
        limits=limits,
    )
