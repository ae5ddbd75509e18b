"""The server's half of a connection: requests in, responses out.

A request that HTTP/2 forbids is reset; one that gRPC forbids is answered here, without a handler. Everything else goes
to `accept`, which returns a `Stream` for it or a `Refusal`. The two header blocks of a plain success (response headers,
trailers with status 0) are constant bytes: a few hot fields go into the encoder's table once and are never evicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from grpclib.const import Status

from .connection import CONNECTION_WINDOW, Connection
from .endpoint import MAX_MESSAGE_BYTES, STREAM_WINDOW, ConnectionEvents
from .errors import PeerError, PrefaceError
from .frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM_ID,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PREFACE,
    ErrorCode,
    settings_frame,
    window_update,
)
from .heads import CONTENT_TYPE, Refusal, RequestHead, malformation
from .limits import Limits
from .metadata import status_message_field
from .stream import Stream

__all__ = ["MAX_STREAMS", "ServerConnection"]

MAX_STREAMS: Final = 10_000
"""Default SETTINGS_MAX_CONCURRENT_STREAMS: above the largest preset's MAX_CONCURRENT_RPCS (5,000), so that the limit on
RPCs, which explains itself, is met first."""
_STATUS_OK: Final = ((b"grpc-status", b"0"),)
_RESPONSE: Final = ((b":status", b"200"), (b"content-type", CONTENT_TYPE.encode()))
_pack_frame_header = FRAME_HEADER.pack
_TLS_RECORD: Final = b"\x16\x03"  # of the handshake, in any version
_DRAIN_PING: Final = b"dkdrain\x00"

Accept = Callable[[int, RequestHead], "Stream | Refusal"]


class ServerConnection(Connection):
    """One accepted connection. `accept(stream_id, head)` makes the `Stream` of a request, or refuses it.

    `max_streams` is advertised and enforced: a stream beyond it is refused with REFUSED_STREAM. `response_fields` are
    part of every response's headers, and cost it a byte or two each.
    """

    def __init__(
        self,
        accept: Accept,
        *,
        events: ConnectionEvents | None = None,
        limits: Limits | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_streams: int = MAX_STREAMS,
        stream_window: int = STREAM_WINDOW,
        connection_window: int = CONNECTION_WINDOW,
        response_fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(
            events=events,
            limits=limits,
            max_message_bytes=max_message_bytes,
            stream_window=stream_window,
            connection_window=connection_window,
        )
        self._accept = accept
        self._max_streams = max_streams
        self._heads: dict[bytes, RequestHead] = {}
        self._heads_generation = self._decoder.generation
        self._preface_left = PREFACE
        self._response_fields = (*_RESPONSE, *response_fields)
        self._response = b""
        self._response_generation = -1
        self._trailers = b""
        self._trailers_generation = -1
        self._kept: bytes | None = None
        self._last_accepted: int | None = None
        self.queue(
            settings_frame(
                {
                    MAX_CONCURRENT_STREAMS: max_streams,
                    INITIAL_WINDOW_SIZE: stream_window,
                    MAX_FRAME_SIZE: DEFAULT_FRAME_SIZE,
                    MAX_HEADER_LIST_SIZE: self.limits.header_list_bytes,
                }
            )
        )
        if connection_window > DEFAULT_WINDOW:
            self.queue(window_update(0, connection_window - DEFAULT_WINDOW))

    # -- input ------------------------------------------------------------------------------------------------------

    def _read_preface(self) -> bool:
        left = self._preface_left
        if left:
            size = min(len(left), len(self._buffer))
            if self._buffer[:size] != left[:size]:
                tls = self._buffer.startswith(_TLS_RECORD)
                text = "the client's preface is not that of HTTP/2 (a TLS or HTTP/1.1 client on this port?)"
                raise PrefaceError(ErrorCode.PROTOCOL_ERROR, text, tls=tls)
            self._preface_left = left[size:]
            self._buffer = self._buffer[size:]
            if self._preface_left:
                return False
        return super()._read_preface()

    def is_idle(self, stream_id: int) -> bool:
        """True for an id that the client has not used yet, and for every id of ours."""
        return not stream_id & 1 or stream_id > self._highest_peer_stream

    def _header_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        head = self._heads.get(block)
        if head is None or self._decoder.generation != self._heads_generation:
            decoded = self._decode(block)
            if decoded.headers is None:
                self._oversized(stream_id, end_stream)
                return
            head = RequestHead(decoded.headers)
            if self._decoder.generation != self._heads_generation:
                self._heads.clear()
                self._heads_generation = self._decoder.generation
            if decoded.pure:
                self._keep(self._heads, block, head)
        if stream_id <= self._highest_peer_stream:
            self._request_trailers(stream_id, head, end_stream)
            return
        self._open(stream_id)
        if self._last_accepted is not None and stream_id > self._last_accepted:
            self._ignore(stream_id, self.initial_recv_window)
            return
        if head.malformed is not None or (end_stream and head.content_length):
            self.refuse_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        if len(self.streams) >= self._max_streams:
            self.refuse_stream(stream_id, ErrorCode.REFUSED_STREAM)
            return
        accepted = head.refusal or self._accept(stream_id, head)
        if isinstance(accepted, Refusal):
            self.refuse(stream_id, accepted, ended=end_stream)
            return
        accepted.born = self.now
        accepted.encoding = head.encoding
        accepted.expected_bytes = head.content_length
        self.streams[stream_id] = accepted
        if end_stream:
            self._end_of_stream(accepted)

    def _open(self, stream_id: int) -> None:
        if not stream_id & 1:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"a client opened stream {stream_id}, which is even")
        self._highest_peer_stream = stream_id

    def _request_trailers(self, stream_id: int, head: RequestHead, end_stream: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id in self._ignored:
                self.spend_idle("HEADERS on closed streams")
                return
            code = ErrorCode.STREAM_CLOSED if stream_id & 1 else ErrorCode.PROTOCOL_ERROR
            raise PeerError(code, f"HEADERS on closed stream {stream_id}")
        if stream.remote_ended:
            self.stream_error(stream, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
        elif not end_stream:
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, "trailers must end the stream")
        elif problem := malformation(head.fields, frozenset()):
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, f"trailers: {problem}")
        elif stream.expected_bytes:
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, "DATA does not add up to content-length")
        else:
            self._end_of_stream(stream)

    def _oversized(self, stream_id: int, end_stream: bool) -> None:
        """The table is in step, but the list was not kept: refuse its stream."""
        if stream_id <= self._highest_peer_stream:
            stream = self.streams.get(stream_id)
            if stream is not None:
                self.stream_error(stream, ErrorCode.ENHANCE_YOUR_CALM, "trailers over the header limit")
            return
        self._open(stream_id)
        text = f"header list over {self.limits.header_list_bytes} bytes (SETTINGS_MAX_HEADER_LIST_SIZE)"
        self.refuse(stream_id, Refusal(431, Status.RESOURCE_EXHAUSTED, text), ended=end_stream)
        self.count_reset(self.now)

    # -- output -----------------------------------------------------------------------------------------------------

    def response_block(self, extra: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """Header block of a 200 response with `extra` fields, for `Stream.queue_headers`, to be sent next."""
        if self._response_generation == self.encoder.generation:
            block = self._response
        else:
            block = self._hot_block(self._response_fields)
            if block is self._kept:
                self._response = block
                self._response_generation = self.encoder.generation
        return block + self._literals(extra) if extra else block

    def trailers_block(
        self, status: Status, message: str | None, extra: Sequence[tuple[bytes, bytes]] = (), *, only: bool = False
    ) -> bytes:
        """Header block of trailers, to be sent next; `only` for a response that has no other headers."""
        if status is not Status.OK or message is not None or extra:
            # Everything that may raise comes before the encoder is asked: what it has put into its table must be sent.
            fields = [(b"grpc-status", b"%d" % status.value)]
            if message is not None:
                fields.append((b"grpc-message", status_message_field(message)))
            fields.extend(extra)
            response = self.response_block() if only else b""
            return response + self.encoder.begin() + self._literals(fields)
        response = self.response_block() if only else b""
        if self._trailers_generation == self.encoder.generation:
            return response + self._trailers
        block = self._hot_block(_STATUS_OK)
        if block is self._kept:
            self._trailers = block
            self._trailers_generation = self.encoder.generation
        return response + block

    def queue_response(self, stream: Stream) -> None:
        """Send the headers of a plain response: a ready frame but for the stream's number."""
        if self._response_generation == self.encoder.generation and not stream.local_ended:
            block = self._response
            self.out.append(_pack_frame_header(0, len(block), HEADERS, END_HEADERS, stream.id) + block)
            self.out_size += FRAME_HEADER_SIZE + len(block)
        else:
            stream.queue_headers(self.response_block())

    def queue_ok(self, stream: Stream) -> None:
        """End a call whose headers were sent with status OK and nothing else; frees the stream."""
        if self._trailers_generation == self.encoder.generation and not stream.local_ended:
            block = self._trailers
            stream.local_ended = True
            self.out.append(_pack_frame_header(0, len(block), HEADERS, END_HEADERS | END_STREAM, stream.id) + block)
            self.out_size += FRAME_HEADER_SIZE + len(block)
        else:
            stream.queue_headers(self.trailers_block(Status.OK, None), end=True)
        self.finish(stream)

    def _hot_block(self, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Encode fields that come again in every call.

        The result is `_kept` when it may be sent more than once: the first time it inserts the fields into the peer's
        table, and such bytes must be sent exactly once.
        """
        encoder = self.encoder
        generation = encoder.generation
        prefix = encoder.begin()
        block = prefix + b"".join([encoder.field(name, value, index=True) for name, value in fields])
        self._kept = block if not prefix and encoder.generation == generation else None
        return block

    def refuse(self, stream_id: int, refusal: Refusal, *, ended: bool) -> None:
        """Answer a request at once with headers alone. `ended` says that the client has ended its half."""
        fields = [
            (b":status", b"%d" % refusal.http_status),
            _RESPONSE[1],
            (b"grpc-status", b"%d" % refusal.status.value),
            (b"grpc-message", status_message_field(refusal.message)),
            *refusal.extra,
        ]
        stream = Stream(self, stream_id)
        stream.queue_headers(self.encoder.begin() + self._literals(fields), end=True)
        if not ended:
            stream.reset(ErrorCode.NO_ERROR)
            self._ignore(stream_id, self.initial_recv_window)

    def finish(self, stream: Stream) -> None:
        """After the trailers: free the stream, and tell a client that still sends to stop (RFC 9113 section 8.1).

        Without trailers the client is told that there will be none.
        """
        if stream.reset_code is None:
            if not stream.local_ended:
                stream.reset(ErrorCode.INTERNAL_ERROR)
            elif not stream.remote_ended:
                stream.reset(ErrorCode.NO_ERROR)
        self.forget(stream)

    def _literals(self, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
        field = self.encoder.field
        return b"".join([field(name, value) for name, value in fields])

    # -- drain ------------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Begin a graceful end: announce it, and after one round trip refuse new streams (RFC 9113 section 6.8).

        Streams that were under way when the announcement arrived are still accepted.
        """
        self.goaway(last_stream_id=LARGEST_STREAM_ID)
        self.ping(_DRAIN_PING)

    @property
    def refusing_streams(self) -> bool:
        """True once the second step of a graceful end was taken."""
        return self._last_accepted is not None

    def refuse_new_streams(self) -> None:
        """The second step of `shut_down`, also taken by itself when the client answers: no stream is accepted now."""
        if self._last_accepted is None:
            self._last_accepted = self._highest_peer_stream
            self.goaway()

    def on_pong(self, payload: bytes) -> None:
        """The answer to the announcement of the end closes its round trip."""
        if payload == _DRAIN_PING:
            self.refuse_new_streams()
