"""What a user profile service promises."""

from __future__ import annotations

from typing import Any

from .kit import LOCAL, REMOTE, Jobs, cases, only

FULL = {
    "user_id": "users:u",
    "organisation_id": "organisations:o",
    "email": "u@example.org",
    "first_name": "Ada",
    "last_name": "L\xf6velace",
    "locale": "fr",
    "credits": [
        {"source": "gift", "total": 100, "remaining": 12.5, "timestamp": "2026-01-02T03:04:05Z"},
        {"source": "purchase", "total": 5, "remaining": 5.0},
    ],
    "creation_date": "2025-01-02T03:04:05Z",
    "update_date": "2026-01-02T03:04:05.678901Z",
    "subscription": {"tier": "gold", "status": "active", "start": "2026-01-01T00:00:00Z"},
    "metadata": {"theme": {"dark": True}, "n": 3},
}


async def test_a_full_profile_is_told_as_it_was_stored(jobs: Jobs) -> None:
    await jobs.profiles.put("missions:m", FULL)
    assert await jobs.profile().get_user_profile() == FULL


async def test_what_is_not_known_is_empty_or_not_there(jobs: Jobs) -> None:
    await jobs.profiles.put("m", {"email": "u@example.org"})
    assert await jobs.profile().get_user_profile() == {
        "user_id": "",
        "organisation_id": "",
        "email": "u@example.org",
        "first_name": "",
        "last_name": "",
        "locale": "",
        "credits": [],
    }


async def test_a_mission_without_a_user_has_no_profile(jobs: Jobs) -> None:
    await jobs.profiles.put("missions:m", FULL)
    assert await jobs.profile("missions:other").get_user_profile() is None


@cases(("missions:m", "m"), ("m", "missions:m"))
async def test_the_prefix_is_no_part_of_the_id(jobs: Jobs, stored: str, asked: str) -> None:
    await jobs.profiles.put(stored, FULL)
    assert await jobs.profile(asked).get_user_profile() == FULL


async def test_the_last_profile_counts(jobs: Jobs) -> None:
    for locale in ("fr", "de"):
        await jobs.profiles.put("m", {"locale": locale})
    found = await jobs.profile().get_user_profile()
    assert found is not None
    assert found["locale"] == "de"


@only(LOCAL, "A profile has what was stored. A provider tells the fields of the contract.")
async def test_a_profile_may_have_more(jobs: Jobs) -> None:
    await jobs.profiles.put("m", {"shoe_size": 42})
    assert (await jobs.profile().get_user_profile() or {})["shoe_size"] == 42


@only(REMOTE, "A profile has the fields of the contract.")
async def test_a_profile_has_the_fields_of_the_contract(jobs: Jobs) -> None:
    await jobs.profiles.put("m", {"shoe_size": 42, "locale": "fr"})
    assert "shoe_size" not in (await jobs.profile().get_user_profile() or {})


async def test_health_needs_no_profile(jobs: Jobs) -> None:
    service: Any = jobs.profile()
    await service.check_health()
    await service.close()
