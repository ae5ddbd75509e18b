"""Messages from and to protobuf's JSON, with errors that name the field.

Names are those of the `.proto` files or their lowerCamelCase; enums are names or numbers, with or without the prefix of
their type; bytes are base64; times are RFC 3339; 64-bit integers may be texts; null is "not set".
Source: https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import binascii
import difflib
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from betterproto2 import Casing

from dk_trio.cli._output import with_integers
from dk_trio.pb._plan import Field, fields_of

from ._contract import enum_names, type_name

_INTEGERS: Final = {
    "int32": (-(2**31), 2**31 - 1),
    "sint32": (-(2**31), 2**31 - 1),
    "sfixed32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "fixed32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "sint64": (-(2**63), 2**63 - 1),
    "sfixed64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
    "fixed64": (0, 2**64 - 1),
}


class FieldError(ValueError):
    """A value that its field cannot have. The text begins with the path of the field."""


def to_json(message: Any) -> Any:
    """A message as JSON, with fields at their defaults, named as in the `.proto` files."""
    return with_integers(message.to_dict(casing=Casing.SNAKE, include_default_values=True))


def from_json(cls: Any, data: Any, path: str = "") -> Any:
    """A message of a class.

    Raises:
        FieldError: A field does not exist, or cannot have its value.
    """
    if not isinstance(data, Mapping):
        raise FieldError(f"{path or 'the request'}: expected an object with the fields of {cls.__name__}, {_got(data)}")
    fields = {field.name: field for field in fields_of(cls)}
    values: dict[str, Any] = {}
    members: dict[str, str] = {}  # of oneofs: the one that was given
    for key, value in data.items():
        where = f"{path}.{key}" if path else key
        field = fields.get(key) or fields.get(_snake(key))
        if field is None:
            near = difflib.get_close_matches(_snake(key), fields, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"{cls.__name__} has {', '.join(fields) or 'no fields'}."
            raise FieldError(f"{where}: there is no such field. {hint}")
        if field.name in values:
            raise FieldError(f"{where}: given twice, as {key!r} and by its other name")
        if value is None:
            continue
        if field.oneof is not None and (other := members.setdefault(field.oneof, key)) != key:
            raise FieldError(f"{where}: only one of {other!r} and {key!r} may be given")
        values[field.name] = _value(field, value, where)
    return cls(**values)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _value(field: Field, value: Any, path: str) -> Any:
    if field.kind == "map":
        assert field.key is not None
        assert field.value is not None
        if not isinstance(value, Mapping):
            raise FieldError(f"{path}: expected an object, {_got(value)}")
        return {
            _key(field.key, key, path): _single(field.value, item, f"{path}[{key!r}]") for key, item in value.items()
        }
    if not field.repeated:
        return _single(field, value, path)
    if not isinstance(value, list):
        raise FieldError(f"{path}: expected a {type_name(field)}, {_got(value)}")
    return [_single(field, item, f"{path}[{index}]") for index, item in enumerate(value)]


def _key(field: Field, text: str, path: str) -> Any:
    return _integer(field, text, path) if field.kind in _INTEGERS else text


def _single(field: Field, value: Any, path: str) -> Any:
    if field.kind == "message":
        if field.wrapper is not None:
            return _WRAPPED[field.wrapper.__name__](value, path)
        if field.cls.__name__ != "Struct":
            return from_json(field.cls, value, path)
        return _struct(field.cls, value, path)
    if field.kind in _INTEGERS:
        return _integer(field, value, path)
    return _SCALARS[field.kind](field, value, path)


def _struct(cls: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise FieldError(f"{path}: expected a JSON object, {_got(value)}")
    struct = cls.from_dict(value)
    try:
        bytes(struct)
    except (TypeError, ValueError) as error:  # a lone surrogate, a nesting that no peer reads
        raise FieldError(f"{path}: cannot be sent: {error}") from None
    return struct


def _text(_: Field, value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise FieldError(f"{path}: expected a text, {_got(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError(f"{path}: {value!r} holds half a character (a lone surrogate)") from None
    return value


def _bool(_: Field, value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise FieldError(f"{path}: expected true or false, {_got(value)}")
    return value


def _bytes(_: Field, value: Any, path: str) -> bytes:
    text = _text(_, value, path).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise FieldError(f"{path}: expected base64, {_got(value)}") from None


def _number(_: Field, value: Any, path: str) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise FieldError(f"{path}: expected a number, {_got(value)}")


def _integer(field: Field, value: Any, path: str) -> int:
    low, high = _INTEGERS[field.kind]
    number = None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            number = int(value)
        except ValueError:
            number = None
    if number is None or not low <= number <= high:
        raise FieldError(f"{path}: expected a whole number from {low} to {high}, {_got(value)}")
    return number


def _enum(field: Field, value: Any, path: str) -> Any:
    names = enum_names(field.cls)
    if isinstance(value, int) and not isinstance(value, bool):
        return field.cls(value)
    by_name = {name: number for number, name in names.items()} | {member.name: member.value for member in field.cls}
    if isinstance(value, str) and value.upper() in by_name:
        return field.cls(by_name[value.upper()])
    raise FieldError(f"{path}: expected one of {', '.join(names.values())}, {_got(value)}")


def _time(value: Any, path: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        known = time.tzinfo is not None and time.astimezone(UTC) is not None  # or of a year that UTC does not have
    except (TypeError, ValueError, OverflowError):
        known = False
    if not known:
        raise FieldError(f"{path}: expected a time such as 2026-01-31T12:00:00Z, {_got(value)}")
    return time


def _duration(value: Any, path: str) -> timedelta:
    try:
        return timedelta(seconds=float(value.removesuffix("s")))
    except (AttributeError, ValueError, OverflowError):
        raise FieldError(f"{path}: expected a duration such as 1.5s, {_got(value)}") from None


_SCALARS: Final[Mapping[str, Callable[[Field, Any, str], Any]]] = {
    "string": _text,
    "bool": _bool,
    "bytes": _bytes,
    "double": _number,
    "float": _number,
    "enum": _enum,
}
_WRAPPED: Final[Mapping[str, Callable[[Any, str], Any]]] = {"Timestamp": _time, "Duration": _duration}


def _got(value: Any) -> str:
    text = repr(value)
    return f"got {text if len(text) <= 60 else text[:57] + '...'}"
