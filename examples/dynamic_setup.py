"""A form whose choices are found out when somebody opens it, and what jobs get of it.

    dk-trio serve examples/dynamic_setup.py --port 50055
    dk-trio call 127.0.0.1:50055 --protocol write --input '{"topic": "rain"}'

`GetConfigSetupModule` answers with the form as `{json_schema, ui_schema}`, ready for react-jsonschema-form;
`ConfigSetupModule` takes what was filled in and returns what jobs run with.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

import trio
from pydantic import Field

from dk_trio import (
    Conditional,
    ConditionalSchemaMixin,
    DataModel,
    DataTrigger,
    Dynamic,
    ModuleContext,
    SetupModel,
    TriggerHandler,
    TrioModule,
)

MODELS = {"small": 500, "medium": 2000, "large": 8000}  # words that each can write; stands for a provider
GLOSSARIES = {"legal": {"contract": "agreement"}, "medical": {"doctor": "physician"}}  # stands for a database


async def models() -> list[str]:
    """An async fetcher: asks a service. It has `DIGITALKIN_FETCH_TIMEOUT` seconds."""
    await trio.sleep(0.01)
    return list(MODELS)


def longest() -> int:
    """A sync fetcher, for what is at hand."""
    return max(MODELS.values())


def glossaries() -> list[str]:
    """Another one; all that a form needs are asked at the same time."""
    return list(GLOSSARIES)


class WriterSetup(SetupModel, ConditionalSchemaMixin):
    """How texts are written."""

    model: Annotated[str, Dynamic(enum=models)] = Field(default="small", title="Model")
    words: Annotated[int, Dynamic(maximum=longest)] = Field(
        default=200, ge=50, title="Words", json_schema_extra={"ui:widget": "range"}
    )
    style: str = Field(default="", title="Style", json_schema_extra={"ui:widget": "textarea"})
    use_glossary: bool = Field(default=False, title="Use a glossary", json_schema_extra={"config": True})
    glossary: Annotated[
        str, Dynamic(enum=glossaries), Conditional(trigger="use_glossary", show_when=True, required_when_shown=True)
    ] = Field(default_factory=str, title="Glossary", json_schema_extra={"config": True})
    terms: dict[str, str] = Field(default_factory=dict, json_schema_extra={"ui:widget": "hidden"})


class Topic(DataTrigger):
    """What to write about."""

    protocol: Literal["write"] = "write"
    topic: str


class Line(DataTrigger):
    """One line of the text."""

    protocol: Literal["line"] = "line"
    text: str


class Writer(TrioModule[DataModel[Topic], DataModel[Line], WriterSetup]):
    """Writes about a topic."""

    name = "writer"

    async def run_config_setup(self, context: ModuleContext, config_setup_data: WriterSetup) -> WriterSetup:
        """Look the glossary up once. Its name is a config field, which jobs do not see; its terms are kept for them."""
        if config_setup_data.use_glossary:
            config_setup_data.terms = GLOSSARIES[config_setup_data.glossary]
        return config_setup_data


@Writer.register
class OnWrite(TriggerHandler[Topic, WriterSetup, Line]):
    """Yields lines."""

    protocol = "write"

    async def handle(self, input_data: Topic, setup_data: WriterSetup, context: ModuleContext) -> AsyncIterator[Line]:
        """Say what would be written."""
        topic = setup_data.terms.get(input_data.topic, input_data.topic)
        yield Line(text=f"{setup_data.words} words about {topic} by {setup_data.model}")
