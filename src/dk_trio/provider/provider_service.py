"""ProviderService: ours, beside the contract, for what the contract can only ask. Clients need not know of it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from dk_trio.pb.dk_trio.provider.v1 import ProviderServiceBase, PutUserProfileRequest, PutUserProfileResponse
from dk_trio.services.stores.profiles import bare
from dk_trio.services.user_profile import profile_of

from ._base import Servicer, json_text, refused, text

if TYPE_CHECKING:
    from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import UserProfile
    from dk_trio.services.stores.work import Work


class ProviderServicer(Servicer, ProviderServiceBase):
    """Fills what other services tell."""

    async def put_user_profile(self, message: PutUserProfileRequest) -> PutUserProfileResponse:
        """Keep the profile of a mission's user, instead of the one that was there.

        Raises:
            RequestError: It names no mission, has no profile, or one with a number that JSON does not know.
        """
        mission = bare(message.mission_id)
        text(mission, "mission_id")
        if message.user_profile is None:
            raise refused("user_profile", "must be set")
        profile = _checked(message.user_profile)

        def work() -> Work[PutUserProfileResponse]:
            there = yield from self._stores.profiles.get_work(mission)
            yield from self._stores.profiles.put_work(mission, profile)
            return PutUserProfileResponse(replaced=there is not None)

        return await self._write(work)


def _checked(wire: UserProfile) -> dict[str, Any]:
    for index, lot in enumerate(wire.credits):
        if not math.isfinite(lot.remaining):
            raise refused(
                f"user_profile.credits[{index}].remaining", f"is {lot.remaining!r}, which is no number of JSON"
            )
    return profile_of(wire, lambda metadata: json.loads(json_text(metadata, "user_profile.metadata")))
