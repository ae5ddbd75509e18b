"""google.protobuf.Struct from the wire straight to a dict.

The messages Struct, map entry, Value and ListValue are stepped through by hand; none is built. The usual entry (key,
then a Value with one field) is taken in one go, and anything else goes through the general functions, which do what
protobuf demands of a oneof and of fields that occur twice: the last member wins, and a message member that occurs again
without another in between is merged (dicts are united, lists joined).

Depth counts messages, as google.protobuf does: each level of dict costs three (Struct, entry, Value), of list two.
"""

from __future__ import annotations

import struct
from typing import Any

from ._primitives import MAX_DEPTH, Malformed, read_size, read_tag, read_varint, skip

__all__ = ["decode_list", "decode_struct", "decode_value"]

_double = struct.Struct("<d").unpack_from

# Stands for "no Value yet" where None is a value.
_ABSENT: Any = object()


def decode_struct(data: bytes, position: int, end: int, depth: int, out: dict[str, Any]) -> None:
    """Add the members of the Struct between two positions to `out`.

    Args:
        data: what is parsed.
        position: start of the Struct.
        end: its end.
        depth: number of messages around it.
        out: gets the members; a key that is there already gets the new value.
    """
    if depth > MAX_DEPTH - 2:
        # An entry and a Value do not fit any more, so only oddities are valid.
        _decode_struct_slowly(data, position, end, depth, out)
        return
    while position < end:
        start = position
        size = data[position + 1]
        if data[position] != 10 or size > 127:
            if data[position] != 10:
                position = _odd_struct_field(data, position, end, depth, out)
                continue
            size, position = read_size(data, position + 1)
        else:
            position += 2
        stop = position + size
        if stop > end:
            raise Malformed(position, "an entry reaches past the end")
        # The usual entry: 10, length, key, 18, length, Value.
        if size > 3 and data[position] == 10:
            size = data[position + 1]
            key_start = position + 2
            key_end = key_start + size
            if size < 128 and key_end + 1 < stop and data[key_end] == 18:
                size = data[key_end + 1]
                at = key_end + 2
                if size > 127:
                    size, at = read_size(data, key_end + 1)
                if at + size == stop and size > 1:
                    tag = data[at]
                    size = data[at + 1]
                    at += 2
                    if tag == 26:
                        if size > 127:
                            size, at = read_size(data, at - 1)
                        if at + size == stop:
                            out[data[key_start:key_end].decode()] = data[at:stop].decode()
                            position = stop
                            continue
                    elif tag == 17:
                        if at + 7 == stop:
                            (out[data[key_start:key_end].decode()],) = _double(data, at - 1)
                            position = stop
                            continue
                    elif tag == 42:
                        if size > 127:
                            size, at = read_size(data, at - 1)
                        if at + size == stop:
                            inner: dict[str, Any] = {}
                            decode_struct(data, at, stop, depth + 3, inner)
                            out[data[key_start:key_end].decode()] = inner
                            position = stop
                            continue
                    elif tag == 50:
                        if size > 127:
                            size, at = read_size(data, at - 1)
                        if at + size == stop:
                            values: list[Any] = []
                            decode_list(data, at, stop, depth + 3, values)
                            out[data[key_start:key_end].decode()] = values
                            position = stop
                            continue
                    elif at == stop and size < 128:
                        if tag == 32:
                            out[data[key_start:key_end].decode()] = size != 0
                            position = stop
                            continue
                        if tag == 8:
                            out[data[key_start:key_end].decode()] = None
                            position = stop
                            continue
        position = _odd_struct_field(data, start, end, depth, out)
    if position != end:
        raise Malformed(end, "a value reaches past the end")


def decode_list(data: bytes, position: int, end: int, depth: int, out: list[Any]) -> None:
    """Add the elements of the ListValue between two positions to `out`; arguments as in `decode_struct`."""
    if depth > MAX_DEPTH:
        raise _too_deep(position)
    while position < end:
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = read_tag(data, position - 1)
        if tag != 10:
            position = skip(data, position, tag, end, depth)
            continue
        size = data[position]
        position += 1
        if size > 127:
            size, position = read_size(data, position - 1)
        stop = position + size
        if stop > end:
            raise Malformed(position, "an element reaches past the end")
        value = decode_value(data, position, stop, depth + 1, _ABSENT)
        out.append(None if value is _ABSENT else value)
        position = stop
    if position != end:
        raise Malformed(end, "a value reaches past the end")


def decode_value(data: bytes, position: int, end: int, depth: int, value: Any) -> Any:
    """The Value between two positions, merged with an earlier `value`; a Value without content leaves that as it is."""
    if depth > MAX_DEPTH:
        raise _too_deep(position)
    while position < end:
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = read_tag(data, position - 1)
        if tag == 17:
            (value,) = _double(data, position)
            position += 8
        elif tag in {8, 32}:
            raw, position = read_varint(data, position)
            value = raw != 0 if tag == 32 else None
        elif tag in {26, 42, 50}:
            size, position = read_size(data, position)
            stop = position + size
            if stop > end:
                raise Malformed(position, "a value reaches past the end")
            if tag == 26:
                value = data[position:stop].decode()
            elif tag == 42:
                if value.__class__ is not dict:
                    value = {}
                decode_struct(data, position, stop, depth + 1, value)
            else:
                if value.__class__ is not list:
                    value = []
                decode_list(data, position, stop, depth + 1, value)
            position = stop
        else:
            position = skip(data, position, tag, end, depth)
    if position != end:
        raise Malformed(end, "a value reaches past the end")
    return value


def _decode_struct_slowly(data: bytes, position: int, end: int, depth: int, out: dict[str, Any]) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep(position)
    while position < end:
        position = _odd_struct_field(data, position, end, depth, out)
    if position != end:
        raise Malformed(end, "a value reaches past the end")


def _odd_struct_field(data: bytes, position: int, end: int, depth: int, out: dict[str, Any]) -> int:
    """One field of a Struct in any shape; returns the position behind it."""
    tag, position = read_tag(data, position)
    if tag != 10:
        return skip(data, position, tag, end, depth)
    size, position = read_size(data, position)
    stop = position + size
    if stop > end:
        raise Malformed(position, "an entry reaches past the end")
    if depth >= MAX_DEPTH:
        raise _too_deep(position)
    key = ""
    value = _ABSENT
    known = True
    while position < stop:
        tag, position = read_tag(data, position)
        if tag in {10, 18}:
            size, position = read_size(data, position)
            inner = position + size
            if inner > stop:
                raise Malformed(position, "a value reaches past the end")
            if tag == 10:
                key = data[position:inner].decode()
            else:
                value = decode_value(data, position, inner, depth + 2, value)
            position = inner
        else:
            position = skip(data, position, tag, stop, depth + 1)
            known = False
    if position != stop:
        raise Malformed(stop, "a value reaches past the end")
    if known:
        # An entry with unknown fields is an unknown field as a whole, as in google.protobuf.
        out[key] = None if value is _ABSENT else value
    return stop


def _too_deep(position: int) -> Malformed:
    return Malformed(position, f"nested deeper than {MAX_DEPTH} messages")
