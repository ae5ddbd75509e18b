"""Schema documents: the JSON schema of a model, widened by the messages that every stream has (reference, 2.6)."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import BaseModel, Field, create_model

from ._formats import protocols, roots
from ._models import DataModel, EndOfStreamOutput, ModuleStartInfoOutput

_SYSTEM_OUTPUTS = (ModuleStartInfoOutput, EndOfStreamOutput)


def schema_with_system_outputs(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of `<name>Utilities`: the model's roots, `module_start_info` and `end_of_stream` as one union.

    The union is discriminated by `protocol` when every root has it as a `Literal`.
    """
    own = roots(model.model_fields["root"].annotation) if "root" in model.model_fields else ()
    members: tuple[type[BaseModel], ...] = (*own, *_SYSTEM_OUTPUTS)
    union: Any = Union[members]  # noqa: UP007 - the members are known at run time only
    if all(protocols(member) for member in members):
        union = Annotated[union, Field(discriminator="protocol")]
    return create_model(f"{model.__name__}Utilities", __base__=DataModel[union]).model_json_schema()


def llm_format(schema: dict[str, Any]) -> dict[str, Any]:
    """The shape that `llm_format=True` asks for: `{"json_schema": ...}`, without keys for user interfaces."""
    return {"json_schema": _without_ui(schema)}


def _without_ui(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_ui(value) for key, value in node.items() if not key.startswith("ui:")}
    if isinstance(node, list):
        return [_without_ui(item) for item in node]
    return node
