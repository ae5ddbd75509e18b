"""Clean models: a setup class without the fields that one side must not see (reference, 2.7).

A clean model is a subclass of the author's class, so methods, properties, validators and `isinstance` work. Python can
not take a field away in a subclass, but pydantic asks the class for its core schema while it is built: there the
dropped fields are taken out, with everything that hangs on them (their validators, serializers and defaults). This is
pydantic's own way to change how a model validates; rebuilding a class from its fields loses whatever is no field.

A validator of the whole model may read a field that is not there: its rule cannot be told then, and it is skipped.
Other code that reads one gets an AttributeError that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar, cast

from pydantic import AliasChoices, BaseModel, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from dk_trio.errors import ModuleDefinitionError

ModelT = TypeVar("ModelT", bound=BaseModel)

_CLEANED = "__dk_clean_models__"
_ORIGIN = "__dk_clean_origin__"


class DroppedFieldError(AttributeError):
    """Code has read a field that this side of the setup does not have."""


class _Dropped:
    """Stands where a dropped field was, and says so."""

    def __init__(self, name: str, model: str, *, config: bool) -> None:
        self._text = f"{model}.{name} is " + (
            "a config field: it is there in the form only. Let run_config_setup copy what jobs need of it."
            if config
            else "a hidden field: it is there in jobs only, not in the form."
        )

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        raise DroppedFieldError(self._text)


def clean_model(model: type[ModelT], *, config_fields: bool, hidden_fields: bool) -> type[ModelT]:
    """The class with its config fields, with its hidden fields, with both or with neither.

    The same class each time; the author's own when nothing is dropped. A field that is both kinds is kept only where
    both are.

    Args:
        model: The author's class, or a clean model of it.
        config_fields: Keep fields with `json_schema_extra={"config": True}`.
        hidden_fields: Keep fields with `json_schema_extra={"ui:widget": "hidden"}`.

    Raises:
        ModuleDefinitionError: The class makes its own core schema, in which its fields are not found.
    """
    model = vars(model).get(_ORIGIN, model)
    # Kept by the class itself: a table elsewhere would keep every class alive that a test or a function has defined.
    cleaned: dict[tuple[bool, bool], type[ModelT]] | None = vars(model).get(_CLEANED)
    if cleaned is None:
        cleaned = {}
        setattr(model, _CLEANED, cleaned)
    sides = (config_fields, hidden_fields)
    if sides not in cleaned:
        dropped = dropped_fields(model, config_fields=config_fields, hidden_fields=hidden_fields)
        cleaned[sides] = derived(model, dropped, sides) if dropped else model
    return cleaned[sides]


def dropped_fields(model: type[BaseModel], *, config_fields: bool, hidden_fields: bool) -> dict[str, FieldInfo]:
    """The fields that this side does not have."""
    if not model.__pydantic_complete__:  # a forward reference, and what it names may be defined by now
        model.model_rebuild()
    return {
        name: field
        for name, field in model.model_fields.items()
        if (is_config(field) and not config_fields) or (is_hidden(field) and not hidden_fields)
    }


def is_config(field: FieldInfo) -> bool:
    """Whether a field is there in the form only."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("config"))


def is_hidden(field: FieldInfo) -> bool:
    """Whether a field is there in jobs only."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("ui:widget") == "hidden"


def derived(
    model: type[ModelT], dropped: Mapping[str, FieldInfo], sides: tuple[bool, bool], **attributes: Any
) -> type[ModelT]:
    """A subclass of the same name without some fields.

    Args:
        model: The author's class.
        dropped: The fields to take out.
        sides: Config fields, hidden fields: for unpickling.
        attributes: Class attributes to add.
    """
    authors = cast("Any", model.__get_pydantic_core_schema__).__func__
    pydantics = cast("Any", BaseModel.__get_pydantic_core_schema__).__func__  # deprecated to call; it asks the handler

    def get_core_schema(cls: type[BaseModel], source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = handler(source) if authors is pydantics else authors(cls, source, handler)
        _take_out(schema, dropped, handler, model)
        return schema

    def reduce(self: BaseModel) -> tuple[Any, ...]:
        return _restored, (model, sides, self.__getstate__())

    namespace = {
        "__module__": model.__module__,
        "__qualname__": model.__qualname__,
        "__doc__": model.__doc__,
        "__get_pydantic_core_schema__": classmethod(get_core_schema),
        "__reduce__": reduce,  # the name in its module is that of the author's class
        _ORIGIN: model,
        **attributes,
    }
    made: type[ModelT] = cast("Any", type(model))(model.__name__, (model,), namespace)
    for name, field in dropped.items():
        del made.__pydantic_fields__[name]
        setattr(made, name, _Dropped(name, model.__name__, config=is_config(field)))
    return made


def _restored(model: type[BaseModel], sides: tuple[bool, bool], state: Any) -> BaseModel:
    made = clean_model(model, config_fields=sides[0], hidden_fields=sides[1])
    instance = made.__new__(made)
    instance.__setstate__(state)
    return instance


def _take_out(
    schema: Any, dropped: Mapping[str, FieldInfo], handler: GetCoreSchemaHandler, model: type[BaseModel]
) -> None:
    """Change the core schema of a model in place, which pydantic may have stored under a reference already."""
    node: Any = handler.resolve_ref_schema(schema)
    config: Mapping[str, Any] = {}
    while node["type"] != "model-fields":
        if node["type"] in {"function-after", "function-wrap"}:
            node["function"] = {**node["function"], "function": _lenient(node["type"], node["function"]["function"])}
        if node["type"] == "model":
            config = node.get("config", {})
        if "schema" not in node:
            _not_found(model)
        parent, node = node, handler.resolve_ref_schema(node["schema"])
    for name in dropped:
        node["fields"].pop(name, None)
    if config.get("extra_fields_behavior") in {"allow", "forbid"}:
        # What was stored with the other side's fields is neither an error nor an extra.
        parent["schema"] = core_schema.no_info_before_validator_function(_without(_keys(dropped)), node)


def _not_found(model: type[BaseModel]) -> NoReturn:
    raise ModuleDefinitionError(
        f"The fields of {model.__name__} are not found in the core schema that it makes for itself.",
        hint="Use pydantic's validators and serializers in a setup, not a core schema of your own.",
    )


def _lenient(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A validator of the whole model, as if it were not there when it reads a dropped field."""

    def after(value: Any, *info: Any) -> Any:
        try:
            return function(value, *info)
        except DroppedFieldError:
            return value

    def wrap(value: Any, proceed: Callable[[Any], Any], *info: Any) -> Any:
        try:
            return function(value, proceed, *info)
        except DroppedFieldError:
            return proceed(value)

    return after if kind == "function-after" else wrap


def _keys(dropped: Mapping[str, FieldInfo]) -> frozenset[str]:
    keys: set[Any] = set()
    for name, field in dropped.items():
        alias = field.validation_alias
        keys |= {name, field.alias, *(alias.choices if isinstance(alias, AliasChoices) else (alias,))}
    return frozenset(key for key in keys if isinstance(key, str))


def _without(keys: Iterable[str]) -> Callable[[Any], Any]:
    unwanted = frozenset(keys)

    def strip(data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if key not in unwanted}
        return data

    return strip
