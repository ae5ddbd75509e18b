"""One HTTP/2 stream that carries one gRPC call: its windows, its messages in and out. Both roles.

Inbound. DATA payloads are cut into length-prefixed messages as they arrive. A message that fills its frame is one
slice; anything else is gathered in one buffer, whose final size is known, and checked, from the five bytes of its
prefix. Messages wait in `messages`; `next_message` takes one, gives its bytes back to the peer as window, and only
then decompresses it. So a reader that stops reading stops the sender after `window` bytes, compressed ones counted as
they came. One exception keeps large messages possible: while the reader is starving (it waits, and nothing whole is
there), the rest of the one message under way is credited at once, whatever its size, up to the message limit.

Outbound. `queue_message` frames a whole message at once if both windows, the frame size and the high-water mark allow;
otherwise the rest waits in `_pending`, and `pump` moves what has become possible. At most one message waits: a caller
whose wait was cut off leaves it there, and the next send finishes it first, so framing can never be torn.

The methods named `on_*` are the narrow protocol upwards. They run inside `Connection.receive` and must only note and
wake, never call back into the connection.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from grpclib.const import Status

from .compression import DecompressionError, MessageTooLarge, decompress
from .errors import LocalError
from .frames import (
    DATA,
    DATA_MESSAGE_PREFIX,
    DEFAULT_FRAME_SIZE,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    MESSAGE_PREFIX,
    MESSAGE_PREFIX_SIZE,
    header_frames,
    rst_stream,
    window_update,
)

if TYPE_CHECKING:
    from .connection import Connection

HIGH_WATER: Final = 256 * 1024
"""Bytes queued for the transport beyond which messages wait. Enough for a scheduler pass of 10 KiB messages (measured:
half of it costs a tenth of their rate); more only adds memory and delay."""
MAX_CUT_MESSAGES: Final = 1024
"""Messages that may wait as objects; what comes behind them waits as bytes and is cut when these are read. A message of
two bytes costs 44 as an object, so a window of them would be six times its size."""
_JOIN_BELOW: Final = 1024
"""Below this size one concatenation is cheaper than a second list entry, measured on CPython 3.11."""

_pack_data_message = DATA_MESSAGE_PREFIX.pack
_pack_frame_header = FRAME_HEADER.pack
_unpack_prefix = MESSAGE_PREFIX.unpack_from


class _Compressed(bytes):
    """A message that arrived with its compressed flag set and is still compressed."""

    __slots__ = ()


class MessageFault(Exception):
    """An inbound message that cannot be delivered: `status` and `message` are what the call should end with."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class Stream:
    """State of one stream. Subclass it for the `on_*` hooks; the connection makes and drops the registration."""

    __slots__ = (
        "_consumed",
        "_needed",
        "_partial",
        "_pending",
        "_pending_end",
        "_pending_start",
        "_prefix",
        "_uncut",
        "born",
        "connection",
        "encoding",
        "expected_bytes",
        "fault",
        "id",
        "local_ended",
        "message_compressed",
        "messages",
        "recv_window",
        "remote_ended",
        "reset_code",
        "send_window",
        "starving",
    )

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.send_window = connection.peer_initial_window
        self.recv_window = connection.initial_recv_window
        self.messages: deque[bytes] = deque()
        self.remote_ended = False
        """The peer has sent END_STREAM."""
        self.local_ended = False
        """We have queued END_STREAM or a reset."""
        self.reset_code: int | None = None
        """The error code of the reset that ended this stream, ours or the peer's."""
        self.fault: MessageFault | None = None
        """Why no further message can be read."""
        self.starving = False
        """A reader waits for the message under way; set by the reader, cleared when a message is there."""
        self.encoding = "identity"
        """grpc-encoding of inbound messages."""
        self.message_compressed = False
        """The message that `next_message` gave last had come compressed."""
        self.expected_bytes: int | None = None
        """Bytes of DATA that content-length still promises; None without one, -1 while no DATA may come at all."""
        self.born = 0.0
        self._partial: bytearray | None = None
        self._needed = 0
        self._consumed = 0
        self._uncut: bytearray | None = None
        self._pending: bytes | None = None
        self._pending_start = 0
        self._pending_end = 0
        self._prefix = b""

    # -- hooks ------------------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        """A message, the end of the stream, or a fault can be read."""

    def on_writable(self) -> None:
        """A window has opened: `pump` may get further."""

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        """The stream is over, by RST_STREAM, GOAWAY or the end of the connection; `remote` says who ended it."""

    # -- inbound ----------------------------------------------------------------------------------------------------

    def next_message(self) -> bytes | None:
        """Take the next whole message, decompressed; None when none is there now.

        Raises `MessageFault` for a message that is too large once decompressed or cannot be decompressed.
        """
        messages = self.messages
        if not messages:
            return None
        data = messages.popleft()
        if self._uncut is not None and not messages:
            self._cut_more()
        if not self.remote_ended:
            consumed = self._consumed = self._consumed + len(data) + MESSAGE_PREFIX_SIZE
            if consumed >= self.connection.stream_window >> 1:
                self._credit(consumed)
                self._consumed = 0
        if type(data) is bytes:
            self.message_compressed = False
            return data
        self.message_compressed = True
        try:
            return decompress(self.encoding, data, self.connection.max_message_bytes)
        except MessageTooLarge as error:
            raise MessageFault(Status.RESOURCE_EXHAUSTED, str(error)) from error
        except DecompressionError as error:
            raise MessageFault(Status.INTERNAL, str(error)) from error

    def starve(self) -> None:
        """The reader is about to wait. Credits what the message under way still lacks."""
        self.starving = True
        if self._needed:
            self._feed_starving()

    def discard(self, size: int) -> None:
        """Bytes that no reader will take (padding) count as taken."""
        self._consumed += size

    def shrink(self, size: int) -> None:
        """Our SETTINGS have arrived and made the peer's windows smaller by `size` (RFC 9113 section 6.9.2)."""
        self.recv_window -= size
        if self.starving and self._needed:
            self._feed_starving()

    def _credit(self, size: int) -> None:
        self.recv_window += size
        self.connection.queue(window_update(self.id, size))

    def _feed_starving(self) -> None:
        partial = self._partial
        short = self._needed - (len(partial) if partial is not None else 0) - self.recv_window
        if short > 0 and not self.remote_ended:
            self._consumed -= short
            self._credit(short)

    def receive_data(self, data: bytes, start: int, end: int) -> None:
        """Cut `data[start:end]`, the payload of one DATA frame, into messages."""
        if self.fault is not None:
            return
        if self._uncut is not None or len(self.messages) >= MAX_CUT_MESSAGES:
            if self._uncut is None:
                self._uncut = bytearray()
            self._uncut += memoryview(data)[start:end]
            return
        limit = self.connection.max_message_bytes
        partial = self._partial
        if partial is not None:
            partial += memoryview(data)[start:end]
            if not self._needed:
                if len(partial) < MESSAGE_PREFIX_SIZE:
                    return
                self._needed = self._check_prefix(partial, 0, limit)
                if not self._needed:
                    return
            needed = self._needed
            if len(partial) < needed:
                if self.starving:
                    self._feed_starving()
                return
            # The buffer now holds one whole message, and perhaps the beginning of others.
            body = bytes(memoryview(partial)[MESSAGE_PREFIX_SIZE:needed])
            self.messages.append(_Compressed(body) if partial[0] else body)
            rest = bytes(memoryview(partial)[needed:])
            self._partial, self._needed = None, 0
            if not rest:
                return
            data, start, end = rest, 0, len(rest)
        while end - start >= MESSAGE_PREFIX_SIZE:
            needed = self._check_prefix(data, start, limit)
            if not needed:
                return
            stop = start + needed
            if stop > end:
                self._needed = needed
                break
            body = data[start + MESSAGE_PREFIX_SIZE : stop]
            self.messages.append(_Compressed(body) if data[start] else body)
            start = stop
        if start < end:
            self._partial = bytearray(memoryview(data)[start:end])
            if self._needed and self.starving:
                self._feed_starving()

    def _cut_more(self) -> None:
        """The reader has taken what was cut: cut some of what waits, until there is a message or nothing is left."""
        uncut = self._uncut
        while uncut and not self.messages and self.fault is None:
            chunk = bytes(uncut[:DEFAULT_FRAME_SIZE])
            del uncut[:DEFAULT_FRAME_SIZE]
            self._uncut = None
            self.receive_data(chunk, 0, len(chunk))
            self._uncut = uncut
        if not uncut or self.fault is not None:
            self._uncut = None
            if self.remote_ended:
                self._check_end()

    def _check_prefix(self, data: bytes | bytearray, start: int, limit: int) -> int:
        """Bytes of prefix and message together; 0, and a fault, for a prefix that must not be believed."""
        flag, size = _unpack_prefix(data, start)
        if size > limit:
            text = f"message of {size} bytes is over the limit of {limit} bytes (max_receive_message_bytes)"
            return self._fail(Status.RESOURCE_EXHAUSTED, text)
        if flag > 1:
            return self._fail(Status.INTERNAL, f"compressed flag is {flag}, only 0 and 1 are defined")
        if flag and self.encoding == "identity":
            return self._fail(Status.INTERNAL, "compressed flag is set but grpc-encoding is identity")
        return int(size) + MESSAGE_PREFIX_SIZE

    def _fail(self, status: Status, text: str) -> int:
        self.fault = MessageFault(status, text)
        self._partial, self._needed = None, 0
        return 0

    def receive_end(self) -> None:
        """The peer has ended its half."""
        self.remote_ended = True
        if self._uncut is None:
            self._check_end()

    def _check_end(self) -> None:
        if self._partial is not None:
            have, needed = len(self._partial), self._needed or MESSAGE_PREFIX_SIZE
            self._fail(Status.INTERNAL, f"stream ended inside a message: {have} of {needed} bytes arrived")

    # -- outbound ---------------------------------------------------------------------------------------------------

    def try_message(self, data: bytes) -> bool:
        """Frame one plain message if that needs no wait; False, and nothing has changed, if it does.

        The hot path: one DATA frame whose header and message prefix are packed together.
        """
        connection = self.connection
        size = len(data) + MESSAGE_PREFIX_SIZE
        if (
            size > self.send_window
            or size > connection.send_window
            or size > connection.max_send_frame
            or connection.out_size >= HIGH_WATER
            or self._pending is not None
            or self.local_ended
        ):
            return False
        self.send_window -= size
        connection.send_window -= size
        connection.out_size += size + FRAME_HEADER_SIZE
        prefix = _pack_data_message(size >> 8, size & 0xFF, DATA, 0, self.id, 0, size - MESSAGE_PREFIX_SIZE)
        if size < _JOIN_BELOW:
            connection.out.append(prefix + data)
        else:
            connection.out += (prefix, data)
        return True

    def queue_message(self, data: bytes, *, compressed: bool = False, end: bool = False) -> bool:
        """Frame one message; `end` ends our half with it. True when all of it is queued for the transport.

        False means that part of it waits for window or for the transport to drain: wait for `on_writable` or for the
        output to be taken, then call `pump` until it says True. Data for a stream that is over is dropped.
        """
        connection = self.connection
        size = len(data) + MESSAGE_PREFIX_SIZE
        if (
            size <= self.send_window
            and size <= connection.send_window
            and size <= connection.max_send_frame
            and connection.out_size < HIGH_WATER
            and self._pending is None
            and not self.local_ended
        ):
            self.send_window -= size
            connection.send_window -= size
            flags = 0
            if end:
                flags = END_STREAM
                self.local_ended = True
            prefix = _pack_data_message(
                size >> 8, size & 0xFF, DATA, flags, self.id, compressed, size - MESSAGE_PREFIX_SIZE
            )
            out = connection.out
            if size < _JOIN_BELOW:
                out.append(prefix + data)
            else:
                out.append(prefix)
                out.append(data)
            connection.out_size += size + FRAME_HEADER_SIZE
            return True
        if self.local_ended:
            return True
        if self._pending is not None:
            raise LocalError("the previous message is still being sent: pump it first")
        # The prefix stands before the message, at negative places: to join them would be a second copy of 100 MB.
        self._pending = data
        self._prefix = MESSAGE_PREFIX.pack(compressed, len(data))
        self._pending_start = -MESSAGE_PREFIX_SIZE
        self._pending_end = END_STREAM if end else 0
        return self.pump()

    @property
    def unsent(self) -> int:
        """Bytes of the message under way that are not queued."""
        return 0 if self._pending is None else len(self._pending) - self._pending_start

    @property
    def sending(self) -> bool:
        """True while part of a message waits."""
        return self._pending is not None

    def pump(self) -> bool:
        """Queue as much of the waiting message as windows and high-water mark allow; True when none is left."""
        data = self._pending
        if data is None or self.local_ended:
            self._pending = None
            return True
        connection = self.connection
        total = len(data)
        while connection.out_size < HIGH_WATER:
            start = self._pending_start
            size = min(self.send_window, connection.send_window, connection.max_send_frame, total - start)
            if size <= 0:
                connection.blocked[self] = None
                return False
            self.send_window -= size
            connection.send_window -= size
            stop = start + size
            flags = self._pending_end if stop == total else 0
            connection.out.append(_pack_frame_header(size >> 8, size & 0xFF, DATA, flags, self.id))
            if start < 0:
                connection.out.append((self._prefix + data[: max(stop, 0)])[MESSAGE_PREFIX_SIZE + start :][:size])
            else:
                connection.out.append(data[start:stop])
            connection.out_size += size + FRAME_HEADER_SIZE
            self._pending_start = stop
            if stop == total:
                self._pending = None
                if flags:
                    self.local_ended = True
                return True
        return False

    def queue_end(self) -> None:
        """End our half with an empty DATA frame (clients; a server ends with trailers)."""
        if not self.local_ended:
            self.local_ended = True
            self.connection.queue(_pack_frame_header(0, 0, DATA, END_STREAM, self.id))

    def queue_headers(self, block: bytes, *, end: bool = False) -> None:
        """Send an encoded header block: initial metadata or trailers. Dropped when our half is over."""
        connection = self.connection
        encoder = connection.encoder
        if self.local_ended:
            if encoder.generation != connection.sent_generation:
                encoder.restart()
            return
        connection.sent_generation = encoder.generation
        if end:
            self.local_ended = True
        connection.queue(header_frames(self.id, block, END_STREAM if end else 0, connection.max_send_frame))

    def reset(self, code: int) -> None:
        """RST_STREAM, unless both halves are over already. What waits in either direction is dropped."""
        if self.reset_code is not None or (self.local_ended and self.remote_ended):
            return
        self.local_ended = True
        self.reset_code = code
        self._pending = None
        self.connection.queue(rst_stream(self.id, code))
        self.connection.forget(self)
