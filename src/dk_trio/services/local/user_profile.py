"""User profiles that somebody has put here: a module's parameters, or a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dk_trio.services.stores.profiles import bare
from dk_trio.services.strategy import BaseStrategy
from dk_trio.services.user_profile import UserProfile, with_defaults

if TYPE_CHECKING:
    from dk_trio.services.local.platform import LocalPlatform


class DefaultUserProfile(BaseStrategy, UserProfile):
    """The profile of the job's mission: what `add_user_profile` has stored, or else the parameter's.

    Args:
        mission_id: The mission, with or without prefix.
        setup_id: The setup.
        setup_version_id: Its version.
        platform: Where profiles are stored.
        profiles: Profiles by mission id, with or without prefix.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        platform: LocalPlatform,
        profiles: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._database = platform.database
        self._store = platform.profiles
        self._profiles = {bare(mission): profile for mission, profile in (profiles or {}).items()}

    async def get_user_profile(self) -> dict[str, Any] | None:
        stored = await self._store.get(self.mission_id)
        profile = stored if stored is not None else self._profiles.get(bare(self.mission_id))
        return None if profile is None else with_defaults(profile)

    async def add_user_profile(self, profile: Mapping[str, Any]) -> None:
        """Store a profile for the mission; all its jobs get it from now on, and after a restart too.

        Raises:
            UserProfileServiceError: It is not JSON, or cannot be written.
        """
        await self._store.put(self.mission_id, profile)

    async def check_health(self) -> None:
        await self._database.check_health()
