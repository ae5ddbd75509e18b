"""Who is at the other end of a connection."""

from __future__ import annotations

from typing import Any

import trio


class Peer:
    """The surface of `grpclib.protocol.Peer`, for any trio stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<Peer {self.addr()!r}>"

    def addr(self) -> Any:
        """Address of the peer as the socket module gives it; None for streams that have none (memory) or are closed."""
        stream: Any = self._stream
        while not isinstance(stream, trio.SocketStream):
            stream = getattr(stream, "transport_stream", None)
            if stream is None:
                return None
        try:
            return stream.socket.getpeername()
        except OSError:
            return None

    def cert(self) -> dict[str, Any] | None:
        """The peer's certificate as `ssl.SSLSocket.getpeercert` gives it; None without TLS or without one."""
        stream = self._stream
        if not isinstance(stream, trio.SSLStream):
            return None
        try:
            certificate: dict[str, Any] | None = stream.getpeercert()
        except trio.NeedHandshakeError:
            return None
        return certificate
