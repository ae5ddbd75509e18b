"""From an input schema to the functions of a tool, whatever the schema's shape."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from dk_trio.module import DataModel, DataTrigger
from dk_trio.module._utility import UTILITY_INPUTS
from dk_trio.module.tools import ToolDefinition, ToolModuleInfo, tool_definitions
from dk_trio.pb.google.protobuf import Struct


class Range(BaseModel):
    """From, to."""

    low: int = Field(ge=0)
    high: int = 10


class Search(DataTrigger):
    """Search the web."""

    protocol: Literal["search"] = "search"
    query: str = Field(max_length=100)
    within: Range = Field(description="Where.")


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Walk(DataTrigger):
    protocol: Literal["walk", "run"] = "walk"
    tree: Node


Ping = UTILITY_INPUTS[0]


class Several(DataModel[Search | Walk | Ping]):  # type: ignore[valid-type]
    pass


class Single(DataModel[Search]):
    pass


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """As `llm_format=True` gives it, for a schema that is not recursive."""

    def put(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return put(schema["$defs"][node["$ref"].removeprefix("#/$defs/")])
            return {key: put(value) for key, value in node.items() if key != "$defs"}
        return [put(item) for item in node] if isinstance(node, list) else node

    return {"json_schema": put(schema)}


def test_one_function_for_each_protocol_that_is_the_authors() -> None:
    definitions = tool_definitions(Several.model_json_schema())
    assert [(it.name, it.description) for it in definitions] == [
        ("search", "Search the web."),
        ("walk", ""),
        ("run", ""),
    ]


@pytest.mark.parametrize("schema", [Single.model_json_schema(), inlined(Single.model_json_schema())])
def test_parameters_are_the_fields_without_references(schema: dict[str, Any]) -> None:
    (definition,) = tool_definitions(schema)
    parameters = definition.parameters_schema
    Draft202012Validator.check_schema(parameters)
    assert "$ref" not in str(parameters)
    assert parameters["type"] == "object"
    assert list(parameters["properties"]) == ["query", "within"]
    assert parameters["required"] == ["query", "within"]
    assert parameters["properties"]["within"]["properties"]["low"]["minimum"] == 0
    validator = Draft202012Validator(parameters)
    assert validator.is_valid({"query": "a", "within": {"low": 1}})
    assert not validator.is_valid({"query": "a", "within": {"low": -1}})


def test_what_stands_beside_a_reference_is_kept() -> None:
    (definition,) = tool_definitions(Single.model_json_schema())
    assert definition.parameters_schema["properties"]["within"]["description"] == "Where."


def test_what_contains_itself_keeps_its_definition() -> None:
    walk = tool_definitions(Several.model_json_schema())[1].parameters_schema
    Draft202012Validator.check_schema(walk)
    assert list(walk["$defs"]) == ["Node"]
    validator = Draft202012Validator(walk)
    assert validator.is_valid({"tree": {"name": "a", "children": [{"name": "b", "children": []}]}})
    assert not validator.is_valid({"tree": {"name": "a", "children": [{"name": "b", "children": [{}]}]}})


def test_models_that_double_with_each_level_stay_references() -> None:
    """What another module describes in a few lines must not become gigabytes here."""
    defs: dict[str, Any] = {
        f"L{level}": {"properties": {name: {"$ref": f"#/$defs/L{level + 1}"} for name in ("a", "b")}}
        for level in range(40)
    }
    defs["L40"] = {"type": "string"}
    defs["T"] = {"properties": {"protocol": {"const": "t"}, "x": {"$ref": "#/$defs/L0"}}}
    (definition,) = tool_definitions({"properties": {"root": {"$ref": "#/$defs/T"}}, "$defs": defs})
    Draft202012Validator.check_schema(definition.parameters_schema)
    assert "T" not in definition.parameters_schema["$defs"]
    assert len(str(definition.parameters_schema)) < 1_000_000


def test_a_field_called_as_a_keyword_is_a_field() -> None:
    inner = {"type": "object", "properties": {"discriminator": {"type": "string"}, "$ref": {"type": "string"}}}
    trigger = {"properties": {"protocol": {"const": "t"}, "x": inner}}
    (definition,) = tool_definitions({"properties": {"root": trigger}})
    assert definition.parameters_schema["properties"]["x"] == inner


def test_without_a_root_every_definition_is_looked_at() -> None:
    defs = Several.model_json_schema()["$defs"]
    assert {it.name for it in tool_definitions({"$defs": defs})} == {"search", "walk", "run"}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"json_schema": None},
        {"properties": []},
        {"properties": {"root": {"$ref": "#/$defs/X"}}},
        {"properties": {"root": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"$ref": "#/$defs/X"}}},
        {"properties": {"root": {"oneOf": [5, {"properties": {"protocol": {"const": 7}}}]}}},
        {"$defs": {"A": 5}},
    ],
)
def test_a_schema_without_triggers_has_no_functions(schema: dict[str, Any]) -> None:
    assert tool_definitions(schema) == []


TRIGGER = {"type": "object", "properties": {"protocol": {"const": "a"}, "x": {}, "y": {}}}
EITHER = [{"required": ["x"]}, {"required": ["y"]}]


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_conditions_beside_the_fields_of_a_trigger_are_no_union(keyword: str) -> None:
    schema = {"$defs": {"A": {**TRIGGER, keyword: EITHER}}, "properties": {"root": {"$ref": "#/$defs/A"}}}
    [function] = tool_definitions(schema)
    assert (function.name, function.parameters_schema[keyword]) == ("a", EITHER)


def test_a_reference_may_be_wrapped_as_older_versions_of_pydantic_do() -> None:
    root = {"allOf": [{"$ref": "#/$defs/A"}], "description": "What to do."}
    [function] = tool_definitions({"$defs": {"A": TRIGGER}, "properties": {"root": root}})
    assert function.name == "a"


def test_a_tool_survives_the_way_through_a_struct() -> None:
    tool = ToolModuleInfo(
        module_id="modules:m",
        address="h",
        port=50055,
        setup_id="setups:s",
        tool_name="T",
        cost_config={"c": {"rate": 0.5}},
        tools=[ToolDefinition(name="a", parameters_schema={"properties": {"x": {"maxLength": 10, "minimum": 0.5}}})],
    )
    back = Struct.parse(bytes(Struct.from_dict(tool.model_dump(mode="json")))).to_dict()
    again = ToolModuleInfo.model_validate(back)
    assert again == tool
    assert type(again.tools[0].parameters_schema["properties"]["x"]["maxLength"]) is int
