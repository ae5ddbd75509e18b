"""What a tool is, as a setup keeps it: JSON that survives the way through a Struct."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, field_validator

from dk_trio.services.registry import ModuleInfo


class ToolDefinition(BaseModel):
    """One function of a tool: a trigger of its module.

    Attributes:
        name: The trigger's protocol.
        description: What it does, from the docstring of its input model.
        parameters_schema: JSON schema of its arguments: an object without references, unless it is recursive.
    """

    name: str
    description: str = ""
    parameters_schema: dict[str, Any] = Field(default_factory=dict)

    @field_validator("parameters_schema", mode="before")
    @classmethod
    def _whole_numbers(cls, schema: Any) -> Any:
        """A Struct makes `maxLength: 10` a double, and not every reader of schemas takes 10.0 for a length."""
        return _whole(schema)


class ToolModuleInfo(ModuleInfo):
    """A module with one of its setups, as a tool.

    Attributes:
        setup_id: The setup that its functions are called with.
        tool_name: Name of the setup.
        cost_config: What its calls cost: `{name: {name, type, description, unit, rate}}`.
        tools: Its functions.
    """

    setup_id: str
    tool_name: str = ""
    cost_config: dict[str, Any] = Field(default_factory=dict)
    tools: list[ToolDefinition] = Field(default_factory=list)


def _whole(node: Any) -> Any:
    if isinstance(node, float) and node.is_integer():
        return int(node)
    if isinstance(node, dict):
        return {key: _whole(value) for key, value in node.items()}
    return [_whole(item) for item in node] if isinstance(node, list) else node
