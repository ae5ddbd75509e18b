"""The shape of a JSON schema: where in it schemas stand, and where names and data.

A property may be called `$ref` or `ui:widget`, and a default may be any JSON at all, so a search for keywords that goes
through every dict finds what is none. Everything here that walks a schema asks this module for the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

Schema = dict[str, Any]

ONE: Final = frozenset(
    "items additionalProperties contains not if then else propertyNames unevaluatedProperties unevaluatedItems".split()
)
MANY: Final = frozenset("allOf anyOf oneOf prefixItems".split())
NAMED: Final = frozenset("properties patternProperties $defs definitions dependentSchemas".split())

_SCHEMAS: Final = ONE | MANY | NAMED
_LISTS: Final = frozenset({"enum", "examples"})


def children(schema: Schema) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """The schemas directly inside this one, each with its way: `("properties", "name")`, `("anyOf", "0")`."""
    for key, value in schema.items():
        if key in ONE and isinstance(value, dict):
            yield (key,), value
        elif key in MANY and isinstance(value, list):
            yield from (((key, str(at)), item) for at, item in enumerate(value) if isinstance(item, dict))
        elif key in NAMED and isinstance(value, dict):
            yield from (((key, name), item) for name, item in value.items() if isinstance(item, dict))


def with_children(schema: Schema, change: Callable[[Schema], Any]) -> Schema:
    """A copy whose direct subschemas are what `change` makes of them. Data such as a default is shared, not copied."""
    return {key: _changed(key, value, change) for key, value in schema.items()}


def is_json(value: Any) -> bool:
    """Whether every number in data has a place in JSON, and in the doubles of a Struct.

    A Struct takes infinities, but google.protobuf's callers refuse the whole message for one of them.
    """
    if isinstance(value, dict):
        return all(map(is_json, value.values()))
    if isinstance(value, list):
        return all(map(is_json, value))
    try:
        return not isinstance(value, (int, float)) or math.isfinite(value)
    except OverflowError:
        return False


def without_infinities(schema: Schema) -> Schema:
    """A copy without the keywords whose numbers are none of JSON's, such as an infinite default."""
    kept: Schema = {}
    for key, value in schema.items():
        if key in _SCHEMAS or is_json(value):
            kept[key] = value
        elif key in _LISTS and (rest := [item for item in value if is_json(item)]):
            kept[key] = rest
    return with_children(kept, without_infinities)


def _changed(key: str, value: Any, change: Callable[[Schema], Any]) -> Any:
    if key in ONE and isinstance(value, dict):
        return change(value)
    if key in MANY and isinstance(value, list):
        return [change(item) if isinstance(item, dict) else item for item in value]
    if key in NAMED and isinstance(value, dict):
        return {name: change(item) if isinstance(item, dict) else item for name, item in value.items()}
    return value
