"""Schemas without references, and schemas taken apart for forms."""

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, RootModel, create_model

from dk_trio.errors import ModuleDefinitionError
from dk_trio.module.schema import SchemaSplitter, inline_refs, llm_ready_schema, without_ui

from .valid import check, refuses


class Point(BaseModel):
    """Where."""

    x: int = Field(0, json_schema_extra={"ui:widget": "updown"})
    y: int = 0


class Shape(BaseModel):
    kind: Literal["shape"] = "shape"
    centre: Point = Field(Point(), description="Its middle", json_schema_extra={"ui:order": ["y", "x"]})
    corners: list[Point] = []
    named: dict[str, Point] = {}
    maybe: Point | None = None


class Node(BaseModel):
    kind: Literal["node"] = "node"
    value: Point = Point()
    children: list["Node"] = Field([], json_schema_extra={"ui:collapsed": True})


class Holder(BaseModel):
    root: Annotated[Shape | Node, Field(discriminator="kind")]


def refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for item in value.values() for ref in refs(item)]
    return [ref for item in value for ref in refs(item)] if isinstance(value, list) else []


SHAPE = {"centre": {"x": 1, "y": 2}, "corners": [{"x": 1}], "named": {"a": {"y": 1}}, "maybe": None, "kind": "shape"}


def test_references_are_replaced_and_what_stood_beside_them_stays() -> None:
    schema = check(inline_refs(Shape.model_json_schema()), SHAPE)
    assert not refs(schema)
    assert "$defs" not in schema
    centre = schema["properties"]["centre"]
    assert centre["description"] == "Its middle"
    assert centre["properties"]["x"]["type"] == "integer"
    assert refuses(schema, {"corners": [{"x": "one"}]})


def test_keywords_beside_a_reference_that_must_hold_as_well_do() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/A", "minimum": 1, "title": "Three"}},
        "$defs": {"A": {"type": "integer", "minimum": 3, "maximum": 9}},
    }
    inlined = check(inline_refs(schema), {"a": 3})
    assert refuses(inlined, {"a": 2})
    assert refuses(inlined, {"a": 10})


def test_a_recursive_model_keeps_the_definitions_of_its_cycles_only() -> None:
    instance = {"root": {"kind": "node", "children": [{"children": [], "value": {"x": 1}}]}}
    schema = check(inline_refs(Holder.model_json_schema()), instance)
    assert set(schema["$defs"]) == {"Node"}
    assert set(refs(schema)) == {"#/$defs/Node"}
    assert refuses(schema, {"root": {"kind": "node", "children": [{"value": {"x": "one"}}]}})


def test_a_recursive_root_shows_its_properties() -> None:
    schema = check(inline_refs(Node.model_json_schema()), {"children": [{"children": []}]})
    assert set(schema["properties"]) == {"kind", "value", "children"}
    assert refuses(schema, {"children": [{"children": [1]}]})


def test_models_that_refer_to_each_other() -> None:
    schema = {
        "$ref": "#/$defs/A",
        "$defs": {
            "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}, "c": {"$ref": "#/$defs/C"}}},
            "B": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}, "c": {"$ref": "#/$defs/C"}}},
            "C": {"type": "integer"},
        },
    }
    inlined = check(inline_refs(schema), {"b": {"a": {"c": 1}}})
    assert set(inlined["$defs"]) == {"A", "B"}
    assert refuses(inlined, {"b": {"a": {"c": "one"}}})


def test_the_mapping_of_a_discriminator_does_not_dangle() -> None:
    class One(BaseModel):
        kind: Literal["one"] = "one"

    class Two(BaseModel):
        kind: Literal["two"] = "two"

    class Either(RootModel[Annotated[One | Two, Field(discriminator="kind")]]):
        pass

    assert inline_refs(check(Either.model_json_schema()))["discriminator"] == {"propertyName": "kind"}


def test_names_and_data_are_not_taken_for_keywords() -> None:
    odd = {
        "properties": {
            "$ref": {"type": "string"},
            "ui:widget": {"type": "integer"},
            "data": {"default": {"$ref": "#/$defs/A", "ui:widget": "x"}, "type": "object"},
        },
        "$defs": {"A": {"type": "integer"}},
    }
    for schema in (inline_refs(odd), without_ui(odd), SchemaSplitter.split(odd)[0]):
        check(schema, {"$ref": "a", "ui:widget": 1})
        assert set(schema["properties"]) == {"$ref", "ui:widget", "data"}
        assert schema["properties"]["data"]["default"] == {"$ref": "#/$defs/A", "ui:widget": "x"}


def test_inlining_changes_nothing_in_place() -> None:
    schema = Holder.model_json_schema()
    inline_refs(schema)
    SchemaSplitter.split(schema)
    assert schema == Holder.model_json_schema()


def test_a_schema_for_a_language_model_is_in_the_order_of_reading() -> None:
    schema = check(llm_ready_schema(Shape), SHAPE)
    assert list(schema)[:3] == ["title", "type", "properties"]
    assert list(schema["properties"]["centre"])[:4] == ["title", "description", "type", "properties"]
    assert not refs(schema)


def test_ui_keywords_go_to_a_tree_of_their_own() -> None:
    schema, look = SchemaSplitter.split(Shape.model_json_schema())
    check(schema, SHAPE)
    assert "ui:" not in str(schema)
    assert look == {
        "centre": {"x": {"ui:widget": "updown"}, "ui:order": ["y", "x"]},
        "corners": {"items": {"x": {"ui:widget": "updown"}}},
        "named": {"additionalProperties": {"x": {"ui:widget": "updown"}}},
        "maybe": {"anyOf": [{"x": {"ui:widget": "updown"}}, {}]},
    }


def test_a_recursive_model_is_followed_once_around() -> None:
    schema, look = SchemaSplitter.split(Node.model_json_schema())
    check(schema)
    assert look["children"]["ui:collapsed"] is True
    assert "ui:" not in str(schema)


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_variants_have_a_list_when_one_of_them_looks_special(keyword: str) -> None:
    variants = [{"type": "string", "ui:widget": "textarea"}, {"type": "null"}]
    assert SchemaSplitter.split({"properties": {"a": {keyword: variants}}})[1] == {
        "a": {keyword: [{"ui:widget": "textarea"}, {}]}
    }
    assert SchemaSplitter.split({keyword: [{"type": "string"}, {"type": "null"}]})[1] == {}


def test_conditions_belong_to_the_property_itself() -> None:
    schema, look = SchemaSplitter.split(
        {
            "ui:title": "all",
            "properties": {"a": {"ui:widget": "hidden"}},
            "allOf": [
                {
                    "if": {"properties": {"a": {"const": 1}}},
                    "then": {"properties": {"b": {"type": "string", "ui:widget": "textarea"}}},
                    "else": {"properties": {"a": {"ui:help": "more"}}},
                }
            ],
        }
    )
    assert look == {
        "ui:title": "all",
        "a": {"ui:widget": "hidden", "ui:help": "more"},
        "b": {"ui:widget": "textarea"},
    }
    assert "ui:" not in str(check(schema))


def test_tuples_have_a_list_of_items() -> None:
    class Row(BaseModel):
        cells: tuple[int, Annotated[str, Field(json_schema_extra={"ui:widget": "textarea"})]]

    schema, look = SchemaSplitter.split(Row.model_json_schema())
    check(schema, {"cells": [1, "a"]})
    assert look == {"cells": {"items": [{}, {"ui:widget": "textarea"}]}}


def nested(levels: int, **extra: Any) -> type[BaseModel]:
    """Models that hold the one below twice: written out there are two to the power of `levels`."""
    model = create_model("Level0", value=(int, Field(1, json_schema_extra=extra)))
    for level in range(1, levels):
        model = create_model(f"Level{level}", left=(model, ...), right=(model, ...))
    return model


def instance_of(levels: int) -> dict[str, Any]:
    """Deep at one side; the other is shared, so that it stays small here."""
    instance: dict[str, Any] = {"value": 1}
    for _ in range(1, levels):
        instance = {"left": instance, "right": instance}
    return instance


def test_a_schema_that_would_be_too_large_without_references_keeps_some() -> None:
    schema = check(llm_ready_schema(nested(40)))
    assert len(json.dumps(schema)) < 200_000
    assert {ref.removeprefix("#/$defs/") for ref in refs(schema)} <= schema["$defs"].keys()
    assert "Level1" not in schema["$defs"]  # small ones are written out as ever
    assert "left" in schema["properties"]


def test_a_schema_that_keeps_references_because_of_its_size_means_the_same() -> None:
    schema = check(llm_ready_schema(nested(15)), instance_of(15))
    assert refs(schema)
    broken = instance_of(14)
    assert refuses(schema, {"left": broken, "right": {"left": broken}})


def test_what_a_recursive_model_holds_does_not_explode_either() -> None:
    tree = nested(40)
    again = create_model("Again", tree=(tree, ...), again=(list["Again"], []))  # noqa: F821  itself
    schema = check(llm_ready_schema(create_model("Top", first=(again, ...))))
    assert len(json.dumps(schema)) < 200_000


def test_a_large_schema_is_written_out_as_long_as_that_is_no_explosion() -> None:
    model = create_model("Wide", **{f"field{number}": (Point, ...) for number in range(1000)})
    schema = check(llm_ready_schema(model))
    assert not refs(schema)
    assert len(schema["properties"]) == 1000


def test_a_form_of_models_that_hold_each_other_in_many_ways_does_not_explode() -> None:
    for extra in ({}, {"ui:widget": "updown"}):
        schema = nested(40, **extra).model_json_schema()
        schema["properties"]["mine"] = {"type": "string", "ui:widget": "textarea"}
        json_schema, look = SchemaSplitter.split(schema)
        assert look == {"mine": {"ui:widget": "textarea"}}
        check(json_schema)


def test_a_form_of_models_that_all_hold_each_other_does_not_explode() -> None:
    names = [f"Node{number}" for number in range(12)]
    definitions = {
        name: {"properties": {f"to{other}": {"$ref": f"#/$defs/{other}"} for other in names}, "ui:collapsed": True}
        for name in names
    }
    _, look = SchemaSplitter.split({"$defs": definitions, **definitions[names[0]]})
    assert look == {"ui:collapsed": True}


def test_models_that_are_nested_deeper_than_pydantic_can_tell_are_named() -> None:
    model = create_model("Level0", value=(int, 1))
    for level in range(1, 200):
        model = create_model(f"Level{level}", inner=(model, ...))
    with pytest.raises(ModuleDefinitionError, match=r"Level199 .* nested too deep"):
        llm_ready_schema(model)
