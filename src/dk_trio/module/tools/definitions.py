"""From a module's input schema to the functions that it offers as a tool: pure functions over JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dk_trio.module._utility import UTILITY_PROTOCOLS

from .models import ToolDefinition

# Of every trigger, and none of the caller's arguments.
_OWN_FIELDS: Final = ("protocol", "created_at")
_SYSTEM_PROTOCOLS: Final = UTILITY_PROTOCOLS | {"module_start_info", "end_of_stream"}
_REFERENCE: Final = "#/$defs/"


def tool_definitions(input_schema: Mapping[str, Any]) -> list[ToolDefinition]:
    """The functions of a module, in the order of its schema: one for each protocol that is not dk-trio's own.

    Args:
        input_schema: What GetModuleInput gave: with `$defs` or without, bare or as `{"json_schema": ...}`.
    """
    schema = input_schema.get("json_schema", input_schema)
    if not isinstance(schema, Mapping):
        return []
    defs = schema.get("$defs")
    defs = defs if isinstance(defs, Mapping) else {}
    definitions: dict[str, ToolDefinition] = {}
    for trigger in _triggers(schema, defs):
        for protocol in _protocols(trigger):
            if protocol not in _SYSTEM_PROTOCOLS and protocol not in definitions:
                definitions[protocol] = ToolDefinition(
                    name=protocol,
                    description=str(trigger.get("description", "")),
                    parameters_schema=_parameters(trigger, defs),
                )
    return list(definitions.values())


def _triggers(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The members of the root's union; where there is no root, every definition, as the existing SDK does."""
    properties = schema.get("properties")
    root = properties.get("root") if isinstance(properties, Mapping) else None
    if isinstance(root, Mapping):
        yield from _members(root, defs, depth=0)
    else:
        yield from (node for node in defs.values() if isinstance(node, Mapping))


def _members(node: Mapping[str, Any], defs: Mapping[str, Any], *, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth > len(defs) + 1:  # references that lead in a circle, and nowhere
        return
    target = _target(node, defs)
    if target is not None:
        yield from _members(target, defs, depth=depth + 1)
        return
    # Beside properties these are conditions on a trigger's fields; pydantic before 2.9 wraps a reference in `allOf`.
    keys = () if "properties" in node else ("oneOf", "anyOf", "allOf")
    union = [member for key in keys for member in node.get(key) or () if isinstance(member, Mapping)]
    for member in union:
        yield from _members(member, defs, depth=depth + 1)
    if not union:
        yield node


def _target(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    reference = node.get("$ref")
    if not isinstance(reference, str) or not reference.startswith(_REFERENCE):
        return None
    target = defs.get(reference.removeprefix(_REFERENCE))
    return target if isinstance(target, Mapping) else None


def _protocols(trigger: Mapping[str, Any]) -> list[str]:
    properties = trigger.get("properties")
    protocol = properties.get("protocol") if isinstance(properties, Mapping) else None
    if not isinstance(protocol, Mapping):
        return []
    values = [protocol["const"]] if "const" in protocol else protocol.get("enum") or []
    return [value for value in values if isinstance(value, str)]


def _parameters(trigger: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    dropped = {"title", "description", "$defs", "properties", "required"}
    properties = {name: node for name, node in trigger["properties"].items() if name not in _OWN_FIELDS}
    recursive: set[str] = set()
    schema: dict[str, Any] = {
        **{key: value for key, value in trigger.items() if key not in dropped},
        "type": "object",
        "properties": {name: _inlined(node, defs, (), recursive) for name, node in properties.items()},
        "required": [name for name in trigger.get("required") or () if name in properties],
    }
    if recursive:  # what contains itself cannot be written out
        kept: dict[str, Any] = {}
        while missing := recursive - kept.keys():
            for name in sorted(missing):
                kept[name] = _inlined(defs[name], defs, (name,), recursive)
        schema["$defs"] = kept
    return schema


def _inlined(node: Any, defs: Mapping[str, Any], inside: tuple[str, ...], recursive: set[str]) -> Any:
    """`node` with definitions in place of references to them; what stands beside a reference goes on top."""
    if isinstance(node, list):
        return [_inlined(item, defs, inside, recursive) for item in node]
    if not isinstance(node, Mapping):
        return node
    target = _target(node, defs)
    rest = {key: _inlined(value, defs, inside, recursive) for key, value in node.items() if key != "discriminator"}
    if target is None:
        return rest
    name = str(node["$ref"]).removeprefix(_REFERENCE)
    if name in inside:
        recursive.add(name)
        return rest
    del rest["$ref"]
    return {**_inlined(target, defs, (*inside, name), recursive), **rest}
