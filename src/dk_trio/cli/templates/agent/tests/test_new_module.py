"""What the agent does: alone over memory and in no time, and with a tool beside it."""

from typing import Any, Literal

import trio
from dk_trio import DataTrigger, ModuleClient, ModuleServer, ToolModule
from dk_trio.services import LocalPlatform
from trio.testing import MockClock

from new_module import NewModule, choose

from .served import answers, served

PATIENCE = 30  # seconds of the real clock, for the test with real sockets


class Shout(DataTrigger):
    """Make a text loud."""

    protocol: Literal["shout"] = "shout"
    text: str


class Shouted(DataTrigger):
    """The loud text."""

    protocol: Literal["shouted"] = "shouted"
    text: str


@ToolModule.from_function(name="shouter", metadata={"module_id": "modules:shouter"})
async def shouter(input_data: Shout) -> Shouted:
    """Shouts."""
    return Shouted(text=input_data.text.upper())


def test_the_first_word_chooses() -> None:
    assert choose("shout hello you", {"shout": ...}) == ("shout", {"text": "hello you"})
    assert choose("whisper hello", {"shout": ...}) is None


async def test_without_tools_it_says_so(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        steps = await answers(client, {"text": "shout hello"}, protocol="ask")
    assert [step["text"] for step in steps] == ["No tool for this question. I have: none."]


async def test_a_tool_is_called_and_its_answer_kept() -> None:
    platform = LocalPlatform()  # what modules of one process know of each other, in memory
    with trio.fail_after(PATIENCE):
        async with (
            platform.opened(),
            ModuleServer(shouter, platform=platform).running(port=0) as tool_address,
            ModuleServer(NewModule, platform=platform).running(port=0) as address,
            ModuleClient.connect(tool_address) as tool,
            ModuleClient.connect(address) as agent,
        ):
            await tool.config_setup({}, setup_id="setups:shouter")
            selected: dict[str, Any] = {"setupId": "setups:shouter", "triggers": {"shout": True}}
            await agent.config_setup({"tools": [selected]}, setup_id="setups:agent")
            step, answer = await answers(agent, {"text": "shout hello"}, protocol="ask", setup_id="setups:agent")
            kept = await answers(agent, {}, protocol="recall", setup_id="setups:agent")
    assert step["text"] == "I ask shout."
    assert answer["content"]["text"] == "HELLO"
    assert [each["content"] for each in kept] == [answer["content"]]
