"""google.protobuf.Struct from a dict straight to the wire.

What is accepted is what JSON has: ``dict`` with ``str`` keys, ``list``, ``str``, ``bool``, ``int``, ``float`` and
``None``, and subclasses of these other than enums. Anything else is a ``TypeError`` that names the path to it, because
guessing (a tuple as a list, an enum as its value, a datetime as text) would come out as something else at the peer.
Integers become doubles, so those beyond 2^53 lose precision; NaN and infinities are sent as they are, as the binary
format allows them and only JSON does not.
"""

from __future__ import annotations

import enum
import struct
from typing import Any

from ._primitives import MAX_DEPTH, SMALL, encode_length

__all__ = ["KEY_CACHE_SIZE", "encode_struct"]

# Keys whose encoded form is kept. Keys are mostly the field names of a few models; a module that makes keys up (ids,
# words) fills the cache once and then pays 0.2 us for each key more. 2,048 entries of up to 64 bytes are about 0.4 MB.
KEY_CACHE_SIZE = 2048
_MAX_CACHED_KEY = 64

# A table of constants that is filled as they are needed: what is in it depends on the key alone.
_keys: dict[str, bytes] = {}

# Ready-made beginnings, by length: of an entry; of a Value that holds a text, with the Value's own length.
_ENTRY = [b"\x0a" + small for small in SMALL]
_TEXT = [bytes((size + 2, 0x1A, size)) for size in range(126)]
_number = struct.Struct("<BBd").pack

_TRUE, _FALSE, _NULL = b"\x02\x20\x01", b"\x02\x20\x00", b"\x02\x08\x00"


def encode_struct(members: dict[str, Any]) -> bytes:
    """The Struct message for a dict.

    Raises:
        TypeError: a key or value of a type that JSON does not have.
        ValueError: an int too large for a double, a text without UTF-8, or nesting that no peer would accept.
    """
    try:
        return _struct(members, 0)
    except (TypeError, ValueError, OverflowError, AttributeError, struct.error, _TooDeep) as error:
        _explain(members, [], 0)
        # Cannot happen as long as both agree.
        raise TypeError(f"cannot encode Struct: {error}") from error


class _TooDeep(Exception):
    pass


def _struct(members: dict[str, Any], depth: int) -> bytes:
    out: list[bytes] = []
    append = out.append
    for key, value in members.items():
        head = _keys.get(key)
        if head is None:
            head = _key(key)
        kind = value.__class__
        if kind is str:
            text = value.encode()
            size = len(text)
            body = _TEXT[size] + text if size < 126 else _long_text(text)
        elif kind is float or kind is int:
            body = _number(9, 17, value)
        elif value is None:
            body = _NULL
        elif kind is bool:
            body = _TRUE if value else _FALSE
        else:
            body = _container(value, depth)
        size = len(head) + len(body)
        append(_ENTRY[size] + head + body if size < 128 else b"\x0a" + encode_length(size) + head + body)
    if depth > MAX_DEPTH - (2 if out else 0):
        raise _TooDeep
    return b"".join(out)


def _list(values: list[Any], depth: int) -> bytes:
    out: list[bytes] = []
    append = out.append
    for value in values:
        kind = value.__class__
        if kind is str:
            text = value.encode()
            size = len(text)
            append(b"\x0a" + (_TEXT[size] + text if size < 126 else _long_text(text)))
        elif kind is float or kind is int:
            append(b"\x0a" + _number(9, 17, value))
        elif value is None:
            append(b"\x0a" + _NULL)
        elif kind is bool:
            append(b"\x0a" + (_TRUE if value else _FALSE))
        else:
            append(b"\x0a" + _container(value, depth - 1))
    if depth > MAX_DEPTH - (1 if out else 0):
        raise _TooDeep
    return b"".join(out)


def _container(value: Any, depth: int) -> bytes:
    """Length and content of a Value that holds a dict, a list or a subclass of anything; `depth` of the Struct."""
    if depth > MAX_DEPTH:
        raise _TooDeep
    if isinstance(value, enum.Enum):
        raise TypeError
    if isinstance(value, dict):
        inner = _struct(value, depth + 3)
        tag = b"\x2a"
    elif isinstance(value, list):
        inner = _list(value, depth + 3)
        tag = b"\x32"
    elif isinstance(value, str):
        return _long_text(str.encode(value))
    elif isinstance(value, int | float):
        return _number(9, 17, value)
    else:
        raise TypeError
    size = len(inner)
    head = tag + (SMALL[size] if size < 128 else encode_length(size))
    return encode_length(size + len(head)) + head + inner


def _long_text(text: bytes) -> bytes:
    head = b"\x1a" + encode_length(len(text))
    return encode_length(len(text) + len(head)) + head + text


def _key(key: Any) -> bytes:
    """Key of an entry and the tag of its value."""
    if not isinstance(key, str) or isinstance(key, enum.Enum):
        raise TypeError
    text = str.encode(key)
    head = b"\x0a" + encode_length(len(text)) + text + b"\x12"
    if len(text) <= _MAX_CACHED_KEY and len(_keys) < KEY_CACHE_SIZE and key.__class__ is str:
        _keys[key] = head
    return head


def _explain(value: Any, path: list[Any], depth: int) -> None:
    """Raise the error for the first thing in `value` that cannot be encoded."""
    where = "Struct" + "".join(f"[{step!r}]" for step in path)
    if depth > MAX_DEPTH:
        raise ValueError(f"{'Struct' + ''.join(f'[{step!r}]' for step in path[:5])}...: nested too deep, or in itself")
    if isinstance(value, enum.Enum):
        raise TypeError(f"{where}: {value!r} is an enum; send its value")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str) or isinstance(key, enum.Enum):
                raise TypeError(f"{where}: keys must be str, not {type(key).__name__} ({key!r})")
            _explain(key, [*path, key], depth + 2)
            _explain(inner, [*path, key], depth + (3 if isinstance(inner, dict | list) else 2))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _explain(inner, [*path, index], depth + (2 if isinstance(inner, dict | list) else 1))
    elif isinstance(value, str):
        try:
            str.encode(value)
        except UnicodeEncodeError as error:
            raise ValueError(f"{where}: text without UTF-8: {error.reason} at {error.start}") from None
    elif isinstance(value, int | float):
        try:
            float(value)
        except OverflowError:
            raise ValueError(f"{where}: an int of {int(value).bit_length()} bits does not fit a double") from None
    elif value is not None:
        raise TypeError(f"{where}: {type(value).__name__} has no place in a Struct ({str(value)[:60]}); {_hint(value)}")


def _hint(value: Any) -> str:
    if isinstance(value, tuple | set | frozenset):
        return "send a list"
    if hasattr(value, "model_dump"):
        return "send model_dump(mode='json')"
    return "send str, number, bool, None, list or dict"
