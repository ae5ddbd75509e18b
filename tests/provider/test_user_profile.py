"""UserProfileService of the provider, and the way in that the contract lacks."""

from datetime import UTC, datetime
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import (
    CreditLot,
    GetUserProfileRequest,
    Subscription,
    UserProfile,
    UserProfileServiceStub,
)
from dk_trio.pb.dk_trio.provider.v1 import ProviderServiceStub, PutUserProfileRequest
from dk_trio.pb.google.protobuf import Struct

from .calls import keyed, told
from .kit import Provided, provided

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


MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WIRE = UserProfile(
    user_id="users:u",
    organisation_id="organisations:o",
    email="a@b.example",
    first_name="L\xf6\0ve",
    last_name="Lace",
    creation_date=MOMENT,
    update_date=MOMENT,
    locale="fr",
    subscription=Subscription("gold", "active", MOMENT),
    credits=[CreditLot("gift", 2**62, 2.5, MOMENT), CreditLot("purchase", 5)],
    metadata=Struct.from_dict({"n": 1.0, "deep": {"list": [None, "x"]}}),
)


async def asked(peer: Provided, mission_id: str = "missions:m") -> UserProfile | None:
    """The profile that clients of the contract are told."""
    reply = await UserProfileServiceStub(peer.channel).get_user_profile(GetUserProfileRequest(mission_id=mission_id))
    return reply.user_profile


async def put(peer: Provided, profile: UserProfile | None, mission_id: str = "missions:m", **metadata: Any) -> bool:
    """Whether there was one before."""
    stub, request = ProviderServiceStub(peer.channel), PutUserProfileRequest(mission_id, profile)
    return (await stub.put_user_profile(request, **metadata)).replaced


@pytest.mark.parametrize("mission_id", ["missions:m", "m"])
async def test_a_profile_that_is_put_is_told_as_it_is(autojump_clock: Any, mission_id: str) -> None:
    async with provided() as peer:
        assert not await put(peer, UserProfile(locale="de"), mission_id)
        assert await put(peer, WIRE, mission_id)
        assert await asked(peer) == WIRE
        assert await asked(peer, "missions:other") is None


async def test_a_key_puts_a_profile_once(autojump_clock: Any) -> None:
    async with provided() as peer:
        assert not await put(peer, WIRE, metadata=keyed("a"))
        await put(peer, UserProfile(locale="de"))
        assert not await put(peer, WIRE, metadata=keyed("a"))
        assert getattr(await asked(peer), "locale", "") == "de"


@pytest.mark.parametrize(
    ("mission_id", "profile", "field"),
    [
        ("missions:m", None, "user_profile"),
        ("missions:", UserProfile(), "mission_id"),
        ("missions:\0", UserProfile(), "mission_id"),
        ("m" * 769, UserProfile(), "mission_id"),
        (
            "m",
            UserProfile(credits=[CreditLot(), CreditLot(remaining=float("inf"))]),
            "user_profile.credits[1].remaining",
        ),
        ("m", UserProfile(metadata=Struct.from_dict({"a": [float("nan")]})), "user_profile.metadata.a[0]"),
        ("m", UserProfile(metadata=Struct.parse(b"\x0a\x02\x0a\x05")), "user_profile.metadata"),
    ],
)
@pytest.mark.parametrize("validate", ["warn", "off"])
async def test_what_cannot_be_kept_is_no_profile(
    autojump_clock: Any, mission_id: str, profile: UserProfile | None, field: str, validate: Any
) -> None:
    async with provided(validate=validate) as peer:
        with pytest.raises(GRPCError) as caught:
            await put(peer, profile, mission_id)
        status, reason, fields = told(caught.value)
        assert (status, reason, [*fields]) == (Status.INVALID_ARGUMENT, "INVALID_REQUEST", [field])
        assert await asked(peer) is None


async def test_the_rules_of_the_contract_hold_for_a_profile_that_is_put(autojump_clock: Any) -> None:
    async with provided(validate="strict") as peer:
        await put(peer, WIRE)
        with pytest.raises(GRPCError) as caught:
            await put(peer, UserProfile(user_id="u"), "m")
        assert {"mission_id", "user_profile.user_id", "user_profile.email"} <= {*told(caught.value)[2]}
        assert await asked(peer) == WIRE
