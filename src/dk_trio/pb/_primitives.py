"""Protobuf's wire format: tags, varints, lengths and the skipping of unknown fields.

Pure functions over ``bytes`` and positions, shared by the compiled codecs, by Struct and by the checker that names the
fault in bad bytes. A reader returns the position behind what it read. It may raise ``IndexError`` at the end of the
data and may step over the end of an enclosing message that lies inside the data: each caller compares the position with
the end of its own message once, when it is done, which is cheaper than before each read.

What is accepted is what google.protobuf (upb) accepts, found by trying; see ``tests/pb/test_wire_rules.py``. One thing
is not: field number 0 is refused everywhere, as the specification says, while upb lets it pass in messages without any
fields and inside of unknown groups.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

__all__ = [
    "MAX_DEPTH",
    "SMALL",
    "Malformed",
    "encode_length",
    "encode_tag",
    "encode_varint",
    "read_size",
    "read_tag",
    "read_varint",
    "skip",
]

# Messages inside of messages, counted from the outermost (0). The default of google.protobuf in every language; deeper
# data is refused, so that a few kilobytes cannot exhaust the stack.
MAX_DEPTH = 100

# A varint of a 64-bit number has at most 10 bytes; tags and lengths are 32-bit numbers of at most 5.
_MAX_VARINT_BYTES = 10
_MAX_TAG_BYTES = 5

_MASK_64 = (1 << 64) - 1

# The varints that fit one byte, by value.
SMALL = [bytes((value,)) for value in range(128)]


class Malformed(Exception):
    """The data at `offset` is not what it should be. Internal: callers see `DecodeError`."""

    def __init__(self, offset: int = 0, reason: str = "") -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read an unsigned 64-bit number; bits beyond the 64th are dropped, as protobuf does."""
    # Written out for up to five bytes, which is half the time of the loop: each byte but the last carries a
    # continuation bit of 128, and the constants take them all away at once.
    a = data[position]
    if a < 128:
        return a, position + 1
    b = data[position + 1]
    if b < 128:
        return a + (b << 7) - 0x80, position + 2
    c = data[position + 2]
    if c < 128:
        return a + (b << 7) + (c << 14) - 0x4080, position + 3
    d = data[position + 3]
    if d < 128:
        return a + (b << 7) + (c << 14) + (d << 21) - 0x204080, position + 4
    e = data[position + 4]
    if e < 128:
        return a + (b << 7) + (c << 14) + (d << 21) + (e << 28) - 0x10204080, position + 5
    return _read_long_varint(data, position)


def _read_long_varint(data: bytes, position: int) -> tuple[int, int]:
    start = position
    value = shift = 0
    while shift < 7 * _MAX_VARINT_BYTES:
        byte = data[position]
        position += 1
        if byte < 128:
            return (value | byte << shift) & _MASK_64, position
        value |= (byte & 127) << shift
        shift += 7
    raise Malformed(start, f"varint longer than {_MAX_VARINT_BYTES} bytes")


def read_tag(data: bytes, position: int) -> tuple[int, int]:
    """Read a tag, which is a field number times 8 plus a wire type and fits 32 bits."""
    value = 0
    start = position
    for shift in range(0, 7 * _MAX_TAG_BYTES, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 32:
                break
            return value, position
    raise Malformed(start, "tag longer than 32 bits")


def read_size(data: bytes, position: int) -> tuple[int, int]:
    """Read the length of a length-delimited field."""
    value = 0
    start = position
    for shift in range(0, 7 * _MAX_TAG_BYTES, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 31:
                break
            return value, position
    raise Malformed(start, "length longer than 31 bits")


def skip(data: bytes, position: int, tag: int, end: int, depth: int) -> int:
    """Step over the value of an unknown field whose tag was read.

    Args:
        data: what is parsed.
        position: behind the tag.
        tag: the tag.
        end: of the enclosing message.
        depth: of the enclosing message.

    Returns:
        The position behind the value; beyond `end` when a fixed-width value is cut off there.
    """
    if tag < 8:
        raise Malformed(position - 1, "field number 0")
    kind = tag & 7
    if kind == 0:
        return read_varint(data, position)[1]
    if kind == 2:
        size, position = read_size(data, position)
        if position + size > end:
            raise Malformed(position, f"a length of {size} bytes reaches past the end")
        return position + size
    if kind == 5:
        return position + 4
    if kind == 1:
        return position + 8
    if kind == 3:
        return _skip_group(data, position, tag >> 3, end, depth + 1)
    raise Malformed(position - 1, "end of a group that was not begun" if kind == 4 else f"wire type {kind}")


def _skip_group(data: bytes, position: int, number: int, end: int, depth: int) -> int:
    """Groups are the nesting of proto2: a start tag, fields, an end tag of the same number. They count as messages."""
    if depth > MAX_DEPTH:
        raise Malformed(position, f"nested deeper than {MAX_DEPTH} messages")
    while position < end:
        start = position
        tag, position = read_tag(data, position)
        if tag & 7 == 4:
            if tag >> 3 != number:
                raise Malformed(start, f"group {number} is ended as {tag >> 3}")
            return position
        position = skip(data, position, tag, end, depth)
    raise Malformed(position, f"group {number} is not ended")


def encode_varint(value: int) -> bytes:
    """Encode a number of up to 64 bits; negative ones as their two's complement."""
    if 0 <= value < 128:
        return SMALL[value]
    if 0x10000000 <= value < 0x800000000:
        # Five bytes: the seconds of any timestamp of our time.
        return bytes(
            (value & 127 | 128, value >> 7 & 127 | 128, value >> 14 & 127 | 128, value >> 21 & 127 | 128, value >> 28)
        )
    value &= _MASK_64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_length(size: int) -> bytes:
    """Encode a length."""
    if size < 128:
        return SMALL[size]
    if size < 16384:
        return bytes((size & 127 | 128, size >> 7))
    return encode_varint(size)


def encode_tag(number: int, wire_type: int) -> bytes:
    """Encode the tag of a field."""
    return encode_varint(number << 3 | wire_type)
