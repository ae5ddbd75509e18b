"""Conditional fields: shown when another field has a value, in a schema that is true of every instance."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from tests.schema.valid import check, refuses
from trio.testing import MockClock

from dk_trio.errors import ModuleDefinitionError
from dk_trio.module import SetupModel
from dk_trio.module.setup import (
    Conditional,
    ConditionalField,
    ConditionalSchemaMixin,
    Dynamic,
    clean_model,
    get_conditional_metadata,
    has_conditional,
)


class Nested(BaseModel):
    depth: int = 0


class Setup(ConditionalSchemaMixin, SetupModel):
    mode: Literal["fast", "exact", "custom"] = "fast"
    verbose: bool = False
    digits: Annotated[int, Conditional(trigger="mode", show_when="exact")]
    script: Annotated[str, Conditional(trigger="mode", show_when=["custom"])] = ""
    retries: Annotated[int, Conditional(trigger="mode", show_when=["exact", "custom"], required_when_shown=False)] = 0
    log: Annotated[str, Conditional(trigger="verbose", show_when=True)] = "stderr"
    nested: Annotated[Nested, Conditional(trigger="mode", show_when="custom")] = Nested()


FORM: Any = clean_model(Setup, config_fields=True, hidden_fields=False)


def test_conditional_fields_leave_the_properties() -> None:
    schema = check(FORM.model_json_schema())
    assert set(schema["properties"]) == {"mode", "verbose"}
    assert "required" not in schema
    assert schema["allOf"][0] == {
        "if": {"properties": {"mode": {"const": "exact"}}, "required": ["mode"]},
        "then": {"properties": {"digits": {"title": "Digits", "type": "integer"}}, "required": ["digits"]},
    }
    custom, either, verbose = schema["allOf"][1:]
    assert custom["if"]["properties"] == {"mode": {"const": "custom"}}
    assert set(custom["then"]["properties"]) == {"script", "nested"}
    assert either["if"]["properties"] == {"mode": {"enum": ["exact", "custom"]}}
    assert "required" not in either["then"]
    assert verbose["if"]["properties"] == {"verbose": {"const": True}}


def test_the_schema_asks_for_what_is_shown() -> None:
    schema = FORM.model_json_schema()
    assert refuses(schema, {"mode": "exact"})
    check(schema, {"mode": "fast"}, {}, {"mode": "exact", "digits": 3})
    assert refuses(schema, {"mode": "exact", "digits": "three"})
    assert refuses(schema, {"mode": "custom", "script": "", "nested": {"depth": "deep"}})


@pytest.mark.parametrize("mode", ["fast", "exact", "custom"])
def test_instances_meet_the_schema(mode: str) -> None:
    check(FORM.model_json_schema(), FORM(mode=mode, digits=1, verbose=True).model_dump(mode="json"))


def test_strict_models_refuse_other_names_and_no_others() -> None:
    class Strict(ConditionalSchemaMixin):
        model_config = ConfigDict(extra="forbid")
        on: bool = False
        level: Annotated[int, Conditional(trigger="on", show_when=True)] = 1

    schema = check(Strict.model_json_schema(), {"on": True, "level": 2}, {"on": False, "level": 2}, {})
    assert refuses(schema, {"on": True, "level": 2, "other": 1})


def test_aliases_are_the_names_in_the_schema() -> None:
    class Aliased(ConditionalSchemaMixin):
        switched_on: bool = Field(False, alias="switchedOn")
        level: Annotated[int, Conditional(trigger="switched_on", show_when=True)] = Field(1, alias="theLevel")

    schema = check(Aliased.model_json_schema(), {"switchedOn": True, "theLevel": 2})
    assert set(schema["properties"]) == {"switchedOn"}
    assert refuses(schema, {"switchedOn": True})
    by_name = check(Aliased.model_json_schema(by_alias=False))
    assert set(by_name["properties"]) == {"switched_on"}


def test_without_its_trigger_a_field_is_always_shown() -> None:
    class Split(ConditionalSchemaMixin, SetupModel):
        advanced: bool = Field(False, json_schema_extra={"config": True})
        level: Annotated[int, Conditional(trigger="advanced", show_when=True)] = 1

    runtime = clean_model(Split, config_fields=False, hidden_fields=True)
    schema = check(runtime.model_json_schema(), {"level": 2})
    assert "level" in schema["properties"]
    assert "allOf" not in schema


def test_nested_and_recursive_models_have_their_own_conditions() -> None:
    class Branch(ConditionalSchemaMixin):
        on: bool = False
        level: Annotated[int, Conditional(trigger="on", show_when=True)] = 1
        more: "list[Branch]" = Field([])

    class Outer(SetupModel):
        branch: Branch = Branch()

    schema = check(Outer.model_json_schema(), {"branch": {"on": True, "level": 1, "more": [{}]}})
    assert refuses(schema, {"branch": {"more": [{"on": True}]}})
    assert refuses(check(Branch.model_json_schema()), {"on": True})


async def test_a_field_may_be_dynamic_and_conditional(autojump_clock: MockClock) -> None:
    async def names() -> list[str]:
        return ["a"]

    class Both(SetupModel, ConditionalSchemaMixin):
        on: bool = False
        name: Annotated[str, Dynamic(enum=names), Conditional(trigger="on", show_when=True)] = "a"

    clean = await Both.get_clean_model(config_fields=True, hidden_fields=False, force=True)
    schema = check(clean.model_json_schema(), {"on": True, "name": "a"})
    assert refuses(schema, {"on": True, "name": "b"})


def test_a_condition_that_cannot_be_met_is_refused_when_it_is_written() -> None:
    with pytest.raises(ModuleDefinitionError, match=r"Wrong\.level is shown depending on 'off'") as caught:

        class Wrong(ConditionalSchemaMixin):
            on: bool = False
            level: Annotated[int, Conditional(trigger="off", show_when=True)] = 1

    assert caught.value.hint == "Let trigger= name one of on."
    with pytest.raises(ModuleDefinitionError, match="never shown"):

        class Never(ConditionalSchemaMixin):
            on: str = ""
            level: Annotated[int, Conditional(trigger="on", show_when=[])] = 1


def test_what_a_field_says_of_its_condition() -> None:
    assert has_conditional(Setup.model_fields["digits"])
    assert not has_conditional(Setup.model_fields["mode"])
    condition = get_conditional_metadata(Setup.model_fields["digits"])
    assert condition == ConditionalField(trigger="mode", show_when="exact", required_when_shown=True)
