"""Scalar values: from the raw number on the wire to Python and back, single and packed.

Decoders take the unsigned 64-bit number of a varint; encoders give the bytes without a tag and refuse what the type
cannot hold, so that a number is never cut off silently.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from typing import Any

from ._plan import FIXED_FORMATS
from ._primitives import SMALL, Malformed, encode_length, encode_varint, read_varint

__all__ = [
    "DECODERS",
    "ENCODERS",
    "decode_enum",
    "encode_bytes",
    "encode_string",
    "pack_fixed",
    "pack_varints",
    "unpack_fixed",
    "unpack_varints",
]


def _decode_int32(raw: int) -> int:
    raw &= 0xFFFFFFFF
    return raw - 0x100000000 if raw > 0x7FFFFFFF else raw


def _decode_int64(raw: int) -> int:
    return raw - 0x10000000000000000 if raw > 0x7FFFFFFFFFFFFFFF else raw


def _decode_uint32(raw: int) -> int:
    return raw & 0xFFFFFFFF


def _decode_uint64(raw: int) -> int:
    return raw


def _decode_sint32(raw: int) -> int:
    raw &= 0xFFFFFFFF
    return raw >> 1 ^ -(raw & 1)


def _decode_sint64(raw: int) -> int:
    return raw >> 1 ^ -(raw & 1)


def _decode_bool(raw: int) -> bool:
    return raw != 0


def decode_enum(members: dict[int, Any], cls: Any, raw: int) -> Any:
    """The member of an enum; a number without a member becomes a nameless one that keeps the number."""
    member = members.get(raw)
    return cls(_decode_int32(raw)) if member is None else member


# Varint types but enum: raw number to value.
DECODERS: dict[str, Callable[[int], Any]] = {
    "int32": _decode_int32,
    "int64": _decode_int64,
    "uint32": _decode_uint32,
    "uint64": _decode_uint64,
    "sint32": _decode_sint32,
    "sint64": _decode_sint64,
    "bool": _decode_bool,
}


def _out_of_range(kind: str, value: Any) -> ValueError:
    return ValueError(f"{value} is out of range for {kind}")


def _encode_int32(value: int) -> bytes:
    if 0 <= value < 128:
        return SMALL[value]
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return encode_varint(value)
    raise _out_of_range("int32", value)


def _encode_int64(value: int) -> bytes:
    if 0 <= value < 128:
        return SMALL[value]
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return encode_varint(value)
    raise _out_of_range("int64", value)


def _encode_uint32(value: int) -> bytes:
    if 0 <= value <= 0xFFFFFFFF:
        return encode_varint(value)
    raise _out_of_range("uint32", value)


def _encode_uint64(value: int) -> bytes:
    if 0 <= value <= 0xFFFFFFFFFFFFFFFF:
        return encode_varint(value)
    raise _out_of_range("uint64", value)


def _encode_sint32(value: int) -> bytes:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return encode_varint(value << 1 if value >= 0 else ~(value << 1))
    raise _out_of_range("sint32", value)


def _encode_sint64(value: int) -> bytes:
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return encode_varint(value << 1 if value >= 0 else ~(value << 1))
    raise _out_of_range("sint64", value)


def _encode_bool(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def encode_string(value: str) -> bytes:
    """Length and UTF-8 of a text; lone surrogates have none."""
    data = value.encode()
    return encode_length(len(data)) + data


def encode_bytes(value: bytes) -> bytes:
    """Length and content."""
    return encode_length(len(value)) + value


_double = struct.Struct("<d").pack
_float = struct.Struct("<f").pack


def _encode_float(value: float) -> bytes:
    try:
        return _float(value)
    except OverflowError:
        # Beyond the range of 32 bits is infinity, as in a C cast and in google.protobuf.
        return _float(math.copysign(math.inf, value))


def _fixed(kind: str) -> Callable[[Any], bytes]:
    pack = struct.Struct("<" + FIXED_FORMATS[kind]).pack

    def encode(value: int) -> bytes:
        try:
            return pack(value)
        except struct.error:
            if isinstance(value, int):
                raise _out_of_range(kind, value) from None
            raise

    return encode


# Every scalar type: value to bytes without a tag.
ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "int32": _encode_int32,
    "int64": _encode_int64,
    "uint32": _encode_uint32,
    "uint64": _encode_uint64,
    "sint32": _encode_sint32,
    "sint64": _encode_sint64,
    "bool": _encode_bool,
    "enum": _encode_int32,
    "string": encode_string,
    "bytes": encode_bytes,
    "double": _double,
    "float": _encode_float,
    "fixed32": _fixed("fixed32"),
    "fixed64": _fixed("fixed64"),
    "sfixed32": _fixed("sfixed32"),
    "sfixed64": _fixed("sfixed64"),
}


def unpack_varints(data: bytes, position: int, end: int) -> list[int]:
    """The raw numbers of a packed field between two positions."""
    chunk = data[position:end]
    if chunk.isascii():
        # Each number fits one byte, as most do.
        return list(chunk)
    values = []
    while position < end:
        value = data[position]
        position += 1
        if value > 127:
            value, position = read_varint(data, position - 1)
        values.append(value)
    if position != end:
        raise Malformed(end, "a packed number reaches past the end")
    return values


def unpack_fixed(letter: str, size: int, data: bytes, position: int, end: int) -> tuple[Any, ...]:
    """The values of a packed field of 4- or 8-byte numbers; `letter` is their ``struct`` format."""
    count, rest = divmod(end - position, size)
    if rest:
        raise Malformed(position, f"{end - position} bytes of packed {size}-byte numbers")
    return struct.unpack_from(f"<{count}{letter}", data, position)


def pack_varints(encode: Callable[[Any], bytes], values: Iterable[Any]) -> bytes:
    """Length and content of a packed field."""
    packed = b"".join([encode(value) for value in values])
    return encode_length(len(packed)) + packed


def pack_fixed(encode: Callable[[Any], bytes], values: Iterable[Any]) -> bytes:
    """Length and content of a packed field of fixed-width numbers."""
    return pack_varints(encode, values)
