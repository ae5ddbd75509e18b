"""The validation rules of the wire contract, as plain Python checks.

A services-provider may enforce them; a module server never does, because clients that are in use break several of
them (bare job ids, empty queries, a limit of 0). The rules stand in the comments of the ``.proto`` files and reach this
module through the generated table ``_rules``. Their meaning is protovalidate's:

- A field with presence (``optional``, message, oneof member) that is not set is checked for ``required`` only.
- ``required`` on a field without presence means "not the default". When it fails, no other rule of the field is tried.
- All other fields are always checked, also at their default: ``min_len=1`` refuses a text that was never set.
- Messages inside of a message are checked by their own rules.

Source: https://protovalidate.com/reference/rules/
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import betterproto2

from ._plan import Field, fields_of
from ._rules import RULES
from .message_pool import default_message_pool

__all__ = ["Violation", "validate"]

Check = Callable[[Any], bool]

# An email address as a browser's input field accepts it:
# https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address
_EMAIL = re.compile(
    r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)
_CEL_SIZE = re.compile(r"this\.size\(\) >= (\d+)")
_CEL_STARTS_WITH = re.compile(r"this\.startsWith\('([^']*)'\)")


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that a message breaks.

    Attributes:
        field_path: from the validated message, e.g. ``"tasks[2].mission_id"`` or ``"results['a'].file"``.
        rule: name of the rule, e.g. ``"prefix"``; for elements of a list ``"each.prefix"``.
        message: what the rule asks for, in English.
        value: what was found.
    """

    field_path: str
    rule: str
    message: str
    value: Any

    def __str__(self) -> str:
        return f"{self.field_path}: {self.message}, got {self.value!r}"


def validate(message: betterproto2.Message) -> list[Violation]:
    """Every rule that a message or a message inside of it breaks, in the order of fields; empty when it is valid."""
    found: list[Violation] = []
    _validate(message, "", found)
    return found


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    asks: str
    check: Check


@dataclass(frozen=True, slots=True)
class _FieldRules:
    name: str
    presence: bool
    required: bool
    rules: tuple[_Rule, ...]
    each: tuple[_Rule, ...]
    # How to get from the field's value to messages inside: None, "one", "list" or "map".
    nested: str | None


_compiled: dict[type[Any], tuple[_FieldRules, ...]] = {}


def _validate(message: Any, prefix: str, found: list[Violation]) -> None:
    cls = type(message)
    fields = _compiled.get(cls)
    if fields is None:
        fields = _compiled[cls] = _compile(cls)
    for field in fields:
        value = getattr(message, field.name)
        if value is None if field.presence else field.required and not value:
            if field.required:
                found.append(Violation(prefix + field.name, "required", "must be set", value))
            continue
        for rule in field.rules:
            if not rule.check(value):
                found.append(  # noqa: PERF401  a comprehension makes a list of nothing for nearly every field
                    Violation(prefix + field.name, rule.name, rule.asks, value)
                )
        if field.each:
            for index, element in enumerate(value):
                found.extend(
                    Violation(f"{prefix}{field.name}[{index}]", rule.name, rule.asks, element)
                    for rule in field.each
                    if not rule.check(element)
                )
        if field.nested is not None:
            _validate_nested(field, value, prefix, found)


def _validate_nested(field: _FieldRules, value: Any, prefix: str, found: list[Violation]) -> None:
    if field.nested == "one":
        _validate(value, f"{prefix}{field.name}.", found)
        return
    pairs = enumerate(value) if field.nested == "list" else value.items()
    for key, inner in pairs:
        if inner is not None:
            _validate(inner, f"{prefix}{field.name}[{key!r}].", found)


def _compile(cls: type[Any]) -> tuple[_FieldRules, ...]:
    table = RULES.get(_full_name(cls), {})
    fields = []
    for field in fields_of(cls):
        compiled = _compile_field(field, dict(table.get(field.name, ())))
        if compiled.required or compiled.rules or compiled.each or compiled.nested:
            fields.append(compiled)
    return tuple(fields)


def _full_name(cls: type[Any]) -> str:
    for base in cls.__mro__:
        url = default_message_pool.type_to_url.get(base)
        if url is not None:
            return url.rpartition("/")[2]
    return ""


def _compile_field(field: Field, table: dict[str, Any]) -> _FieldRules:
    required = bool(table.pop("required", False))
    rules = tuple(_rule(name, table[name], field) for name in table if not name.startswith("each."))
    each = tuple(
        _rule(name, table[name], field, name.removeprefix("each.")) for name in table if name.startswith("each.")
    )
    inner = field.value if field.kind == "map" else field
    assert inner is not None
    nested = None
    # Timestamps and the like have become plain values, and a Struct has no rules inside.
    if inner.kind == "message" and inner.wrapper is None and inner.cls.__name__ != "Struct":
        nested = "map" if field.kind == "map" else "list" if field.repeated else "one"
    return _FieldRules(field.name, field.presence, required, rules, each, nested)


def _rule(name: str, argument: Any, field: Field, kind: str | None = None) -> _Rule:
    asks, check = _check(kind or name, argument, field)
    return _Rule(name, asks, check)


def _check(kind: str, argument: Any, field: Field) -> tuple[str, Check]:
    """What a rule asks for, in words and as a function."""
    if kind.startswith("cel."):
        kind, argument = _from_cel(argument)
    unit = "bytes" if field.kind == "bytes" else "characters"
    checks: dict[str, tuple[str, Check]] = {
        "required": ("must be set", lambda value: value is not None and value != ""),
        "min_len": (f"must have at least {argument} {unit}", lambda value: len(value) >= argument),
        "prefix": (f"must start with {argument!r}", lambda value: value.startswith(argument)),
        "email": ("must be an email address", lambda value: _EMAIL.fullmatch(value) is not None),
        "gt": (f"must be greater than {argument}", lambda value: value > argument),
        "gte": (f"must be at least {argument}", lambda value: value >= argument),
        "lte": (f"must be at most {argument}", lambda value: value <= argument),
        "in": (f"must be one of {argument}", lambda value: value in argument),
        "not_in": (f"must not be one of {argument}", lambda value: value not in argument),
        "defined_only": ("must be a value that the enum defines", lambda value: bool(field.cls(value).name)),
        "min_items": (f"must have at least {argument} elements", lambda value: len(value) >= argument),
    }
    if kind == "pattern":
        search = re.compile(_from_re2(argument)).search
        return f"must match {argument}", lambda value: search(value) is not None
    return checks[kind]


def _from_cel(expression: str) -> tuple[str, Any]:
    """The rule that a CEL expression of the contract amounts to. Only two shapes occur."""
    if match := _CEL_SIZE.fullmatch(expression):
        return "min_len", int(match[1])
    if match := _CEL_STARTS_WITH.fullmatch(expression):
        return "prefix", match[1]
    raise ValueError(f"no check for the CEL expression {expression!r}")


def _from_re2(pattern: str) -> str:
    r"""Python's pattern for one of RE2: there ``$`` is the very end of the text, which Python calls ``\Z``."""
    out = []
    in_class = escaped = False
    for letter in pattern:
        if letter == "$" and not in_class and not escaped:
            out.append(r"\Z")
            continue
        out.append(letter)
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == "[":
            in_class = True
        elif letter == "]":
            in_class = False
    return "".join(out)
