"""AG-UI events as outputs: their protocols, what goes on the wire, and the schema that says so."""

from typing import Any

import jsonschema
import pytest
from ag_ui import core
from pydantic import BaseModel

from dk_trio.module import DataModel, DataTrigger
from dk_trio.module._output import output_dict
from dk_trio.module.agui import OUTPUTS, AgUiOutput, AnyAgUiOutput, output_of
from dk_trio.module.schema import output_document

# What each event cannot do without, by a part of its type; the package's versions have different events.
REQUIRED: dict[str, dict[str, Any]] = {
    "TEXT_MESSAGE_START": {"message_id": "m"},
    "TEXT_MESSAGE_CONTENT": {"message_id": "m", "delta": "d"},
    "TEXT_MESSAGE_END": {"message_id": "m"},
    "TEXT_MESSAGE_CHUNK": {},
    "THINKING_TEXT_MESSAGE_START": {},
    "THINKING_TEXT_MESSAGE_CONTENT": {"delta": "d"},
    "THINKING_TEXT_MESSAGE_END": {},
    "TOOL_CALL_START": {"tool_call_id": "c", "tool_call_name": "t"},
    "TOOL_CALL_ARGS": {"tool_call_id": "c", "delta": "d"},
    "TOOL_CALL_END": {"tool_call_id": "c"},
    "TOOL_CALL_CHUNK": {},
    "TOOL_CALL_RESULT": {"message_id": "m", "tool_call_id": "c", "content": "x"},
    "THINKING_START": {},
    "THINKING_END": {},
    "STATE_SNAPSHOT": {"snapshot": {"a": None}},
    "STATE_DELTA": {"delta": [{"op": "add", "path": "/a", "value": None}]},
    "MESSAGES_SNAPSHOT": {"messages": [{"role": "assistant", "id": "m", "content": None}]},
    "ACTIVITY_SNAPSHOT": {"message_id": "m", "activity_type": "t", "content": {"a": 1}},
    "ACTIVITY_DELTA": {"message_id": "m", "activity_type": "t", "patch": []},
    "RAW": {"event": None},
    "CUSTOM": {"name": "n", "value": None},
    "RUN_STARTED": {"thread_id": "t", "run_id": "r"},
    "RUN_FINISHED": {"thread_id": "t", "run_id": "r"},
    "RUN_ERROR": {"message": "m"},
    "STEP_STARTED": {"step_name": "s"},
    "STEP_FINISHED": {"step_name": "s"},
    "REASONING_START": {"message_id": "m"},
    "REASONING_MESSAGE_START": {"message_id": "m", "role": "reasoning"},
    "REASONING_MESSAGE_CONTENT": {"message_id": "m", "delta": "d"},
    "REASONING_MESSAGE_END": {"message_id": "m"},
    "REASONING_MESSAGE_CHUNK": {},
    "REASONING_END": {"message_id": "m"},
    "REASONING_ENCRYPTED_VALUE": {"subtype": "message", "entity_id": "m", "encrypted_value": "x"},
    "SUBAGENT_STARTED": {"subagent_run_id": "s", "name": "n"},
    "SUBAGENT_FINISHED": {"subagent_run_id": "s"},
    "SUBAGENT_ERROR": {"subagent_run_id": "s", "message": "m"},
}


def event_of(kind: str) -> core.BaseEvent:
    event: type[core.BaseEvent] = OUTPUTS[kind].model_fields["event"].annotation
    return event.model_validate(REQUIRED[kind])


def camel(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(part.title() for part in more)


class Reply(DataTrigger):
    protocol: str = "reply"


def test_every_event_of_the_package_has_an_output() -> None:
    assert set(OUTPUTS) == {kind.value for kind in core.EventType}
    assert set(OUTPUTS) <= set(REQUIRED)
    assert len(OUTPUTS) >= 31
    assert {kind.model_fields["protocol"].default for kind in OUTPUTS.values()} >= {
        "agui_text_message_content",
        "agui_run_finished",
        "agui_raw",
        "agui_custom",
    }


@pytest.mark.parametrize("kind", OUTPUTS)
def test_output_goes_on_the_wire_as_agui_writes_it(kind: str) -> None:
    event = event_of(kind)
    sent = output_dict(output_of(event))
    root = sent["root"]
    assert root["protocol"] == f"agui_{kind.lower()}"
    assert root["created_at"]
    on_wire = root["event"]
    assert on_wire["type"] == kind
    assert {camel(name) for name in REQUIRED[kind]} <= set(on_wire)
    required = {camel(name) for name, field in type(event).model_fields.items() if field.is_required()}
    assert all(value is not None for name, value in on_wire.items() if name not in required)
    assert type(event).model_validate(on_wire) == event


@pytest.mark.parametrize("kind", OUTPUTS)
def test_output_is_read_back_by_its_protocol(kind: str) -> None:
    output = output_of(event_of(kind))
    model = DataModel[AnyAgUiOutput]
    in_envelope = output_dict(model(root=output))
    assert in_envelope["root"] == output_dict(output)["root"]
    assert model.model_validate(in_envelope).root == output


def test_only_what_was_not_given_is_left_out() -> None:
    messages: list[Any] = [
        {"role": "assistant", "id": "1", "content": None, "tool_calls": None},
        {"role": "user", "id": "2", "content": "hi"},
    ]
    snapshot = output_of(core.MessagesSnapshotEvent.model_validate({"messages": messages}))
    assert output_dict(snapshot)["root"]["event"]["messages"] == [
        {"role": "assistant", "id": "1"},
        {"role": "user", "id": "2", "content": "hi"},
    ]
    state = output_of(core.StateSnapshotEvent(snapshot={"chosen": None, "rows": [None]}))
    assert output_dict(state)["root"]["event"]["snapshot"] == {"chosen": None, "rows": [None]}
    extra: Any = core.RunErrorEvent.model_validate({"message": "m", "of_our_own": {"a_b": None}})
    assert output_dict(output_of(extra))["root"]["event"]["of_our_own"] == {"a_b": None}


@pytest.mark.parametrize("mode", ["json", "python"])
def test_output_is_dumped_alike_in_every_way(mode: Any) -> None:
    event = output_of(event_of("TOOL_CALL_START")).model_dump(mode=mode)["event"]
    assert event == {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "t"}
    assert type(event["type"]) is str


def test_schema_of_a_module_names_the_protocols_and_accepts_the_outputs() -> None:
    class Output(DataModel[AnyAgUiOutput | Reply]):
        pass

    schema = output_document(Output)
    text = str(schema)
    assert all(f"agui_{kind.lower()}" in text for kind in OUTPUTS)
    jsonschema.validate(output_dict(output_of(event_of("TEXT_MESSAGE_CONTENT"))), schema)


def test_output_is_a_trigger_with_a_name_of_its_own() -> None:
    output = output_of(event_of("RUN_ERROR"))
    assert type(output).__name__ == "AgUiRunErrorOutput"
    assert isinstance(output, AgUiOutput)
    assert isinstance(output, DataTrigger)
    assert isinstance(output.event, BaseModel)
