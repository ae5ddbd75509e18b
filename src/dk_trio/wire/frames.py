"""HTTP/2 frames as bytes: numbers, layouts and builders (RFC 9113 sections 4, 6 and 7).

Nothing here keeps state. `connection.py` reads frames in one loop with `FRAME_HEADER`; everything that writes a frame
goes through a builder of this file, except the hot DATA path in `stream.py`, which packs the DATA header and the gRPC
message prefix together.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 section 3.4)."""

# Frame types (RFC 9113 section 6). Plain ints: an enum member costs a dictionary walk in the read loop.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags (RFC 9113 section 6).
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

# Settings (RFC 9113 section 6.5.2).
HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

DEFAULT_WINDOW: Final = 65_535
"""Window of a new connection and of each stream, in bytes, before any SETTINGS (RFC 9113 section 6.9.2)."""
DEFAULT_FRAME_SIZE: Final = 16_384
"""Largest frame payload that needs no permission, in bytes (RFC 9113 section 4.2)."""
LARGEST_FRAME_SIZE: Final = 16_777_215
LARGEST_WINDOW: Final = 0x7FFF_FFFF
LARGEST_STREAM_ID: Final = 0x7FFF_FFFF

FRAME_HEADER_SIZE: Final = 9
FRAME_HEADER: Final = Struct(">HBBBI")
"""Length (upper 16 bits), length (lower 8), type, flags, stream id with its reserved bit."""
MESSAGE_PREFIX: Final = Struct(">BI")
"""gRPC's length-prefixed message: compressed flag, length in bytes."""
MESSAGE_PREFIX_SIZE: Final = 5
DATA_MESSAGE_PREFIX: Final = Struct(">HBBBIBI")
"""A DATA frame header and the prefix of the gRPC message that fills this frame, packed in one go."""
UINT32: Final = Struct(">I")
_SETTING: Final = Struct(">HI")
_GOAWAY: Final = Struct(">II")
_pack_frame_header = FRAME_HEADER.pack


class ErrorCode(IntEnum):
    """Why a stream was reset or a connection closed (RFC 9113 section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def error_name(code: int) -> str:
    """The name of an error code for messages; unknown codes are legal and shown in hexadecimal."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame. `payload` must fit the receiver's SETTINGS_MAX_FRAME_SIZE; this is not checked here."""
    size = len(payload)
    return _pack_frame_header(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def settings_frame(settings: Mapping[int, int]) -> bytes:
    """SETTINGS with the given identifier -> value pairs, in their order."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in settings.items()))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def unpack_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS payload, in order; its length must be a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


def window_update(stream_id: int, increment: int) -> bytes:
    """Credit of `increment` bytes (1 to 2^31-1) for a stream, or for the connection with id 0."""
    return frame(WINDOW_UPDATE, 0, stream_id, UINT32.pack(increment))


def rst_stream(stream_id: int, code: int) -> bytes:
    """Abrupt end of one stream."""
    return frame(RST_STREAM, 0, stream_id, UINT32.pack(code))


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """PING with eight bytes of payload."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """GOAWAY: streams above `last_stream_id` were not and will not be processed."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + debug)


def header_frames(stream_id: int, block: bytes, flags: int, max_frame_size: int) -> bytes:
    """HEADERS, and as many CONTINUATION frames as the header block needs. `flags` is END_STREAM or 0."""
    size = len(block)
    if size <= max_frame_size:
        return _pack_frame_header(size >> 8, size & 0xFF, HEADERS, flags | END_HEADERS, stream_id) + block
    parts = [frame(HEADERS, flags, stream_id, block[:max_frame_size])]
    for start in range(max_frame_size, size, max_frame_size):
        end = start + max_frame_size
        parts.append(frame(CONTINUATION, END_HEADERS if end >= size else 0, stream_id, block[start:end]))
    return b"".join(parts)
