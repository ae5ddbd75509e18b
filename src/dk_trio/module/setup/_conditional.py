"""Fields that a form shows when another field has a certain value (reference, 2.9).

The JSON schema says so with `allOf` of `if`/`then`, as JSON Schema 2020-12 has it and react-jsonschema-form reads it.
It is a matter of the form: what validates an instance does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from dk_trio.errors import ModuleDefinitionError

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.fields import FieldInfo
    from pydantic_core import CoreSchema


@dataclass(frozen=True, kw_only=True)
class Conditional:
    """Marks a field that is shown when another has a certain value. Its model derives from `ConditionalSchemaMixin`.

        class Settings(ConditionalSchemaMixin, SetupModel):
            mode: Literal["fast", "exact"] = "fast"
            digits: Annotated[int, Conditional(trigger="mode", show_when="exact")] = 3

    Attributes:
        trigger: Name of the other field.
        show_when: Its value, or several.
        required_when_shown: Whether the form asks for the field when it shows it.
    """

    trigger: str
    show_when: bool | str | Sequence[str]
    required_when_shown: bool = True

    @property
    def values(self) -> tuple[bool | str, ...]:
        """The values of the trigger with which the field is shown."""
        return (self.show_when,) if isinstance(self.show_when, (bool, str)) else tuple(self.show_when)


ConditionalField = Conditional


def get_conditional_metadata(field_info: FieldInfo) -> Conditional | None:
    """The `Conditional` of a field, or None."""
    return next((item for item in field_info.metadata if isinstance(item, Conditional)), None)


def has_conditional(field_info: FieldInfo) -> bool:
    """Whether a field is `Conditional`."""
    return get_conditional_metadata(field_info) is not None


class ConditionalSchemaMixin(BaseModel):
    """Writes the `Conditional` fields of a model into its JSON schema.

    Raises:
        ModuleDefinitionError: When the class is defined: a trigger is no field of it, or `show_when` is empty.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            conditional = get_conditional_metadata(field)
            if conditional is None:
                continue
            if conditional.trigger not in cls.model_fields or conditional.trigger == name:
                raise ModuleDefinitionError(
                    f"{cls.__name__}.{name} is shown depending on {conditional.trigger!r}, which is no other field.",
                    hint=f"Let trigger= name one of {', '.join(other for other in cls.model_fields if other != name)}.",
                )
            if not conditional.values:
                raise ModuleDefinitionError(f"{cls.__name__}.{name} is never shown: its show_when is empty.")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> dict[str, Any]:
        schema = handler(core_schema)
        _move(cls, handler.resolve_ref_schema(schema))
        return schema


def _move(model: type[BaseModel], schema: dict[str, Any]) -> None:
    """Move conditional fields of an object's schema, in place, from `properties` into `allOf`."""
    properties: dict[str, Any] = schema.get("properties", {})
    allowed = list(properties)
    branches: dict[tuple[str, tuple[bool | str, ...]], dict[str, Any]] = {}
    for name, field in model.model_fields.items():
        conditional = get_conditional_metadata(field)
        if conditional is None:
            continue
        shown = _property(model, name, allowed)
        trigger = _property(model, conditional.trigger, allowed)
        if shown is None or trigger is None:  # a clean model without the trigger: nothing decides, so it is shown
            continue
        then = branches.setdefault((trigger, conditional.values), {"properties": {}})
        then["properties"][shown] = properties.pop(shown)
        if conditional.required_when_shown:
            then.setdefault("required", []).append(shown)
        if shown in schema.get("required", ()):
            schema["required"].remove(shown)
    if not branches:
        return
    if not schema.get("required", True):
        del schema["required"]
    if "additionalProperties" in schema and schema.pop("additionalProperties") is False:
        # It would refuse the moved ones, which it does not see; this says the same of names wherever they are declared.
        schema["propertyNames"] = {"enum": allowed}
    schema["allOf"] = [
        *schema.get("allOf", ()),
        *(
            {"if": {"properties": {trigger: _matching(values)}, "required": [trigger]}, "then": then}
            for (trigger, values), then in branches.items()
        ),
    ]


def _matching(values: tuple[bool | str, ...]) -> dict[str, Any]:
    return {"const": values[0]} if len(values) == 1 else {"enum": list(values)}


def _property(model: type[BaseModel], name: str, properties: Sequence[str]) -> str | None:
    """Under which name a field stands in the schema: by alias or not, for validation or serialization."""
    field = model.model_fields.get(name)
    if field is None:
        return None
    names = (field.validation_alias, field.serialization_alias, field.alias, name)
    return next((key for key in names if isinstance(key, str) and key in properties), None)
