"""The field of a form that selects tools: what it takes, what it gives back, and how it shows."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, ValidationError

from dk_trio.errors import ModuleDefinitionError
from dk_trio.module.tools import ToolReference, ToolSelection, tool_reference_input
from dk_trio.module.tools.build import selections

ONE = {"setupId": "setups:a", "triggers": {"search": True}}
OTHER = {"setupId": "setups:b", "triggers": {"fetch": False}}


class Form(BaseModel):
    tools: tool_reference_input(categories=["web"], max_tools=2)  # type: ignore[valid-type]


class Required(BaseModel):
    tools: tool_reference_input(["setups:a"], ["modules:m"], ["t"], min_tools=1)  # type: ignore[valid-type]


@pytest.mark.parametrize("given", [[ONE], [{"setup_id": "setups:a", "triggers": {"search": True}}]])
def test_both_names_of_the_setup_are_taken_and_one_is_given_back(given: list[dict[str, Any]]) -> None:
    form = Form.model_validate({"tools": given})
    assert form.tools.selected_tools == [ToolSelection(setup_id="setups:a", triggers={"search": True})]
    assert form.model_dump() == form.model_dump(mode="json") == {"tools": [ONE]}
    assert Form.model_validate(form.model_dump()) == form


def test_a_reference_is_taken_too() -> None:
    reference = ToolReference(selected_tools=[ToolSelection(setup_id="x", triggers={"a": True})])
    assert Form(tools=reference).tools is not None
    assert reference.selected_tools[0].setup_id == "x"
    assert ToolReference.model_validate({"selected_tools": [ONE]}).model_dump() == [ONE]
    assert ToolReference().selected_tools == []


def test_nothing_is_selected_by_default_unless_something_must_be() -> None:
    assert Form().tools.selected_tools == []
    with pytest.raises(ValidationError, match="Field required"):
        Required.model_validate({})


@pytest.mark.parametrize(
    ("model", "tools", "text"),
    [
        (Form, [ONE, OTHER, ONE], "at most 2 tools may be selected, not 3"),
        (Required, [], "at least 1 tools must be selected, not 0"),
    ],
)
def test_the_count_is_checked(model: type[BaseModel], tools: list[Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        model.model_validate({"tools": tools})


def test_a_bad_selection_is_named_by_its_place_in_the_form() -> None:
    with pytest.raises(ValidationError) as caught:
        Form.model_validate({"tools": [ONE, {"setupId": 5, "triggers": {}}]})
    assert [error["loc"] for error in caught.value.errors()] == [("tools", 1, "setupId"), ("tools", 1, "triggers")]


def test_the_schema_is_a_list_shown_as_a_selection_of_tools() -> None:
    schema = Required.model_json_schema()
    assert schema["required"] == ["tools"]
    field = schema["properties"]["tools"]
    assert field["type"] == "array"
    assert field["minItems"] == 1
    assert "maxItems" not in field
    assert field["ui:widget"] == "toolSelect"
    assert field["ui:options"] == {
        "setupIds": ["setups:a"],
        "moduleIds": ["modules:m"],
        "tagIds": ["t"],
        "categories": [],
        "showModules": True,
    }
    assert Form.model_json_schema()["properties"]["tools"]["ui:options"]["showModules"] is False
    assert "required" not in Form.model_json_schema()


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_is_valid_and_takes_what_the_model_takes(mode: Any) -> None:
    schema = Form.model_json_schema(mode=mode)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"tools": [ONE, OTHER]})
    assert not validator.is_valid({"tools": [ONE, OTHER, ONE]})
    assert not validator.is_valid({"tools": [{"setupId": "a", "triggers": {}}]})


def test_a_bare_reference_has_the_same_widget() -> None:
    class Bare(BaseModel):
        tools: ToolReference = Field(default_factory=ToolReference, description="Which?")

    schema = Bare.model_json_schema()
    Draft202012Validator.check_schema(schema)
    assert "toolSelect" in str(schema)
    assert Bare.model_validate({"tools": [ONE]}).model_dump() == {"tools": [ONE]}


@pytest.mark.parametrize("counts", [{"min_tools": -1}, {"max_tools": -1}, {"min_tools": 3, "max_tools": 2}])
def test_counts_that_contradict_each_other_are_the_authors_error(counts: dict[str, int]) -> None:
    with pytest.raises(ModuleDefinitionError, match="min_tools"):
        tool_reference_input(**counts)


def test_selections_are_found_wherever_they_are() -> None:
    class Inner(BaseModel):
        one: ToolSelection
        many: list[ToolReference] = []

    class Outer(BaseModel):
        inner: Inner = Field(alias="theInner")
        named: dict[str, ToolReference] = {}
        other: int = 5
        resolved_tools: dict[str, ToolReference] = {}

    reference = [ONE, OTHER]
    model = Outer.model_validate(
        {
            "theInner": {"one": ONE, "many": [[], reference]},
            "named": {"x": reference},
            "resolved_tools": {"no": reference},
        }
    )
    assert [(it.path, it.setup_id) for it in selections(model, "content")] == [
        ("content.theInner.one", "setups:a"),
        ("content.theInner.many[1][0]", "setups:a"),
        ("content.theInner.many[1][1]", "setups:b"),
        ("content.named.x[0]", "setups:a"),
        ("content.named.x[1]", "setups:b"),
    ]


def test_a_reference_is_read_like_a_list() -> None:
    reference = ToolReference.model_validate([{"setupId": "setups:a", "triggers": {"say": True}}])
    assert [selection.setup_id for selection in reference] == ["setups:a"]
    assert len(reference) == 1
    assert not ToolReference()
