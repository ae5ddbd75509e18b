"""The first and the last message of every stream, made without their models: every job sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._models import utc_now

if TYPE_CHECKING:
    from ._context import SessionIds

_SYSTEM = {"role": "system"}


def module_start_info(ids: SessionIds, *, module_id: str, module_name: str) -> dict[str, Any]:
    """A `ModuleStartInfoOutput` as it goes on the wire, made without the model: every job sends one."""
    now = utc_now()
    root = {
        "protocol": "module_start_info",
        "created_at": now,
        "job_id": ids.job_id,
        "mission_id": ids.mission_id,
        "setup_id": ids.setup_id,
        "setup_version_id": ids.setup_version_id,
        "module_id": module_id,
        "module_name": module_name,
        "started_at": now,
    }
    return {"root": root, "annotations": _SYSTEM}


def end_of_stream() -> dict[str, Any]:
    """An `EndOfStreamOutput` as it goes on the wire."""
    return {"root": {"protocol": "end_of_stream", "created_at": utc_now()}, "annotations": _SYSTEM}
