"""The fields of a form stand in the order of the author's model, whatever becomes of the order of keys on the way."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from dk_trio.module import Conditional, ConditionalSchemaMixin, SetupModel
from dk_trio.module.schema import config_setup_document


class Part(BaseModel):
    width: int = 1
    height: int = 1


class Form(ConditionalSchemaMixin, SetupModel):
    first: str = ""
    glossary: bool = False
    terms: Annotated[str, Conditional(trigger="glossary", show_when=True)] = ""
    language: Annotated[str, Conditional(trigger="glossary", show_when=True)] = ""
    parts: list[Part] = []
    single: Part = Part()
    last: str = ""


class Ordered(SetupModel):
    model_config = {"json_schema_extra": {"ui:order": ["b", "a"]}}

    a: str = ""
    b: str = ""


class One(SetupModel):
    only: str = Field("", json_schema_extra={"ui:widget": "textarea"})


async def test_fields_are_in_order_and_conditional_ones_after_their_trigger(autojump_clock: object) -> None:
    look = (await config_setup_document(Form, llm=True)).content["ui_schema"]
    assert look["ui:order"] == ["first", "glossary", "terms", "language", "parts", "single", "last", "*"]
    assert look["parts"] == {"items": {"ui:order": ["width", "height", "*"]}}
    assert look["single"] == {"ui:order": ["width", "height", "*"]}


async def test_an_order_that_the_author_gives_stays(autojump_clock: object) -> None:
    assert (await config_setup_document(Ordered, llm=True)).content["ui_schema"]["ui:order"] == ["b", "a"]


async def test_one_field_needs_no_order(autojump_clock: object) -> None:
    assert (await config_setup_document(One, llm=True)).content["ui_schema"] == {"only": {"ui:widget": "textarea"}}
