"""UserProfileService: who a mission is for. Clients only read; `ProviderService` puts profiles there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from dk_trio.errors import UserProfileServiceError
from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import (
    CreditLot,
    GetUserProfileRequest,
    GetUserProfileResponse,
    Subscription,
    UserProfile,
    UserProfileServiceBase,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.user_profile import with_defaults

from ._base import Servicer, text

_TEXTS: Final = ("user_id", "organisation_id", "email", "first_name", "last_name", "locale")


class UserProfileServicer(Servicer, UserProfileServiceBase):
    """Tells profiles."""

    async def get_user_profile(self, message: GetUserProfileRequest) -> GetUserProfileResponse:
        """The profile of a mission's user; `success=false` where none is known, which clients take for no profile.

        Raises:
            UserProfileServiceError: What is stored is no profile.
        """
        mission = text(message.mission_id, "mission_id")
        profile = await self._stores.profiles.get(mission)
        if profile is None:
            return GetUserProfileResponse(success=False)
        try:
            return GetUserProfileResponse(success=True, user_profile=_message(with_defaults(profile)))
        except (AttributeError, TypeError, ValueError) as error:
            raise UserProfileServiceError(
                f"The profile that is stored for {mission!r} is none: {error}.", hint="Store it again."
            ) from error


def _message(profile: dict[str, Any]) -> UserProfile:
    for name in _TEXTS:
        if not isinstance(profile[name], str):
            raise TypeError(f"{name} is {profile[name]!r:.60} and no text")
    subscription, metadata = profile.get("subscription"), profile.get("metadata")
    return UserProfile(
        **{name: profile[name] for name in _TEXTS},
        creation_date=_moment(profile.get("creation_date")),
        update_date=_moment(profile.get("update_date")),
        subscription=None
        if subscription is None
        else Subscription(
            tier=str(subscription.get("tier") or ""),
            status=str(subscription.get("status") or ""),
            start=_moment(subscription.get("start")),
            end=_moment(subscription.get("end")),
        ),
        credits=[
            CreditLot(
                source=str(lot.get("source") or ""),
                total=int(lot.get("total") or 0),
                remaining=float(lot.get("remaining") or 0),
                timestamp=_moment(lot.get("timestamp")),
            )
            for lot in profile["credits"]
        ],
        metadata=None if metadata is None else Struct.from_dict(metadata),
    )


def _moment(value: str | None) -> datetime | None:
    """A date of RFC 3339; without a zone it is UTC."""
    if not value:
        return None
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
