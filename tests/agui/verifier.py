"""What a strict AG-UI client checks: each event against the package's models, and the order of all of them."""

from typing import Any

from ag_ui import core
from pydantic import TypeAdapter

EVENT: Any = TypeAdapter(core.Event)


class Verifier:
    """Takes the JSON of one event after the other; an AssertionError says what a client would not have taken."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.run: tuple[str, str] | None = None
        self.ended = ""
        self.open: dict[str, set[str]] = {"text": set(), "reasoning": set(), "thought": set(), "tool": set()}

    def take(self, data: dict[str, Any]) -> None:
        event = EVENT.validate_python(data)
        kind = event.type.value
        self.seen.append(event)
        assert self.ended != "RUN_ERROR", f"{kind} after RUN_ERROR"
        if self.run is None:
            allowed = {"RUN_STARTED", "RUN_ERROR"} if self.ended else {"RUN_STARTED"}
            assert kind in allowed, f"{kind} outside of a run"
        getattr(self, f"on_{kind.lower()}", lambda _: None)(event)

    def begins(self, what: str, key: str) -> None:
        assert key, f"{what} without an id"
        assert key not in self.open[what], f"{what} {key} begins twice"
        self.open[what].add(key)

    def goes_on(self, what: str, key: str) -> None:
        assert key in self.open[what], f"{what} {key} is not open"

    def ends(self, what: str, key: str) -> None:
        self.goes_on(what, key)
        self.open[what].remove(key)

    def on_run_started(self, event: Any) -> None:
        assert self.run is None, "a run inside of a run"
        self.run, self.ended = (event.thread_id, event.run_id), ""

    def on_run_finished(self, event: Any) -> None:
        assert self.run == (event.thread_id, event.run_id)
        self.end("RUN_FINISHED")

    def on_run_error(self, event: Any) -> None:
        self.end("RUN_ERROR")

    def end(self, how: str) -> None:
        assert not any(self.open.values()), f"{how} while open: {self.open}"
        self.run, self.ended = None, how

    def on_text_message_start(self, event: Any) -> None:
        assert not self.open["text"], "two text messages at once"
        self.begins("text", event.message_id)

    def on_text_message_content(self, event: Any) -> None:
        assert event.delta, "early versions refuse an empty delta"
        self.goes_on("text", event.message_id)

    def on_text_message_end(self, event: Any) -> None:
        self.ends("text", event.message_id)

    def on_reasoning_start(self, event: Any) -> None:
        assert not self.open["reasoning"], "two spans of reasoning at once"
        self.begins("reasoning", event.message_id)

    def on_reasoning_message_start(self, event: Any) -> None:
        self.goes_on("reasoning", event.message_id)
        self.begins("thought", event.message_id)

    def on_reasoning_message_content(self, event: Any) -> None:
        assert event.delta, "early versions refuse an empty delta"
        self.goes_on("thought", event.message_id)

    def on_reasoning_message_end(self, event: Any) -> None:
        self.ends("thought", event.message_id)

    def on_reasoning_end(self, event: Any) -> None:
        assert not self.open["thought"], "reasoning ends before its message"
        self.ends("reasoning", event.message_id)

    def on_tool_call_start(self, event: Any) -> None:
        self.begins("tool", event.tool_call_id)

    def on_tool_call_args(self, event: Any) -> None:
        self.goes_on("tool", event.tool_call_id)

    def on_tool_call_end(self, event: Any) -> None:
        self.ends("tool", event.tool_call_id)

    def on_tool_call_result(self, event: Any) -> None:
        assert any(each.type.value == "TOOL_CALL_END" and each.tool_call_id == event.tool_call_id for each in self.seen)


def verified(events: list[dict[str, Any]]) -> Verifier:
    """Take all of them."""
    verifier = Verifier()
    for event in events:
        verifier.take(event)
    return verifier
