"""The examples of what authors have at hand: forms, tools, storage, files, histories."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib import GRPCError, Status
from tests.module.served import outputs_of, served

from .test_examples import load

WRITER = load("examples/dynamic_setup.py")
TOOLS = load("examples/agent_with_tools.py")
NOTEBOOK = load("examples/storage_and_files.py").Notebook
CHAT = load("examples/chat_with_history.py").Chat

PATIENCE = 30  # seconds of the real clock, where there are threads or sockets


def roots(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The module's own outputs."""
    return [output["root"] for output in outputs[1:-1]]


# -- dynamic setup ----------------------------------------------------------------------------------------------------


async def test_the_form_of_the_writer_is_fetched() -> None:
    with trio.fail_after(PATIENCE):
        async with served(WRITER.Writer) as (_, client):
            form = (await client.config_setup_schema(llm_format=True))["json_schema"]
    assert form["properties"]["model"]["enum"] == [*WRITER.MODELS]
    assert form["properties"]["words"]["maximum"] == 8000
    assert form["properties"].keys() == {"model", "words", "style", "use_glossary"}
    assert form["allOf"][0]["then"]["properties"]["glossary"]["enum"] == [*WRITER.GLOSSARIES]


async def test_the_writer_runs_with_what_was_configured(autojump_clock: trio.testing.MockClock) -> None:
    form = {"model": "large", "words": 300, "use_glossary": True, "glossary": "medical"}
    async with served(WRITER.Writer) as (_, client):
        content = await client.config_setup(form, setup_id="setups:w")
        outputs = await outputs_of(client, {"topic": "doctor"}, protocol="write", setup_id="setups:w")
    assert {name: content[name] for name in ("model", "words", "terms")} == {
        "model": "large",
        "words": 300,
        "terms": {"doctor": "physician"},
    }
    assert not {"use_glossary", "glossary"} & content.keys()
    assert [root["text"] for root in roots(outputs)] == ["300 words about physician by large"]


async def test_a_form_that_does_not_fit_is_refused_by_field(autojump_clock: trio.testing.MockClock) -> None:
    async with served(WRITER.Writer) as (_, client):
        with pytest.raises(GRPCError, match="words") as caught:
            await client.config_setup({"words": 3}, setup_id="setups:w")
    assert caught.value.status is Status.INVALID_ARGUMENT


# -- agent with tools -------------------------------------------------------------------------------------------------


async def test_the_agent_calls_its_tool(capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(PATIENCE):
        await TOOLS.main()
    assert capsys.readouterr().out.splitlines() == [
        "I have calculator__add, calculator__multiply",
        "multiply 6 7 is 42",
    ]


# -- storage and files ------------------------------------------------------------------------------------------------


async def test_the_notebook_keeps_notes_by_mission(autojump_clock: trio.testing.MockClock) -> None:
    async with served(NOTEBOOK) as (_, client):

        async def note(text: str, mission: str) -> int:
            outputs = await outputs_of(client, {"text": text}, protocol="note", mission_id=f"missions:{mission}")
            return roots(outputs)[0]["notes"]

        assert [await note("apples", "a"), await note("pears", "a"), await note("plums", "b")] == [1, 2, 1]
        for _ in range(2):  # the second export replaces the file of the first
            outputs = await outputs_of(client, {}, protocol="export", mission_id="missions:a")
        assert "".join(root["text"] for root in roots(outputs)) == "apples\npears\n"


async def test_the_notebook_survives_its_server(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        for notes in (1, 2):
            async with served(NOTEBOOK, data_dir=tmp_path) as (_, client):
                outputs = await outputs_of(client, {"text": "apples"}, protocol="note")
            assert roots(outputs)[0]["notes"] == notes


# -- chat with history ------------------------------------------------------------------------------------------------


async def say(client: Any, text: str) -> str:
    return roots(await outputs_of(client, {"text": text}, protocol="message"))[0]["text"]


async def test_the_chat_remembers_what_was_said(autojump_clock: trio.testing.MockClock) -> None:
    async with served(CHAT) as (_, client):
        answers = [await say(client, text) for text in ("one", "two", "three")]
    assert answers == ["Tell me more.", "You have said: one.", "You have said: one; two."]


async def test_the_chat_remembers_what_was_said_in_a_job_that_was_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(CHAT) as (server, client):
        async with client.start({"text": "wait"}, protocol="message") as outputs:
            await anext(outputs)
            await trio.sleep(0.05)  # it thinks
        await trio.sleep(60)
        assert server.statistics().jobs.running == 0
        assert await say(client, "so?") == "You have said: wait."
