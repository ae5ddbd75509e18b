"""Writes the source of a message class's ``decode(data, position, end, depth, into) -> message``.

The generated text has short names, as it is only read when something is wrong with it: ``d`` data, ``p`` position,
``e`` end of the message, ``s`` start of the field, ``t`` tag, ``n`` a length, ``q`` end of the value, ``x`` a raw
value, ``v<number>`` the value of a field, ``u`` pieces of unknown fields; in map entries ``f`` end, ``k`` key, ``y``
value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ._plan import FIXED_FORMATS, PACKABLE, VARINTS, Field, fields_of, wire_type
from ._primitives import MAX_DEPTH, Malformed, read_size, read_tag, read_varint, skip
from ._scalars import DECODERS, decode_enum, unpack_fixed, unpack_varints
from ._times import decode_duration, decode_timestamp

__all__ = ["Nested", "decoder_source"]

# A chain of more branches than this becomes a tree of comparisons.
_MAX_CHAIN = 4

_READ_VARINT = ["x = d[p]; p += 1", "if x > 127: x, p = varint(d, p - 1)"]


def _read_length(stop: str = "q", end: str = "e") -> list[str]:
    """Read a length and put the end of what it measures into `stop`."""
    return [
        "n = d[p]; p += 1",
        "if n > 127: n, p = size(d, p - 1)",
        f"{stop} = p + n",
        f"if {stop} > {end}: raise Malformed",
    ]


@dataclass(frozen=True, slots=True)
class Nested:
    """Stands in the names of a compiled function for the decoder of another message class."""

    cls: Any


def decoder_source(cls: type[Any], names: dict[str, Any]) -> str:
    """The source of ``decode``; what it refers to is added to `names`."""
    names.update(varint=read_varint, size=read_size, tag=read_tag, skip=skip, Malformed=Malformed)
    fields = fields_of(cls)
    branches: list[tuple[int, list[str]]] = []
    for field in fields:
        branches += _branches(field, fields, names)
    fresh = [f"v{field.number} = {_default(field, names)}" for field in fields]
    known = [f"v{field.number} = i[{field.name!r}]" for field in fields]
    content = ", ".join([f"{field.name!r}: v{field.number}" for field in fields] + ["'_unknown_fields': u"])
    unknown = ["p = skip(d, p, t, e, depth)", "if u is None: u = [d[s:p]]", "else: u.append(d[s:p])"]
    lines = [
        "def decode(d, p, e, depth, into):",
        f" if depth > {MAX_DEPTH}: raise Malformed",
        " u = None",
        " if into is None:",
        *("  " + line for line in fresh or ["pass"]),
        " else:",
        "  i = into.__dict__",
        "  if i['_unknown_fields']: u = [i['_unknown_fields']]",
        *("  " + line for line in known),
        " while p < e:",
        "  s = p",
        "  t = d[p]; p += 1",
        "  if t > 127: t, p = tag(d, s)",
        *("  " + line for line in _dispatch(sorted(branches), unknown)),
        " if p != e: raise Malformed",
        " u = b'' if u is None else b''.join(u)",
        " if into is None:",
        "  into = new(cls)",
        f"  into.__dict__ = {{{content}}}",
        " else:",
        f"  into.__dict__.update({{{content}}})",
        " return into",
        "",
    ]
    return "\n".join(lines)


def _dispatch(branches: list[tuple[int, list[str]]], otherwise: list[str]) -> list[str]:
    """Choose a branch by the tag in ``t``."""
    if len(branches) > _MAX_CHAIN:
        middle = len(branches) // 2
        return [
            f"if t < {branches[middle][0]}:",
            *(" " + line for line in _dispatch(branches[:middle], otherwise)),
            "else:",
            *(" " + line for line in _dispatch(branches[middle:], otherwise)),
        ]
    lines = []
    word = "if"
    for tag, body in branches:
        lines += [f"{word} t == {tag}:", *(" " + line for line in body)]
        word = "elif"
    if not branches:
        return otherwise
    return [*lines, "else:", *(" " + line for line in otherwise)]


def _default(field: Field, names: dict[str, Any]) -> str:
    if field.kind == "map":
        return "{}"
    if field.repeated:
        return "[]"
    if field.presence:
        return "None"
    if field.kind == "enum":
        names[f"Z{field.number}"] = field.cls(0)
        return f"Z{field.number}"
    return {"bool": "False", "double": "0.0", "float": "0.0", "string": "''", "bytes": "b''"}.get(field.kind, "0")


def _branches(field: Field, fields: Iterable[Field], names: dict[str, Any]) -> list[tuple[int, list[str]]]:
    """The tags of a field, each with the code that reads its value into ``v<number>``."""
    number, kind = field.number, field.kind
    target = f"v{number}"
    if kind == "map":
        return [(number << 3 | 2, _map_lines(field, names))]
    others = [f"v{x.number}" for x in fields if field.oneof and x.oneof == field.oneof and x is not field]
    clear = [" = ".join([*others, "None"])] if others else []
    into = "None" if field.repeated else target
    read, value = _read(field, names, str(number), into, "depth + 1")
    store = f"{target}.append({value})" if field.repeated else f"{target} = {value}"
    branches = [(number << 3 | wire_type(kind), [*clear, *read, store, *_after(field)])]
    if field.repeated and kind in PACKABLE:
        branches.append((number << 3 | 2, [*_read_length(), _packed_line(field, names), "p = q"]))
    return branches


def _read(
    field: Field, names: dict[str, Any], suffix: str, into: str, depth: str, end: str = "e"
) -> tuple[list[str], str]:
    """Code that reads one raw value, and the expression of the Python value.

    For length-delimited values ``p`` stays in front of the content, and ``q`` is its end.
    """
    kind = field.kind
    if kind == "string":
        return _read_length(end=end), "d[p:q].decode()"
    if kind == "bytes":
        return _read_length(end=end), "d[p:q]"
    if kind == "message":
        names[f"D{suffix}"] = _wrapped_decoder(field.wrapper) if field.wrapper else Nested(field.cls)
        return _read_length(end=end), f"D{suffix}(d, p, q, {depth}, {into})"
    if kind in VARINTS:
        return _READ_VARINT, _from_raw(field, names, suffix, "x")
    letter = FIXED_FORMATS[kind]
    names[f"F{letter}"] = struct.Struct("<" + letter).unpack_from
    return [f"x, = F{letter}(d, p); p += {struct.calcsize('<' + letter)}"], "x"


def _from_raw(field: Field, names: dict[str, Any], suffix: str, raw: str) -> str:
    """The expression that makes a value out of the raw number of a varint."""
    kind = field.kind
    if kind == "enum":
        names["enum"] = decode_enum
        names[f"N{suffix}"] = {int(member): member for member in field.cls}
        names[f"C{suffix}"] = field.cls
        return f"enum(N{suffix}, C{suffix}, {raw})"
    if kind == "bool":
        return f"{raw} != 0"
    if kind == "uint64":
        return raw
    names[kind] = DECODERS[kind]
    if kind in {"int32", "int64", "uint32"}:
        return f"{raw} if {raw} < 0x80000000 else {kind}({raw})"
    return f"{kind}({raw})"


def _packed_line(field: Field, names: dict[str, Any]) -> str:
    number, kind = field.number, field.kind
    if kind in FIXED_FORMATS:
        letter = FIXED_FORMATS[kind]
        names["unpack_fixed"] = unpack_fixed
        return f"v{number} += unpack_fixed({letter!r}, {struct.calcsize('<' + letter)}, d, p, q)"
    names["unpack_varints"] = unpack_varints
    if kind == "uint64":
        return f"v{number} += unpack_varints(d, p, q)"
    return f"v{number} += [{_from_raw(field, names, str(number), 'x')} for x in unpack_varints(d, p, q)]"


def _map_lines(field: Field, names: dict[str, Any]) -> list[str]:
    """An entry is a message of its own with the fields 1, key, and 2, value; a missing one has its default."""
    number = field.number
    assert field.key is not None
    assert field.value is not None
    key_tag, value_tag = 8 | wire_type(field.key.kind), 16 | wire_type(field.value.kind)
    if field.value.kind == "message":
        default, missing = "None", [f"if y is None: y = D{number}(d, p, p, depth + 2, None)"]
    elif field.value.kind == "enum":
        names[f"Z{number}"] = field.value.cls(0)
        default, missing = f"Z{number}", []
    else:
        default, missing = _default(field.value, names), []
    read_key, key = _read(field.key, names, f"{number}k", "None", "depth + 2", end="f")
    read_value, value = _read(field.value, names, str(number), "y", "depth + 2", end="f")
    entry = [
        "t = d[p]; p += 1",
        "if t > 127: t, p = tag(d, p - 1)",
        f"if t == {key_tag}:",
        *(" " + line for line in [*read_key, f"k = {key}", *_after(field.key)]),
        f"elif t == {value_tag}:",
        *(" " + line for line in [*read_value, f"y = {value}", *_after(field.value)]),
        "else: p = skip(d, p, t, f, depth + 1); odd = True",
    ]
    return [
        f"if depth > {MAX_DEPTH - 1}: raise Malformed",
        *_read_length("f"),
        f"k = {_default(field.key, names)}; y = {default}; odd = False",
        "while p < f:",
        *(" " + line for line in entry),
        "if p != f: raise Malformed",
        "if odd:",
        " if u is None: u = [d[s:p]]",
        " else: u.append(d[s:p])",
        "else:",
        *(" " + line for line in missing),
        f" v{number}[k] = y",
    ]


def _after(field: Field) -> list[str]:
    return ["p = q"] if wire_type(field.kind) == 2 else []


def _wrapped_decoder(wrapper: Any) -> Callable[[bytes, int, int, int, Any], Any]:
    """The decoder of a well-known message that Python sees as something simpler."""
    if wrapper.__name__ == "Timestamp":
        return decode_timestamp
    if wrapper.__name__ == "Duration":
        return decode_duration
    codec: Any = None

    def decode(data: bytes, position: int, end: int, depth: int, into: Any) -> Any:
        nonlocal codec
        if codec is None:
            from ._codec import codec_of

            codec = codec_of(wrapper)
        box = codec.decode(data, position, end, depth, None if into is None else wrapper.from_wrapped(into))
        return box.to_wrapped()

    return decode
