"""What the agent does, alone and with a tool beside it; over memory and in no time."""

from typing import Any, Literal

from dk_trio import DataTrigger, ToolModule
from dk_trio.testing import run_job, serve_in_memory
from trio.testing import MockClock

from new_module import NewModule, choose


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


async def test_without_tools_it_says_so(virtual_clock: MockClock) -> None:
    result = await run_job(NewModule, {"text": "shout hello"}, protocol="ask")
    assert [step["text"] for step in result.outputs] == ["No tool for this question. I have: none."]


async def test_a_tool_is_called_and_its_answer_kept(virtual_clock: MockClock) -> None:
    selected: dict[str, Any] = {"setupId": "setups:shouter", "triggers": {"shout": True}}
    ours = "setups:new-module"  # it says which of them is called
    async with serve_in_memory(NewModule, shouter) as served:
        await served.client.config_setup({"tools": [selected]}, setup_id=ours)
        asked = await served.run_job({"text": "shout hello"}, protocol="ask", setup_id=ours)
        kept = await served.run_job({}, protocol="recall", setup_id=ours)
    assert asked.ok, asked.error
    step, answer = asked.outputs
    assert step["text"] == "I ask shout."
    assert answer["content"]["text"] == "HELLO"
    assert [each["content"] for each in kept.outputs] == [answer["content"]]
