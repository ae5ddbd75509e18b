"""Snapshots: named copies of JSON data of a mission. The protocol of the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Snapshot(Protocol):
    """Snapshots of the job's mission, shared by all its jobs."""

    async def create(self, data: Mapping[str, Any], name: str | None = None) -> str:
        """Keep a copy of the data.

        Args:
            data: JSON values.
            name: Name in the mission; None: a name is made.

        Returns:
            The name.

        Raises:
            RecordExistsError: A snapshot of this name is there.
            InvalidRecordError: The data are not JSON or too large, the name is not allowed, or there are too many.
        """
        ...

    async def get(self, name: str) -> dict[str, Any] | None:
        """The data of a snapshot, or None."""
        ...

    async def update(self, name: str, data: Mapping[str, Any]) -> int:
        """Replace the data of a snapshot; how many were changed, 0 or 1."""
        ...

    async def delete(self, name: str) -> int:
        """Delete a snapshot; how many were deleted, 0 or 1."""
        ...

    async def get_all(self) -> dict[str, dict[str, Any]]:
        """All snapshots by name, in the order of their creation."""
        ...
