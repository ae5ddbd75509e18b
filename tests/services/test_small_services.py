"""User profiles, identity, snapshots and the agent, as their defaults are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dk_trio.errors import InvalidRecordError, RecordExistsError, UserProfileServiceError
from dk_trio.services.agent import Agent
from dk_trio.services.identity import Identity
from dk_trio.services.local import snapshot as snapshots
from dk_trio.services.local.agent import DefaultAgent
from dk_trio.services.local.identity import DefaultIdentity
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.snapshot import DefaultSnapshot
from dk_trio.services.local.user_profile import DefaultUserProfile
from dk_trio.services.snapshot import Snapshot
from dk_trio.services.user_profile import UserProfile

from .file_kit import platform

IDS = ("missions:m", "setups:s", "setup_versions:v")


def of(shared: LocalPlatform, mission: str = "missions:m") -> DefaultSnapshot:
    return DefaultSnapshot(mission, *IDS[1:], platform=shared)


# --- user profiles ---------------------------------------------------------------------------------------------------


async def test_a_profile_is_that_of_the_mission_with_all_its_texts(autojump_clock: object) -> None:
    async with platform() as shared:
        profiles = {"m": {"user_id": "users:u", "email": "u@example.org", "shoe_size": 42}}
        service: UserProfile = DefaultUserProfile(*IDS, platform=shared, profiles=profiles)
        assert await service.get_user_profile() == {
            "user_id": "users:u",
            "organisation_id": "",
            "email": "u@example.org",
            "first_name": "",
            "last_name": "",
            "locale": "",
            "credits": [],
            "shoe_size": 42,
        }
        other = DefaultUserProfile("missions:n", *IDS[1:], platform=shared, profiles=profiles)
        assert await other.get_user_profile() is None
        await service.check_health()


async def test_a_profile_that_was_added_is_that_of_all_jobs_of_the_mission(autojump_clock: object) -> None:
    async with platform() as shared:
        service = DefaultUserProfile(*IDS, platform=shared, profiles={"missions:m": {"locale": "fr"}})
        await service.add_user_profile({"locale": "en"})
        await service.add_user_profile({"locale": "de"})
        same = DefaultUserProfile("m", *IDS[1:], platform=shared)
        for job in (service, same):
            assert (await job.get_user_profile())["locale"] == "de"
        with pytest.raises(UserProfileServiceError, match="JSON") as refused:
            await service.add_user_profile({"locale": object()})
        assert refused.value.violations[0].field == "profile"


async def test_a_profile_outlives_the_process(tmp_path: Path) -> None:
    for expected in (None, "de"):
        async with platform(tmp_path) as shared:
            service = DefaultUserProfile(*IDS, platform=shared)
            found = await service.get_user_profile()
            assert (found and found["locale"]) == expected
            await service.add_user_profile({"locale": "de"})


# --- identity and agent ----------------------------------------------------------------------------------------------


async def test_the_identity_is_a_parameter(autojump_clock: object) -> None:
    service: Identity = DefaultIdentity(*IDS)
    assert await service.get_identity() == "default_identity"
    assert await DefaultIdentity(*IDS, identity="robot").get_identity() == "robot"
    await service.check_health()


async def test_the_default_agent_has_nothing_to_run(autojump_clock: object) -> None:
    service: Agent = DefaultAgent(*IDS)
    await service.start()
    await service.stop()
    await service.check_health()


# --- snapshots -------------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_a_copy_by_name_in_its_mission(autojump_clock: object) -> None:
    async with platform() as shared:
        service: Snapshot = of(shared)
        data = {"b": [1, None, {"a": 2.5}], "a": "é"}
        assert await service.create(data, "first") == "first"
        data["b"].append("later")
        made = await service.create({})
        assert await of(shared, "m").get_all() == {"first": {"b": [1, None, {"a": 2.5}], "a": "é"}, made: {}}
        assert await of(shared, "missions:n").get_all() == {}
        assert await service.update("first", {"a": 1}) == 1
        assert await service.get("first") == {"a": 1}
        assert await service.delete("first") == 1
        assert await service.get("first") is None
        assert (await service.update("first", {}), await service.delete("first")) == (0, 0)
        await service.check_health()


async def test_a_snapshot_that_exists_is_not_overwritten(autojump_clock: object) -> None:
    async with platform() as shared:
        await of(shared).create({"a": 1}, "first")
        with pytest.raises(RecordExistsError, match="'first'"):
            await of(shared).create({"a": 2}, "first")
        assert await of(shared).get("first") == {"a": 1}


@pytest.mark.parametrize(
    ("name", "data", "field"),
    [
        ("", {}, "name"),
        ("a\nb", {}, "name"),
        ("\ud800", {}, "name"),
        ("a" * 256, {}, "name"),
        ("a", {"a": object()}, "data"),
        ("a", {"a": float("inf")}, "data"),
        ("a", [1], "data"),
        ("a", {"a": "x" * snapshots.DATA_MAX}, "data"),
    ],
)
async def test_what_is_no_snapshot_is_refused(autojump_clock: object, name: str, data: object, field: str) -> None:
    async with platform() as shared:
        for call in (of(shared).create(data, name), of(shared).update(name, data)):
            with pytest.raises(InvalidRecordError) as refused:
                await call
            assert [violation.field for violation in refused.value.violations] == [field]


async def test_snapshots_of_a_mission_are_counted(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "COUNT_MAX", 2)
    async with platform() as shared:
        for name in "ab":
            await of(shared).create({}, name)
        with pytest.raises(InvalidRecordError, match="at most 2"):
            await of(shared).create({}, "c")
        await of(shared, "missions:n").create({}, "c")
        await of(shared).delete("a")
        await of(shared).create({}, "c")
        assert list(await of(shared).get_all()) == ["b", "c"]
