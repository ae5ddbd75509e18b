"""What one end of a connection knows and owns: its streams, its queued output, its budgets.

`connection.py` reads frames and changes this state; streams and the two roles write through it. The rules about ended
streams live here. After we end a stream that the peer has not ended, its frames in flight are legal and are ignored;
ids of such streams, and what is left of their windows, are kept in `_ignored`, the oldest forgotten first. Frames on
any other closed stream are errors. Every reset of a stream that is younger than `Limits.young_reset_age` costs, whoever
sent it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol

from .errors import PeerError
from .frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    LARGEST_WINDOW,
    ErrorCode,
    goaway,
    ping,
    rst_stream,
)
from .hpack import Encoder
from .limits import Budget, Limits
from .settings import PeerSettings
from .stream import Stream

STREAM_WINDOW: Final = 256 * 1024
"""Default receive window of a stream, bytes: C-core's BDP estimate settles near it on fast links, and 3,000 stalled
streams hold at most 750 MiB of messages."""
MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
"""Default limit of one inbound message after decompression (the tuning guide's grpc.max_receive_message_length)."""
NO_WINDOW: Final = -1
"""Window of an ignored stream that may get nothing more: the peer itself had closed it."""
_IGNORED_STREAMS: Final = 10_000
"""Closed streams whose late frames are forgiven: as many as a server allows at once, since a drain ends all of them
together; about 1 MB when full."""


class ConnectionEvents(Protocol):
    """What the owner of a connection is told. Called inside `receive`: note, wake, return."""

    def on_settings(self) -> None:
        """The peer's settings have changed (`peer`)."""

    def on_pong(self, payload: bytes) -> None:
        """The answer to a `ping` has come."""

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The peer will not process streams of ours above `last_stream_id`; those were reset with REFUSED_STREAM."""


class NoEvents:
    """Ignores all of them."""

    def on_settings(self) -> None:
        """Ignored."""

    def on_pong(self, payload: bytes) -> None:
        """Ignored."""

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """Ignored."""


class Endpoint(ABC):
    """State of one end. Use `ServerConnection` or `ClientConnection`."""

    client_side = False

    def __init__(
        self,
        *,
        events: ConnectionEvents | None = None,
        limits: Limits | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        stream_window: int = STREAM_WINDOW,
    ) -> None:
        if not 1 <= stream_window <= LARGEST_WINDOW:
            raise ValueError(f"stream_window must be 1 to {LARGEST_WINDOW} bytes, not {stream_window}")
        self.events: ConnectionEvents = NoEvents() if events is None else events
        self.limits = limits = limits or Limits()
        self.max_message_bytes = max_message_bytes
        self.stream_window = stream_window
        self.initial_recv_window = max(stream_window, DEFAULT_WINDOW)
        """What the peer may send on a new stream: until it has acknowledged our SETTINGS, at least the default."""
        self.peer = PeerSettings()
        self.streams: dict[int, Stream] = {}
        self.blocked: dict[Stream, None] = {}
        """Streams whose `pump` waits for a window, the longest waiting first."""
        self.out: list[bytes] = []
        self.out_size = 0
        self.send_window = DEFAULT_WINDOW
        self.peer_initial_window = DEFAULT_WINDOW
        self.max_send_frame = DEFAULT_FRAME_SIZE
        self.now = 0.0
        self.error: PeerError | None = None
        """The connection error that ended this connection, if one did."""
        self.peer_last_stream: int | None = None
        """Last of our streams that the peer's GOAWAY admits; None while it has sent none."""
        self.encoder = Encoder()
        self._ignored: dict[int, int] = {}
        self._pongs_due = 0
        self.sent_generation = 0
        """`encoder.generation` as of the last block that was sent: the peer's table is known to be as new as that."""
        self._highest_peer_stream = 0
        self._young_resets = Budget(limits.young_resets)
        self._idle_frames = Budget(limits.idle_frames)

    def __repr__(self) -> str:
        state = "failed" if self.error else "closing" if self.peer_last_stream is not None else "open"
        return f"<{type(self).__name__} {state}, {len(self.streams)} streams, {self.out_size} bytes queued>"

    # -- output -----------------------------------------------------------------------------------------------------

    def queue(self, data: bytes) -> None:
        """Queue one or more whole frames."""
        self.out.append(data)
        self.out_size += len(data)

    def take(self) -> bytes:
        """Everything queued, to be written now; the caller owns it, and order is kept by writing in order."""
        out = self.out
        self.out = []
        self.out_size = 0
        return out[0] if len(out) == 1 else b"".join(out)

    def ping(self, payload: bytes) -> None:
        """Queue a PING with eight bytes; `events.on_pong` gets them back."""
        self._pongs_due += 1
        self.queue(ping(payload))

    def goaway(self, code: int = ErrorCode.NO_ERROR, debug: bytes = b"", last_stream_id: int | None = None) -> None:
        """Queue GOAWAY. Streams of the peer above `last_stream_id` (default: the highest seen) are refused."""
        last = self._highest_peer_stream if last_stream_id is None else last_stream_id
        self.queue(goaway(last, code, debug))

    def close(self, code: int, reason: str, *, remote: bool) -> None:
        """The connection is over: every stream still open learns it."""
        for stream in list(self.streams.values()):
            self._end_stream(stream, code, reason, remote=remote)

    # -- closed streams and resets ----------------------------------------------------------------------------------

    @abstractmethod
    def is_idle(self, stream_id: int) -> bool:
        """True for an id that neither side has used yet."""

    def spend_idle(self, what: str) -> None:
        """Count a frame that no call pays for."""
        if not self._idle_frames.spend(self.now):
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")

    def _late_reset(self) -> None:
        """Count a reset of a stream that was over already."""
        self.spend_idle("resets of closed streams")

    def count_reset(self, born: float) -> None:
        """Count a reset of a stream that began at `born`; only young ones cost."""
        if self.now - born < self.limits.young_reset_age and not self._young_resets.spend(self.now):
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset soon after their start")

    def refuse_stream(self, stream_id: int, code: int, *, window: int | None = None) -> None:
        """Reset a stream that has no `Stream` object; late frames on it are ignored, as far as its `window` reaches."""
        self.queue(rst_stream(stream_id, code))
        self._ignore(stream_id, self.initial_recv_window if window is None else window)
        self.count_reset(self.now)

    def stream_error(self, stream: Stream, code: int, reason: str) -> None:
        """The peer broke a rule on one stream: reset it, tell it, count it."""
        if stream.reset_code is None:
            self.queue(rst_stream(stream.id, code))
            self._ignore(stream.id, max(stream.recv_window, 0))
        self._end_stream(stream, code, reason, remote=False)
        self.count_reset(stream.born)

    def forget(self, stream: Stream) -> None:
        """Both halves are over, or we have ended the stream for good: drop its registration."""
        if self.streams.pop(stream.id, None) is not None:
            self.blocked.pop(stream, None)
            if not stream.remote_ended:
                self._ignore(stream.id, max(stream.recv_window, 0))

    def _ignore(self, stream_id: int, window: int) -> None:
        self._ignored[stream_id] = window
        if len(self._ignored) > _IGNORED_STREAMS:
            del self._ignored[next(iter(self._ignored))]

    def _end_stream(self, stream: Stream, code: int, reason: str, *, remote: bool) -> None:
        self.streams.pop(stream.id, None)
        self.blocked.pop(stream, None)
        stream.local_ended = True
        stream.reset_code = code
        stream.on_reset(code, remote=remote, reason=reason)
