"""Options of a server: frozen, keyword-only, every number with its unit and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dk_trio.wire import Limits
from dk_trio.wire.compression import ENCODINGS
from dk_trio.wire.metadata import encode_metadata

MIB: Final = 1024 * 1024
SMALLEST_WINDOW: Final = 256
"""Of a stream, in bytes: a window that holds no message's prefix would never be credited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a `Server` treats its clients."""

    max_concurrent_rpcs: int | None = None
    """RPCs in progress in the whole server; one more is answered RESOURCE_EXHAUSTED. None: no limit."""
    max_connections_per_client: int | None = None
    """Connections of one client, which is an address, or the subject of the certificate that it has shown; one more is
    told GOAWAY with ENHANCE_YOUR_CALM. None: no limit."""
    max_streams_per_connection: int = 10_000
    """SETTINGS_MAX_CONCURRENT_STREAMS. Clients queue or open another connection beyond it, without an explanation, so
    it stands above the largest sensible `max_concurrent_rpcs`."""
    max_receive_message_bytes: int = 100 * MIB
    """Largest request message after decompression (the tuning guide's grpc.max_receive_message_length)."""
    max_send_message_bytes: int = 100 * MIB
    """Largest response message before compression (the tuning guide's grpc.max_send_message_length)."""
    compression: str = "identity"
    """What responses are compressed with when the client accepts it: identity, gzip or deflate."""
    response_metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    """Initial metadata of every response, for what clients should know of the server; a handler's own comes after."""
    stream_window_bytes: int = 256 * 1024
    """Request bytes that may wait unread on one stream, beside one message."""
    handshake_timeout: float = 20.0
    """Seconds a new connection may take for TLS and for its first SETTINGS. A client that
    connects and says nothing holds a socket no longer than this."""
    keepalive_time: float = 120.0
    """Seconds of silence after which a client is pinged (the existing SDK's keepalive for servers)."""
    keepalive_timeout: float = 20.0
    """Seconds without an answer to that ping after which the connection counts as lost."""
    limits: Limits = field(default_factory=Limits)
    """Abuse limits of each connection."""

    def __post_init__(self) -> None:
        encode_metadata(self.response_metadata)  # raises for what no header can hold
        if self.compression not in ENCODINGS:
            raise ValueError(f"compression is {self.compression!r}, it must be one of {', '.join(ENCODINGS)}")
        for name in (
            "max_concurrent_rpcs",
            "max_connections_per_client",
            "max_streams_per_connection",
            "max_receive_message_bytes",
            "max_send_message_bytes",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, it must be at least 1")
        if self.stream_window_bytes < SMALLEST_WINDOW:
            text = f"stream_window_bytes is {self.stream_window_bytes}, it must be at least {SMALLEST_WINDOW}"
            raise ValueError(text)
        for name in ("handshake_timeout", "keepalive_time", "keepalive_timeout"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name} is {value} s, it must be above 0")
