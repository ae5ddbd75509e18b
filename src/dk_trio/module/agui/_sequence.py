"""Where a stream of AG-UI events is: a fold over the events that were sent."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from ._package import core

_Type = core.EventType


class Phase(enum.Enum):
    """Where the stream is between its runs."""

    NEW = "new"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(slots=True)
class Sequence:
    """What is open.

    Attributes:
        thread_id: Thread of the last run.
        run_id: The last run; open while `phase` is RUNNING.
        text: The text message that is open.
        reasoning: The span of reasoning that is open.
        thought: The message of reasoning that is open.
        tools: The tool calls that are open, in their order.
    """

    phase: Phase = Phase.NEW
    thread_id: str = ""
    run_id: str = ""
    text: str | None = None
    reasoning: str | None = None
    thought: str | None = None
    tools: dict[str, None] = field(default_factory=dict)

    def apply(self, event: Any) -> None:
        """The event has gone out. Types that open and close nothing change nothing."""
        match event.type:
            case _Type.RUN_STARTED:
                self.phase, self.thread_id, self.run_id = Phase.RUNNING, event.thread_id, event.run_id
            case _Type.RUN_FINISHED:
                self.phase = Phase.FINISHED
            case _Type.RUN_ERROR:
                self.phase = Phase.FAILED
            case _Type.TEXT_MESSAGE_START:
                self.text = event.message_id
            case _Type.TEXT_MESSAGE_END:
                self.text = None
            case _Type.REASONING_START:
                self.reasoning = event.message_id
            case _Type.REASONING_END:
                self.reasoning = None
            case _Type.REASONING_MESSAGE_START:
                self.thought = event.message_id
            case _Type.REASONING_MESSAGE_END:
                self.thought = None
            case _Type.TOOL_CALL_START:
                self.tools[event.tool_call_id] = None
            case _Type.TOOL_CALL_END:
                self.tools.pop(event.tool_call_id, None)
            case _:
                pass
