"""Who the mission is for: the protocol of the user profile service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class UserProfile(Protocol):
    """The profile of the user of the job's mission."""

    async def get_user_profile(self) -> dict[str, Any] | None:
        """The profile, or None when the service knows no user of this mission.

        Returns:
            `user_id`, `organisation_id`, `email`, `first_name`, `last_name`, `locale` (texts, empty when unknown) and
            `credits` (a list) are always there; `creation_date`, `update_date`, `subscription` and `metadata` when
            they are known. Dates are RFC 3339 texts.

        Raises:
            UserProfileServiceError: The service failed.
        """
        ...


def with_defaults(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A profile with the keys that are always there; what it has besides stays."""
    texts = ("user_id", "organisation_id", "email", "first_name", "last_name", "locale")
    return {**dict.fromkeys(texts, ""), "credits": [], **profile}
