"""Writes the source of a message class's ``encode(message) -> bytes``.

The function appends the bytes of each set field to a list, in the order of field numbers, and joins them. A tag and a
one-byte length (or value) come as one ready-made piece out of a table that all fields with the same tag share.

Errors are not looked for: a value of the wrong type fails in the operation that meets it, and then `explain_encoding`
looks at the fields one by one to say which.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from ._plan import FIXED_FORMATS, PACKABLE, VARINTS, Field, fields_of, wire_type
from ._primitives import SMALL, encode_length, encode_tag
from ._scalars import ENCODERS, pack_fixed, pack_varints
from ._times import encode_duration, encode_timestamp

__all__ = ["element_encoder", "encoder_source"]


# What encoding a value of the wrong type, or one out of range, runs into.
_ENCODE_ERRORS = (AttributeError, TypeError, ValueError, OverflowError, struct.error)


@cache
def _pieces(tag: bytes) -> list[bytes]:
    """The tag followed by each one-byte varint."""
    return [tag + small for small in SMALL]


def encoder_source(cls: type[Any], names: dict[str, Any]) -> str:
    """The source of ``encode``; what it refers to is added to `names`."""
    names.update(length=encode_length, ENCODE_ERRORS=_ENCODE_ERRORS)
    lines = ["def encode(self):", " out = []", " try:"]
    for field in fields_of(cls):
        lines += ["  " + line for line in _field_lines(field, names)]
    lines += [
        "  unknown = self._unknown_fields",
        "  if unknown: out.append(unknown)",
        "  return b''.join(out)",
        " except ENCODE_ERRORS as error:",
        "  raise explain_encoding(self, error) from None",
        "",
    ]
    return "\n".join(lines)


def _field_lines(field: Field, names: dict[str, Any]) -> list[str]:
    number, kind = field.number, field.kind
    read = f"self.{field.name}"
    if kind == "map":
        names[f"M{number}"] = _map_encoder(field)
        return [f"v = {read}", f"if v: M{number}(out, v)"]
    packed = field.repeated and kind in PACKABLE
    tag = encode_tag(number, 2 if packed else wire_type(kind))
    names[f"T{number}"], names[f"P{number}"] = tag, _pieces(tag)
    if packed:
        names[f"E{number}"] = ENCODERS[kind]
        names["pack"] = pack_fixed if kind in FIXED_FORMATS else pack_varints
        return [f"v = {read}", f"if v: out.append(T{number} + pack(E{number}, v))"]
    if field.repeated:
        lines = [f"for v in {read}:", *(" " + line for line in _value_lines(field, names))]
        if kind in {"string", "bytes"}:
            # A text is a sequence of texts, and bytes are one of numbers: the likely mistake would pass unnoticed.
            lines.insert(0, f"if {read}.__class__ in (str, bytes): raise TypeError")
        return lines
    if field.presence:
        return [f"v = {read}", "if v is not None:", *(" " + line for line in _value_lines(field, names))]
    if kind in {"double", "float"}:
        # Minus zero is not the default.
        names[f"E{number}"] = ENCODERS[kind]
        zero = b"\0" * (8 if kind == "double" else 4)
        return [f"x = E{number}({read})", f"if x != {zero!r}: out.append(T{number} + x)"]
    return [f"v = {read}", "if v:", *(" " + line for line in _value_lines(field, names))]


def _value_lines(field: Field, names: dict[str, Any]) -> list[str]:
    """Append the value in ``v`` with its tag."""
    number, kind = field.number, field.kind
    if kind in {"string", "bytes", "message"}:
        if kind == "string":
            made = "x = v.encode()"
        elif kind == "bytes":
            made = "x = v"
        else:
            made = f"x = {_message_expression(field, names)}"
        return [
            made,
            "n = len(x)",
            f"out.append(P{number}[n] + x if n < 128 else T{number} + length(n) + x)",
        ]
    if kind == "bool":
        return [f"out.append(P{number}[1 if v else 0])"]
    names[f"E{number}"] = ENCODERS[kind]
    if kind in VARINTS and not kind.startswith("s"):
        return [f"out.append(P{number}[v] if 0 <= v < 128 else T{number} + E{number}(v))"]
    return [f"out.append(T{number} + E{number}(v))"]


def _message_expression(field: Field, names: dict[str, Any]) -> str:
    if field.wrapper is None:
        return "v.SerializeToString()"
    names[f"W{field.number}"] = wrapped_encoder(field.wrapper)
    return f"W{field.number}(v)"


def wrapped_encoder(wrapper: Any) -> Callable[[Any], bytes]:
    """From the Python value that stands for a well-known message to the bytes of that message."""
    if wrapper.__name__ == "Timestamp":
        return encode_timestamp
    if wrapper.__name__ == "Duration":
        return encode_duration

    def encode(value: Any) -> bytes:
        data: bytes = wrapper.from_wrapped(value).SerializeToString()
        return data

    return encode


def element_encoder(field: Field) -> Callable[[Any], bytes]:
    """The function from one value of a field to its bytes with tag, for map entries and for explaining errors."""
    tag = encode_tag(field.number, wire_type(field.kind))
    if field.kind != "message":
        encode = ENCODERS[field.kind]
        return lambda value: tag + encode(value)
    inner = wrapped_encoder(field.wrapper) if field.wrapper else _serialize

    def encode_message(value: Any) -> bytes:
        data = inner(value)
        return tag + encode_length(len(data)) + data

    return encode_message


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _map_encoder(field: Field) -> Callable[[list[bytes], dict[Any, Any]], None]:
    assert field.key is not None
    assert field.value is not None
    tag, encode_key, encode_value = (
        encode_tag(field.number, 2),
        element_encoder(field.key),
        element_encoder(field.value),
    )

    def encode(out: list[bytes], entries: dict[Any, Any]) -> None:
        for key, value in entries.items():
            entry = encode_key(key) + encode_value(value)
            out.append(tag + encode_length(len(entry)) + entry)

    return encode
