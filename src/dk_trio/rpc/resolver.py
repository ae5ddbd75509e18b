"""From the text that names a server to a connected byte stream: targets, name resolution, happy eyeballs.

Names are resolved anew for each attempt to connect, because in container platforms a restarted service has another
address, but not more often than `min_interval`: within it the last answer is used again. Of several addresses, the
families take turns and each gets a head start before the next is tried in parallel (RFC 8305); the first that connects
wins and the others are cancelled.

To connect is not to be served: a process that hangs, or whose certificate has expired, is connected to all the same. So
an address that has won is the last choice of the next attempt, until the connection over it has been confirmed.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from itertools import chain, zip_longest
from math import inf

import trio

from dk_trio.addresses import is_loopback, with_port

DEFAULT_HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds of head start for each address (RFC 8305 section 5, "Connection Attempt Delay")."""

Address = tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.\-]+)?)\]|(?P<host>[^\[\]:/]+)):(?P<port>[0-9]{1,5})")
_FORMS = "use 'host:port', '[v6-address]:port', 'dns:///host:port' or 'unix:/path'"


class ConnectError(OSError):
    """No connection could be made; the text names the target, each cause, and what to look at."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target: either `host` and `port`, or the `path` of a Unix socket."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def authority(self) -> str:
        """What `:authority` says by default; `localhost` for Unix sockets, as gRPC core sends."""
        if self.path:
            return "localhost"
        return with_port(self.host, self.port)

    @property
    def server_name(self) -> str:
        """The name that a TLS certificate must match."""
        return "localhost" if self.path else self.host

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, surely: a Unix socket or an address of the loopback interface."""
        return bool(self.path) or is_loopback(self.host)


def parse_target(text: str) -> Target:
    """Read a target: `host:port`, `[v6]:port`, `dns:///host:port`, `unix:path`, `unix:/path` or `unix:///path`.

    Raises:
        ValueError: anything else; the text names the target and the forms that are known.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if path.startswith("//"):
            path = path[2:]
            if not path.startswith("/"):
                raise ValueError(f"target {text!r}: unix:// needs an absolute path, as in 'unix:///run/module.sock'")
        if not path:
            raise ValueError(f"target {text!r} has no path; {_FORMS}")
        return Target(text, path=path)
    rest = text
    if text.startswith("dns:"):
        rest = text[4:]
        if rest.startswith("//"):
            server, slash, rest = rest[2:].partition("/")
            if server or not slash:
                raise ValueError(f"target {text!r} names a DNS server, which is not supported; {_FORMS}")
    match = _HOST_PORT.fullmatch(rest)
    if match is None:
        raise ValueError(f"target {text!r} is not understood; {_FORMS}")
    port = int(match["port"])
    if not 0 < port < 65536:
        raise ValueError(f"target {text!r}: port {port} is not between 1 and 65535")
    return Target(text, host=match["v6"] or match["host"], port=port)


def interleave_families(addresses: list[Address]) -> list[Address]:
    """Alternate address families, beginning with that of the first address (RFC 8305 section 4)."""
    families: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


class Resolver:
    """The addresses of one target, asked for at most every `min_interval` seconds."""

    __slots__ = ("_addresses", "_lock", "_min_interval", "_resolved", "_unconfirmed", "lookups", "target")

    def __init__(self, target: Target, *, min_interval: float) -> None:
        self.target = target
        self._min_interval = min_interval
        self._resolved = -inf
        self._addresses: list[Address] = []
        self._unconfirmed: set[Address] = set()
        self._lock = trio.Lock()
        self.lookups = 0
        """How often the name system was asked."""

    def __repr__(self) -> str:
        return f"<Resolver {self.target.text!r} addresses={len(self._addresses)} lookups={self.lookups}>"

    async def resolve(self) -> list[Address]:
        """Addresses in the order to try them.

        Raises:
            ConnectError: the name has no address, or could not be looked up.
        """
        async with self._lock:
            now = trio.current_time()
            if self._addresses and now < self._resolved + self._min_interval:
                return self._addresses
            target = self.target
            self.lookups += 1
            try:
                found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                self._addresses = []
                raise ConnectError(
                    f"cannot resolve {target.host!r} of target {target.text!r}: {error}; "
                    "check the name, and that this machine can reach its DNS server"
                ) from error
            self._resolved = now
            self._addresses = interleave_families([(entry[0], entry[4]) for entry in found])
            return self._addresses

    async def connect(self, happy_eyeballs_delay: float = DEFAULT_HAPPY_EYEBALLS_DELAY) -> trio.SocketStream:
        """Connect to the target; a cancelled or losing attempt leaves no socket behind.

        Raises:
            ConnectError: nothing at the target accepted the connection.
        """
        target = self.target
        if target.path:
            try:
                return await trio.open_unix_socket(target.path)
            except OSError as error:
                raise ConnectError(
                    f"cannot connect to {target.text!r}: {error}; check that the server runs and may be reached there"
                ) from error
        addresses = await self.resolve()
        self._unconfirmed.intersection_update(addresses)
        if len(self._unconfirmed) == len(addresses):  # each has had its turn
            self._unconfirmed.clear()
        addresses = sorted(addresses, key=self._unconfirmed.__contains__)
        stream, address, failures = await _race(addresses, happy_eyeballs_delay)
        if stream is None or address is None:
            causes = "; ".join(failures) or "the name has no address"
            raise ConnectError(
                f"cannot connect to {target.text!r}: {causes}; check that the server runs and listens on this address"
            )
        self._unconfirmed.add(address)
        return stream

    def confirm(self) -> None:
        """The server that was connected to serves."""
        self._unconfirmed.clear()


async def _race(addresses: list[Address], delay: float) -> tuple[trio.SocketStream | None, Address | None, list[str]]:
    """Connect to the first address that answers; the stream and its address, or None and why each one failed."""
    winner: trio.SocketStream | None = None
    where: Address | None = None
    failures: list[str] = []

    async def attempt(family: socket.AddressFamily, address: tuple[str | int | bytes, ...], over: trio.Event) -> None:
        nonlocal winner, where
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            await sock.connect(address)
        except OSError as error:
            sock.close()
            failures.append(f"{address[0]!s} port {address[1]!s}: {os.strerror(error.errno) if error.errno else error}")
        except BaseException:
            sock.close()
            raise
        else:
            if winner is None:
                winner, where = trio.SocketStream(sock), (family, address)
                nursery.cancel_scope.cancel()
            else:
                sock.close()
        finally:
            over.set()

    try:
        async with trio.open_nursery() as nursery:
            for family, address in addresses:
                over = trio.Event()
                nursery.start_soon(attempt, family, address, over)
                with trio.move_on_after(delay):
                    await over.wait()
    except BaseException:
        # Cancelled from outside after an attempt had won: nobody will get this socket.
        if winner is not None:
            winner.socket.close()
        raise
    return winner, where, failures
