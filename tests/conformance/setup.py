"""What a setup service promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio.errors import SetupExistsError, SetupNotFoundError, SetupServiceError
from dk_trio.services.setup import SetupData, SetupService, SetupStatus

from .kit import LOCAL, REMOTE, Jobs, cases, only

MODULE = {"name": "Loud", "module_id": "modules:shout"}


def current(setup: SetupData) -> Any:
    version = setup.current_setup_version
    return None if version is None else (version.version, version.content)


async def test_a_setup_is_found_with_its_first_version(jobs: Jobs) -> None:
    setups: SetupService = jobs.setups()
    made = await setups.create_setup(
        **MODULE, organisation_id="organisations:o", owner_id="users:u", content={"prefix": "!"}, status="draft"
    )
    assert made.id.startswith("setups:")
    assert (made.name, made.module_id, made.status) == ("Loud", "modules:shout", SetupStatus.DRAFT)
    assert (made.organisation_id, made.owner_id) == ("organisations:o", "users:u")
    version = made.current_setup_version
    assert version is not None
    assert version.id.startswith("setup_versions:")
    assert (version.setup_id, version.version, version.content) == (made.id, "1", {"prefix": "!"})
    assert abs(datetime.now(UTC) - version.creation_date) < timedelta(hours=1)
    assert await setups.get_setup(made.id) == made
    assert await setups.get_setup(made.id.removeprefix("setups:")) == made
    assert await setups.get_setup_version(version.id.removeprefix("setup_versions:")) == version


async def test_what_the_caller_does_to_a_content_later_changes_nothing(jobs: Jobs) -> None:
    content = {"names": ["one"]}
    made = await jobs.setups().create_setup(**MODULE, content=content)
    content["names"].append("two")
    assert current(made) == ("1", {"names": ["one"]})
    assert made == await jobs.setups().get_setup(made.id)


async def test_only_what_is_given_is_changed(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, owner_id="users:a", content={})
    changed = await setups.update_setup(made.id, name="Louder", status=SetupStatus.PAUSED)
    assert changed == made.model_copy(update={"name": "Louder", "status": SetupStatus.PAUSED})
    assert await setups.update_setup(made.id, owner_id="users:b") == changed.model_copy(update={"owner_id": "users:b"})
    assert await setups.get_setup(made.id) == await setups.update_setup(made.id)


@only(LOCAL, "An owner can be made empty. In the contract that is no change, and is refused.")
async def test_a_setup_can_be_nobodys(jobs: Jobs) -> None:
    made = await jobs.setups().create_setup(**MODULE, owner_id="users:a")
    assert (await jobs.setups().update_setup(made.id, owner_id="")).owner_id == ""


@only(REMOTE, "An update with an empty owner is refused.")
async def test_an_empty_owner_is_refused(jobs: Jobs) -> None:
    made = await jobs.setups().create_setup(**MODULE, owner_id="users:a")
    with pytest.raises(SetupServiceError) as caught:
        await jobs.setups().update_setup(made.id, owner_id="")
    assert [violation.field for violation in caught.value.violations] == ["owner_id"]
    assert await jobs.setups().get_setup(made.id) == made


@only(LOCAL, "Integers beyond 2^53 are kept in a content. A provider is told doubles, so they are refused there.")
async def test_an_integer_of_any_size_is_a_setting(jobs: Jobs) -> None:
    made = await jobs.setups().create_setup(**MODULE, content={"n": 2**60 + 1})
    assert current(await jobs.setups().get_setup(made.id)) == ("1", {"n": 2**60 + 1})


@only(REMOTE, "An integer beyond 2^53 in a content is refused.")
@cases((2**60 + 1,), (10**400,))
async def test_an_integer_that_no_double_can_hold_is_no_setting(jobs: Jobs, value: int) -> None:
    with pytest.raises(SetupServiceError) as caught:
        await jobs.setups().create_setup(**MODULE, content={"a": [value]})
    assert [violation.field for violation in caught.value.violations] == ["content.a[0]"]


@cases(
    ({},),
    ({"n": 1, "x": 1.5, "yes": True, "none": None},),
    ({"deep": {"list": [1, [2, {"a": "\U0001f980"}]], "": {}}},),
    ({"big": 2**53, "small": -1e-300},),
)
async def test_a_content_comes_back_as_it_was(jobs: Jobs, content: dict[str, Any]) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, content=content)
    assert current(made) == ("1", content)
    assert repr(current(await setups.get_setup(made.id))[1]) == repr(content)  # 1 is not 1.0
    again = await setups.create_setup_version(made.id, version="2", content=content)
    assert (await setups.get_setup_version(again.id)).content == content
    assert [found.content for found in await setups.search_setup_versions(setup_id=made.id)] == [content, content]


@cases(*((status,) for status in SetupStatus))
async def test_every_status_is_kept(jobs: Jobs, status: SetupStatus) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, status=status)
    assert made.status is status
    assert (await setups.update_setup(made.id, name="n")).status is status
    assert (await setups.list_setups()).setups[0].status is status
    again = await setups.create_setup(**MODULE, status=SetupStatus.PAUSED)
    if status is not SetupStatus.DRAFT:
        assert (await setups.update_setup(again.id, status=status.value)).status is status
        assert (await setups.get_setup(again.id)).status is status


@only(LOCAL, "A setup can become a draft again. In the contract that is no change, and is refused.")
async def test_a_setup_can_become_a_draft(jobs: Jobs) -> None:
    made = await jobs.setups().create_setup(**MODULE)
    assert (await jobs.setups().update_setup(made.id, status="draft")).status is SetupStatus.DRAFT


@only(REMOTE, "An update that makes a setup a draft is refused.")
async def test_a_setup_that_would_become_a_draft_is_refused(jobs: Jobs) -> None:
    made = await jobs.setups().create_setup(**MODULE)
    with pytest.raises(SetupServiceError) as caught:
        await jobs.setups().update_setup(made.id, status="draft")
    assert [violation.field for violation in caught.value.violations] == ["status"]
    assert await jobs.setups().get_setup(made.id) == made
    draft = await jobs.setups().create_setup(**MODULE, status="draft")
    assert (await jobs.setups().update_setup(draft.id, status="draft", name="n")).status is SetupStatus.DRAFT


async def test_setups_are_listed_by_owner_and_page(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = [
        await setups.create_setup(**MODULE, owner_id=f"users:{n % 2}", organisation_id=f"organisations:{n % 3}")
        for n in range(6)
    ]
    assert await setups.list_setups() == (made, 6)
    assert await setups.list_setups(owner_id="users:1") == (made[1::2], 3)
    assert await setups.list_setups(owner_id="users:1", organisation_id="organisations:0") == ([made[3]], 1)
    assert await setups.list_setups(limit=2, offset=3) == (made[3:5], 6)
    assert await setups.list_setups(offset=9) == ([], 6)


@only(LOCAL, "Setups without an owner can be asked for. In the contract that is no condition, and is refused.")
async def test_setups_of_nobody_are_listed(jobs: Jobs) -> None:
    made = [await jobs.setups().create_setup(**MODULE, owner_id=owner) for owner in ("", "users:u")]
    assert await jobs.setups().list_setups(owner_id="") == (made[:1], 1)


@only(REMOTE, "A list of the setups of an empty owner or organisation is refused.")
async def test_setups_of_nobody_are_not_all_setups(jobs: Jobs) -> None:
    await jobs.setups().create_setup(**MODULE, owner_id="users:u")
    for field in ("owner_id", "organisation_id"):
        with pytest.raises(SetupServiceError) as caught:
            await jobs.setups().list_setups(**{field: ""})
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_versions_are_found_by_setup_name_and_page(jobs: Jobs) -> None:
    setups = jobs.setups()
    one, other = [await setups.create_setup(**MODULE, content={"first": n}) for n in range(2)]
    more = [await setups.create_setup_version(one.id, version=name, content={}) for name in "abc"]
    first, last = one.current_setup_version, other.current_setup_version
    assert await setups.search_setup_versions() == [first, last, *more]
    assert await setups.search_setup_versions(setup_id=one.id.removeprefix("setups:")) == [first, *more]
    assert await setups.search_setup_versions(setup_id=one.id, version="b") == [more[1]]
    assert await setups.search_setup_versions(version="1") == [first, last]
    assert await setups.search_setup_versions(setup_id=one.id, limit=2, offset=1) == more[:2]
    assert await setups.search_setup_versions(setup_id="setups:none") == []
    assert await setups.search_setup_versions(setup_id="") == []
    assert await setups.search_setup_versions(version="") == []


async def test_changes_of_different_fields_at_once_are_all_there(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, content={"n": 1})
    version = made.current_setup_version
    assert version is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: setups.update_setup(made.id, name="renamed"))
        nursery.start_soon(lambda: jobs.setups().update_setup(made.id, status="paused"))
        nursery.start_soon(lambda: setups.update_setup_version(version.id, version="v"))
        nursery.start_soon(lambda: jobs.setups().update_setup_version(version.id, content={"n": 2}))
    found = await setups.get_setup(made.id)
    assert (found.name, found.status, current(found)) == ("renamed", SetupStatus.PAUSED, ("v", {"n": 2}))


async def test_statuses_of_errors_are_those_that_a_caller_gets(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, content={})
    with pytest.raises(SetupExistsError) as exists:
        await setups.create_setup_version(made.id, version="1", content={})
    assert exists.value.status is Status.ALREADY_EXISTS
    assert [violation.field for violation in exists.value.violations] == ["version"]
    with pytest.raises(SetupNotFoundError) as missing:
        await setups.get_setup("setups:none")
    assert missing.value.status is Status.NOT_FOUND
    assert [violation.field for violation in missing.value.violations] == ["setup_id"]
    with pytest.raises(SetupNotFoundError) as missing:
        await setups.get_setup_version("none")
    assert [violation.field for violation in missing.value.violations] == ["setup_version_id"]
    with pytest.raises(SetupNotFoundError) as missing:
        await setups.update_setup(made.id, current_setup_version_id="none")
    assert [violation.field for violation in missing.value.violations] == ["current_setup_version_id"]
    assert made.current_setup_version is not None
    with pytest.raises(SetupServiceError) as current_one:
        await setups.delete_setup_version(made.current_setup_version.id)
    assert [violation.field for violation in current_one.value.violations] == ["setup_version_id"]


async def test_health_leaves_no_setup(jobs: Jobs) -> None:
    setups: Any = jobs.setups()
    await setups.check_health()
    assert await setups.list_setups() == ([], 0)
    await setups.close()


async def test_a_deleted_setup_takes_its_versions_along(jobs: Jobs) -> None:
    setups = jobs.setups()
    gone, stays = [await setups.create_setup(**MODULE, content={}) for _ in range(2)]
    await setups.create_setup_version(gone.id, version="2", content={})
    assert await setups.delete_setup(gone.id)
    assert not await setups.delete_setup(gone.id)
    assert [version.setup_id for version in await setups.search_setup_versions()] == [stays.id]
    with pytest.raises(SetupNotFoundError):
        await setups.get_setup(gone.id)


async def test_the_first_version_is_current_and_others_when_they_are_made_so(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE)
    assert current(made) is None
    await setups.create_setup_version(made.id, version="a", content={"n": 1})
    second = await setups.create_setup_version(made.id, version="b", content={"n": 2})
    assert current(await setups.get_setup(made.id)) == ("a", {"n": 1})
    bare_id = second.id.removeprefix("setup_versions:")
    assert current(await setups.update_setup(made.id, current_setup_version_id=bare_id)) == ("b", {"n": 2})
    other = await setups.create_setup(**MODULE)
    with pytest.raises(SetupNotFoundError, match=f"'{other.id}' has no version with the id '{second.id}'"):
        await setups.update_setup(other.id, name="new", current_setup_version_id=second.id)
    assert (await setups.get_setup(other.id)).name == "Loud"


async def test_a_version_changes_in_place(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, content={"n": 1})
    version = made.current_setup_version
    assert version is not None
    changed = await setups.update_setup_version(version.id, content={"n": 2})
    assert changed == version.model_copy(update={"content": {"n": 2}})
    renamed = await setups.update_setup_version(version.id, version="final")
    assert await setups.update_setup_version(version.id, version="final") == renamed  # its own name is free to it
    assert current(await setups.get_setup(made.id)) == ("final", {"n": 2})


async def test_a_name_is_given_once_in_a_setup_and_to_one_of_many(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, content={})
    told: list[str] = []

    async def create(number: int) -> None:
        try:
            await setups.create_setup_version(made.id, version="2", content={"n": number})
            told.append("made")
        except SetupExistsError as error:
            told.append(error.text)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(create, number)
    (version,) = await setups.search_setup_versions(version="2")
    refusal = f"Setup '{made.id}' has a version '2' already, '{version.id}'. Choose another name, or update that"
    assert told.count("made") == 1
    assert sum(refusal in text for text in told) == 9
    with pytest.raises(SetupExistsError):
        await setups.update_setup_version(version.id, version="1")
    other = await setups.create_setup(**MODULE, content={}, version="2")
    assert current(other) == ("2", {})


async def test_the_current_version_cannot_be_deleted(jobs: Jobs) -> None:
    setups = jobs.setups()
    made = await setups.create_setup(**MODULE, content={})
    old = made.current_setup_version
    assert old is not None
    with pytest.raises(SetupServiceError, match=f"'{old.id}' is the current one of the setup '{made.id}'") as caught:
        await setups.delete_setup_version(old.id)
    assert "update_setup" in caught.value.text
    new = await setups.create_setup_version(made.id, version="2", content={})
    await setups.update_setup(made.id, current_setup_version_id=new.id)
    assert await setups.delete_setup_version(old.id)
    assert not await setups.delete_setup_version(old.id)
    assert await setups.search_setup_versions(setup_id=made.id) == [new]


@cases(
    (lambda it: it.create_setup(name="", module_id="m"), "name", "name must be a text that is not empty, not ''"),
    (lambda it: it.create_setup(name="n", module_id=7), "module_id", "not 7"),
    (lambda it: it.create_setup(name="a\x00b", module_id="m"), "name", "no NUL"),
    (lambda it: it.create_setup(**MODULE, owner_id="\ud800"), "owner_id", "must be a text, not"),
    (lambda it: it.get_setup("setups:"), "setup_id", "more than its prefix, not 'setups:'"),
    (lambda it: it.update_setup("", name="n"), "setup_id", "not empty"),
    (lambda it: it.delete_setup_version("setup_versions:"), "setup_version_id", "more than its prefix"),
    (lambda it: it.update_setup("s", status="redy"), "status", "must be one of"),
    (lambda it: it.update_setup("s", current_setup_version_id=""), "current_setup_version_id", "not empty"),
    (lambda it: it.create_setup_version("s", version="", content={}), "version", "not empty"),
    (lambda it: it.create_setup_version("s", version="1", content=None), "content", "dict of JSON values"),
    (lambda it: it.update_setup_version("v", content={"a": {1}}), "content", "set is not JSON"),
    (lambda it: it.list_setups(owner_id=3), "owner_id", "must be a text, not 3"),
    (lambda it: it.create_setup(**MODULE, status="redy"), "status", "must be one of draft, validating, ready"),
    (lambda it: it.create_setup(**MODULE, content=[1]), "content", "must be a dict of JSON values, not [1]"),
    (lambda it: it.create_setup(**MODULE, content={"a": 1.0, "b": float("nan")}), "content", "JSON values: Out of"),
    (lambda it: it.create_setup(**MODULE, content={"a": {1}}), "content", "set is not JSON"),
    (lambda it: it.create_setup(**MODULE, content={}, version=""), "version", "not empty"),
    (lambda it: it.list_setups(limit=0), "limit", "must be a number from 1 to 1000, not 0"),
    (lambda it: it.list_setups(limit=1001), "limit", "not 1001"),
    (lambda it: it.search_setup_versions(offset=-1), "offset", "not -1"),
    (lambda it: it.search_setup_versions(offset=2**63), "offset", "from 0 to 2147483647"),
)
async def test_what_is_refused_is_named(
    jobs: Jobs, call: Callable[[SetupService], Awaitable[object]], field: str, text: str
) -> None:
    with pytest.raises(SetupServiceError) as caught:
        await call(jobs.setups())
    assert text in caught.value.text
    assert [violation.field for violation in caught.value.violations] == [field]
    assert (await jobs.setups().list_setups()).total_count == 0


@cases((False,), (True,))
async def test_what_is_not_there_is_not_found(jobs: Jobs, used: bool) -> None:
    setups = jobs.setups()
    if used:
        await setups.create_setup(**MODULE, content={})
    calls: list[tuple[str, Awaitable[object]]] = [
        ("setups:x", setups.get_setup("setups:x")),
        ("setups:x", setups.update_setup("x", name="n")),
        ("setups:x", setups.create_setup_version("x", version="1", content={})),
        ("setup_versions:x", setups.get_setup_version("setup_versions:x")),
        ("setup_versions:x", setups.update_setup_version("x", version="n")),
    ]
    for name, call in calls:
        with pytest.raises(SetupNotFoundError, match=f"No setup.* with the id '{name}' is stored") as caught:
            await call
        assert caught.value.hint
        field = "setup_version_id" if "version" in name else "setup_id"
        assert [violation.field for violation in caught.value.violations] == [field]
    assert not await setups.delete_setup("x")
    assert not await setups.delete_setup_version("x")
