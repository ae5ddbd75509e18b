"""Agent events in, AG-UI events out, always a legal sequence.

What an AG-UI client takes: the first event opens a run; nothing but a new run or an error follows RUN_FINISHED, nothing
at all RUN_ERROR; content and ends carry the id of something that is open, nothing is opened twice, and all is closed
when the run ends. Agents do not keep to that: frameworks nest runs, leave out starts, and end in the middle of a
sentence. So a start that is missing is made, an end that is missing is made, and what can have no place any more (the
late, the twice opened) is left out, with a line in the log.

The state follows what was sent, not what was asked for: an author whose `send_message` was cut by a timeout has sent a
part of what an event means, and the next event has to fit to that part.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pydantic_core import to_jsonable_python

from dk_trio import chance
from dk_trio.module import events

from ._package import core
from ._sequence import Phase, Sequence

_log = logging.getLogger("dk_trio.module.agui")

# What may still come once a run has ended.
_AFTER: Final[Mapping[Phase, frozenset[str]]] = {
    Phase.FINISHED: frozenset({"run_started", "run_error"}),
    Phase.FAILED: frozenset(),
}


def _new_id() -> str:
    return str(chance.new_uuid())


class Translator:
    """The AG-UI events of one stream. Does no I/O.

    Args:
        thread_id: Thread of a run that does not name its own.
        run_id: Likewise its id.
        new_id: Makes ids of messages.
    """

    def __init__(self, *, thread_id: str, run_id: str, new_id: Callable[[], str] = _new_id) -> None:
        self._thread_id = thread_id
        self._run_id = run_id
        self._new_id = new_id
        self._nested: set[str] = set()  # ids of runs that began inside the open one
        self._is = Sequence()

    def __repr__(self) -> str:
        return f"<Translator {self._is}>"

    def translate(self, event: events.AgentEvent) -> list[Any]:
        """What this event means now: AG-UI events in order. Report each with `sent`, before the next translation."""
        rule = _RULES.get(event.type)
        if rule is None:
            _log.debug("agent event %r means nothing in AG-UI and is not sent", event.type)
            return []
        phase = self._is.phase
        if phase in _AFTER and event.type not in _AFTER[phase]:
            _log.warning("agent event %r comes after the end of its run (%s) and is not sent", event.type, phase.value)
            return []
        starts = phase is Phase.NEW and event.type != "run_started"
        return [*(self._run_started(events.RunStartedEvent()) if starts else ()), *rule(self, event)]

    def sent(self, event: Any) -> None:
        """An AG-UI event has gone out."""
        self._is.apply(event)

    # --- runs --------------------------------------------------------------------------------------------------------

    def _run_started(self, event: events.RunStartedEvent) -> Iterator[Any]:
        if self._is.phase is not Phase.RUNNING:
            self._nested.clear()
            yield core.RunStartedEvent(
                thread_id=event.thread_id or self._thread_id, run_id=event.run_id or self._run_id
            )
            return
        _log.debug("run %r begins inside of run %r, its start is not sent", event.run_id, self._is.run_id)
        if event.run_id is not None and event.run_id != self._is.run_id:
            self._nested.add(event.run_id)

    def _run_completed(self, event: events.RunCompletedEvent) -> Iterator[Any]:
        if not self._ends_nested(event.run_id):
            yield from self._close_all()
            thread_id, run_id = self._is.thread_id or self._thread_id, self._is.run_id or self._run_id
            yield core.RunFinishedEvent(thread_id=thread_id, run_id=run_id, result=event.result)

    def _run_error(self, event: events.RunErrorEvent) -> Iterator[Any]:
        if not self._ends_nested(event.run_id):
            yield from self._close_all()
            yield core.RunErrorEvent(message=event.message, code=event.code)

    def _ends_nested(self, run_id: str | None) -> bool:
        if run_id not in self._nested:
            return False
        _log.debug("run %r ends inside of run %r, its end is not sent", run_id, self._is.run_id)
        self._nested.discard(run_id)
        return True

    def _close_all(self) -> Iterator[Any]:
        yield from self._close_text()
        yield from self._close_reasoning()
        for tool_call_id in self._is.tools:
            yield core.ToolCallEndEvent(tool_call_id=tool_call_id)

    # --- text --------------------------------------------------------------------------------------------------------

    def _text_started(self, event: events.TextMessageStartedEvent) -> Iterator[Any]:
        if self._is.text is not None and event.message_id == self._is.text:
            _log.debug("text message %r is open already", event.message_id)
            return
        yield from self._close_text()
        yield core.TextMessageStartEvent(message_id=event.message_id or self._new_id(), role=event.role)

    def _text_content(self, event: events.RunContentEvent) -> Iterator[Any]:
        if not event.content:  # early versions of AG-UI refuse it
            return
        message_id = self._is.text
        if message_id is None or event.message_id not in {None, message_id}:
            yield from self._close_text()
            message_id = event.message_id or self._new_id()
            yield core.TextMessageStartEvent(message_id=message_id, role="assistant")
        yield core.TextMessageContentEvent(message_id=message_id, delta=event.content)

    def _text_completed(self, event: events.TextMessageCompletedEvent) -> Iterator[Any]:
        if event.message_id in {None, self._is.text}:
            yield from self._close_text()

    def _close_text(self) -> Iterator[Any]:
        if self._is.text is not None:
            yield core.TextMessageEndEvent(message_id=self._is.text)

    # --- reasoning: a span with one message, under one id ------------------------------------------------------------

    def _reasoning_started(self, event: events.ReasoningStartedEvent) -> Iterator[Any]:
        yield from self._open_reasoning(event.message_id or self._new_id())

    def _reasoning_content(self, event: events.ReasoningContentDeltaEvent | events.ReasoningStepEvent) -> Iterator[Any]:
        if event.content:
            message_id = event.message_id or self._is.reasoning or self._new_id()
            yield from self._open_reasoning(message_id)
            yield core.ReasoningMessageContentEvent(message_id=message_id, delta=event.content)

    def _reasoning_completed(self, event: events.ReasoningCompletedEvent) -> Iterator[Any]:
        if event.message_id in {None, self._is.reasoning}:
            yield from self._close_reasoning()

    def _open_reasoning(self, message_id: str) -> Iterator[Any]:
        if self._is.reasoning != message_id:
            yield from self._close_reasoning()
            yield core.ReasoningStartEvent(message_id=message_id)
        if self._is.thought != message_id:
            yield core.ReasoningMessageStartEvent(message_id=message_id, role="reasoning")

    def _close_reasoning(self) -> Iterator[Any]:
        if self._is.thought is not None:
            yield core.ReasoningMessageEndEvent(message_id=self._is.thought)
        if self._is.reasoning is not None:
            yield core.ReasoningEndEvent(message_id=self._is.reasoning)

    # --- tools, and the rest -----------------------------------------------------------------------------------------

    def _tool_started(self, event: events.ToolCallStartedEvent) -> Iterator[Any]:
        call = event.tool_call_id
        if call in self._is.tools:
            _log.debug("tool call %r is open already", call)
            return
        yield core.ToolCallStartEvent(
            tool_call_id=call, tool_call_name=event.tool_name, parent_message_id=event.parent_message_id
        )
        if event.arguments is not None:
            yield core.ToolCallArgsEvent(tool_call_id=call, delta=_text(event.arguments))

    def _tool_ended(self, event: events.ToolCallCompletedEvent | events.ToolCallErrorEvent) -> Iterator[Any]:
        call = event.tool_call_id
        if call not in self._is.tools:
            _log.debug("tool call %r is not open, its end is not sent", call)
            return
        yield core.ToolCallEndEvent(tool_call_id=call)
        if isinstance(event, events.ToolCallCompletedEvent) and event.content is not None:
            yield core.ToolCallResultEvent(
                message_id=self._new_id(), tool_call_id=call, content=_text(event.content), role="tool"
            )

    def _custom(self, event: events.CustomEvent) -> Iterator[Any]:
        yield core.CustomEvent(name=event.name, value=to_jsonable_python(event.value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(to_jsonable_python(value), ensure_ascii=False)


_RULES: Final[Mapping[str, Callable[[Translator, Any], Iterator[Any]]]] = {
    "run_started": Translator._run_started,
    "run_content": Translator._text_content,
    "run_completed": Translator._run_completed,
    "run_error": Translator._run_error,
    "reasoning_started": Translator._reasoning_started,
    "reasoning_content_delta": Translator._reasoning_content,
    "reasoning_step": Translator._reasoning_content,
    "reasoning_completed": Translator._reasoning_completed,
    "text_message_started": Translator._text_started,
    "text_message_completed": Translator._text_completed,
    "tool_call_started": Translator._tool_started,
    "tool_call_completed": Translator._tool_ended,
    "tool_call_error": Translator._tool_ended,
    "custom": Translator._custom,
}
