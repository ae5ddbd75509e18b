"""AG-UI events as outputs: for each event class of the package a trigger with protocol `agui_<type>`.

The triggers are made from the package's classes, because versions of it have different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model, field_serializer
from pydantic_core import to_jsonable_python

from dk_trio.module._models import DataTrigger

from ._package import core

_JSON: Final = frozenset({str, int, float, bool, type(None)})


class AgUiOutput(DataTrigger):
    """An output that carries an AG-UI event, as AG-UI writes it: camelCase, and without what was not given.

    However the output is dumped, `event` is written so.

    Attributes:
        event: The event, an object of `ag_ui.core`.
    """

    model_config = ConfigDict(defer_build=True)

    event: core.BaseEvent

    @field_serializer("event")
    def _as_agui(self, event: core.BaseEvent) -> Any:
        return _wire(event)


def _wire(value: Any) -> Any:
    """JSON of an event. Only newer versions of the package leave out by themselves what was not given.

    `exclude_none` would not do: it also drops a null that is required, such as the value of a custom event.
    """
    if type(value) in _JSON:
        return value
    if isinstance(value, BaseModel):
        row = {}
        for name, field in type(value).model_fields.items():
            item = getattr(value, name)
            if item is not None or field.is_required() or field.default is not None:
                row[field.serialization_alias or field.alias or name] = _wire(item)
        row.update((name, _wire(item)) for name, item in (value.model_extra or {}).items())
        return row
    if isinstance(value, dict):
        return {str(key): _wire(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_wire(item) for item in value]
    return to_jsonable_python(value, by_alias=True)


def _event_classes() -> dict[str, type[core.BaseEvent]]:
    """The package's event classes by the value of their type, in its own order of types."""
    found = {}
    for name in vars(core):
        candidate = getattr(core, name)
        if isinstance(candidate, type) and issubclass(candidate, core.BaseEvent) and candidate is not core.BaseEvent:
            found[candidate.model_fields["type"].default.value] = candidate
    return {kind.value: found[kind.value] for kind in core.EventType}


def _output_class(kind: str, event: type[core.BaseEvent]) -> type[AgUiOutput]:
    protocol = f"agui_{kind.lower()}"
    literal: Any = Literal[protocol]
    return create_model(
        f"AgUi{event.__name__.removesuffix('Event')}Output",
        __base__=AgUiOutput,
        __module__=__name__,
        __doc__=f"The AG-UI event {kind} as an output.",
        protocol=(literal, protocol),
        event=(event, ...),
    )


OUTPUTS: Final[Mapping[str, type[AgUiOutput]]] = MappingProxyType(
    {kind: _output_class(kind, event) for kind, event in _event_classes().items()}
)
"""The output class of each type of event, by the type's value: `OUTPUTS["TEXT_MESSAGE_START"]`."""

AnyAgUiOutput: Any = Annotated[Union[tuple(OUTPUTS.values())], Field(discriminator="protocol")]  # noqa: UP007
"""Any of these outputs, for the root of an output format."""


def output_of(event: core.BaseEvent) -> AgUiOutput:
    """The output that carries this event; `context.send` takes it as it is."""
    kind: Any = OUTPUTS[event.type.value]
    output: AgUiOutput = kind(event=event)
    return output
