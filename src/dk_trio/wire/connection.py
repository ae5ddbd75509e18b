"""One HTTP/2 connection, without I/O: the half that clients and servers share.

Theory of operation
-------------------
`receive` takes bytes as they come, in any cut, and reads whole frames in one loop; a trailing piece waits. What frames
mean for a call is told to its `Stream` through the `on_*` hooks, what they mean for the connection through the `on_*`
hooks of this class. What must be answered (settings, pings, resets, window credit) is queued in `out`, together with
whatever streams queue themselves; the owner takes it with `take` and writes it. Nothing is ever sent from here, and no
clock is read: `receive` is told the time.

Two kinds of trouble. A *stream error* resets that stream and is over. A *connection error* queues GOAWAY and raises
`PeerError`; after that `receive` ignores everything, and the owner writes what is queued and closes.

Flow control. The connection window is credited on receipt, half a window at a time: it only limits what is in flight.
The window of each stream is credited when its reader takes a message (`Stream.next_message`), which is the
back-pressure; so `stream_window` is the memory that one slow reader can hold, plus at most one message.

Header blocks. A block is decoded and judged once; the result is kept by the block's bytes until the dynamic table
changes. gRPC peers repeat a handful of blocks, so this turns header decoding into one dictionary lookup.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final, TypeVar

from .endpoint import MAX_MESSAGE_BYTES, NO_WINDOW, STREAM_WINDOW, ConnectionEvents, Endpoint
from .errors import PeerError
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    GOAWAY,
    HEADERS,
    LARGEST_STREAM_ID,
    LARGEST_WINDOW,
    MESSAGE_PREFIX_SIZE,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    UINT32,
    WINDOW_UPDATE,
    ErrorCode,
    ping,
    unpack_settings,
    window_update,
)
from .hpack import DecodedBlock, Decoder, HpackError
from .limits import Budget, Limits
from .stream import Stream

CONNECTION_WINDOW: Final = 16 * 1024 * 1024
"""Receive window of a connection, bytes; credited on receipt, so it bounds data in flight, not memory."""
_KEPT_BLOCKS: Final = 512
"""Header blocks whose meaning is kept; at most 512 times the 16 KiB of a list, in practice a few."""
LARGEST_SENT_FRAME: Final = 64 * 1024
"""Largest frame we send even if the peer takes larger ones: fairness between streams of one connection."""

_UNUSUAL_HEADERS: Final = END_HEADERS | PADDED | PRIORITY_FLAG
"""Flags that decide whether the payload of HEADERS is a whole header block and nothing else."""

_unpack_frame_header = FRAME_HEADER.unpack_from
_unpack_uint32 = UINT32.unpack_from

Head = TypeVar("Head")


class Connection(Endpoint):
    """An endpoint that reads frames. Use `ServerConnection` or `ClientConnection`."""

    def __init__(
        self,
        *,
        events: ConnectionEvents | None = None,
        limits: Limits | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        stream_window: int = STREAM_WINDOW,
        connection_window: int = CONNECTION_WINDOW,
    ) -> None:
        if not DEFAULT_WINDOW <= connection_window <= LARGEST_WINDOW:
            raise ValueError(f"connection_window must be {DEFAULT_WINDOW} to {LARGEST_WINDOW}, not {connection_window}")
        super().__init__(events=events, limits=limits, max_message_bytes=max_message_bytes, stream_window=stream_window)
        self._decoder = Decoder(max_list_bytes=self.limits.header_list_bytes)
        self._window_size = connection_window
        self._uncredited = 0
        self._granted = DEFAULT_WINDOW
        self._buffer = b""
        self._block: tuple[int, int, list[bytes]] | None = None
        self._block_size = 0
        self._settings_acks_due = 1
        self._got_settings = False
        self._pings = Budget(self.limits.pings)
        self._settings = Budget(self.limits.settings)
        self._empty_data = Budget(self.limits.empty_data)
        self._window_updates = Budget(self.limits.window_updates)

    @property
    def established(self) -> bool:
        """The peer's preface has come."""
        return self._got_settings

    # -- input ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float = 0.0) -> None:
        """Take bytes from the transport, at time `now` in seconds. Calls hooks, queues answers.

        Raises `PeerError` once, for a connection error: GOAWAY is queued then, all streams were reset through their
        hooks, and nothing more is read.
        """
        if self.error is not None:
            return
        self.now = now
        try:
            if not self._got_settings:
                self._buffer += data
                data = b""
                if not self._read_preface():
                    return
            self._receive(data)
            if self.out_size > self.limits.output_bytes:
                text = f"{self.out_size} bytes of answers wait for a peer that does not read"
                raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, text)
        except PeerError as error:
            self.error = error
            self._buffer = b""
            self.goaway(error.code, error.reason.encode())
            self.close(error.code, str(error), remote=False)
            raise

    def _read_preface(self) -> bool:
        """Look at the first frame once its header is there: it must be SETTINGS (RFC 9113 section 3.4)."""
        if len(self._buffer) < FRAME_HEADER_SIZE:
            return False
        _, _, kind, flags, _ = _unpack_frame_header(self._buffer)
        if kind != SETTINGS or flags & ACK:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"the first frame has type {kind}, it must be SETTINGS")
        return True

    def _receive(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        position = 0
        size = len(data)
        streams = self.streams
        while size - position >= FRAME_HEADER_SIZE:
            high, low, kind, flags, stream_id = _unpack_frame_header(data, position)
            length = high << 8 | low
            if length > DEFAULT_FRAME_SIZE:
                raise PeerError(
                    ErrorCode.FRAME_SIZE_ERROR, f"frame of {length} bytes, the limit is {DEFAULT_FRAME_SIZE}"
                )
            start = position + FRAME_HEADER_SIZE
            end = start + length
            if end > size:
                break
            position = end
            stream_id &= LARGEST_STREAM_ID
            if self._block is not None and kind != CONTINUATION:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, f"frame type {kind} inside a header block")
            if kind == DATA:
                self._uncredited += length
                if self._uncredited > self._window_size >> 1:
                    self._credit_connection()
                stream = streams.get(stream_id)
                if stream is None or stream.remote_ended:
                    self._data_on_closed(stream_id, stream, length)
                    continue
                stream.recv_window -= length
                if stream.recv_window < 0:
                    self.stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the stream's window")
                    continue
                if flags & PADDED:
                    start, end = self._unpad(data, start, end)
                    stream.discard(length - (end - start))
                if start == end and not flags & END_STREAM and not self._empty_data.spend(self.now):
                    raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "too many empty DATA frames")
                if stream.expected_bytes is not None and not self._count_content(stream, end - start, flags):
                    continue
                if start < end:
                    stream.receive_data(data, start, end)
                if flags & END_STREAM:
                    self._end_of_stream(stream)
                elif stream.messages or stream.fault is not None:
                    stream.on_readable()
            elif kind == HEADERS:
                if flags & _UNUSUAL_HEADERS == END_HEADERS and stream_id:
                    self._header_block(stream_id, data[start:end], bool(flags & END_STREAM))
                else:
                    self._headers(stream_id, flags, data, start, end)
            elif kind == CONTINUATION:
                self._continuation(stream_id, flags, data[start:end])
            elif kind == WINDOW_UPDATE:
                self._window_update(stream_id, data[start:end])
            else:
                self._control(kind, flags, stream_id, data[start:end])
        if position < size:
            self._buffer = data[position:] if position else data

    def _end_of_stream(self, stream: Stream) -> None:
        stream.receive_end()
        stream.on_readable()

    def _credit_connection(self) -> None:
        self.queue(window_update(0, self._uncredited))
        self._uncredited = 0

    @staticmethod
    def _unpad(data: bytes, start: int, end: int) -> tuple[int, int]:
        if start == end:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its pad length")
        stop = end - data[start]
        if stop <= start:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "padding is as long as its frame or longer")
        return start + 1, stop

    def _count_content(self, stream: Stream, size: int, flags: int) -> bool:
        """Hold DATA against content-length (RFC 9113 section 8.1.1)."""
        left = stream.expected_bytes = (stream.expected_bytes or 0) - size
        if left < 0 or (flags & END_STREAM and left):
            early = left + size < 0  # a client's stream starts at -1 and gets its length, or none, with the headers
            reason = "DATA before the response headers" if early else "DATA does not add up to content-length"
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, reason)
            return False
        return True

    def _data_on_closed(self, stream_id: int, stream: Stream | None, length: int) -> None:
        if not stream_id or self.is_idle(stream_id):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if stream is not None:
            self.stream_error(stream, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
            return
        window = self._ignored.get(stream_id)
        if window is None:
            self.refuse_stream(stream_id, ErrorCode.STREAM_CLOSED, window=NO_WINDOW)
        elif window == NO_WINDOW:
            self.spend_idle("DATA frames on streams that the peer had closed")
        elif length > window:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, f"DATA beyond the window of closed stream {stream_id}")
        elif length:
            self._ignored[stream_id] = window - length
        else:
            self.spend_idle("empty frames on closed streams")

    # -- header blocks ----------------------------------------------------------------------------------------------

    def _headers(self, stream_id: int, flags: int, data: bytes, start: int, end: int) -> None:
        if not stream_id:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & PADDED:
            start, end = self._unpad(data, start, end)
        if flags & PRIORITY_FLAG:
            if end - start < 5:
                raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority fields")
            if _unpack_uint32(data, start)[0] & LARGEST_STREAM_ID == stream_id:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} depends on itself")
            start += 5
        if flags & END_HEADERS:
            self._header_block(stream_id, data[start:end], bool(flags & END_STREAM))
        else:
            self._block = (stream_id, flags, [data[start:end]])
            self._block_size = end - start

    def _continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None or block[0] != stream_id:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block of its stream")
        parts = block[2]
        parts.append(payload)
        self._block_size += len(payload)
        if len(parts) - 1 > self.limits.continuation_frames or self._block_size > self.limits.header_block_bytes:
            text = f"header block of {self._block_size} bytes in {len(parts)} frames"
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, text)
        if flags & END_HEADERS:
            self._block = None
            self._header_block(stream_id, b"".join(parts), bool(block[1] & END_STREAM))

    @abstractmethod
    def _header_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """A whole header block has come: what it means, the role decides."""

    def _decode(self, block: bytes) -> DecodedBlock:
        try:
            return self._decoder.decode(block)
        except HpackError as error:
            raise PeerError(ErrorCode.COMPRESSION_ERROR, str(error)) from error

    def _keep(self, heads: dict[bytes, Head], block: bytes, head: Head) -> None:
        """Remember what a pure block means; the owner of `heads` clears it when the table changes."""
        if len(heads) >= _KEPT_BLOCKS:
            heads.clear()
        heads[block] = head

    # -- flow control -----------------------------------------------------------------------------------------------

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} bytes")
        increment = _unpack_uint32(payload)[0] & LARGEST_WINDOW
        if not self._window_updates.spend(self.now) and not self._earned(self._window_updates, 2):
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "more WINDOW_UPDATE frames than our DATA is worth")
        if not stream_id:
            if not increment:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 for the connection")
            self.send_window += increment
            self._granted += increment
            if self.send_window > LARGEST_WINDOW:
                raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1")
            if self.blocked:
                self._unblock()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.is_idle(stream_id):
                raise PeerError(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE on idle stream {stream_id}")
            return
        if not increment:
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            return
        stream.send_window += increment
        if stream.send_window > LARGEST_WINDOW:
            self.stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is over 2^31-1")
        elif stream in self.blocked and self.send_window > 0 < stream.send_window:
            self._resume(stream)

    def _unblock(self) -> None:
        """Use up the connection's window, the longest waiting stream first.

        The octets are queued here and now, and only streams that got somewhere are woken: a peer that opens the window
        by one byte at a time causes one wake-up for it, not one for each stream that waits.
        """
        for stream in list(self.blocked):
            if self.send_window <= 0:
                return
            if stream.send_window > 0:
                self._resume(stream)

    def _resume(self, stream: Stream) -> None:
        del self.blocked[stream]
        stream.pump()
        if stream not in self.blocked:
            stream.on_writable()

    def _earned(self, budget: Budget, frames: int) -> bool:
        """DATA that we sent earns the peer `frames` for each smallest message of it; True if that pays the overdraft.

        How much was sent is known from what was granted and what is left of it, so sending counts nothing.
        """
        sent = self._granted - self.send_window
        budget.refund((sent - budget.paid) * frames / MESSAGE_PREFIX_SIZE)
        budget.paid = sent
        return budget.tokens >= 0.0

    # -- other control frames ---------------------------------------------------------------------------------------

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        if kind == RST_STREAM:
            if size != 4:
                raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"RST_STREAM of {size} bytes")
            if not stream_id or self.is_idle(stream_id):
                raise PeerError(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on idle stream {stream_id}")
            stream = self.streams.get(stream_id)
            if stream is None:
                if self._ignored.pop(stream_id, None) is None:
                    self._late_reset()
            else:
                code = _unpack_uint32(payload)[0]
                self._end_stream(stream, code, "reset by the peer", remote=True)
                self.count_reset(stream.born)
        elif kind == PRIORITY:
            if not stream_id:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
            if size != 5:
                raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {size} bytes")
            if _unpack_uint32(payload)[0] & LARGEST_STREAM_ID == stream_id:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} depends on itself")
            self.spend_idle("PRIORITY frames")
        elif kind in {SETTINGS, PING, GOAWAY}:
            if stream_id:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, f"frame type {kind} on stream {stream_id}")
            if kind == SETTINGS:
                self._receive_settings(flags, payload)
            elif kind == PING:
                self._receive_ping(flags, payload)
            else:
                self._receive_goaway(payload)
        elif kind == PUSH_PROMISE:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody allowed")
        else:
            self.spend_idle("frames of unknown types")

    def _receive_ping(self, flags: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if flags & ACK:
            if self._pongs_due:
                self._pongs_due -= 1
            else:
                self.spend_idle("answers to pings that were never sent")
            self.events.on_pong(payload)
            self.on_pong(payload)
            return
        if not self._pings.spend(self.now) and not self._earned(self._pings, 1):
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "too many PING frames")
        self.queue(ping(payload, ack=True))

    def on_pong(self, payload: bytes) -> None:
        """For the role: an answer to a ping has come."""

    def _receive_goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        last = _unpack_uint32(payload, 0)[0] & LARGEST_STREAM_ID
        code = _unpack_uint32(payload, 4)[0]
        if self.peer_last_stream is not None and last > self.peer_last_stream:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "GOAWAY admits more streams than the one before")
        self.spend_idle("GOAWAY frames")
        self.peer_last_stream = last
        for stream in list(self.streams.values()):
            if self.client_side and stream.id > last:
                self._end_stream(stream, ErrorCode.REFUSED_STREAM, "not processed before GOAWAY", remote=True)
        self.events.on_goaway(last, code, payload[8:])

    def _receive_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            if payload:
                raise PeerError(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            if self._settings_acks_due:
                self._settings_acks_due -= 1
                self.initial_recv_window = self.stream_window
                if self.stream_window < DEFAULT_WINDOW:
                    for stream in self.streams.values():
                        stream.shrink(DEFAULT_WINDOW - self.stream_window)
            else:
                self.spend_idle("acknowledgements of SETTINGS that were never sent")
            return
        if len(payload) % 6:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        if not self._settings.spend(self.now):
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "too many SETTINGS frames")
        self._got_settings = True
        self.peer.apply(unpack_settings(payload), from_server=self.client_side)
        self.max_send_frame = min(self.peer.max_frame_size, LARGEST_SENT_FRAME)
        self.encoder.set_limit(self.peer.header_table_size)
        delta = self.peer.initial_window_size - self.peer_initial_window
        if delta:
            self.peer_initial_window = self.peer.initial_window_size
            for stream in self.streams.values():
                stream.send_window += delta
                if stream.send_window > LARGEST_WINDOW:
                    raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS lift a stream's window over 2^31-1")
        self.queue(SETTINGS_ACK)  # before any DATA that a larger window lets out
        if delta > 0 and self.blocked:
            self._unblock()
        self.events.on_settings()
