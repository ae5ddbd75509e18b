"""`send_message` of a handler in a session and over the wire."""

import sys
from typing import Any

import pytest
import trio
from tests.module.sample import IDS, Message, Output, module_with, protocols_of, session_of
from tests.module.served import DAY, outputs_of, served

from dk_trio.lifecycle import Reason
from dk_trio.module import events as agent
from dk_trio.module.agui import AgUiMissingError

from .verifier import verified

ROOT = {"protocol": "message", "text": "hello"}


def events_in(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row["root"]["event"] for row in outputs if row["root"]["protocol"].startswith("agui_")]


async def answer(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
    await self.send_message(context, agent.RunStartedEvent())
    await self.send_message(context, agent.RunContentEvent(content=input_data.text))
    await self.send_message(context, Output(root=Message(text="as it is")))
    await self.send_message(context, {"protocol": "anything", "n": 1})
    await self.send_message(context, agent.RunCompletedEvent(result=[1, None]))


async def test_handler_sends_events_and_outputs_in_their_order(autojump_clock: Any) -> None:
    outputs: list[dict[str, Any]] = []
    with trio.fail_after(DAY):
        outcome = await session_of(module_with(answer), ROOT, outputs).run()
    assert outcome.reason is Reason.COMPLETED
    assert protocols_of(outputs) == [
        "module_start_info",
        "agui_run_started",
        "agui_text_message_start",
        "agui_text_message_content",
        "message",
        "anything",
        "agui_text_message_end",
        "agui_run_finished",
        "end_of_stream",
    ]
    first, *_, last = events_in(outputs)
    assert (first["threadId"], first["runId"]) == (IDS.mission_id, IDS.job_id)
    assert last["result"] == [1, None]


async def test_events_reach_a_caller_as_agui_writes_them(autojump_clock: Any) -> None:
    async with served(module_with(answer)) as (_, client):
        outputs = await outputs_of(client, {"root": ROOT})
    events = events_in(outputs)
    assert verified(events).ended == "RUN_FINISHED"
    assert events[2] == {"type": "TEXT_MESSAGE_CONTENT", "messageId": events[1]["messageId"], "delta": "hello"}


async def test_tasks_that_send_at_once_make_one_legal_sequence(autojump_clock: Any) -> None:
    async def handle(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
        async def talk(name: str) -> None:
            for each in range(5):
                await self.send_message(context, agent.RunContentEvent(content=f"{name}{each} ", message_id=name))

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(talk, name)
        await self.send_message(context, agent.RunCompletedEvent())

    outputs: list[dict[str, Any]] = []

    async def deliver(output: dict[str, Any]) -> None:
        await trio.sleep(1)  # a reader that lets the others come in between
        outputs.append(output)

    with trio.fail_after(DAY):
        await session_of(module_with(handle), ROOT, outputs, deliver=deliver).run()
    verifier = verified(events_in(outputs))
    assert verifier.ended == "RUN_FINISHED"
    assert len([event for event in verifier.seen if event.type.value == "TEXT_MESSAGE_CONTENT"]) == 15


@pytest.mark.parametrize("patience", range(7))
async def test_send_that_was_cut_leaves_a_legal_sequence(patience: int, autojump_clock: Any) -> None:
    async def handle(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
        with trio.move_on_after(patience + 0.5):
            await self.send_message(context, agent.ReasoningStepEvent(content="a"))
            await self.send_message(context, agent.RunContentEvent(content="b"))
        await self.send_message(context, agent.ReasoningStepEvent(content="c"))
        await self.send_message(context, agent.RunContentEvent(content="d"))
        await self.send_message(context, agent.RunCompletedEvent())

    outputs: list[dict[str, Any]] = []

    async def deliver(output: dict[str, Any]) -> None:
        if output["root"]["protocol"].startswith("agui_"):
            await trio.sleep(1)
        outputs.append(output)

    with trio.fail_after(DAY):
        await session_of(module_with(handle), ROOT, outputs, deliver=deliver).run()
    assert verified(events_in(outputs)).ended == "RUN_FINISHED"


async def test_two_jobs_have_each_a_sequence_of_their_own(autojump_clock: Any) -> None:
    module = module_with(answer)
    for _ in range(2):
        outputs: list[dict[str, Any]] = []
        with trio.fail_after(DAY):
            await session_of(module, ROOT, outputs).run()
        assert verified(events_in(outputs)).ended == "RUN_FINISHED"


async def test_caller_is_told_that_the_extra_is_missing(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("dk_trio.module.agui")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ag_ui", None)
    outputs: list[dict[str, Any]] = []
    with trio.fail_after(DAY):
        outcome = await session_of(module_with(answer), ROOT, outputs).run()
    assert outcome.reason is Reason.FAILED
    assert outcome.error is not None
    assert outcome.error.code == AgUiMissingError.code
    assert "dk-trio[agui]" in outcome.error.text
