"""From a module's input schema to the functions that it offers as a tool: pure functions over JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dk_trio.module._references import definitions_of, inline_refs, target
from dk_trio.module._subschemas import Schema, with_children
from dk_trio.module._utility import UTILITY_PROTOCOLS

from .models import ToolDefinition

# Of every trigger, and none of the caller's arguments.
_OWN_FIELDS: Final = ("protocol", "created_at")
_SYSTEM_PROTOCOLS: Final = UTILITY_PROTOCOLS | {"module_start_info", "end_of_stream"}


def tool_definitions(input_schema: Mapping[str, Any]) -> list[ToolDefinition]:
    """The functions of a module, in the order of its schema: one for each protocol that is not dk-trio's own.

    Args:
        input_schema: What GetModuleInput gave: with `$defs` or without, bare or as `{"json_schema": ...}`.
    """
    schema = input_schema.get("json_schema", input_schema)
    if not isinstance(schema, dict):
        return []
    defs = definitions_of(schema)
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


def _triggers(schema: Schema, defs: Mapping[str, Schema]) -> Iterator[Schema]:
    """The members of the root's union; where there is no root, every definition, as the existing SDK does."""
    properties = schema.get("properties")
    root = properties.get("root") if isinstance(properties, dict) else None
    if isinstance(root, dict):
        yield from _members(root, defs, depth=0)
    else:
        yield from defs.values()


def _members(node: Schema, defs: Mapping[str, Schema], *, depth: int) -> Iterator[Schema]:
    if depth > len(defs) + 1:  # references that lead in a circle, and nowhere
        return
    name = target(node, defs)
    if name is not None:
        yield from _members(defs[name], defs, depth=depth + 1)
        return
    # Beside properties these are conditions on a trigger's fields; pydantic before 2.9 wraps a reference in `allOf`.
    keys = () if "properties" in node else ("oneOf", "anyOf", "allOf")
    union = [member for key in keys for member in node.get(key) or () if isinstance(member, dict)]
    for member in union:
        yield from _members(member, defs, depth=depth + 1)
    if not union:
        yield node


def _protocols(trigger: Schema) -> list[str]:
    properties = trigger.get("properties")
    protocol = properties.get("protocol") if isinstance(properties, dict) else None
    if not isinstance(protocol, dict):
        return []
    values = [protocol["const"]] if "const" in protocol else protocol.get("enum") or []
    return [value for value in values if isinstance(value, str)]


def _parameters(trigger: Schema, defs: Mapping[str, Schema]) -> Schema:
    dropped = {"title", "description", "$defs", "properties", "required"}
    properties = {name: node for name, node in trigger["properties"].items() if name not in _OWN_FIELDS}
    schema = {
        **{key: value for key, value in trigger.items() if key not in dropped},
        "type": "object",
        "properties": properties,
        "required": [name for name in trigger.get("required") or () if name in properties],
    }
    return _undiscriminated(inline_refs({**schema, "$defs": defs}))


def _undiscriminated(schema: Schema) -> Schema:
    """Without the keyword of OpenAPI, which language models are not told of."""
    return with_children({key: value for key, value in schema.items() if key != "discriminator"}, _undiscriminated)
