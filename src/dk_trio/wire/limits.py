"""What one peer may cost us: named numbers, each with its precedent.

HTTP/2 lets a peer cause work that no request pays for. Each such kind of work has a budget here. Budgets are token
buckets: `burst` events at once, then `rate` a second; time comes in as the `now` argument of `Connection.receive`, in
seconds of any clock that does not go back, so this stays free of clocks. An empty bucket ends the connection with
ENHANCE_YOUR_CALM. Both directions count: a reset that *we* had to send because the peer provoked it ("made you reset",
CVE-2025-8671) costs what a reset of the peer's costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` events at once, refilled by `rate` events a second."""

    burst: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Abuse limits of one connection. The defaults let every honest client that we know pass."""

    header_list_bytes: int = 16 * 1024
    """Decoded size of one header list, as RFC 9113 section 6.5.2 counts it, advertised in SETTINGS. C-core's hard limit
    (grpc.absolute_max_metadata_size) is 16 KiB. A larger list is refused with its stream; the connection lives."""

    header_block_bytes: int = 64 * 1024
    """Encoded size of one header block over HEADERS and CONTINUATION, in bytes; past it the connection ends. Four times
    the list: a block larger than its list is padding or an attack."""

    continuation_frames: int = 32
    """CONTINUATION frames of one block (CVE-2024-27316 and its kin). nghttp2 allows 8; 32 leaves room for peers that
    cut blocks into 1 KiB."""

    young_resets: Rate = field(default=Rate(burst=300, rate=50.0))
    """Streams that end by a reset within `young_reset_age` of their start, and resets or refusals that we had to send
    ("rapid reset", CVE-2023-44487). Envoy: 500 in all; nghttp2: 1,000 at once, 33 a second."""

    young_reset_age: float = 1.0
    """Seconds. A stream reset later than this is an honest cancel and costs nothing, so thousands of long calls may be
    cancelled at once. Envoy's premature_reset_min_stream_lifetime is 1 s too."""

    pings: Rate = field(default=Rate(burst=200, rate=20.0))
    """PING frames to answer beyond one for each five bytes of DATA that we sent (CVE-2019-9512). Keepalive needs one
    each 10 s. Bandwidth probes come while data flows: ten a second from C-core, one for each round trip from Go, which
    is thousands a second on one machine. Servers in C and Go forgive pings by the data they sent, too."""

    settings: Rate = field(default=Rate(burst=50, rate=1.0))
    """SETTINGS frames to apply and acknowledge (CVE-2019-9515). Real peers send one or two in a lifetime."""

    idle_frames: Rate = field(default=Rate(burst=500, rate=100.0))
    """Frames without effect here: PRIORITY, unknown types, frames on closed streams (CVE-2019-9513). Browsers send a
    few PRIORITY frames a request; Envoy allows 100 a stream."""

    empty_data: Rate = field(default=Rate(burst=100, rate=10.0))
    """DATA frames that carry nothing and end nothing (CVE-2019-9518). Envoy allows one in a row."""

    window_updates: Rate = field(default=Rate(burst=400, rate=500.0))
    """WINDOW_UPDATE frames beyond two for each five bytes of DATA that we sent (CVE-2019-9511, one-byte windows): a
    peer may credit stream and connection for every message, the smallest of which has five bytes. Envoy allows ten for
    each DATA frame; counting bytes keeps the send path free of counters."""

    output_bytes: int = 1024 * 1024
    """Bytes of answers queued for a peer that does not read, beyond which the connection ends. Messages stop queueing
    long before (`HIGH_WATER`), so only control frames get here."""


class Budget:
    """The state of one `Rate`: a token bucket that starts full."""

    __slots__ = ("_limit", "_stamp", "paid", "tokens")

    def __init__(self, limit: Rate) -> None:
        self._limit = limit
        self._stamp = 0.0
        self.tokens = float(limit.burst)
        self.paid = 0
        """Bytes of our DATA that were already turned into tokens."""

    def __repr__(self) -> str:
        return f"<Budget {self.tokens:.0f} of {self._limit.burst}, {self._limit.rate:g}/s>"

    def spend(self, now: float) -> bool:
        """Take one token at time `now` (seconds); False when there was none."""
        if now > self._stamp:
            if self._stamp:
                self.refund((now - self._stamp) * self._limit.rate)
            self._stamp = now
        self.tokens -= 1.0
        return self.tokens >= 0.0

    def refund(self, tokens: float) -> None:
        """Give tokens back, never above the burst."""
        self.tokens = min(self.tokens + tokens, float(self._limit.burst))
