"""What is said and remembered, over memory and on a clock that jumps over every wait."""

import trio
from dk_trio import ModuleClient
from trio.testing import MockClock

from new_module import PACE_S, NewModule

from .served import answers, served


async def say(client: ModuleClient, text: str, **arguments: str) -> str:
    """One message; the answer in one piece."""
    pieces = await answers(client, {"text": text}, protocol="message", **arguments)
    return " ".join(piece["text"] for piece in pieces)


async def test_what_was_said_is_remembered_by_mission(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        assert await say(client, "I am Ada") == "You say: I am Ada"
        assert await say(client, "and now?") == "Before that you said: I am Ada"
        assert await say(client, "and now?", mission_id="missions:other") == "You say: and now?"


async def test_an_answer_is_a_stream(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        await client.config_setup({"model": "slow"}, setup_id="setups:slow")
        async with client.start({"text": "a b"}, protocol="message", setup_id="setups:slow") as outputs:
            times = [trio.current_time() async for _ in outputs]
    assert round(times[-1] - times[0], 3) == 4 * PACE_S["slow"]  # You, say:, a, b


async def test_a_caller_who_leaves_is_remembered(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        async with client.start({"text": "wait"}, protocol="message") as outputs:
            await anext(outputs)
            await trio.sleep(PACE_S["fast"] / 2)  # it thinks
        await trio.sleep(60)  # the job is cancelled, and what it has to write is written
        assert await say(client, "so?") == "Before that you said: wait"


async def test_the_form_offers_the_models(autojump_clock: MockClock) -> None:
    async with served(NewModule) as client:
        form = (await client.config_setup_schema(llm_format=True))["json_schema"]
    assert form["properties"]["model"]["enum"] == list(PACE_S)
