"""A schema for people taken apart into what is valid and what it looks like (reference, 2.10)."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from dk_trio.module._references import INLINED_MAX, definitions_of, reachable, target
from dk_trio.module._subschemas import MANY, Schema, children, with_children


class SchemaSplitter:
    """Separates the `ui:` keywords of a schema from the others, for react-jsonschema-form."""

    @staticmethod
    def split(schema: Schema) -> tuple[Schema, Schema]:
        """The schema without `ui:` keywords, and a uiSchema: those keywords in a tree of property names.

        `items` and `additionalProperties` have branches of that name; `anyOf` and `oneOf` a list with one entry for
        each variant, when any of them has something. What `$ref`, `allOf` and `if`/`then`/`else` bring belongs to the
        property itself. A recursive model is followed once around. A form for which that would be more than
        `INLINED_MAX` subschemas gets the keywords that stand outside of definitions.
        """
        definitions = definitions_of(schema)
        looking = {name for name, definition in definitions.items() if _has_look(definition)}
        followed = {
            name: definition
            for name, definition in definitions.items()
            if name in looking or not looking.isdisjoint(reachable(definition, definitions))
        }
        try:
            look = _Looks(followed).of(schema)
        except _TooLargeError:
            look = _Looks({}).of(schema)
        return without_ui(schema), look


def without_ui(schema: Schema) -> Schema:
    """A copy without `ui:` keywords, in definitions too. Properties of such names are no keywords."""
    kept = {key: value for key, value in schema.items() if not key.startswith("ui:")}
    return with_children(kept, without_ui)


def _has_look(schema: Schema) -> bool:
    return any(key.startswith("ui:") for key in schema) or any(_has_look(child) for _, child in children(schema))


class _TooLargeError(Exception):
    """Written out there are more than `INLINED_MAX` subschemas."""


class _Looks:
    """Collects the `ui:` keywords of one schema.

    Args:
        definitions: What references are followed to.
    """

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._room = INLINED_MAX if definitions else inf

    def of(self, node: Any, seen: frozenset[str] = frozenset()) -> Schema:
        look: Schema = {}
        if not isinstance(node, dict):
            return look
        self._room -= 1
        if self._room < 0:
            raise _TooLargeError
        name = target(node, self._definitions)
        if name is not None and name not in seen:
            look = self.of(self._definitions[name], seen | {name})
        for key, value in node.items():
            if key.startswith("ui:"):
                look[key] = value
            elif key == "properties":
                branches = {name: self.of(child, seen) for name, child in value.items()}
                look = _merged(look, {name: branch for name, branch in branches.items() if branch})
            elif key in {"items", "additionalProperties"}:
                branch = self.of(value, seen)
                look = _merged(look, {key: branch} if branch else {})
            elif key in {"if", "then", "else"}:
                look = _merged(look, self.of(value, seen))
            elif key in MANY:
                variants = [self.of(child, seen) for child in value]
                if key == "allOf":
                    for variant in variants:
                        look = _merged(look, variant)
                elif any(variants):
                    look["items" if key == "prefixItems" else key] = variants
        return look


def _merged(one: Schema, other: Schema) -> Schema:
    """Both trees; where they say different things, the other's."""
    merged = dict(one)
    for key, value in other.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def in_order(schema: Schema, look: Schema) -> Schema:
    """The uiSchema with `ui:order` wherever an object has several fields: in the order of the author's model.

    A Struct is a map, and most languages forget the order of its keys on the way to the browser. Fields that appear
    only when another has a value come after that one. An order that the author has given stays.

    Args:
        schema: Without references.
        look: What `SchemaSplitter.split` has made of it.
    """
    look = dict(look)
    properties: Schema = schema.get("properties", {})
    names = _names(schema, properties)
    if len(names) > 1 and "ui:order" not in look:
        look["ui:order"] = [*names, "*"]  # the star stands for fields that are not known here, or forms are refused
    for key, child in (*properties.items(), ("items", schema.get("items"))):
        if isinstance(child, dict) and (branch := in_order(child, look.get(key, {}))):
            look[key] = branch
    return look


def _names(schema: Schema, properties: Schema) -> list[str]:
    names = list(properties)
    for rule in reversed(schema.get("allOf", ())):
        if not isinstance(rule, dict):
            continue
        shown = [name for name in rule.get("then", {}).get("properties", {}) if name not in names]
        triggers = [name for name in rule.get("if", {}).get("properties", {}) if name in names]
        after = max(map(names.index, triggers), default=-1)
        names[after + 1 : after + 1] = shown
    return names
