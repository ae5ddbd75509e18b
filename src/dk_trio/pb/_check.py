"""Finds out what is wrong with bytes that a codec refused.

A plain interpreter over the same field descriptions that the codecs are compiled from: it walks through the data
without building anything, and stops at the first fault. It runs after a compiled decoder has failed, so it may be slow;
tests hold it to the same verdict as the compiled decoders and as google.protobuf.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

from ._errors import DecodeError
from ._plan import FIXED_FORMATS, PACKABLE, Field, fields_of, wire_type
from ._primitives import MAX_DEPTH, Malformed, read_size, read_tag, read_varint, skip
from ._times import decode_duration, decode_timestamp

__all__ = ["explain", "find_fault"]

PATIENCE: Final = 50_000
"""Fields after which the search for a fault is given up: about 0.1 s, in which nothing else runs. Whoever sends bad
messages of millions of fields gets a worse error, and costs little more than those who send good ones."""


def explain(cls: type[Any], data: bytes, fault: BaseException, *, depth: int = 0) -> DecodeError:
    """The error to raise for data that failed to parse as `cls`, `depth` messages deep, with `fault`."""
    found = find_fault(cls, data, depth=depth, into_structs=_is_struct(cls), patience=PATIENCE)
    if found is None:
        # Cannot happen as long as both agree; the data is refused all the same.
        return DecodeError(cls.__name__, "", 0, f"{type(fault).__name__}: {fault}")
    path, offset, reason = found
    return DecodeError(cls.__name__, path, offset, reason)


def find_fault(
    cls: type[Any], data: bytes, *, depth: int = 0, into_structs: bool = True, patience: float = inf
) -> tuple[str, int, str] | None:
    """Path of the field, offset and description of the first fault; None when `data` is a valid message.

    Args:
        cls: the message class.
        data: what should be one.
        depth: number of messages around it.
        into_structs: look into Struct fields as well, which parsing leaves to the first access.
        patience: number of fields to look at; where they end is called the fault.
    """
    walk = _Walk(data, lazy=not into_structs, patience=patience)
    try:
        walk.message(cls, 0, len(data), depth)
    except Malformed as fault:
        return walk.where, min(fault.offset, len(data)), fault.reason
    except IndexError:
        return walk.where, len(data), "the data ends in the middle of a value"
    return None


class _Walk:
    """The walk through one piece of data; `path` says where it is."""

    def __init__(self, data: bytes, *, lazy: bool, patience: float) -> None:
        self.data = data
        self.lazy = lazy
        self.path: list[str] = []
        self._patience = patience
        self._known: dict[type[Any], dict[int, Field]] = {}

    @property
    def where(self) -> str:
        return ".".join(self.path)

    def message(self, cls: type[Any], position: int, end: int, depth: int) -> None:
        fields = self._known.get(cls)
        if fields is None:  # to read them takes as long as to walk through a hundred of them
            fields = self._known[cls] = {field.number: field for field in fields_of(cls)}
        self._fields(fields, position, end, depth)

    def _fields(self, fields: dict[int, Field], position: int, end: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Malformed(position, f"nested deeper than {MAX_DEPTH} messages")
        counts: dict[str, int] = {}
        while position < end:
            start = position
            self._patience -= 1
            if self._patience < 0:
                raise Malformed(start, "the fault is here or behind: the fields before this place are many, and sound")
            tag, position = read_tag(self.data, position)
            field = fields.get(tag >> 3)
            if field is None or not _accepts(field, tag & 7):
                position = skip(self.data, position, tag, end, depth)
            else:
                self.path.append(field.name)
                if field.repeated and field.kind not in PACKABLE:
                    index = counts[field.name] = counts.get(field.name, -1) + 1
                    self.path[-1] += f"[{index}]"
                position = self._value(field, tag & 7, position, end, depth)
                self.path.pop()
            if position > end:
                raise Malformed(start, "the value reaches past the end of its message")

    def _value(self, field: Field, form: int, position: int, end: int, depth: int) -> int:
        if form == 0:
            return read_varint(self.data, position)[1]
        if form in {1, 5}:
            if position + (8 if form == 1 else 4) > len(self.data):
                raise IndexError
            return position + (8 if form == 1 else 4)
        start = position
        size, position = read_size(self.data, position)
        stop = position + size
        if stop > end:
            raise Malformed(start, f"a length of {size} bytes reaches past the end")
        if field.kind == "string":
            self._text(position, stop)
        elif field.kind == "map":
            assert field.key is not None
            assert field.value is not None
            self._fields({1: field.key, 2: field.value}, position, stop, depth + 1)
        elif field.kind == "message":
            self._nested(field, position, stop, depth + 1)
        elif field.kind != "bytes":
            self._packed(field, position, stop)
        return stop

    def _text(self, position: int, stop: int) -> None:
        try:
            self.data[position:stop].decode()
        except UnicodeDecodeError as error:
            raise Malformed(position + error.start, f"not UTF-8: {error.reason}") from None

    def _nested(self, field: Field, position: int, stop: int, depth: int) -> None:
        if self.lazy and _is_struct(field.cls):
            return
        self.message(field.message, position, stop, depth)
        if field.wrapper is not None and field.wrapper.__name__ in {"Timestamp", "Duration"}:
            decode = decode_timestamp if field.wrapper.__name__ == "Timestamp" else decode_duration
            decode(self.data, position, stop, depth, None)

    def _packed(self, field: Field, position: int, stop: int) -> None:
        if field.kind in FIXED_FORMATS:
            width = 8 if wire_type(field.kind) == 1 else 4
            if (stop - position) % width:
                raise Malformed(position, f"{stop - position} bytes of packed {width}-byte numbers")
            return
        while position < stop:
            start = position
            position = read_varint(self.data, position)[1]
            if position > stop:
                raise Malformed(start, "a packed number reaches past the end")


def _is_struct(cls: Any) -> bool:
    return bool(cls.__name__ == "Struct" and cls.__module__ == "dk_trio.pb.google.protobuf")


def _accepts(field: Field, form: int) -> bool:
    """Whether a field's value may come with this wire type; if not, it is an unknown field."""
    kind = field.kind
    if form == wire_type(kind):
        return True
    return form == 2 and field.repeated and kind in PACKABLE
