"""new-module: an agent that calls the tools which its setup selects.

    dk-trio serve new_module.py --port 50056
    dk-trio call 127.0.0.1:50056 --protocol ask --input '{"text": "count two words"}'

It chooses a tool by the first word of the question; put a language model into `choose`. Without tools it says so.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal

from dk_trio import (
    ArchetypeModule,
    DataModel,
    DataTrigger,
    ModuleContext,
    SetupModel,
    ToolOptions,
    ToolReference,
    TriggerHandler,
)
from dk_trio.services import CostConfig, CostType
from pydantic import BaseModel, Field

SYSTEM = frozenset({"module_start_info", "end_of_stream"})
"""What every tool sends besides its own answers."""


class Ask(DataTrigger):
    """A question: the name of a tool, and the text for it."""

    protocol: Literal["ask"] = "ask"
    text: str = Field(min_length=1)


class Recall(DataTrigger):
    """What was answered before, in the same mission."""

    protocol: Literal["recall"] = "recall"


class Step(DataTrigger):
    """What the agent does, for who watches it."""

    protocol: Literal["step"] = "step"
    text: str


class Answer(DataTrigger):
    """What a tool has answered."""

    protocol: Literal["answer"] = "answer"
    tool: str
    content: dict[str, Any]


class Setup(SetupModel):
    """What an operator chooses: which tools the agent may call."""

    tools: Annotated[ToolReference, ToolOptions(max_tools=5)] = ToolReference()


class AnswerRecord(BaseModel):
    """What is kept of an answer; a record that does not look like this is refused."""

    question: str
    tool: str
    content: dict[str, Any]


CALL = CostConfig(cost_name="calls", cost_type=CostType.API_CALL, unit="call", rate=0.01)


class NewModule(ArchetypeModule[DataModel[Ask | Recall], DataModel[Step | Answer], Setup]):
    """Answers questions with its tools."""

    name = "new-module"
    description = "Answers questions with its tools."
    metadata = {"module_id": "modules:new-module", "version": "0.1.0"}
    services_config_params = {
        "cost": {"config": {"calls": CALL}},
        "storage": {"config": {"answers": AnswerRecord}},
    }


@NewModule.register
class OnAsk(TriggerHandler[Ask, Setup, Step | Answer]):
    """Chooses a tool, calls it, passes its answers on as they come, keeps them, and says what that cost."""

    protocol = "ask"

    async def handle(self, input_data: Ask, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Step | Answer]:
        """Answer one question."""
        tools = {
            definition.name: call
            for setup_id in context.tool_cache.list_tools()
            for definition, call in context.create_tool_functions(setup_id)
        }
        chosen = choose(input_data.text, tools)
        if chosen is None:
            yield Step(text=f"No tool for this question. I have: {', '.join(tools) or 'none'}.")
            return
        name, arguments = chosen
        yield Step(text=f"I ask {name}.")
        await context.cost.add("tools", "calls", 1)
        async with aclosing(tools[name](**arguments)) as replies:  # who leaves early cancels the tool
            async for reply in replies:
                content = reply["output"]["root"]
                if content["protocol"] in SYSTEM:
                    continue
                record = AnswerRecord(question=input_data.text, tool=name, content=content)
                await context.storage.store("answers", None, record)
                yield Answer(tool=name, content=content)


@NewModule.register
class OnRecall(TriggerHandler[Recall, Setup, Answer]):
    """Reads what another job has kept."""

    protocol = "recall"

    async def handle(self, input_data: Recall, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Answer]:
        """Send what was kept, oldest first."""
        for record in await context.storage.list("answers"):
            yield Answer(tool=record.data.tool, content=record.data.content)


def choose(question: str, tools: Mapping[str, object]) -> tuple[str, dict[str, Any]] | None:
    """The tool to call and its arguments; None when none fits.

    A language model chooses better: give it `context.create_openai_style_tools(setup_id)`.
    """
    name, _, text = question.partition(" ")
    return (name, {"text": text}) if name in tools else None
