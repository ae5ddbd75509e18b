"""Two modules: an agent, and a calculator that it calls as a tool.

    python examples/agent_with_tools.py

This serves both in one process, selects the tool in the agent's form, and asks the agent. Where a language model would
choose the function, this agent takes the first word of the question.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

import trio

from dk_trio import (
    ArchetypeModule,
    DataModel,
    DataTrigger,
    ModuleClient,
    ModuleContext,
    ModuleServer,
    SetupModel,
    ToolModule,
    ToolOptions,
    ToolReference,
    TriggerHandler,
)
from dk_trio.services import LocalPlatform


class Add(DataTrigger):
    """Add two numbers."""

    protocol: Literal["add"] = "add"
    a: float
    b: float


class Multiply(DataTrigger):
    """Multiply two numbers."""

    protocol: Literal["multiply"] = "multiply"
    a: float
    b: float


class Number(DataTrigger):
    """What came out."""

    protocol: Literal["number"] = "number"
    value: float


class Calculator(ToolModule[DataModel[Add | Multiply], DataModel[Number], SetupModel]):
    """The docstrings of its inputs are what an agent reads."""

    name = "calculator"
    metadata = {"module_id": "modules:calculator"}


@Calculator.register
class OnAdd(TriggerHandler[Add, SetupModel, Number]):
    """Adds."""

    protocol = "add"

    async def handle(self, input_data: Add, setup_data: SetupModel, context: ModuleContext) -> None:
        """Send the sum."""
        await context.send(Number(value=input_data.a + input_data.b))


@Calculator.register
class OnMultiply(TriggerHandler[Multiply, SetupModel, Number]):
    """Multiplies."""

    protocol = "multiply"

    async def handle(self, input_data: Multiply, setup_data: SetupModel, context: ModuleContext) -> None:
        """Send the product."""
        await context.send(Number(value=input_data.a * input_data.b))


class AgentSetup(SetupModel):
    """Which tools the agent may call."""

    tools: Annotated[ToolReference, ToolOptions(max_tools=5)] = ToolReference()


class Question(DataTrigger):
    """A function and two numbers: `add 19 23`."""

    protocol: Literal["ask"] = "ask"
    text: str


class Reply(DataTrigger):
    """Something that the agent says."""

    protocol: Literal["reply"] = "reply"
    text: str


class Agent(ArchetypeModule[DataModel[Question], DataModel[Reply], AgentSetup]):
    """Answers questions with its tools."""

    name = "agent"
    metadata = {"module_id": "modules:agent"}


@Agent.register
class OnQuestion(TriggerHandler[Question, AgentSetup, Reply]):
    """Calls the tool as a function."""

    protocol = "ask"

    async def handle(
        self, input_data: Question, setup_data: AgentSetup, context: ModuleContext
    ) -> AsyncIterator[Reply]:
        """Say which functions there are, call one, say what it gave."""
        wanted, a, b = input_data.text.split()
        for setup_id in context.tool_cache.list_tools():
            tools = context.create_openai_style_tools(setup_id)  # what a language model would be given
            yield Reply(text=f"I have {', '.join(tool['function']['name'] for tool in tools)}")
            for definition, call in context.create_tool_functions(setup_id):
                if definition.name == wanted:
                    async for answer in call(a=float(a), b=float(b)):
                        root = answer["output"]["root"]
                        if root["protocol"] == "number":
                            yield Reply(text=f"{input_data.text} is {root['value']:g}")


async def main() -> None:
    """Serve both, configure both, ask."""
    platform = LocalPlatform()  # what modules of one process know of each other
    async with (
        platform.opened(),
        ModuleServer(Calculator, platform=platform).running(port=0) as calculator_address,
        ModuleServer(Agent, platform=platform).running(port=0) as agent_address,
        ModuleClient.connect(calculator_address) as calculator,
        ModuleClient.connect(agent_address) as agent,
    ):
        await calculator.config_setup({}, setup_id="setups:calculator")
        selected = {"setupId": "setups:calculator", "triggers": {"add": True, "multiply": True}}
        await agent.config_setup({"tools": [selected]}, setup_id="setups:agent")
        async with agent.start({"text": "multiply 6 7"}, protocol="ask", setup_id="setups:agent") as outputs:
            async for reply in outputs.typed(DataModel[Reply]):
                print(reply.root.text)


if __name__ == "__main__":
    trio.run(main)
