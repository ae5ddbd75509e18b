"""The documents of the schema RPCs: valid, true of what is on the wire, and the same shapes as callers know."""

import math
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from trio.testing import MockClock

from dk_trio.errors import ModuleDefinitionError
from dk_trio.module import DataModel, DataTrigger, EndOfStreamOutput, ModuleStartInfoOutput, SetupModel
from dk_trio.module._output import output_dict
from dk_trio.module._utility import UTILITY_INPUTS, UTILITY_OUTPUTS
from dk_trio.module.schema import (
    SelectSchema,
    config_setup_document,
    cost_document,
    input_document,
    output_document,
    secret_document,
    select_document,
    setup_document,
)
from dk_trio.module.setup import Dynamic, Fetches

from .test_refs_and_forms import refs
from .valid import check, refuses


class Options(BaseModel):
    loud: bool = Field(False, json_schema_extra={"ui:widget": "checkbox"})


class Say(DataTrigger):
    """Say it."""

    protocol: Literal["say"] = "say"
    text: str
    options: Options = Options()


class Sing(DataTrigger):
    protocol: Literal["sing"] = "sing"
    verses: list[Options] = Field([])


class Limit(BaseModel):
    name: str
    max_value: float


class Input(DataModel[Say | Sing]):
    """What it takes."""

    priority: int = 0


class Output(DataModel[Say]):
    took: Decimal = Decimal(1)


PING = {"root": {"protocol": "healthcheck_ping"}}
SAY = {"root": {"protocol": "say", "text": "a"}, "priority": 2, "cost_limits": [{"name": "tokens", "max_value": 1}]}


def test_inputs_take_what_every_module_takes_and_limits() -> None:
    schema = check(input_document(Input, UTILITY_INPUTS, cost_limit=Limit), SAY, PING, {**PING, "cost_limits": None})
    assert schema["title"] == "InputUtilities"
    assert schema["description"] == "What it takes."
    assert set(schema["properties"]) == {"root", "annotations", "priority", "cost_limits"}
    assert schema["properties"]["root"]["discriminator"]["propertyName"] == "protocol"
    assert refuses(schema, {"root": {"protocol": "other", "text": "a"}})
    assert refuses(schema, {"root": {"protocol": "say"}})
    assert refuses(schema, {**PING, "cost_limits": [{"name": "tokens"}]})


def test_an_inlined_input_has_no_references_and_keeps_its_triggers_for_callers_of_the_existing_sdk() -> None:
    document = input_document(Input, UTILITY_INPUTS, cost_limit=Limit, llm=True)
    schema = check(document["json_schema"], SAY, PING)
    assert list(document) == ["json_schema"]
    assert not refs(schema)
    assert "ui:" not in str(schema)
    say = schema["$defs"]["Say"]
    assert say["properties"]["protocol"]["const"] == "say"
    assert say["description"] == "Say it."
    assert say in schema["properties"]["root"]["oneOf"]
    assert set(schema["$defs"]) == {"Say", "Sing", *(model.__name__ for model in UTILITY_INPUTS)}
    assert refuses(schema, {"root": {"protocol": "say"}})


def test_outputs_are_what_is_on_the_wire() -> None:
    ids = {"job_id": "j", "mission_id": "m", "setup_id": "s", "setup_version_id": "v"}
    start = ModuleStartInfoOutput(**ids, module_id="x", module_name="y")
    sent = [output_dict(Output(root=Say(text="a"), took=Decimal("1.5"))), output_dict(DataModel(root=start))]
    sent += [output_dict(DataModel(root=EndOfStreamOutput()))]
    schema = check(output_document(Output, UTILITY_OUTPUTS), sent[0], *({**row, "took": "1"} for row in sent[1:]))
    assert schema["title"] == "OutputUtilities"
    assert set(schema["properties"]["root"]["discriminator"]["mapping"]) == {
        "say",
        "module_start_info",
        "end_of_stream",
        "healthcheck_ping",
        "healthcheck_services",
        "healthcheck_status",
    }
    inlined = check(output_document(Output, UTILITY_OUTPUTS, llm=True)["json_schema"], sent[0])
    assert not refs(inlined)
    assert "$defs" not in inlined


def test_a_root_that_cannot_be_discriminated_is_a_plain_union() -> None:
    class Untyped(DataTrigger):
        text: str = ""

    for model in (DataModel[Untyped], DataModel[Say | dict[str, int]], DataModel[Any]):
        schema = check(input_document(model, UTILITY_INPUTS), PING)
        assert "discriminator" not in str(schema)
    check(input_document(DataModel[Say | dict[str, int]], UTILITY_INPUTS), {"root": {"a": 1}})


def test_two_inputs_of_one_protocol() -> None:
    class SayNumber(DataTrigger):
        protocol: Literal["say"] = "say"
        number: int

    schema = check(
        input_document(DataModel[Say | SayNumber], UTILITY_INPUTS), {"root": {"protocol": "say", "number": 1}}
    )
    assert refuses(schema, {"root": {"protocol": "say"}})


def test_the_author_may_answer_a_health_check_in_another_way() -> None:
    class OwnPing(DataTrigger):
        protocol: Literal["healthcheck_ping"] = "healthcheck_ping"
        depth: int

    schema = check(input_document(DataModel[OwnPing], UTILITY_INPUTS), {**PING, "root": {**PING["root"], "depth": 1}})
    assert refuses(schema, PING)


def test_a_recursive_input() -> None:
    class Tree(DataTrigger):
        protocol: Literal["tree"] = "tree"
        trees: list["Tree"] = Field([])
        options: Options = Options()

    class Plant(DataTrigger):
        protocol: Literal["plant"] = "plant"
        tree: Tree = Tree()

    instances = [{"root": {"protocol": "tree", "trees": [{"trees": []}]}}, {"root": {"protocol": "plant"}}]
    schema = check(input_document(DataModel[Tree | Plant], UTILITY_INPUTS, llm=True)["json_schema"], *instances)
    assert set(refs(schema)) == {"#/$defs/Tree"}
    assert not any("$defs" in definition for definition in schema["$defs"].values())


def test_a_model_without_a_root_is_shown_as_it_is() -> None:
    assert check(input_document(Options, UTILITY_INPUTS))["title"] == "Options"


async def names() -> list[str]:
    return ["a", "b"]


class Setup(SetupModel):
    name: Annotated[str, Dynamic(enum=names, fresh_for=30)] = Field("a", json_schema_extra={"ui:widget": "radio"})
    options: Options = Options()
    form_only: int = Field(0, json_schema_extra={"config": True})
    job_only: int = Field(0, json_schema_extra={"ui:widget": "hidden"})


async def test_a_setup_is_what_jobs_run_with(autojump_clock: MockClock) -> None:
    document = await setup_document(Setup)
    schema = check(document.content, {"name": "b", "job_only": 1})
    assert set(schema["properties"]) == {"resolved_tools", "name", "options", "job_only"}
    assert schema["properties"]["name"]["enum"] == ["a", "b"]
    assert document.fresh_until == 30
    inlined = (await setup_document(Setup, llm=True)).content
    assert list(inlined) == ["json_schema"]
    assert not refs(check(inlined["json_schema"], {"name": "b"}))
    assert "ui:" not in str(inlined)


async def test_a_config_setup_is_the_form(autojump_clock: MockClock) -> None:
    schema = check((await config_setup_document(Setup)).content, {"name": "b", "form_only": 1})
    assert set(schema["properties"]) == {"name", "options", "form_only"}
    form = (await config_setup_document(Setup, llm=True)).content
    assert set(form) == {"json_schema", "ui_schema"}
    assert form["ui_schema"] == {
        "ui:order": ["name", "options", "form_only", "*"],
        "name": {"ui:widget": "radio"},
        "options": {"loud": {"ui:widget": "checkbox"}},
    }
    assert not refs(check(form["json_schema"], {"name": "b"}))
    assert "ui:" not in str(form["json_schema"])


async def test_both_share_what_is_fresh(autojump_clock: MockClock) -> None:
    calls = []

    async def counted() -> list[str]:
        calls.append(1)
        return ["a"]

    class Counted(SetupModel):
        name: Annotated[str, Dynamic(enum=counted, fresh_for=30)] = "a"

    fetches = Fetches()
    await setup_document(Counted, fetches=fetches)
    await config_setup_document(Counted, fetches=fetches)
    assert len(calls) == 1


async def test_a_setup_without_fetchers_is_fresh_for_ever() -> None:
    assert (await setup_document(SetupModel)).fresh_until == math.inf


def test_secrets_are_a_form() -> None:
    class Secret(BaseModel):
        key: str = Field("", json_schema_extra={"ui:widget": "password"})

    assert check(secret_document(Secret))["properties"]["key"]["ui:widget"] == "password"
    form = secret_document(Secret, llm=True)
    assert form["ui_schema"] == {"key": {"ui:widget": "password"}}
    check(form["json_schema"], {"key": "a"})


def test_costs_by_name() -> None:
    class Cost(BaseModel):
        name: str
        rate: float

    costs = {"tokens": {"name": "tokens", "rate": 0.5}}
    assert cost_document({"tokens": Cost(name="tokens", rate=0.5)}) == costs
    assert cost_document(costs, llm=True) == {"json_schema": {"costs": costs}, "ui_schema": {}}
    assert cost_document(None) == {}


def test_a_selection_has_a_checkbox_for_each_protocol() -> None:
    document = select_document(SelectSchema, {"say": "Say it.", "sing": ""})
    schema = check(document["json_schema"], {"say": True})
    assert schema["title"] == "Trigger Selection"
    assert schema["properties"]["say"] == {
        "type": "boolean",
        "title": "say",
        "description": "Say it.",
        "default": True,
    }
    assert schema["properties"]["sing"]["description"] == "sing"
    assert document["ui_schema"] == {"say": {"ui:widget": "checkbox"}, "sing": {"ui:widget": "checkbox"}}


def test_a_selection_of_the_authors_own() -> None:
    class Selection(SelectSchema):
        say: bool = True
        sing: bool = Field(False, json_schema_extra={"ui:widget": "select"})
        how_often: int = 1

    document = select_document(Selection, {"say": ""})
    check(document["json_schema"], {"say": True, "how_often": 2})
    assert document["ui_schema"] == {"say": {"ui:widget": "checkbox"}, "sing": {"ui:widget": "select"}}


def test_no_selection() -> None:
    assert select_document(SelectSchema, {}) == {}
    assert select_document(None, {"say": ""}) == {}


def test_what_cannot_be_described_is_named() -> None:
    class Opaque(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thing: MockClock | None = None

    with pytest.raises(ModuleDefinitionError, match="Opaque has no JSON schema"):
        secret_document(Opaque)


def test_a_bare_data_model_loses_nothing_of_its_trigger() -> None:
    assert output_dict(DataModel(root=Say(text="a")))["root"]["text"] == "a"
