"""The field of a form in which other modules are selected as tools.

    class Setup(SetupModel):
        tools: Annotated[ToolReference, ToolOptions(categories=["search"], max_tools=3)] = ToolReference()

Its JSON is a list of `{"setupId": "setups:...", "triggers": {"protocol": true, ...}}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    RootModel,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dk_trio.errors import ModuleDefinitionError
from dk_trio.services.communication import Communication, Metadata
from dk_trio.services.registry import Registry

from .cache import ToolCache
from .resolve import TIMEOUT, Wanted, resolve

TRIGGERS_MAX: Final = 100
"""Triggers of one selection, as in the existing SDK."""

_SELECTION: Final = {
    "type": "object",
    "properties": {
        "setupId": {"type": "string"},
        "triggers": {
            "type": "object",
            "additionalProperties": {"type": "boolean"},
            "minProperties": 1,
            "maxProperties": TRIGGERS_MAX,
        },
    },
    "required": ["setupId", "triggers"],
}


class ToolSelection(BaseModel):
    """One tool of a selection.

    Attributes:
        setup_id: The setup that it is called with; `setupId` in JSON.
        triggers: Which functions of it: those with true. One that is not there is not selected.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    setup_id: str = Field(alias="setupId")
    triggers: dict[str, bool] = Field(min_length=1, max_length=TRIGGERS_MAX)

    def wanted(self, path: str) -> Wanted:
        """The selection, and where it was made."""
        return Wanted(self.setup_id, path, dict(self.triggers))


class ToolReference(RootModel[list[ToolSelection]]):
    """The tools that a field selects: a list in JSON. `ToolReference(selected_tools=[...])` makes one too."""

    root: list[ToolSelection] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _list_of(cls, data: Any) -> Any:
        return data["selected_tools"] if isinstance(data, dict) and data.keys() == {"selected_tools"} else data

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return _schema()

    def __iter__(self) -> Iterator[ToolSelection]:  # type: ignore[override]  # pydantic's gives names and values
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    @property
    def selected_tools(self) -> list[ToolSelection]:
        """The selections, in order."""
        return self.root

    def wanted(self, path: str) -> list[Wanted]:
        """The selections, and where they were made."""
        return [selection.wanted(f"{path}[{index}]") for index, selection in enumerate(self.root)]

    async def resolve(
        self,
        registry: Registry,
        communication: Communication,
        *,
        timeout: float = TIMEOUT,
        metadata: Metadata | None = None,
    ) -> ToolCache:
        """The tools, found all at once; those that cannot be used are in `failures`.

        Args:
            registry: Where setups and modules are found.
            communication: Asks the modules for their schemas.
            timeout: Seconds for each tool.
            metadata: Sent with each call of a module.
        """
        wanted = self.wanted("tools")
        return await resolve(wanted, registry=registry, communication=communication, timeout=timeout, metadata=metadata)


class ToolOptions:
    """What may be selected in a field, as metadata of its type: the form that type checkers understand.

        tools: Annotated[ToolReference, ToolOptions(max_tools=5)] = ToolReference()

    The first four say what the widget offers, and are not enforced.

    Args:
        setup_ids: Setups to offer.
        module_ids: Modules whose setups to offer.
        tag_ids: Tags whose setups to offer.
        categories: Categories whose setups to offer.
        max_tools: How many may be selected; 0: as many as you like.
        min_tools: How many must be selected.

    Raises:
        ModuleDefinitionError: The numbers contradict each other.
    """

    def __init__(
        self,
        setup_ids: Sequence[str] = (),
        module_ids: Sequence[str] = (),
        tag_ids: Sequence[str] = (),
        categories: Sequence[str] = (),
        max_tools: int = 0,
        min_tools: int = 0,
    ) -> None:
        if min_tools < 0 or max_tools < 0 or (max_tools and max_tools < min_tools):
            raise ModuleDefinitionError(
                f"A field of tools has min_tools={min_tools} and max_tools={max_tools}.",
                hint="Neither may be negative, nor max_tools below min_tools; max_tools=0 is no limit.",
            )
        self._min_tools = min_tools
        self._max_tools = max_tools
        self._json = _schema(
            setupIds=list(setup_ids),
            moduleIds=list(module_ids),
            tagIds=list(tag_ids),
            categories=list(categories),
            showModules=bool(module_ids),
        )
        if min_tools:
            self._json["minItems"] = min_tools
        if max_tools:
            self._json["maxItems"] = max_tools

    def __repr__(self) -> str:
        return f"ToolOptions(max_tools={self._max_tools}, min_tools={self._min_tools})"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._count, handler(source))

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return self._json

    def _count(self, reference: ToolReference) -> ToolReference:
        selected = len(reference.root)
        if selected < self._min_tools:
            text = "at least {limit} tools must be selected, not {selected}"
            raise PydanticCustomError("too_few_tools", text, {"limit": self._min_tools, "selected": selected})
        if self._max_tools and selected > self._max_tools:
            text = "at most {limit} tools may be selected, not {selected}"
            raise PydanticCustomError("too_many_tools", text, {"limit": self._max_tools, "selected": selected})
        return reference


def tool_reference_input(
    setup_ids: Sequence[str] = (),
    module_ids: Sequence[str] = (),
    tag_ids: Sequence[str] = (),
    categories: Sequence[str] = (),
    max_tools: int = 0,
    min_tools: int = 0,
) -> Any:
    """The type of a field that selects tools, as the existing SDK writes it: see `ToolOptions` for the arguments.

    With `min_tools=0` the field is not required, and empty by default. Type checkers refuse a call in an annotation.

    Raises:
        ModuleDefinitionError: The numbers contradict each other.
    """
    options = ToolOptions(setup_ids, module_ids, tag_ids, categories, max_tools, min_tools)
    if min_tools:
        return Annotated[ToolReference, options]
    return Annotated[ToolReference, options, Field(default_factory=ToolReference)]


def _schema(**options: Any) -> dict[str, Any]:
    shown = {"setupIds": [], "moduleIds": [], "tagIds": [], "categories": [], "showModules": False, **options}
    return {"type": "array", "items": _SELECTION, "ui:widget": "toolSelect", "ui:options": shown}
