"""What a tool is, as a setup keeps it: JSON that survives the way through a Struct."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from dk_trio.services.registry import ModuleInfo


class ToolDefinition(BaseModel):
    """One function of a tool: a trigger of its module.

    Attributes:
        name: The trigger's protocol.
        description: What it does, from the docstring of its input model.
        parameters_schema: JSON schema of its arguments: an object without references.
    """

    name: str
    description: str = ""
    parameters_schema: dict[str, Any] = Field(default_factory=dict)


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
