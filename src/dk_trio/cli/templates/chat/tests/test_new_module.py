"""What is said and remembered, over memory and on a clock that jumps over every wait."""

import pytest
import trio
from dk_trio import ModuleClient
from dk_trio.testing import MemoryServer
from trio.testing import MockClock

from new_module import PACE_S, NewModule


@pytest.fixture
def dk_module() -> type[NewModule]:
    """What `dk_server` serves and `dk_client` calls."""
    return NewModule


async def say(server: MemoryServer, text: str, mission_id: str = "missions:one") -> str:
    """One message; the answer in one piece."""
    result = await server.run_job({"text": text}, protocol="message", mission_id=mission_id)
    assert result.ok, result.error
    return " ".join(piece["text"] for piece in result.outputs)


async def test_what_was_said_is_remembered_by_mission(dk_server: MemoryServer, virtual_clock: MockClock) -> None:
    assert await say(dk_server, "I am Ada") == "You say: I am Ada"
    assert await say(dk_server, "and now?") == "Before that you said: I am Ada"
    assert await say(dk_server, "and now?", mission_id="missions:other") == "You say: and now?"


async def test_an_answer_is_a_stream(dk_client: ModuleClient, virtual_clock: MockClock) -> None:
    await dk_client.config_setup({"model": "slow"}, setup_id="setups:slow")
    async with dk_client.start({"text": "a b"}, protocol="message", setup_id="setups:slow") as outputs:
        times = [trio.current_time() async for _ in outputs]
    assert round(times[-1] - times[0], 3) == 4 * PACE_S["slow"]  # You, say:, a, b


async def test_a_caller_who_leaves_is_remembered(dk_server: MemoryServer, virtual_clock: MockClock) -> None:
    async with dk_server.client.start({"text": "wait"}, protocol="message", mission_id="missions:one") as outputs:
        await anext(outputs)
        await trio.sleep(PACE_S["fast"] / 2)  # it thinks
    await trio.sleep(60)  # the job is cancelled, and what it has to write is written
    assert await say(dk_server, "so?") == "Before that you said: wait"


async def test_the_form_offers_the_models(dk_client: ModuleClient, virtual_clock: MockClock) -> None:
    form = (await dk_client.config_setup_schema(llm_format=True))["json_schema"]
    assert form["properties"]["model"]["enum"] == list(PACE_S)
