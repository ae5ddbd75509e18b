"""What an agent does, as events that no framework owns.

An adapter of an agent framework turns that framework's events into these; a handler gives them to
`self.send_message(context, event)`, which puts them on the stream in the protocol that the caller speaks, AG-UI
(`dk_trio.module.agui`). `type` tells them apart, and `AnyAgentEvent` is their discriminated union.

What belongs together has the same id. Where an id may be left out, the event is about what is open: content goes to the
open message, a completion closes it, and an id is made when something opens without one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class AgentEvent(BaseModel):
    """An event of an agent. A subclass of an author's own is passed over, with a line in the debug log."""

    # Most modules send none of these: their validators are built at the first event.
    model_config = ConfigDict(frozen=True, defer_build=True)

    type: str


class RunStartedEvent(AgentEvent):
    """The agent begins. While a run is open, another is nested in it and does not show.

    Attributes:
        thread_id: The conversation; the mission when None.
        run_id: This run of it; the job when None.
    """

    type: Literal["run_started"] = "run_started"
    thread_id: str | None = None
    run_id: str | None = None


class RunContentEvent(AgentEvent):
    """A piece of a text message, which it opens when none is open.

    Attributes:
        content: The piece; it is appended to what was sent. An empty one is not sent.
        message_id: The message; the open one when None.
    """

    type: Literal["run_content"] = "run_content"
    content: str
    message_id: str | None = None


class RunCompletedEvent(AgentEvent):
    """The run has succeeded; whatever is open is closed.

    Attributes:
        run_id: That of a nested run ends the nested run alone; any other ends the open run.
        result: What the run gives back, if anything.
    """

    type: Literal["run_completed"] = "run_completed"
    run_id: str | None = None
    result: JsonValue = None


class RunErrorEvent(AgentEvent):
    """The run has failed; whatever is open is closed, and nothing follows. It does not fail the job.

    Attributes:
        message: What happened, for the user.
        code: A name for it, for programs.
        run_id: As in `RunCompletedEvent`.
    """

    type: Literal["run_error"] = "run_error"
    message: str
    code: str | None = None
    run_id: str | None = None


class ReasoningStartedEvent(AgentEvent):
    """The agent begins to reason.

    Attributes:
        message_id: Id of the reasoning; made when None.
    """

    type: Literal["reasoning_started"] = "reasoning_started"
    message_id: str | None = None


class ReasoningContentDeltaEvent(AgentEvent):
    """A piece of reasoning, which it opens when none is open.

    Attributes:
        content: The piece. An empty one is not sent.
        message_id: The reasoning; the open one when None.
    """

    type: Literal["reasoning_content_delta"] = "reasoning_content_delta"
    content: str
    message_id: str | None = None


class ReasoningStepEvent(AgentEvent):
    """A whole step of reasoning; appended as a piece is.

    Attributes:
        content: The step. An empty one is not sent.
        message_id: The reasoning; the open one when None.
    """

    type: Literal["reasoning_step"] = "reasoning_step"
    content: str
    message_id: str | None = None


class ReasoningCompletedEvent(AgentEvent):
    """The reasoning is over.

    Attributes:
        message_id: The reasoning; the open one when None.
    """

    type: Literal["reasoning_completed"] = "reasoning_completed"
    message_id: str | None = None


class TextMessageStartedEvent(AgentEvent):
    """A text message begins. One that is open is closed before.

    Attributes:
        message_id: Id of the message; made when None.
        role: Who speaks.
    """

    type: Literal["text_message_started"] = "text_message_started"
    message_id: str | None = None
    role: Literal["assistant", "system", "developer", "user"] = "assistant"


class TextMessageCompletedEvent(AgentEvent):
    """A text message is complete.

    Attributes:
        message_id: The message; the open one when None.
    """

    type: Literal["text_message_completed"] = "text_message_completed"
    message_id: str | None = None


class ToolCallStartedEvent(AgentEvent):
    """A tool is called. Several calls may be open at once.

    Attributes:
        tool_call_id: Id of the call.
        tool_name: The tool.
        arguments: JSON text as it is, or what JSON text is made of; None when there are none.
        parent_message_id: The message that the call belongs to.
    """

    type: Literal["tool_call_started"] = "tool_call_started"
    tool_call_id: str
    tool_name: str
    arguments: str | dict[str, Any] | None = None
    parent_message_id: str | None = None


class ToolCallCompletedEvent(AgentEvent):
    """A tool has answered. Without a call that is open under this id it does not show.

    Attributes:
        tool_call_id: Id of the call.
        content: The answer: text as it is, anything else as JSON text; None when there is none.
    """

    type: Literal["tool_call_completed"] = "tool_call_completed"
    tool_call_id: str
    content: Any = None


class ToolCallErrorEvent(AgentEvent):
    """A tool has failed.

    Attributes:
        tool_call_id: Id of the call.
        error: What happened. AG-UI has no place for it: send an event of your own if the user should see it.
    """

    type: Literal["tool_call_error"] = "tool_call_error"
    tool_call_id: str
    error: str = ""


class CustomEvent(AgentEvent):
    """Anything else that the caller understands.

    Attributes:
        name: What it is.
        value: Any JSON value.
    """

    type: Literal["custom"] = "custom"
    name: str
    value: Any = None


AnyAgentEvent = Annotated[
    RunStartedEvent
    | RunContentEvent
    | RunCompletedEvent
    | RunErrorEvent
    | ReasoningStartedEvent
    | ReasoningContentDeltaEvent
    | ReasoningStepEvent
    | ReasoningCompletedEvent
    | TextMessageStartedEvent
    | TextMessageCompletedEvent
    | ToolCallStartedEvent
    | ToolCallCompletedEvent
    | ToolCallErrorEvent
    | CustomEvent,
    Field(discriminator="type"),
]
"""Any of the events, for a field or a `TypeAdapter`."""
