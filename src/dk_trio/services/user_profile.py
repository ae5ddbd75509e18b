"""Who the mission is for: the protocol of the user profile service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import UserProfile as WireProfile
    from dk_trio.pb.google.protobuf import Struct


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


def profile_of(wire: WireProfile, read: Callable[[Struct], dict[str, Any]]) -> dict[str, Any]:
    """A profile of the contract, as `get_user_profile` gives it.

    Args:
        wire: The message.
        read: Gives the dict in its metadata.
    """
    profile: dict[str, Any] = {
        "user_id": wire.user_id,
        "organisation_id": wire.organisation_id,
        "email": wire.email,
        "first_name": wire.first_name,
        "last_name": wire.last_name,
        "locale": wire.locale,
        "credits": [
            {"source": lot.source, "total": lot.total, "remaining": lot.remaining, **_dates(timestamp=lot.timestamp)}
            for lot in wire.credits
        ],
        **_dates(creation_date=wire.creation_date, update_date=wire.update_date),
    }
    plan = wire.subscription
    if plan is not None:
        profile["subscription"] = {"tier": plan.tier, "status": plan.status, **_dates(start=plan.start, end=plan.end)}
    if wire.metadata is not None:
        profile["metadata"] = read(wire.metadata)
    return profile


def _dates(**moments: datetime | None) -> dict[str, str]:
    """Those that are known, as RFC 3339 texts."""
    return {
        name: moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        for name, moment in moments.items()
        if moment is not None
    }
