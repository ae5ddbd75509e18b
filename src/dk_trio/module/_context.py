"""What a running module holds in its hand: `send`, the ids of its session, the caller's metadata, and free room."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

from pydantic import BaseModel

from ._request_metadata import RequestMetadata

Output: TypeAlias = BaseModel | dict[str, Any]
"""What an author may send: an output model, a bare trigger, or a dict of JSON values. A dict without `root` is a root
itself. A dict is not copied: do not change it before `send` has returned."""

Send: TypeAlias = Callable[[Output], Awaitable[None]]

_logger = logging.getLogger("dk_trio.module")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionIds:
    """The ids of one job, as the caller or the setup gave them; `job_id` is a bare uuid4."""

    job_id: str
    mission_id: str
    setup_id: str
    setup_version_id: str

    def current_ids(self) -> dict[str, str]:
        """The four ids as a dict, for the `extra` of a log call."""
        return {
            "job_id": self.job_id,
            "mission_id": self.mission_id,
            "setup_id": self.setup_id,
            "setup_version_id": self.setup_version_id,
        }


class ModuleContext:
    """Everything that a module and its handlers get from their session.

    Attributes:
        send: `await context.send(output)` puts one output on the caller's stream. It returns when the stream has taken
            it and waits while the caller reads too slowly, so it is the back-pressure. Several tasks of a module may
            send; each output stays whole. Raises `InvalidOutputError` for a value that is not JSON, `SessionEndedError`
            after the session's end; `trio.Cancelled` when the caller has gone.
        session: The ids (`job_id`, `mission_id`, `setup_id`, `setup_version_id`).
        request_metadata: The caller's metadata.
        callbacks: `send_message`, the same as `send`, and `logger`.
        metadata: Free namespace for the author; likewise `helpers` and `state`.
    """

    __slots__ = ("callbacks", "helpers", "metadata", "request_metadata", "send", "session", "state")

    def __init__(self, *, session: SessionIds, send: Send, request_metadata: RequestMetadata | None = None) -> None:
        self.send = send
        self.session = session
        self.request_metadata = RequestMetadata() if request_metadata is None else request_metadata
        self.callbacks = SimpleNamespace(send_message=send, logger=_logger)
        self.metadata = SimpleNamespace()
        self.helpers = SimpleNamespace()
        self.state = SimpleNamespace()

    def __repr__(self) -> str:
        return f"<ModuleContext job={self.session.job_id} mission={self.session.mission_id}>"
