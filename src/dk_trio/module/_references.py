"""References inside a JSON schema: what they name, and schemas without them, for readers that do not resolve any."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from typing import Final

from ._subschemas import Schema, children, with_children

_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
_PREFIXES: Final = ("#/$defs/", "#/definitions/")
# Keywords that only tell: beside a reference they take the place of the target's, others must hold as well as its own.
_ANNOTATIONS: Final = frozenset("title description default examples deprecated readOnly writeOnly config".split())
# Subschemas of a schema without references: some 0.6 MB of JSON, more than any model reads. Models that hold others in
# several places double with each level, so beyond this, definitions of more than `_SMALL` stay references.
INLINED_MAX: Final = 10_000
_SMALL: Final = 100


def inline_refs(schema: Schema) -> Schema:
    """A copy with the definitions in place of the references to them. The keywords beside a `$ref` are kept.

    A recursive model has no end; references to it stay, and `$defs` holds the definitions on such cycles, nothing else.
    So it is with large definitions when the whole would have more than `INLINED_MAX` subschemas.
    At the root even these are written out, so that its `properties` can be seen.
    """
    root = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    every = definitions_of(schema)
    used = reachable(root, every)
    definitions = {name: definition for name, definition in every.items() if name in used}
    cyclic = {name for name, definition in definitions.items() if name in reachable(definition, definitions)}
    staying = cyclic | _too_large(root, definitions, cyclic)

    kept = {name: definitions[name] for name in definitions if name in staying}

    def inlined(node: Schema) -> Schema:
        name = target(node, definitions)
        if name is not None and name not in staying:
            return _joined(inlined(definitions[name]), with_children(_beside(node), inlined))
        return _without_dangling(with_children(node, inlined), kept)

    name = target(root, definitions)
    if name in staying:
        result = _joined(inlined(definitions[name]), with_children(_beside(root), inlined))
    else:
        result = inlined(root)
    if kept:
        result["$defs"] = {name: inlined(definition) for name, definition in kept.items()}
    return result


def definitions_of(schema: Schema) -> Mapping[str, Schema]:
    """The definitions that references of a schema may name, whoever has written it."""
    groups = (schema.get(key) for key in ("definitions", "$defs"))
    named = (item for group in groups if isinstance(group, dict) for item in group.items())
    return {name: definition for name, definition in named if isinstance(definition, dict)}


def target(node: Schema, definitions: Mapping[str, Schema]) -> str | None:
    """The name of the definition that a node refers to, or None."""
    ref = node.get("$ref")
    for prefix in _PREFIXES:
        if isinstance(ref, str) and ref.startswith(prefix):
            name = ref.removeprefix(prefix).replace("~1", "/").replace("~0", "~")  # RFC 6901
            return name if name in definitions else None
    return None


def reachable(schema: Schema, definitions: Mapping[str, Schema]) -> set[str]:
    """The definitions that this schema refers to, itself or through others."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        waiting += (child for _, child in children(node))
        other = target(node, definitions)
        if other is not None and other not in found:
            found.add(other)
            waiting.append(definitions[other])
    return found


def _too_large(schema: Schema, definitions: Mapping[str, Schema], cyclic: Collection[str]) -> set[str]:
    """The definitions that stay references because of the size of the whole; none when it is not too large."""
    whole: dict[str, int] = {}

    def size(node: Schema, limit: float) -> int:
        subschemas = 1 + sum(size(child, limit) for (key, *_), child in children(node) if key not in _DEFINITIONS)
        name = target(node, definitions)
        if name is None or name in cyclic:
            return subschemas
        if name not in whole:
            whole[name] = size(definitions[name], limit)
        return subschemas + (whole[name] if whole[name] <= limit else 0)

    written = [schema, *(definitions[name] for name in cyclic)]
    if sum(size(node, inf) for node in written) <= INLINED_MAX:
        return set()
    whole.clear()
    for node in written:
        size(node, _SMALL)
    return {name for name, subschemas in whole.items() if subschemas > _SMALL}


def _beside(node: Schema) -> Schema:
    return {key: value for key, value in node.items() if key != "$ref"}


def _joined(found: Schema, beside: Schema) -> Schema:
    clash = {
        key for key in found.keys() & beside.keys() if key not in _ANNOTATIONS and not key.startswith(("ui:", "x-"))
    }
    return {"allOf": [found], **beside} if clash else {**found, **beside}


def _without_dangling(node: Schema, kept: Mapping[str, Schema]) -> Schema:
    """Without a discriminator's mapping to definitions that are not there any more."""
    discriminator = node.get("discriminator")
    if isinstance(discriminator, dict):
        mapping = discriminator.get("mapping", {})
        if not all(target({"$ref": ref}, kept) for ref in mapping.values()):
            node["discriminator"] = {key: value for key, value in discriminator.items() if key != "mapping"}
    return node
