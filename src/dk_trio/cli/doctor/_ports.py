"""Whether the ports of a server are free, and what stands open beyond this machine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dk_trio.addresses import is_loopback

from ._finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from dk_trio.settings import Settings


class _Port(NamedTuple):
    what: str
    host: str
    port: int
    variable: str


def ports(settings: Settings) -> Iterator[Finding]:
    """Each port that `dk-trio serve` would listen on is tried. Blocks for names of hosts."""
    for wanted in _wanted(settings):
        yield _tried(wanted)
    server, security = settings.server, settings.security
    if not is_loopback(server.host):
        if not security.server_tls:
            yield warn(
                f"{server.host} is reachable from outside of this machine, in plaintext.",
                "Set DIGITALKIN_TLS_CERT and DIGITALKIN_TLS_KEY (`dk-trio certs` makes files to try it with), unless a "
                "proxy or a mesh adds TLS.",
            )
        if security.auth_token is None and security.auth_tokens_file is None and security.tls_client_ca is None:
            yield warn(
                f"{server.host} is reachable from outside of this machine, and nobody is asked who they are.",
                "Set DIGITALKIN_AUTH_TOKEN, DIGITALKIN_AUTH_TOKENS_FILE or DIGITALKIN_TLS_CLIENT_CA.",
            )


def _wanted(settings: Settings) -> Iterator[_Port]:
    server, observe = settings.server, settings.observe
    yield _Port("the server", server.host, server.port, "SERVER_CHANNEL_PORT")
    for number in range(server.workers):  # worker n takes the port + n
        if observe.metrics_port:
            yield _Port("metrics", observe.metrics_host, observe.metrics_port + number, "DIGITALKIN_METRICS_PORT")
        if observe.inspector and observe.inspector_port:
            yield _Port(
                "the inspector", observe.inspector_host, observe.inspector_port + number, "DIGITALKIN_INSPECTOR_PORT"
            )


def _tried(wanted: _Port) -> Finding:
    what, host, port, variable = wanted
    facts = {"host": host, "port": port}
    if port == 0:
        return ok(f"Any free port of {host} for {what}.", **facts)
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(1)
    except (socket.gaierror, UnicodeError):
        return fail(f"The host {host!r} is not an address of this machine.", "Use 127.0.0.1, or 0.0.0.0 for all.")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text, remedy = "another process listens there", "End that one"
        elif error.errno == errno.EACCES:
            text, remedy = "this user may not take it", "Take one above 1023"
        else:
            text, remedy = str(error.strerror), "Take an address of this machine"
        return fail(
            f"Port {port} of {host} for {what} cannot be listened on: {text}.",
            f"{remedy}, or set {variable} to another.",
            **facts,
        )
    return ok(f"Port {port} of {host} is free for {what}.", **facts)
