"""The documents that the schema RPCs answer with: dicts of JSON values (reference, 2.6 and 3.4).

With `llm` a document is `{"json_schema": ...}`, for forms with a `ui_schema` beside it, and has no references (except
where a model is recursive).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from dk_trio.module._models import EndOfStreamOutput, ModuleStartInfoOutput
from dk_trio.module._references import definitions_of, inline_refs, target
from dk_trio.module._subschemas import Schema
from dk_trio.module.setup import Fetches, clean_model, json_schema, template_of

from ._extended import extended_model
from ._select import SelectSchema
from ._split import SchemaSplitter, in_order, without_ui


class Document(NamedTuple):
    """A document, and until when on Trio's clock it may be used again: `math.inf` when nothing in it was fetched."""

    content: dict[str, Any]
    fresh_until: float = math.inf


def input_document(
    model: type[BaseModel],
    utilities: Sequence[type[BaseModel]] = (),
    *,
    cost_limit: type[BaseModel] | None = None,
    llm: bool = False,
) -> dict[str, Any]:
    """What a module takes.

    The `llm` one keeps the definitions of the triggers although nothing refers to them: there callers with the existing
    SDK look for the functions of a tool (reference, 2.12).

    Args:
        model: The module's input format.
        utilities: Triggers that every module takes.
        cost_limit: What a caller may limit costs with.
        llm: Without references.

    Raises:
        ModuleDefinitionError: A field has no JSON schema.
    """
    schema = json_schema(extended_model(model, utilities, cost_limit=cost_limit))
    if not llm:
        return schema
    document = _plain(schema)
    definitions = definitions_of(schema)
    triggers = {name: _plain({"$ref": f"#/$defs/{name}", "$defs": definitions}) for name in _triggers(schema)}
    if triggers:
        document["$defs"] = {**triggers, **document.get("$defs", {})}
        for trigger in triggers.values():
            trigger.pop("$defs", None)
    return {"json_schema": document}


def output_document(
    model: type[BaseModel], utilities: Sequence[type[BaseModel]] = (), *, llm: bool = False
) -> dict[str, Any]:
    """What a module sends: its outputs, `module_start_info`, `end_of_stream` and what the utilities send.

    It describes what is on the wire: the serialized form, under the names that it has there.

    Raises:
        ModuleDefinitionError: A field has no JSON schema.
    """
    extended = extended_model(model, (ModuleStartInfoOutput, EndOfStreamOutput, *utilities))
    by_alias = bool(model.model_config.get("serialize_by_alias"))
    schema = json_schema(extended, mode="serialization", by_alias=by_alias)
    return {"json_schema": _plain(schema)} if llm else schema


async def setup_document(model: type[BaseModel], *, fetches: Fetches | None = None, llm: bool = False) -> Document:
    """What jobs run with: the setup without config fields, with hidden ones, and with the values of its fetchers.

    Args:
        model: The module's setup format.
        fetches: Whose timeout holds, and whose fresh values are used again.
        llm: Without references.

    Raises:
        ModuleDefinitionError: A field has no JSON schema.
        trio.Cancelled: A surrounding scope was cancelled.
    """
    schema, fresh_until = await _fetched(model, fetches, config_fields=False, hidden_fields=True)
    return Document({"json_schema": _plain(schema)} if llm else schema, fresh_until)


async def config_setup_document(
    model: type[BaseModel], *, fetches: Fetches | None = None, llm: bool = False
) -> Document:
    """The form: the setup with config fields, without hidden ones, and with the values of its fetchers.

    Arguments and errors are those of `setup_document`.
    """
    schema, fresh_until = await _fetched(model, fetches, config_fields=True, hidden_fields=False)
    return Document(_form(schema) if llm else schema, fresh_until)


def secret_document(model: type[BaseModel], *, llm: bool = False) -> dict[str, Any]:
    """The form for a module's secrets.

    Raises:
        ModuleDefinitionError: A field has no JSON schema.
    """
    schema = json_schema(model)
    return _form(schema) if llm else schema


def cost_document(config: Mapping[str, Any] | None, *, llm: bool = False) -> dict[str, Any]:
    """What a module charges: `{name: {name, type, description, unit, rate}}`; empty when it charges nothing.

    Args:
        config: By name, models or dicts.
        llm: As `{"json_schema": {"costs": ...}, "ui_schema": {}}`.
    """
    costs = {
        name: cost.model_dump(mode="json") if isinstance(cost, BaseModel) else dict(cost)
        for name, cost in (config or {}).items()
    }
    return {"json_schema": {"costs": costs}, "ui_schema": {}} if llm else costs


def select_document(select_format: type[SelectSchema] | None, protocols: Mapping[str, str]) -> dict[str, Any]:
    """The form for the selection of triggers, see `SelectSchema.build`; empty when the module has switched it off.

    Raises:
        ModuleDefinitionError: A field has no JSON schema.
    """
    return select_format.build(protocols) if select_format is not None else {}


async def _fetched(
    model: type[BaseModel], fetches: Fetches | None, *, config_fields: bool, hidden_fields: bool
) -> tuple[Schema, float]:
    template = template_of(clean_model(model, config_fields=config_fields, hidden_fields=hidden_fields))
    results, fresh_until = await (fetches or Fetches()).of(template)
    return template.filled(results), fresh_until


def _form(schema: Schema) -> dict[str, Any]:
    json, look = SchemaSplitter.split(schema)
    json = inline_refs(json)
    return {"json_schema": json, "ui_schema": in_order(json, look)}


def _plain(schema: Schema) -> Schema:
    return inline_refs(without_ui(schema))


def _triggers(schema: Schema) -> list[str]:
    """The definitions that may stand as root."""
    definitions = definitions_of(schema)
    root = schema.get("properties", {}).get("root", {})
    members = root.get("oneOf") or root.get("anyOf") or [root]
    return [name for member in members if (name := target(member, definitions)) is not None]
