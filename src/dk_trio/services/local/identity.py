"""Identity that is a parameter."""

from __future__ import annotations

from dk_trio.services.identity import Identity
from dk_trio.services.strategy import BaseStrategy


class DefaultIdentity(BaseStrategy, Identity):
    """One identity for all jobs.

    Args:
        mission_id: The mission.
        setup_id: The setup.
        setup_version_id: Its version.
        identity: Its name.
    """

    def __init__(
        self, mission_id: str, setup_id: str, setup_version_id: str, *, identity: str = "default_identity"
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._identity = identity

    async def get_identity(self) -> str:
        return self._identity
