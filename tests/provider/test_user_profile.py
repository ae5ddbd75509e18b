"""UserProfileService of the provider."""

from datetime import UTC, datetime
from typing import Any

import pytest
from grpclib.exceptions import GRPCError

from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import GetUserProfileRequest, UserProfileServiceStub

from .calls import told
from .kit import provided

PROFILE = {
    "user_id": "users:u",
    "organisation_id": "organisations:o",
    "email": "a@b.example",
    "creation_date": "2024-05-06T07:08:09Z",
    "subscription": {"tier": "gold", "start": "2024-01-01T00:00:00", "end": None},
    "credits": [{"source": "gift", "total": 5, "remaining": 2.5}],
    "metadata": {"n": 1.0},
}


async def test_an_unknown_user_is_no_error(autojump_clock: Any) -> None:
    async with provided() as peer:
        reply = await UserProfileServiceStub(peer.channel).get_user_profile(
            GetUserProfileRequest(mission_id="missions:m")
        )
        assert not reply.success
        assert reply.user_profile is None


async def test_a_profile_is_told(autojump_clock: Any) -> None:
    async with provided() as peer:
        await peer.provider.put_user_profile("missions:m", PROFILE)
        for mission_id in ("missions:m", "m"):
            reply: Any = await UserProfileServiceStub(peer.channel).get_user_profile(
                GetUserProfileRequest(mission_id=mission_id)
            )
            assert reply.success
            profile = reply.user_profile
            assert (profile.user_id, profile.email, profile.first_name) == ("users:u", "a@b.example", "")
            assert profile.creation_date == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
            assert profile.subscription.start == datetime(2024, 1, 1, tzinfo=UTC)
            assert (profile.subscription.tier, profile.subscription.end) == ("gold", None)
            assert (profile.credits[0].total, profile.credits[0].remaining) == (5, 2.5)
            assert profile.metadata.to_dict() == {"n": 1.0}


@pytest.mark.parametrize("bad", [{"email": 5}, {"credits": [5]}, {"creation_date": "soon"}, {"metadata": []}])
async def test_what_is_stored_and_no_profile_is_named(autojump_clock: Any, bad: dict[str, Any]) -> None:
    async with provided() as peer:
        await peer.provider.put_user_profile("missions:m", PROFILE | bad)
        with pytest.raises(GRPCError) as caught:
            await UserProfileServiceStub(peer.channel).get_user_profile(GetUserProfileRequest(mission_id="missions:m"))
        assert told(caught.value)[1] == "USER_PROFILE_FAILED"
        assert "'missions:m'" in str(caught.value.message)
