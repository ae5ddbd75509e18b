"""Under which identity a job acts: the protocol of the identity service."""

from __future__ import annotations

from typing import Protocol


class Identity(Protocol):
    """The identity of the job."""

    async def get_identity(self) -> str:
        """Its name."""
        ...
