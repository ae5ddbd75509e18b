"""The data models: what travels in `input` and `output`, and the two messages that every stream has.

On the wire an input or output is `{"root": {"protocol": ..., ...}, "annotations": {...}}`. The root is a trigger; its
protocol, a one-value `Literal`, tells the members of a union apart.
"""

from __future__ import annotations

from typing import Generic, Literal

from pydantic import BaseModel, Field, SerializeAsAny
from typing_extensions import TypeVar

from dk_trio import chance


def utc_now() -> str:
    """The wall clock as ISO 8601 text with microseconds, even when there are none, and a UTC offset."""
    return chance.utc_now().isoformat(timespec="microseconds")


class DataTrigger(BaseModel):
    """A root of an input or output.

    Concrete triggers narrow `protocol` to a one-value `Literal` with that value as default:

        class Message(DataTrigger):
            protocol: Literal["message"] = "message"
            text: str
    """

    protocol: str
    created_at: str = Field(default_factory=utc_now)


# As what it is, not as what is declared: a bare `DataModel(root=trigger)` would lose all that its trigger adds.
RootT = TypeVar("RootT", default=SerializeAsAny[DataTrigger])


class DataModel(BaseModel, Generic[RootT]):
    """An input or output: one trigger, or a union of triggers, as `root`.

    `annotations` are free text pairs beside it; `role: system` marks messages that are not the author's.
    """

    root: RootT
    annotations: dict[str, str] = Field(default_factory=dict)


class ModuleCodeModel(BaseModel):
    """What a failure says in the stream (reference, 2.2).

    Attributes:
        code: For programs.
        message: The cause.
        short_description: What kind of failure, for people.
    """

    code: str
    message: str | None = None
    short_description: str | None = None


class ModuleStartInfoOutput(DataTrigger):
    """First message of every stream: which job, of which module, with which setup."""

    protocol: Literal["module_start_info"] = "module_start_info"
    job_id: str
    mission_id: str
    setup_id: str
    setup_version_id: str
    module_id: str
    module_name: str
    started_at: str = Field(default_factory=utc_now)


class EndOfStreamOutput(DataTrigger):
    """Last message of a stream that succeeded. A stream without it has failed, and its status says why."""

    protocol: Literal["end_of_stream"] = "end_of_stream"
