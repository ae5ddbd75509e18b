"""Any order of agent events becomes a sequence that an AG-UI client takes, and nothing of a run is lost in it."""

import itertools
import logging
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dk_trio.module import events as agent
from dk_trio.module.agui import Translator, output_of

from .verifier import verified

IDS = st.sampled_from([None, "m1", "m2"])
RUNS = st.sampled_from([None, "r1", "r2", "r3"])
CALLS = st.sampled_from(["c1", "c2", "c3"])
TEXT = st.sampled_from(["", "a", "b c", "é\n"])

WITHIN = [
    st.builds(agent.RunContentEvent, content=TEXT, message_id=IDS),
    st.builds(agent.TextMessageStartedEvent, message_id=IDS),
    st.builds(agent.TextMessageCompletedEvent, message_id=IDS),
    st.builds(agent.ReasoningStartedEvent, message_id=IDS),
    st.builds(agent.ReasoningContentDeltaEvent, content=TEXT, message_id=IDS),
    st.builds(agent.ReasoningStepEvent, content=TEXT, message_id=IDS),
    st.builds(agent.ReasoningCompletedEvent, message_id=IDS),
    st.builds(
        agent.ToolCallStartedEvent,
        tool_call_id=CALLS,
        tool_name=st.just("tool"),
        arguments=st.sampled_from([None, "", "{}", {"a": [1, None]}]),
        parent_message_id=IDS,
    ),
    st.builds(agent.ToolCallCompletedEvent, tool_call_id=CALLS, content=st.sampled_from([None, "", "text", {"a": 1}])),
    st.builds(agent.ToolCallErrorEvent, tool_call_id=CALLS, error=TEXT),
    st.builds(agent.CustomEvent, name=st.just("c"), value=st.sampled_from([None, 1, {"a": None}])),
]
RUNS_AND_ENDS = [
    st.builds(agent.RunStartedEvent, thread_id=IDS, run_id=RUNS),
    st.builds(agent.RunCompletedEvent, run_id=RUNS, result=st.sampled_from([None, {"a": None}])),
    st.builds(agent.RunErrorEvent, message=TEXT, run_id=RUNS),
]
ANY_ORDER = st.lists(st.one_of(*WITHIN, *RUNS_AND_ENDS), max_size=30)


def translator() -> Translator:
    ids = (f"new{each}" for each in itertools.count())
    return Translator(thread_id="thread", run_id="run", new_id=ids.__next__)


def wire(events: list[agent.AgentEvent], into: Translator | None = None) -> list[dict[str, Any]]:
    """What goes out for these events."""
    into = into or translator()
    out = []
    for event in events:
        for translated in into.translate(event):
            out.append(output_of(translated).model_dump(mode="json")["event"])
            into.sent(translated)
    return out


def types_of(out: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in out]


@given(ANY_ORDER)
def test_any_order_of_events_becomes_a_legal_sequence(events: list[agent.AgentEvent]) -> None:
    verified(wire(events))


@given(ANY_ORDER)
def test_end_of_a_run_closes_whatever_is_open(events: list[agent.AgentEvent]) -> None:
    verifier = verified(wire([*events, agent.RunCompletedEvent(run_id="of no run")]))
    assert verifier.run is None
    assert not any(verifier.open.values())


@given(st.lists(st.tuples(st.one_of(*WITHIN, *RUNS_AND_ENDS), st.integers(0, 4)), max_size=30))
def test_sequence_is_legal_though_sends_are_cut(events: list[tuple[agent.AgentEvent, int]]) -> None:
    into, out = translator(), []
    for event, taken in events:
        for translated in into.translate(event)[:taken]:
            out.append(output_of(translated).model_dump(mode="json")["event"])
            into.sent(translated)
    verified(out)


@given(st.lists(st.one_of(*WITHIN), max_size=30))
def test_no_content_of_a_run_is_lost_or_out_of_order(events: list[agent.AgentEvent]) -> None:
    out = wire(events)
    text = "".join(event["delta"] for event in out if event["type"] == "TEXT_MESSAGE_CONTENT")
    thought = "".join(event["delta"] for event in out if event["type"] == "REASONING_MESSAGE_CONTENT")
    reasoning = agent.ReasoningContentDeltaEvent | agent.ReasoningStepEvent
    assert text == "".join(event.content for event in events if isinstance(event, agent.RunContentEvent))
    assert thought == "".join(event.content for event in events if isinstance(event, reasoning))
    assert types_of(out).count("CUSTOM") == sum(isinstance(event, agent.CustomEvent) for event in events)


START = agent.RunStartedEvent(thread_id="T", run_id="R")

SAMPLES: list[tuple[agent.AgentEvent, list[dict[str, Any]]]] = [
    (
        agent.TextMessageStartedEvent(message_id="m"),
        [{"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}],
    ),
    (
        agent.RunContentEvent(content="hi"),
        [
            {"type": "TEXT_MESSAGE_START", "messageId": "new0", "role": "assistant"},
            {"type": "TEXT_MESSAGE_CONTENT", "messageId": "new0", "delta": "hi"},
        ],
    ),
    (agent.RunCompletedEvent(), [{"type": "RUN_FINISHED", "threadId": "T", "runId": "R"}]),
    (
        agent.RunCompletedEvent(result={"a": 1}),
        [{"type": "RUN_FINISHED", "threadId": "T", "runId": "R", "result": {"a": 1}}],
    ),
    (agent.RunErrorEvent(message="no", code="X"), [{"type": "RUN_ERROR", "message": "no", "code": "X"}]),
    (
        agent.ToolCallStartedEvent(tool_call_id="c", tool_name="t", arguments={"é": None}),
        [
            {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "t"},
            {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": '{"é": null}'},
        ],
    ),
    (
        agent.ToolCallStartedEvent(tool_call_id="c", tool_name="t", parent_message_id="m"),
        [{"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "t", "parentMessageId": "m"}],
    ),
    (
        agent.ReasoningStartedEvent(message_id="m"),
        [
            {"type": "REASONING_START", "messageId": "m"},
            {"type": "REASONING_MESSAGE_START", "messageId": "m", "role": "reasoning"},
        ],
    ),
    (agent.CustomEvent(name="n", value={"a": None}), [{"type": "CUSTOM", "name": "n", "value": {"a": None}}]),
    (agent.CustomEvent(name="n"), [{"type": "CUSTOM", "name": "n", "value": None}]),
]


@pytest.mark.parametrize(("event", "expected"), SAMPLES)
def test_event_in_a_run(event: agent.AgentEvent, expected: list[dict[str, Any]]) -> None:
    assert wire([START, event]) == [{"type": "RUN_STARTED", "threadId": "T", "runId": "R"}, *expected]


def test_end_of_a_tool_call_with_and_without_a_result() -> None:
    started = [agent.ToolCallStartedEvent(tool_call_id=each, tool_name="t") for each in ("a", "b", "c")]
    out = wire(
        [
            START,
            *started,
            agent.ToolCallCompletedEvent(tool_call_id="b", content={"n": 1}),
            agent.ToolCallCompletedEvent(tool_call_id="a"),
            agent.ToolCallErrorEvent(tool_call_id="c", error="no"),
        ]
    )
    assert out[4:] == [
        {"type": "TOOL_CALL_END", "toolCallId": "b"},
        {"type": "TOOL_CALL_RESULT", "messageId": "new0", "toolCallId": "b", "content": '{"n": 1}', "role": "tool"},
        {"type": "TOOL_CALL_END", "toolCallId": "a"},
        {"type": "TOOL_CALL_END", "toolCallId": "c"},
    ]


def test_end_of_reasoning_closes_message_and_span() -> None:
    out = wire([START, agent.ReasoningStepEvent(content="so"), agent.ReasoningCompletedEvent()])
    assert types_of(out) == [
        "RUN_STARTED",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
    ]


def test_run_that_was_not_started_has_the_ids_of_mission_and_job() -> None:
    out = wire([agent.RunContentEvent(content="hi"), agent.RunCompletedEvent()])
    assert out[0] == {"type": "RUN_STARTED", "threadId": "thread", "runId": "run"}
    assert out[-1] == {"type": "RUN_FINISHED", "threadId": "thread", "runId": "run"}


def test_nested_run_does_not_show_and_does_not_end_the_outer_one() -> None:
    inner = agent.RunStartedEvent(run_id="inner")
    hello = agent.RunContentEvent(content="hi")
    out = wire([START, inner, agent.RunCompletedEvent(run_id="inner"), hello, inner, agent.RunErrorEvent(message="no")])
    assert types_of(out) == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_ERROR",
    ]
    out = wire([START, inner, agent.RunErrorEvent(message="no", run_id="inner"), agent.RunCompletedEvent(run_id="x")])
    assert out[1:] == [{"type": "RUN_FINISHED", "threadId": "T", "runId": "R"}]


def test_run_may_follow_a_run() -> None:
    again = agent.RunStartedEvent(thread_id="T", run_id="R2")
    out = wire([START, agent.RunCompletedEvent(), again, agent.RunCompletedEvent(run_id="R")])
    assert [event["runId"] for event in out] == ["R", "R", "R2", "R2"]


def test_what_comes_too_late_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    out = wire([START, agent.RunCompletedEvent(), agent.RunContentEvent(content="too late")])
    assert types_of(out) == ["RUN_STARTED", "RUN_FINISHED"]
    assert [(row.levelname, "'run_content'" in row.getMessage()) for row in caplog.records] == [("WARNING", True)]


def test_unknown_event_is_passed_over_with_a_line_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    class Weather(agent.AgentEvent):
        type: Literal["weather"] = "weather"

    with caplog.at_level(logging.DEBUG, "dk_trio.module.agui"):
        assert wire([START, Weather()]) == wire([START])
    assert "'weather'" in caplog.text


def test_state_can_be_seen() -> None:
    into = translator()
    wire([START, agent.ToolCallStartedEvent(tool_call_id="c9", tool_name="t")], into)
    assert "running" in repr(into)
    assert "c9" in repr(into)
