"""User profiles behind a services-provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from grpclib.const import Status

from dk_trio.errors import UserProfileServiceError
from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import GetUserProfileRequest, GetUserProfileResponse
from dk_trio.services.strategy import BaseStrategy
from dk_trio.services.user_profile import UserProfile, profile_of

from .calls import HEALTH_TIMEOUT, Calls
from .errors import ErrorFamily
from .structs import from_struct

if TYPE_CHECKING:
    from dk_trio.services.provider_clients import ProviderClients

_FAMILY: Final = ErrorFamily(base=UserProfileServiceError)
_METHOD: Final = "GetUserProfile"


class GrpcUserProfile(BaseStrategy, UserProfile):
    """The remote `UserProfile`: see there for what its method promises. A profile has the fields of the contract.

    Args:
        mission_id: The mission, with or without prefix.
        setup_id: The setup.
        setup_version_id: Its version.
        providers: Calls to services-providers.
        client_config: Of another provider than the server's own.
        profiles: Of the local strategy; nothing here depends on it.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        providers: ProviderClients,
        client_config: Any = None,
        profiles: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        name = "agentic_mesh_protocol.user_profile.v1.UserProfileService"
        self._calls = Calls(providers, client_config, name, _FAMILY)

    def __repr__(self) -> str:
        return f"<GrpcUserProfile of {self.mission_id!r}>"

    async def get_user_profile(self) -> dict[str, Any] | None:
        return await self._get(None)

    async def check_health(self) -> None:
        """Ask for the profile."""
        await self._get(HEALTH_TIMEOUT)

    async def _get(self, timeout: float | None) -> dict[str, Any] | None:
        request = GetUserProfileRequest(mission_id="missions:" + self.mission_id.removeprefix("missions:"))
        try:
            reply = await self._calls.read(_METHOD, request, GetUserProfileResponse, timeout=timeout)
        except UserProfileServiceError as error:
            if error.status is not Status.NOT_FOUND:
                raise
            return None
        if not reply.success or reply.user_profile is None:
            return None
        with self._calls.errors(_METHOD):
            return profile_of(reply.user_profile, from_struct)
