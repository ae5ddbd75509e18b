"""Who is at the other end of a connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from dk_trio.addresses import with_port

_UNKNOWN: Final[Any] = object()


class Peer:
    """The surface of `grpclib.protocol.Peer`, for any trio stream; one object for each connection.

    Args:
        stream: The connection's.
        in_process: The other end is in this process, surely: whoever opened the stream says so.

    Attributes:
        in_process: As given.
    """

    __slots__ = ("_addr", "_cert", "_gone", "_name", "_stream", "in_process")

    def __init__(self, stream: trio.abc.Stream, *, in_process: bool = False) -> None:
        self.in_process = in_process
        self._stream = stream
        self._addr: Any = _UNKNOWN
        self._cert: dict[str, Any] | None = None
        self._name = ""
        self._gone: list[Callable[[Peer], object]] = []

    def __repr__(self) -> str:
        return f"<Peer {self.addr()!r}>"

    def addr(self) -> Any:
        """Address of the peer as the socket module gives it; None for streams that have none, such as memory.

        It is kept, for a socket that was closed has none any more: None then, if nobody has asked before.
        """
        if self._addr is not _UNKNOWN:
            return self._addr
        stream: Any = self._stream
        while not isinstance(stream, trio.SocketStream):
            stream = getattr(stream, "transport_stream", None)
            if stream is None:
                self._addr = None
                return None
        try:
            self._addr = stream.socket.getpeername()
        except OSError:
            return None
        return self._addr

    def host(self) -> str:
        """The IP address without its port, for logs and for counting; in words where there is none."""
        address = self.addr()
        if isinstance(address, tuple):
            return str(address[0]).removeprefix("::ffff:")
        if self.in_process:
            return "this process"
        return "unknown" if address is None else "a Unix socket"

    @property
    def name(self) -> str:
        """`HOST:PORT` for logs, in words what has none. Made once, since it is asked for by each call."""
        if not self._name:
            address = self.addr()
            host = self.host()
            if isinstance(address, tuple):
                self._name = with_port(host, address[1])
            else:
                self._name = host
        return self._name

    def on_gone(self, callback: Callable[[Peer], object]) -> None:
        """Call this, which must not wait or raise, when the connection has ended, and not because the server ends."""
        self._gone.append(callback)

    def gone(self) -> None:
        """The connection has ended by itself; for who serves it."""
        for callback in self._gone:
            callback(self)

    def cert(self) -> dict[str, Any] | None:
        """The peer's certificate as `ssl.SSLSocket.getpeercert` gives it; None without TLS or without one.

        Empty for one that was not asked for, or not verified: what stands in it proves nothing then.
        """
        if self._cert is not None:
            return self._cert
        stream = self._stream
        if not isinstance(stream, trio.SSLStream):
            return None
        try:
            self._cert = stream.getpeercert()
        except trio.NeedHandshakeError:
            return None
        return self._cert


def client_of(peer: Peer) -> str:
    """What tells clients apart: the name in the certificate that was verified, else the IP address.

    Empty for those that cannot be told apart: of this process, and of a Unix socket.
    """
    if certificate := peer.cert():
        return certificate_name(certificate)
    return peer.host() if isinstance(peer.addr(), tuple) else ""


def certificate_name(certificate: Mapping[str, Any]) -> str:
    """Whom a certificate names, as `getpeercert` gives it: its first alternative name, else its common name.

    Names of the subject are not unique among authorities; a server trusts those that it has chosen.
    """
    for _, name in certificate.get("subjectAltName", ()):
        return str(name)
    names = dict(pair for row in certificate.get("subject", ()) for pair in row)
    return str(names.get("commonName") or ", ".join(f"{key}={value}" for key, value in names.items()))
