"""A model's schema as a language model reads it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from dk_trio.module._references import inline_refs
from dk_trio.module._subschemas import Schema, with_children
from dk_trio.module.setup import json_schema

_ORDER: Final = ("title", "description", "type", "properties", "required")  # as a person would tell it


def llm_ready_schema(model: type[BaseModel]) -> Schema:
    """The schema of a model without references, its keywords in the order in which they are read.

    Raises:
        ModuleDefinitionError: A field has no JSON schema.
    """
    return _ordered(inline_refs(json_schema(model)))


def _ordered(node: Schema) -> Schema:
    first: dict[str, Any] = {key: node[key] for key in _ORDER if key in node}
    return with_children({**first, **node}, _ordered)
