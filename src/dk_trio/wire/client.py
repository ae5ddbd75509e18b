"""The client's half of a connection: requests out, responses in.

The fields that every call of one method shares (path, authority, content-type, ...) are one header block, kept as bytes
for as long as the encoder's table stands; deadline and metadata are appended as literals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from grpclib.const import Status

from .connection import CONNECTION_WINDOW, Connection
from .endpoint import MAX_MESSAGE_BYTES, STREAM_WINDOW, ConnectionEvents
from .errors import LocalError, PeerError
from .frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_HEADERS,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM_ID,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PREFACE,
    ErrorCode,
    settings_frame,
    window_update,
)
from .heads import CONTENT_TYPE, ResponseHead
from .hpack import SENSITIVE_NAMES
from .stream import Stream

if TYPE_CHECKING:
    from .limits import Limits

_pack_frame_header = FRAME_HEADER.pack
_MAX_KEPT_PATHS: Final = 256
"""Methods whose request block is kept: more than any service has; a caller that invents paths starts over."""


class ClientStream(Stream):
    """One call, seen from the client. `head` is the response head once there; `trailers` once the call has ended."""

    __slots__ = ("head", "trailers")

    def __init__(self, connection: ClientConnection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self.head: ResponseHead | None = None
        self.trailers: ResponseHead | None = None
        self.expected_bytes = -1

    def _check_end(self) -> None:
        # A server that gives up amid a message says why in its trailers; that counts for more than the torn message.
        if self._partial is not None and (self.trailers is None or self.trailers.status in (None, Status.OK)):
            super()._check_end()


class ClientConnection(Connection):
    """One connection to a server.

    `authority` and `scheme` are those of the target; `fields` go on every request (user-agent, grpc-encoding, ...).
    """

    client_side = True

    def __init__(
        self,
        *,
        authority: str,
        scheme: str = "http",
        fields: Sequence[tuple[bytes, bytes]] = (),
        events: ConnectionEvents | None = None,
        limits: Limits | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        stream_window: int = STREAM_WINDOW,
        connection_window: int = CONNECTION_WINDOW,
    ) -> None:
        super().__init__(
            events=events,
            limits=limits,
            max_message_bytes=max_message_bytes,
            stream_window=stream_window,
            connection_window=connection_window,
        )
        self._fields = (
            (b":method", b"POST"),
            (b":scheme", scheme.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", CONTENT_TYPE.encode()),
            *fields,
        )
        self._next_stream = 1
        self._late_resets = 0
        self._heads: dict[bytes, ResponseHead] = {}
        self._heads_generation = self._decoder.generation
        self._requests: dict[str, bytes] = {}
        self._requests_generation = self.encoder.generation
        self.queue(
            PREFACE
            + settings_frame(
                {
                    ENABLE_PUSH: 0,
                    INITIAL_WINDOW_SIZE: stream_window,
                    MAX_FRAME_SIZE: DEFAULT_FRAME_SIZE,
                    MAX_HEADER_LIST_SIZE: self.limits.header_list_bytes,
                }
            )
        )
        if connection_window > DEFAULT_WINDOW:
            self.queue(window_update(0, connection_window - DEFAULT_WINDOW))

    # -- requests ---------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more calls may be opened now; 0 after GOAWAY, an error, or when stream ids have run out."""
        if self.error is not None or self.peer_last_stream is not None or self._next_stream > LARGEST_STREAM_ID:
            return 0
        limit = self.peer.max_concurrent_streams
        return LARGEST_STREAM_ID if limit is None else max(0, limit - len(self.streams))

    @property
    def next_stream_id(self) -> int:
        """The id that the next `open` must use."""
        return self._next_stream

    def open(
        self,
        stream: ClientStream,
        path: str,
        *,
        timeout: bytes | None = None,
        metadata: Sequence[tuple[bytes, bytes]] = (),
        end: bool = False,
    ) -> None:
        """Send the request headers of `stream`, which was made with `next_stream_id`.

        `timeout` is an encoded grpc-timeout, `metadata` encoded pairs. Raises `LocalError` when there is no `room`.
        """
        stream_id = stream.id
        limit = self.peer.max_concurrent_streams
        if (
            # What `room` says, spelled out: this runs once for each call.
            self.error is not None
            or self.peer_last_stream is not None
            or stream_id != self._next_stream
            or stream_id > LARGEST_STREAM_ID
            or (limit is not None and len(self.streams) >= limit)
        ):
            raise LocalError(f"cannot open stream {stream_id}: {self!r}")
        self._next_stream = stream_id + 2
        stream.born = self.now
        self.streams[stream_id] = stream
        block = self._request_block(path)
        if timeout is not None or metadata:
            field = self.encoder.field
            parts = [block]
            if timeout is not None:
                parts.append(field(b"grpc-timeout", timeout))
            parts.extend([field(name, value, sensitive=name in SENSITIVE_NAMES) for name, value in metadata])
            block = b"".join(parts)
        size = len(block)
        if end or size > self.max_send_frame:
            stream.queue_headers(block, end=end)
            return
        # The usual request is one ready frame.
        self.out.append(_pack_frame_header(size >> 8, size & 0xFF, HEADERS, END_HEADERS, stream_id) + block)
        self.out_size += FRAME_HEADER_SIZE + size

    def _request_block(self, path: str) -> bytes:
        encoder = self.encoder
        if self._requests_generation == encoder.generation:
            kept = self._requests.get(path)
            if kept is not None:
                return kept
        generation = encoder.generation
        prefix = encoder.begin()
        field = encoder.field
        block = prefix + field(b":path", path.encode(), index=True)
        # :path comes first so that a new path does not change where the other fields are encoded; order among
        # pseudo-header fields is free (RFC 9113 section 8.3).
        block += b"".join([field(name, value, index=True) for name, value in self._fields])
        if encoder.generation != self._requests_generation or len(self._requests) >= _MAX_KEPT_PATHS:
            self._requests.clear()
            self._requests_generation = encoder.generation
        if not prefix and encoder.generation == generation:
            self._requests[path] = block
        return block

    # -- responses --------------------------------------------------------------------------------------------------

    def is_idle(self, stream_id: int) -> bool:
        """True for an id that we have not used yet, and for every id of a server."""
        return not stream_id & 1 or stream_id >= self._next_stream

    def _header_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        head = self._heads.get(block)
        if head is None or self._decoder.generation != self._heads_generation:
            decoded = self._decode(block)
            if self._decoder.generation != self._heads_generation:
                self._heads.clear()
                self._heads_generation = self._decoder.generation
            if decoded.headers is None:
                self._oversized(stream_id)
                return
            head = ResponseHead(decoded.headers)
            if decoded.pure:
                self._keep(self._heads, block, head)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.is_idle(stream_id):
                raise PeerError(ErrorCode.PROTOCOL_ERROR, f"HEADERS on idle stream {stream_id}")
            if stream_id not in self._ignored:
                raise PeerError(ErrorCode.STREAM_CLOSED, f"HEADERS on closed stream {stream_id}")
            self.spend_idle("HEADERS on closed streams")
            return
        assert isinstance(stream, ClientStream)
        # The two blocks of a plain answer first: nothing about them is left to judge.
        if end_stream:
            if (
                head.plain_trailers
                and stream.head is not None
                and not stream.remote_ended
                and not stream.expected_bytes
            ):
                stream.trailers = head
                self._end_of_stream(stream)
                return
        elif head.plain_response and stream.head is None and not stream.remote_ended:
            stream.head = head
            stream.encoding = head.encoding
            stream.expected_bytes = None
            stream.on_readable()
            return
        if stream.remote_ended:
            self.stream_error(stream, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
            return
        problem = head.malformed or self._misplaced(stream, head, end_stream)
        if problem is not None:
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, problem)
            return
        if head.informational:
            self.spend_idle("interim responses")
            return
        if stream.head is None:
            stream.head = head
            stream.encoding = head.encoding
            stream.expected_bytes = None if end_stream else head.content_length
        if end_stream:
            stream.trailers = head
            self._end_of_stream(stream)
        else:
            stream.on_readable()

    @staticmethod
    def _misplaced(stream: ClientStream, head: ResponseHead, end_stream: bool) -> str | None:
        if stream.head is None:
            if head.http_status is None:
                return "response headers without :status"
            if head.informational and end_stream:
                return "an interim response ended the stream"
            if end_stream and head.content_length:
                return "DATA does not add up to content-length"
            return None
        if head.http_status is not None:
            return "trailers with :status"
        if not end_stream:
            return "trailers must end the stream"
        if stream.expected_bytes:
            return "DATA does not add up to content-length"
        return None

    def _late_reset(self) -> None:
        # A server that answers before it has read the end of the request resets the stream after its trailers (RFC 9113
        # section 8.1). One that is overloaded does so with every call it refuses, so one for each call is honest.
        self._late_resets += 1
        if self._late_resets > self._next_stream >> 1:
            super()._late_reset()

    def _end_of_stream(self, stream: Stream) -> None:
        super()._end_of_stream(stream)
        if stream.local_ended:
            self.forget(stream)

    def _oversized(self, stream_id: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            text = f"response headers over {self.limits.header_list_bytes} bytes (SETTINGS_MAX_HEADER_LIST_SIZE)"
            self.stream_error(stream, ErrorCode.ENHANCE_YOUR_CALM, text)
        elif self.is_idle(stream_id):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"HEADERS on idle stream {stream_id}")

    def finish(self, stream: Stream) -> None:
        """The call is over for us: if the server or we have not ended, reset with CANCEL; free the stream."""
        if stream.reset_code is None and not (stream.local_ended and stream.remote_ended):
            stream.reset(ErrorCode.NO_ERROR if stream.remote_ended else ErrorCode.CANCEL)
        self.forget(stream)
