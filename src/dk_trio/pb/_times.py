"""google.protobuf.Timestamp and Duration as the Python types that stand for them.

Both messages count nanoseconds, ``datetime`` and ``timedelta`` microseconds. So that a value which is only passed on
keeps its last three digits, decoding gives a subclass with the attribute ``nanos`` whenever those digits are not zero,
and encoding looks for that attribute. Arithmetic and comparison are the parents' and know microseconds only.

What Python cannot hold is a `DecodeError`: timestamps outside of the years 1 to 9999 and durations beyond 999,999,999
days. Both lie outside of what the messages may say. Denormalised values (``nanos`` negative in a Timestamp, or of the
other sign in a Duration) are accepted and come out normalised. Unknown fields inside these two messages are dropped:
there is no place to keep them.
"""

from __future__ import annotations

import datetime
from typing import Any

from ._primitives import MAX_DEPTH, Malformed, encode_varint, read_tag, read_varint, skip

__all__ = [
    "NanoDatetime",
    "NanoTimedelta",
    "decode_duration",
    "decode_timestamp",
    "encode_duration",
    "encode_timestamp",
]

_timedelta = datetime.timedelta
_UTC = datetime.UTC
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=_UTC)
_SECOND_NS = 1_000_000_000
_DAY_S = 86_400


class NanoDatetime(datetime.datetime):
    """A point in time whose last three digits of nanoseconds are in `nanos` (1 to 999)."""

    nanos: int = 0

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _with_nanos, (type(self), super().__reduce_ex__(protocol)[1], self.nanos)


class NanoTimedelta(datetime.timedelta):
    """A span of time whose last three digits of nanoseconds are in `nanos` (1 to 999, to be added)."""

    nanos: int = 0

    def __reduce__(self) -> Any:
        return _with_nanos, (type(self), super().__reduce__()[1], self.nanos)


def _with_nanos(cls: Any, arguments: tuple[Any, ...], nanos: int) -> Any:
    value = cls(*arguments)
    value.nanos = nanos
    return value


def encode_timestamp(value: datetime.datetime) -> bytes:
    """A Timestamp message for an aware datetime; a naive one has no place on the time line and is a ValueError."""
    if value.tzinfo is None:
        raise ValueError(f"datetime without a time zone: {value!r}")
    offset = value - _EPOCH
    nanos = offset.microseconds * 1000
    if value.__class__ is NanoDatetime:
        nanos += value.nanos
    return _encode(offset.days * _DAY_S + offset.seconds, nanos)


def encode_duration(value: datetime.timedelta) -> bytes:
    """A Duration message; seconds and nanoseconds get the same sign."""
    return _encode(*_split(value))


def _encode(seconds: int, nanos: int) -> bytes:
    if 0x10000000 <= seconds < 0x800000000 and nanos >= 0x10000000:
        # Five bytes each: three of four timestamps of our time. Written out, for half of what two calls take.
        return bytes(
            (
                8,
                seconds & 127 | 128,
                seconds >> 7 & 127 | 128,
                seconds >> 14 & 127 | 128,
                seconds >> 21 & 127 | 128,
                seconds >> 28,
                16,
                nanos & 127 | 128,
                nanos >> 7 & 127 | 128,
                nanos >> 14 & 127 | 128,
                nanos >> 21 & 127 | 128,
                nanos >> 28,
            )
        )
    out = b"\x08" + encode_varint(seconds) if seconds else b""
    return out + b"\x10" + encode_varint(nanos) if nanos else out


def decode_timestamp(data: bytes, position: int, end: int, depth: int, into: datetime.datetime | None) -> Any:
    """The aware datetime, in UTC, of a Timestamp message between two positions.

    With `into`, the value of an earlier occurrence of the same field, fields that do not occur again keep their value.
    """
    seconds = nanos = 0
    if into is not None:
        offset = into - _EPOCH
        seconds, nanos = offset.days * _DAY_S + offset.seconds, offset.microseconds * 1000 + getattr(into, "nanos", 0)
    start = position
    seconds, nanos = _decode(data, position, end, depth, seconds, nanos)
    micros, rest = divmod(nanos, 1000)
    try:
        value = _EPOCH + _timedelta(0, seconds, micros)
    except OverflowError:
        raise Malformed(start, "timestamp outside of the years 1 to 9999") from None
    if not rest:
        return value
    exact = NanoDatetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, _UTC
    )
    exact.nanos = rest
    return exact


def decode_duration(data: bytes, position: int, end: int, depth: int, into: datetime.timedelta | None) -> Any:
    """The timedelta of a Duration message between two positions; see `decode_timestamp` for `into`."""
    seconds = nanos = 0
    if into is not None:
        seconds, nanos = _split(into)
    start = position
    seconds, nanos = _decode(data, position, end, depth, seconds, nanos)
    micros, rest = divmod(nanos, 1000)
    try:
        if not rest:
            return _timedelta(0, seconds, micros)
        exact = NanoTimedelta(0, seconds, micros)
    except OverflowError:
        raise Malformed(start, "duration longer than Python's timedelta") from None
    exact.nanos = rest
    return exact


def _split(value: datetime.timedelta) -> tuple[int, int]:
    total = (value.days * _DAY_S + value.seconds) * _SECOND_NS + value.microseconds * 1000 + getattr(value, "nanos", 0)
    if total < 0:
        seconds, nanos = divmod(-total, _SECOND_NS)
        return -seconds, -nanos
    return divmod(total, _SECOND_NS)


def _decode(data: bytes, position: int, end: int, depth: int, seconds: int, nanos: int) -> tuple[int, int]:
    if depth > MAX_DEPTH:
        raise Malformed(position, f"nested deeper than {MAX_DEPTH} messages")
    while position < end:
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = read_tag(data, position - 1)
        if tag == 8:
            raw, position = read_varint(data, position)
            seconds = raw - (1 << 64) if raw >> 63 else raw
        elif tag == 16:
            raw, position = read_varint(data, position)
            raw &= 0xFFFFFFFF
            nanos = raw - (1 << 32) if raw >> 31 else raw
        else:
            position = skip(data, position, tag, end, depth)
    if position != end:
        raise Malformed(end, "a value reaches past the end")
    return seconds, nanos
