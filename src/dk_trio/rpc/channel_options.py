"""What can be set on a channel, with the defaults of the tuning guide's client channel table.

Durations are seconds, sizes are bytes. The environment is not read here: whoever owns settings builds these objects,
and the variable that feeds a field is named in its description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from platform import python_version

from dk_trio.wire.compression import ENCODINGS

from .backoff import BackoffPolicy
from .resolver import DEFAULT_HAPPY_EYEBALLS_DELAY
from .retry import RetryPolicy

USER_AGENT = f"grpc-python-dk-trio/0.1.0 (trio; cpython/{python_version()})"
"""In the form that gRPC's PROTOCOL-HTTP2 recommends under "User Agents"."""

_PRINTABLE = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """Options of a channel; frozen, so that a channel can be cached by them."""

    keepalive_time: float = 60.0
    """Seconds without a byte from the server after which a PING asks whether it is there; `math.inf` never asks.
    `DIGITALKIN_GRPC_KEEPALIVE_TIME_MS`."""
    keepalive_timeout: float = 20.0
    """Seconds to wait for any byte after that PING; then the connection counts as lost and its calls fail with
    UNAVAILABLE. `DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS`."""
    keepalive_without_calls: bool = True
    """Whether an idle connection is watched too (`grpc.keepalive_permit_without_calls`, True in the tuning guide)."""
    min_ping_interval: float = 30.0
    """Least seconds between two PINGs; a shorter `keepalive_time` is stretched to it. Servers answer to pings that come
    faster than they allow (10 s in ours) by closing. `DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS`."""

    dns_min_interval: float = 0.5
    """Least seconds between two lookups of the target's name. `DIGITALKIN_GRPC_DNS_RESOLUTION_MS`."""
    happy_eyeballs_delay: float = DEFAULT_HAPPY_EYEBALLS_DELAY
    """Head start in seconds that each address gets before the next is tried beside it (RFC 8305)."""
    connect_timeout: float = 20.0
    """Seconds for one attempt to connect: name, TCP, TLS and the server's first SETTINGS (gRPC connection-backoff,
    MIN_CONNECT_TIMEOUT)."""
    reconnect: BackoffPolicy = field(default_factory=BackoffPolicy)
    """Delays between attempts to connect: `DIGITALKIN_GRPC_INITIAL_RECONNECT_MS`, `_MAX_RECONNECT_MS`,
    `_MIN_RECONNECT_MS`."""

    retry: RetryPolicy | None = field(default_factory=RetryPolicy)
    """When calls are repeated: `DIGITALKIN_GRPC_RETRY_*`. None repeats only calls that no server has processed."""
    wait_for_ready: bool = False
    """Whether calls wait while the server cannot be reached, until their deadline, instead of failing with UNAVAILABLE;
    each call may say otherwise."""

    max_receive_message_bytes: int = 100 * 1024 * 1024
    """Largest reply message, decompressed; a larger one ends its call with RESOURCE_EXHAUSTED before memory is spent.
    The tuning guide's 100 MB (`grpc.max_receive_message_length`)."""
    max_send_message_bytes: int = 100 * 1024 * 1024
    """Largest request message, before compression (`grpc.max_send_message_length`)."""
    max_metadata_bytes: int = 16 * 1024
    """Largest header list that is accepted, counted as in RFC 9113 section 6.5.2; gRPC core's hard limit."""
    stream_window: int = 1024 * 1024
    """Bytes of one call that the server may send ahead of the reader. 1 MiB: thousands of calls must not be a memory
    exposure, and it is enough for 1 Gbit/s at 8 ms round trip."""
    compression: str = "identity"
    """Encoding of request messages: `identity`, `gzip` or `deflate`; each call and each message may say otherwise.
    Replies may use any of the three whatever is set here."""

    user_agent: str = USER_AGENT
    """Printable ASCII; put your own product before this library's."""
    authority: str | None = None
    """Overrides `:authority`, and the name that a TLS certificate must match; None takes both from the target."""
    connections: int = 1
    """Connections over which calls are spread, the least loaded first. One is right but for a server that runs several
    processes behind one address."""

    def __post_init__(self) -> None:
        positive = (
            "keepalive_time",
            "keepalive_timeout",
            "connect_timeout",
            "max_receive_message_bytes",
            "max_send_message_bytes",
            "max_metadata_bytes",
            "connections",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        for name in ("min_ping_interval", "dns_min_interval", "happy_eyeballs_delay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)!r}")
        for name in ("max_receive_message_bytes", "max_send_message_bytes"):
            if getattr(self, name) > 0xFFFF_FFFF:
                raise ValueError(f"{name} must fit in gRPC's 32-bit length, not {getattr(self, name)!r}")
        # Below the protocol's default the window could not hold what a server may send before it reads our SETTINGS.
        if not 65_535 <= self.stream_window <= 0x7FFF_FFFF:
            raise ValueError(f"stream_window must be between 65535 and 2147483647 bytes, not {self.stream_window!r}")
        if self.compression not in ENCODINGS:
            raise ValueError(f"compression must be one of {', '.join(ENCODINGS)}, not {self.compression!r}")
        for name in ("user_agent", "authority"):
            value = getattr(self, name)
            if value is not None and not (value and value == value.strip() and _PRINTABLE.fullmatch(value)):
                raise ValueError(f"{name} must be printable ASCII without spaces around it, not {value!r}")
