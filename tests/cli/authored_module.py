"""An agent that has everything an author can have. Served by tests in a process of its own.

The port of the tool that it may select stands in the environment variable TOOL_PORT.
"""

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import trio
from pydantic import BaseModel, Field

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule, tool_reference_input
from dk_trio.module.setup import Dynamic
from dk_trio.services.cost import CostConfig, CostType


class Style(BaseModel):
    """How an answer reads."""

    words: int = Field(default=3, ge=1, le=10)


class Ask(DataTrigger):
    """Asks a question."""

    protocol: Literal["ask"] = "ask"
    text: str = Field(min_length=1, max_length=1000, json_schema_extra={"ui:widget": "textarea"})
    style: Style = Style()
    largest: int = Field(default=0, le=2**63 - 1)
    at_most: float = float("inf")
    größe: int = Field(default=1, ge=1)  # noqa: PLC2401  as forms in other languages have it


class Use(DataTrigger):
    """Calls a function of a tool."""

    protocol: Literal["use"] = "use"
    function: str
    arguments: dict[str, Any] = {}
    seconds: float | None = None


class Text(DataTrigger):
    """Something that the agent says."""

    protocol: Literal["text"] = "text"
    text: str


class Answer(DataTrigger):
    """What a tool has answered, as it came."""

    protocol: Literal["tool_answer"] = "tool_answer"
    answer: dict[str, Any]


class Input(DataModel[Ask | Use]): ...


class Output(DataModel[Text | Answer]): ...


def models() -> list[str]:
    return ["small", "large"]


class Setup(SetupModel):
    model: Annotated[str, Dynamic(enum=models)] = "small"
    tools: tool_reference_input(max_tools=2)
    upload: str = Field(default="", json_schema_extra={"config": True})
    index: str = Field(default="", json_schema_extra={"ui:widget": "hidden"})


class Secret(BaseModel):
    token: str = Field(min_length=1, json_schema_extra={"ui:widget": "password"})


class Agent(TrioModule[Input, Output, Setup, Secret]):
    name = "agent"
    metadata = {"module_id": "modules:agent"}
    services_config_params = {
        "cost": {
            "config": {"words": CostConfig(cost_name="words", cost_type=CostType.OTHER, unit="word", rate=0.5)},
        },
        "registry": {
            "modules": [
                {"module_id": "modules:tool", "address": "127.0.0.1", "port": int(os.environ.get("TOOL_PORT", "1"))}
            ],
            "setups": [{"setup_id": "setups:tool", "module_id": "modules:tool", "name": "The Tool"}],
        },
    }

    async def run_config_setup(self, context: ModuleContext, config_setup_data: Setup) -> Setup:
        return config_setup_data.model_copy(update={"index": f"index of {config_setup_data.upload}"})


@Agent.register
class OnAsk(TriggerHandler[Ask, Setup, Text]):
    protocol = "ask"
    description = "Answers a question"

    async def handle(self, input_data: Ask, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Text]:
        words = input_data.text.split()
        if words[0] == "wait":
            yield Text(text="waiting")
            await trio.sleep_forever()
        await context.cost.add("words", "words", len(words))
        metadata = context.request_metadata
        told = {key: [_text(value) for value in metadata.getall(key)] for key in metadata if key.startswith("my-")}
        yield Text(text=f"{setup_data.model}, {setup_data.index}, {told}")


@Agent.register
class OnUse(TriggerHandler[Use, Setup, Answer]):
    protocol = "use"
    description = "Calls a tool"

    async def handle(self, input_data: Use, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Answer]:
        functions = {
            definition.name: call
            for setup_id in context.tool_cache.list_tools()
            for definition, call in context.create_tool_functions(setup_id)
        }
        if input_data.seconds is None:
            async for answer in functions[input_data.function](**input_data.arguments):
                yield Answer(answer=answer)
            return
        answers = functions[input_data.function](**input_data.arguments)
        yield Answer(answer=await anext(answers))
        with trio.move_on_after(input_data.seconds):
            await anext(answers)
        await answers.aclose()
        yield Answer(answer={"left": True})


def _text(value: str | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else value
