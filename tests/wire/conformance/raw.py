"""Frames and header blocks by hand, good and bad, and a reader for what comes back.

Nothing here is shared with ``dk_trio.wire``, so that a mistake there is not made twice. Blocks are made of literals
without indexing and may therefore be sent in any order; blocks that come back are decoded with the ``hpack`` package.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
KINDS = "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION".split()

END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
PRIORITIZED = 32
END = END_STREAM | END_HEADERS

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(
    7
)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

Fields = list[tuple[str, str]]

REQUEST: Fields = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Echo/Say"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE: Fields = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS: Fields = [("grpc-status", "0")]


def request(*extra: tuple[str, str], without: str = "", **changed: str) -> Fields:
    """The usual request, less the field ``without``, some values ``changed``, and ``extra`` fields behind it."""
    changes = {
        f":{name}" if name in {"method", "scheme", "path", "authority"} else name.replace("_", "-"): value
        for name, value in changed.items()
    }
    fields = [(name, changes.get(name, value)) for name, value in REQUEST if name != without]
    return fields + list(extra)


def literal(name: str, value: str, pattern: int = 0) -> bytes:
    """One literal field; 0 without indexing, 0x10 never indexed, 0x40 with incremental indexing."""
    octets = [text.encode("latin-1") for text in (name, value)]
    return bytes((pattern,)) + b"".join(integer(len(part), 7) + part for part in octets)


def integer(value: int, bits: int, pattern: int = 0) -> bytes:
    """RFC 7541 section 5.1."""
    full = (1 << bits) - 1
    if value < full:
        return bytes((pattern | value,))
    out = [pattern | full]
    value -= full
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def block(fields: Fields) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame; ``length`` lies about the payload's size."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def headers(
    stream: int,
    fields: Fields | bytes,
    flags: int = END_HEADERS,
    *,
    pad: int | None = None,
    priority: tuple[int, int] | None = None,
) -> bytes:
    """HEADERS; ``priority`` is (dependency with its exclusive bit, weight octet)."""
    payload = fields if isinstance(fields, bytes) else block(fields)
    if priority is not None:
        flags |= PRIORITIZED
        payload = struct.pack(">IB", *priority) + payload
    if pad is not None:
        flags |= PADDED
        payload = bytes((pad,)) + payload + bytes(pad)
    return frame(HEADERS, flags, stream, payload)


def data(stream: int, payload: bytes = b"", flags: int = 0, *, pad: int | None = None) -> bytes:
    if pad is not None:
        flags |= PADDED
        payload = bytes((pad,)) + payload + bytes(pad)
    return frame(DATA, flags, stream, payload)


def message(body: bytes = b"hello", flag: int = 0) -> bytes:
    """gRPC's length-prefixed message."""
    return struct.pack(">BI", flag, len(body)) + body


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def ping(payload: bytes = b"conforms", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


def rst(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def priority(stream: int, dependency: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack(">IB", dependency, weight))


def goaway(last: int, code: int = NO_ERROR, debug: bytes = b"", stream: int = 0) -> bytes:
    return frame(GOAWAY, 0, stream, struct.pack(">II", last, code) + debug)


def continuation(stream: int, payload: bytes = b"", flags: int = END_HEADERS) -> bytes:
    return frame(CONTINUATION, flags, stream, payload)


def call(stream: int, *bodies: bytes, fields: Fields = REQUEST) -> bytes:
    """A whole unary call: headers, one message, end."""
    return headers(stream, fields) + data(stream, b"".join(message(body) for body in bodies or (b"hello",)), END_STREAM)


class Frame(NamedTuple):
    """One frame that came back; ``fields`` are the decoded block of HEADERS with its CONTINUATION."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        kind = KINDS[self.kind] if self.kind < len(KINDS) else self.kind
        return f"<{kind} flags={self.flags:#x} stream={self.stream} {self.fields or self.payload!r}>"

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload, "big")

    @property
    def number(self) -> int:
        """The payload of WINDOW_UPDATE as a number."""
        return int.from_bytes(self.payload, "big")


class FrameReader:
    """Reads frames from bytes cut anywhere; raises AssertionError when they are not what a good peer writes."""

    def __init__(self, preface: bytes = b"") -> None:
        self._preface = preface
        self._buffer = b""
        self._decoder = hpack.Decoder(max_header_list_size=1 << 24)
        self._block: list[Frame] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        self._buffer += chunk
        if self._preface:
            size = len(self._preface)
            assert self._buffer[:size] == self._preface[: len(self._buffer)]
            if len(self._buffer) < size:
                return []
            self._buffer, self._preface = self._buffer[size:], b""
        frames = []
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + size:
                break
            kind, flags = self._buffer[3:5]
            stream = int.from_bytes(self._buffer[5:9], "big")
            found = Frame(kind, flags, stream, self._buffer[9 : 9 + size])
            self._buffer = self._buffer[9 + size :]
            whole = self._headers(found)
            if whole is not None:
                frames.append(whole)
        return frames

    def _headers(self, found: Frame) -> Frame | None:
        if self._block:
            assert found.kind == CONTINUATION, found
            assert found.stream == self._block[0].stream, found
        elif found.kind != HEADERS:
            assert found.kind != CONTINUATION, found
            return found
        self._block.append(found)
        if not found.flags & END_HEADERS:
            return None
        first, coded = self._block[0], b"".join(part.payload for part in self._block)
        assert not first.flags & (PADDED | PRIORITIZED)
        self._block = []
        fields = self._decoder.decode(coded, raw=True)
        return first._replace(fields=tuple((name.decode(), value.decode("latin-1")) for name, value in fields))
