"""Signals as the contract's `Task` messages, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from dk_trio.pb import DecodeError
from dk_trio.pb._primitives import Malformed, read_size, read_tag, skip
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import GetSignalsResponse, Task
from dk_trio.pb.google.protobuf import Struct

from ._signal import NO_REASON, Signal, SignalAction

_SIZED: Final = 2  # the wire type
_TASKS: Final = 1 << 3 | _SIZED  # the tag of GetSignalsResponse.tasks
_ACTIONS: Final = {action.value: action for action in SignalAction}


def to_task(signal: Signal) -> Task:
    """The message for a signal, with the prefixes of ids that the contract's rules want.

    What its payload holds is looked at when the message is serialised.
    """
    payload = Struct.from_dict(dict(signal.payload)) if signal.payload else None
    return Task(
        task_id=signal.task_id,
        mission_id=_prefixed("missions:", signal.mission_id),
        setup_id=_prefixed("setups:", signal.setup_id),
        setup_version_id=_prefixed("setup_versions:", signal.setup_version_id),
        action=SignalAction(signal.action).value,
        cancellation_reason=signal.cancellation_reason or NO_REASON,  # the contract wants a word
        created_at=signal.created_at,
        payload=payload,
    )


def _prefixed(prefix: str, value: str) -> str:
    return prefix + value.removeprefix(prefix) if value else ""


def to_signal(task: Task) -> Signal | None:
    """The signal of a message; None when its action is none that we know."""
    action = _ACTIONS.get(task.action)
    if action is None:
        return None
    made: dict[str, Any] = {} if task.created_at is None else {"created_at": task.created_at}
    return Signal(
        task_id=task.task_id,
        mission_id=task.mission_id,
        setup_id=task.setup_id,
        setup_version_id=task.setup_version_id,
        action=action,
        cancellation_reason=task.cancellation_reason or NO_REASON,
        payload=payload_of(task),
        **made,
    )


def payload_of(task: Task) -> dict[str, Any]:
    """The payload; empty when there is none, or when its bytes are none: a cancel is not less of a cancel then."""
    try:
        return {} if task.payload is None else task.payload.to_dict()
    except DecodeError:
        return {}


def identity(task: Task) -> bytes:
    """What makes two messages to one job the same signal: all that its sender has said, its clock included.

    Not the heartbeat, which a provider may set anew in each reply, and not the order of keys in the payload, which some
    peers change from message to message.
    """
    made = task.created_at
    said = (
        task.action,
        task.cancellation_reason,
        None if made is None else (made.timestamp(), getattr(made, "nanos", 0)),
        payload_of(task),
    )
    return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).digest()


def readable_tasks(reply: bytes) -> list[Task]:
    """The signals of a reply to GetSignals, of which some may have fields that cannot be read: without these fields.

    A date of the year 10000 is no date, but the cancel that bears it is a cancel, and so is that of the job beside it.

    Raises:
        DecodeError: It is no reply at all.
    """
    try:
        return GetSignalsResponse.parse(reply).tasks
    except DecodeError:
        try:
            tasks = [field[begin:] for tag, begin, field in _fields(reply) if tag == _TASKS]
            parts = [[field for _, _, field in _fields(task)] for task in tasks]
        except (IndexError, Malformed):
            parts = []
        if not parts:
            raise
    return [Task.parse(b"".join([field for field in fields if _readable(field)])) for fields in parts]


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The fields of a message: tag, where in it the content of one that has a length begins, and all its bytes."""
    position = 0
    while position < len(data):
        start = position
        tag, position = read_tag(data, position)
        behind = skip(data, position, tag, len(data), 0)
        begin = read_size(data, position)[1] if tag & 7 == _SIZED else behind
        yield tag, begin - start, data[start:behind]
        position = behind


def _readable(field: bytes) -> bool:
    try:
        Task.parse(field)
    except DecodeError:
        return False
    return True
