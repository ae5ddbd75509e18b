"""The paths of refused fields: whoever sent the data can follow them through it, whatever types were tried."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator
from tests.module.sample import module_class

from dk_trio import DataModel, DataTrigger, SetupModel, TrioModule
from dk_trio.errors import InvalidInputError, InvalidSetupError
from dk_trio.module import ModuleDefinition, ToolReference, _validation
from dk_trio.module._cost_limits import parse_cost_limits


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    radius: int


class Square(BaseModel):
    kind: Literal["square"] = "square"
    side: int


class Draw(DataTrigger):
    protocol: Literal["draw"] = "draw"
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Circle(radius=1)
    shapes: list[Circle | Square] = []
    size: int | list[int] = 1
    named: dict[str, Circle] = {}


class Setup(SetupModel):
    tools: ToolReference = ToolReference()
    words: list[str] = []

    @field_validator("words", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [*value.split(), 1] if isinstance(value, str) else value


def definition() -> ModuleDefinition:
    async def run(self: Any, *_: Any) -> None: ...

    return ModuleDefinition.of(module_class(TrioModule[DataModel[Draw], DataModel[Draw], Setup], run=run))


@pytest.mark.parametrize(
    ("root", "fields"),
    [
        ({"shape": {"kind": "circle", "radius": "x"}}, ["shape.radius"]),
        ({"shape": {"kind": "circle"}}, ["shape.radius"]),
        ({"shape": {}}, ["shape"]),
        ({"shapes": [{"kind": "square", "side": 1}, {"kind": "circle", "radius": "y"}]}, ["shapes[1].radius"]),
        ({"size": ["a"]}, ["size", "size[0]"]),
        ({"named": {"größe": {"radius": "z"}}}, ["named.größe.radius"]),
        ({"named": {"0": {}}}, ["named.0.radius"]),
    ],
)
def test_a_path_leads_through_what_was_sent(root: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        definition().parse_input({"root": {"protocol": "draw", **root}})
    found = [violation.field for violation in caught.value.violations]
    assert set(fields) <= {field.removeprefix("input.root.") for field in found}
    assert not [field for field in found if "Circle" in field or "int" in field]
    assert f"root.{fields[0]}: " in caught.value.message


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"tools": [{"setupId": "setups:a", "triggers": {}}]}, "setup.tools[0].triggers"),
        ({"tools": [{"setup_id": 3, "triggers": {"a": True}}]}, "setup.tools[0].setup_id"),
        ({"words": "a b"}, "setup.words[2]"),  # of what the validator has made of it
    ],
)
def test_lists_are_written_with_brackets(content: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSetupError) as caught:
        definition().parse_setup(content, setup_id="setups:s")
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ([{"limit_type": "amount", "max_value": -1}], "[0].max_value"),
        ([{"limit_type": "amount", "max_value": 1}, {"limit_type": "quantity", "max_value": 1}], "[1]"),
        ([{"limit_type": "amount"}], "[0].max_value"),
        ([{"max_value": 1}], "[0]"),
        ({"max_value": 1}, ""),
    ],
)
def test_limits_are_named_as_they_were_sent(limits: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_cost_limits({"cost_limits": limits})
    assert [violation.field for violation in caught.value.violations] == [f"input.cost_limits{field}"]
    assert f"cost_limits{field}: " in caught.value.message


def test_of_many_errors_only_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of one megabyte may have 200,000 of them, and nobody else runs meanwhile."""
    looked = 0
    place = _validation._place

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal looked
        looked += 1
        return place(*args, **options)

    monkeypatch.setattr(_validation, "_place", counted)
    with pytest.raises(InvalidInputError) as caught:
        definition().parse_input({"root": {"protocol": "draw", "size": ["x"] * 20_000}})
    assert looked < 1000
    assert caught.value.message.endswith("; and 19996 more.")
    assert [violation.field for violation in caught.value.violations[:2]] == ["input.root.size", "input.root.size[0]"]
