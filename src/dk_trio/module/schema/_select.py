"""The form in which a user selects the triggers of a module that may be called (reference, 2.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dk_trio.module.setup import json_schema

from ._split import SchemaSplitter


class SelectSchema(BaseModel):
    """A checkbox for each protocol of the module. A subclass with fields of its own is shown as it is."""

    @classmethod
    def build(cls, protocols: Mapping[str, str]) -> dict[str, Any]:
        """The form.

        Args:
            protocols: The module's protocols, without those that every module has, each with its description.

        Returns:
            `{"json_schema": ..., "ui_schema": ...}`, or `{}` when there is nothing to select.

        Raises:
            ModuleDefinitionError: A field of the subclass has no JSON schema.
        """
        if cls.model_fields:
            schema, look = SchemaSplitter.split(json_schema(cls))
        else:
            schema, look = _checkboxes(protocols), {}
        properties: dict[str, Any] = schema.get("properties", {})
        if not properties:
            return {}
        for name, declared in properties.items():
            if declared.get("type") == "boolean":
                look[name] = {"ui:widget": "checkbox", **look.get(name, {})}
        return {"json_schema": schema, "ui_schema": look}


def _checkboxes(protocols: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": "Trigger Selection",
        "type": "object",
        "properties": {
            name: {"type": "boolean", "title": name, "description": description or name, "default": True}
            for name, description in protocols.items()
        },
    }
