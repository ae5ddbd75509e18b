"""A program for a connection, read from any bytes: frames that a peer sends, and what the application does meanwhile.

Whatever the bytes are, they are a program, so a fuzzer that knows nothing of HTTP/2 gets deep into it by changing,
joining and cutting programs. Each step is one octet, and operands behind it; what is missing at the end is 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from grpclib.const import Status
from tests.wire.conformance import raw

from dk_trio.wire.client import ClientConnection, ClientStream
from dk_trio.wire.compression import ENCODINGS
from dk_trio.wire.connection import Connection
from dk_trio.wire.errors import PeerError
from dk_trio.wire.frames import DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, LARGEST_WINDOW
from dk_trio.wire.heads import Refusal, RequestHead
from dk_trio.wire.limits import Limits, Rate
from dk_trio.wire.server import ServerConnection
from dk_trio.wire.stream import HIGH_WATER, MessageFault, Stream

WINDOW = 1000
LARGEST_MESSAGE = 3000
HELD = DEFAULT_WINDOW + LARGEST_MESSAGE + DEFAULT_FRAME_SIZE
"""Octets of messages that one stream may hold which nobody reads: a window (of the protocol's default size, until our
settings have arrived), one message beyond it, and what lies between a frame's end and a message's."""
LIMITS = Limits(
    header_list_bytes=2000,
    header_block_bytes=4000,
    continuation_frames=4,
    young_resets=Rate(20, 1),
    pings=Rate(10, 1),
    settings=Rate(20, 1),
    idle_frames=Rate(20, 1),
    empty_data=Rate(10, 1),
    window_updates=Rate(50, 1),
    output_bytes=100_000,
)
"""Small, so that short programs reach them."""

REQUESTS = [
    raw.REQUEST,
    raw.request(("grpc-encoding", "gzip"), ("grpc-timeout", "1S"), ("x-bin", "AAEC")),
    raw.request(("content-length", "10")),
    raw.request(method="GET"),
]
ANSWERS = [
    raw.RESPONSE,
    [*raw.RESPONSE, ("grpc-encoding", "gzip"), ("x-bin", "AAEC")],
    [*raw.RESPONSE, *raw.TRAILERS],
    [(":status", "103")],
    [("grpc-status", "5"), ("grpc-message", "caf%C3%A9")],
    raw.TRAILERS,
]


class Source:
    """Octets, one after the other; zeros behind the last."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._octets)

    def take(self, size: int) -> bytes:
        found = self._octets[self._at : self._at + size]
        self._at += size
        return found

    def octet(self) -> int:
        return int.from_bytes(self.take(1), "big")

    def size(self) -> int:
        """Small numbers mostly; some that are as large as a frame, or larger."""
        first = self.octet()
        return first if first < 0xF0 else int.from_bytes(self.take(2), "big") & 0x7FFF


class Heard(ClientStream):
    """A stream of either role that notes its end, and what its reader gets."""

    __slots__ = ("messages_read", "resets")

    def __init__(self, connection: Connection, stream_id: int) -> None:
        Stream.__init__(self, connection, stream_id)
        self.head = self.trailers = None
        self.resets = self.messages_read = 0
        if connection.client_side:
            self.expected_bytes = -1

    def on_reset(self, code: int, *, remote: bool, reason: str) -> None:
        self.resets += 1
        assert self.resets == 1, "a stream ends once"

    def on_writable(self) -> None:
        self.pump()

    @property
    def held(self) -> int:
        """Octets of messages that wait here."""
        parts = [*self.messages, self._partial or b"", self._uncut or b""]
        return sum(len(part) for part in parts)


class Run:
    """One program, run on one connection."""

    def __init__(self, octets: bytes, *, client: bool) -> None:
        self.source = Source(octets)
        self.error: PeerError | None = None
        self.now = 1.0
        self._reader = raw.FrameReader(raw.PREFACE if client else b"")
        self._unfed = b""
        self._joined = bool(self.source.octet() & 1)
        options = {"limits": LIMITS, "max_message_bytes": LARGEST_MESSAGE, "stream_window": WINDOW}
        if client:
            self.connection: Connection = ClientConnection(authority="localhost", **options)
        else:
            self.connection = ServerConnection(self._accept, max_streams=8, **options)
        self._steps = self._table()
        self._written()
        self.feed(raw.settings() if client else raw.PREFACE + raw.settings())

    def _accept(self, stream_id: int, head: RequestHead) -> Stream | Refusal:
        assert head.malformed is None
        if head.path.startswith("/refuse"):
            return Refusal(200, Status.UNIMPLEMENTED, f"no method {head.path}")
        return Heard(self.connection, stream_id)

    # -- the peer ---------------------------------------------------------------------------------------------------

    def feed(self, octets: bytes) -> None:
        """Octets come from the peer: now, or together with the next."""
        self._unfed += octets
        if self._joined and self.source.left:
            return
        octets, self._unfed = self._unfed, b""
        try:
            self.connection.receive(octets, self.now)
        except PeerError as error:
            assert self.error is None, "a connection fails once"
            self.error = error
        self._written()
        self.check()

    def _stream(self) -> int:
        octet = self.source.octet()
        return octet if octet < 0xF0 else 1 << 30 | octet

    def _table(self) -> list[Callable[[], None]]:
        """What steps do; a step's octet counts round in it."""
        take, octet, size, stream = self.source.take, self.source.octet, self.source.size, self._stream
        return [
            lambda: self.feed(raw.frame(octet(), octet(), stream(), take(size()))),
            lambda: self.feed(take(size())),
            lambda: self.feed(raw.headers(stream(), self._fields(), raw.END_HEADERS | octet())),
            lambda: self.feed(raw.headers(stream(), take(size()), raw.END_HEADERS | (octet() & 1))),
            lambda: self.feed(raw.headers(stream(), take(size()), octet() & 1)),
            lambda: self.feed(raw.continuation(stream(), take(size()), octet() & 4)),
            lambda: self.feed(raw.data(stream(), raw.message(take(size()), octet() & 1), octet() & 1)),
            lambda: self.feed(raw.data(stream(), raw.message(bytes(size())))),
            lambda: self.feed(raw.data(stream(), take(size()), octet() & 9)),
            lambda: self.feed(raw.rst(stream(), octet())),
            lambda: self.feed(raw.window(stream(), size())),
            lambda: self.feed(raw.settings((octet(), size()))),
            lambda: self.feed(raw.frame(raw.SETTINGS, raw.ACK)),
            lambda: self.feed(raw.ping(flags=octet() & 1)),
            lambda: self.feed(raw.goaway(stream(), octet())),
            self._pass_time,
            self._read_all,
            self._open_or_answer,
            self._send,
            self._end,
            self._finish,
        ]

    def _fields(self) -> raw.Fields:
        lists = ANSWERS if self.connection.client_side else REQUESTS
        return lists[self.source.octet() % len(lists)]

    # -- the application --------------------------------------------------------------------------------------------

    def _pass_time(self) -> None:
        self.now += self.source.octet() / 4

    def _any(self) -> Heard | None:
        streams = list(self.connection.streams.values())
        return streams[self.source.octet() % len(streams)] if streams else None  # type: ignore[return-value]

    def _read_all(self) -> None:
        for stream in list(self.connection.streams.values()):
            try:
                while (body := stream.next_message()) is not None:
                    assert len(body) <= LARGEST_MESSAGE
                stream.starve()
            except MessageFault:
                self._give_up(stream)

    def _give_up(self, stream: Stream) -> None:
        self.connection.finish(stream)  # type: ignore[attr-defined]
        assert stream.id not in self.connection.streams

    def _open_or_answer(self) -> None:
        connection = self.connection
        if isinstance(connection, ClientConnection):
            if connection.room:
                stream = Heard(connection, connection.next_stream_id)
                path = f"/a/{self.source.octet() % 4}"
                connection.open(stream, path, metadata=[(b"x", self.source.take(3).hex().encode())])
        elif (stream := self._any()) is not None:
            assert isinstance(connection, ServerConnection)
            connection.queue_response(stream)

    def _send(self) -> None:
        stream, body = self._any(), bytes(self.source.size())
        if stream is not None and stream.pump():
            stream.queue_message(body)

    def _end(self) -> None:
        stream = self._any()
        if stream is None or not stream.pump():
            return
        connection = self.connection
        if isinstance(connection, ServerConnection):
            block = connection.trailers_block(Status(self.source.octet() % 17), "caf\u00e9", only=True)
            stream.queue_headers(block, end=True)
            connection.finish(stream)
        else:
            stream.queue_end()

    def _finish(self) -> None:
        stream = self._any()
        if stream is not None:
            self._give_up(stream)

    # -- what must hold ---------------------------------------------------------------------------------------------

    def run(self) -> Run:
        while self.source.left:
            self._steps[self.source.octet() % len(self._steps)]()
            self._written()
        self.feed(b"")
        return self

    def _written(self) -> None:
        """What we have written is HTTP/2, as a reader of another make sees it."""
        connection = self.connection
        assert connection.out_size == sum(map(len, connection.out))
        assert connection.out_size <= LIMITS.output_bytes + HIGH_WATER + DEFAULT_FRAME_SIZE or self.error is not None
        for one in self._reader.feed(connection.take()):
            assert one.kind != raw.HEADERS or one.fields
            assert len(one.payload) <= max(connection.max_send_frame, DEFAULT_FRAME_SIZE)

    def check(self) -> None:
        connection = self.connection
        if connection.error is not None:
            assert connection.error is self.error
            assert not connection.streams
            assert not connection.blocked
            assert not connection._buffer
        assert set(connection.blocked) <= set(connection.streams.values())
        assert len(connection._buffer) < DEFAULT_FRAME_SIZE + 9
        assert connection._block is None or connection._block_size <= LIMITS.header_block_bytes
        assert 0 <= connection.send_window <= LARGEST_WINDOW or connection.error is not None
        assert connection._decoder.table_bytes <= 4096
        assert len(connection.streams) <= 8 or connection.client_side
        for number, stream in connection.streams.items():
            assert isinstance(stream, Heard)
            assert stream.id == number
            assert not stream.resets
            assert stream.reset_code is None
            assert stream.encoding in ENCODINGS or stream.head is not None
            assert stream.send_window <= LARGEST_WINDOW
            assert stream.held <= HELD, f"{stream.held} octets wait on stream {number}"


def program(*steps: tuple[int, bytes], joined: bool = False) -> bytes:
    """A program of steps by their number in the table, with their operands."""
    return bytes((joined,)) + b"".join(bytes((number,)) + operands for number, operands in steps)


def as_program(recorded: bytes) -> bytes:
    """What a real peer has sent, behind its preface, as a program that sends it frame by frame."""
    at, steps = 0, []
    while at + 9 <= len(recorded):
        size = int.from_bytes(recorded[at : at + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", recorded, at + 3)
        length = bytes((size,)) if size < 0xF0 else b"\xff" + struct.pack(">H", size)
        steps.append((0, bytes((kind, flags, stream & 0xFF)) + length + recorded[at + 9 : at + 9 + size]))
        at += 9 + size
    return program(*steps)
