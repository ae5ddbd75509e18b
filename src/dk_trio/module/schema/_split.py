"""A schema for people taken apart into what is valid and what it looks like (reference, 2.10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dk_trio.module._subschemas import MANY, Schema, with_children

from ._inline import definitions_of, target


class SchemaSplitter:
    """Separates the `ui:` keywords of a schema from the others, for react-jsonschema-form."""

    @staticmethod
    def split(schema: Schema) -> tuple[Schema, Schema]:
        """The schema without `ui:` keywords, and a uiSchema: those keywords in a tree of property names.

        `items` and `additionalProperties` have branches of that name; `anyOf` and `oneOf` a list with one entry for
        each variant, when any of them has something. What `$ref`, `allOf` and `if`/`then`/`else` bring belongs to the
        property itself. A recursive model is followed once around.
        """
        return without_ui(schema), _look(schema, definitions_of(schema), frozenset())


def without_ui(schema: Schema) -> Schema:
    """A copy without `ui:` keywords, in definitions too. Properties of such names are no keywords."""
    kept = {key: value for key, value in schema.items() if not key.startswith("ui:")}
    return with_children(kept, without_ui)


def _look(node: Any, definitions: Mapping[str, Schema], seen: frozenset[str]) -> Schema:
    look: Schema = {}
    if not isinstance(node, dict):
        return look
    name = target(node, definitions)
    if name is not None and name not in seen:
        look = _look(definitions[name], definitions, seen | {name})
    for key, value in node.items():
        if key.startswith("ui:"):
            look[key] = value
        elif key == "properties":
            branches = {name: _look(child, definitions, seen) for name, child in value.items()}
            look = _merged(look, {name: branch for name, branch in branches.items() if branch})
        elif key in {"items", "additionalProperties"}:
            branch = _look(value, definitions, seen)
            look = _merged(look, {key: branch} if branch else {})
        elif key in {"if", "then", "else"}:
            look = _merged(look, _look(value, definitions, seen))
        elif key in MANY:
            variants = [_look(child, definitions, seen) for child in value]
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
