"""The stored setups: what a program may make, find and change, what is refused, and what outlives the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from dk_trio.errors import SetupExistsError, SetupNotFoundError, SetupServiceError
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.setup_service import DefaultSetup
from dk_trio.services.setup import SetupData, SetupService, SetupStatus, SetupVersion

from .test_storage import opened

MODULE = {"name": "Loud", "module_id": "modules:shout"}


def service_of(platform: LocalPlatform) -> DefaultSetup:
    return DefaultSetup(platform=platform)


def current(setup: SetupData) -> Any:
    version = setup.current_setup_version
    return None if version is None else (version.version, version.content)


# --- setups ----------------------------------------------------------------------------------------------------------


async def test_a_setup_is_found_with_its_first_version(autojump_clock: object) -> None:
    async with opened() as platform:
        setups: SetupService = service_of(platform)
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


async def test_what_the_caller_does_to_a_content_later_changes_nothing(autojump_clock: object) -> None:
    async with opened() as platform:
        content = {"names": ["one"]}
        made = await service_of(platform).create_setup(**MODULE, content=content)
        content["names"].append("two")
        assert current(made) == ("1", {"names": ["one"]})
        assert made == await service_of(platform).get_setup(made.id)


async def test_an_id_of_ones_own_is_taken_once(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        assert (await setups.create_setup(**MODULE, setup_id="loud")).id == "setups:loud"
        with pytest.raises(SetupExistsError, match="Setup 'setups:loud' exists already") as caught:
            await setups.create_setup(**MODULE, setup_id="setups:loud", content={})
        assert "Choose another id" in caught.value.hint
        assert caught.value.status is Status.ALREADY_EXISTS
        assert [violation.field for violation in caught.value.violations] == ["setup_id"]
        assert await setups.search_setup_versions() == []  # nothing of the second is there


async def test_only_what_is_given_is_changed(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        made = await setups.create_setup(**MODULE, owner_id="users:a", content={})
        changed = await setups.update_setup(made.id, name="Louder", status=SetupStatus.PAUSED)
        assert changed == made.model_copy(update={"name": "Louder", "status": SetupStatus.PAUSED})
        assert await setups.update_setup(made.id, owner_id="") == changed.model_copy(update={"owner_id": ""})
        assert await setups.get_setup(made.id) == await setups.update_setup(made.id)


async def test_a_deleted_setup_takes_its_versions_along(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        gone, stays = [await setups.create_setup(**MODULE, content={}) for _ in range(2)]
        await setups.create_setup_version(gone.id, version="2", content={})
        assert await setups.delete_setup(gone.id)
        assert not await setups.delete_setup(gone.id)
        assert [version.setup_id for version in await setups.search_setup_versions()] == [stays.id]
        with pytest.raises(SetupNotFoundError):
            await setups.get_setup(gone.id)


# --- versions --------------------------------------------------------------------------------------------------------


async def test_the_first_version_is_current_and_others_when_they_are_made_so(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
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


async def test_a_version_changes_in_place(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        made = await setups.create_setup(**MODULE, content={"n": 1})
        version = made.current_setup_version
        assert version is not None
        changed = await setups.update_setup_version(version.id, content={"n": 2})
        assert changed == version.model_copy(update={"content": {"n": 2}})
        renamed = await setups.update_setup_version(version.id, version="final")
        assert await setups.update_setup_version(version.id, version="final") == renamed  # its own name is free to it
        assert current(await setups.get_setup(made.id)) == ("final", {"n": 2})


async def test_a_name_is_given_once_in_a_setup_and_to_one_of_many(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
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


async def test_the_current_version_cannot_be_deleted(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        made = await setups.create_setup(**MODULE, content={})
        old = made.current_setup_version
        assert old is not None
        with pytest.raises(
            SetupServiceError, match=f"'{old.id}' is the current one of the setup '{made.id}'"
        ) as caught:
            await setups.delete_setup_version(old.id)
        assert "update_setup" in caught.value.hint
        new = await setups.create_setup_version(made.id, version="2", content={})
        await setups.update_setup(made.id, current_setup_version_id=new.id)
        assert await setups.delete_setup_version(old.id)
        assert not await setups.delete_setup_version(old.id)
        assert await setups.search_setup_versions(setup_id=made.id) == [new]


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "field", "text"),
    [
        (lambda it: it.create_setup(name="", module_id="m"), "name", "name must be a text that is not empty, not ''"),
        (lambda it: it.create_setup(name="n", module_id=7), "module_id", "not 7"),
        (lambda it: it.create_setup(**MODULE, owner_id="\ud800"), "owner_id", "must be a text, not"),
        (lambda it: it.create_setup(**MODULE, setup_id="setups:"), "setup_id", "more than its prefix, not 'setups:'"),
        (lambda it: it.create_setup(**MODULE, status="redy"), "status", "must be one of draft, validating, ready"),
        (lambda it: it.create_setup(**MODULE, content=[1]), "content", "must be a dict of JSON values, not [1]"),
        (lambda it: it.create_setup(**MODULE, content={"a": 1.0, "b": float("nan")}), "content", "JSON values: Out of"),
        (lambda it: it.create_setup(**MODULE, content={"a": {1}}), "content", "set is not JSON"),
        (lambda it: it.create_setup(**MODULE, content={}, version=""), "version", "not empty"),
        (lambda it: it.list_setups(limit=0), "limit", "must be a number from 1 to 1000, not 0"),
        (lambda it: it.list_setups(limit=1001), "limit", "not 1001"),
        (lambda it: it.search_setup_versions(offset=-1), "offset", "not -1"),
        (lambda it: it.search_setup_versions(offset=2**63), "offset", "from 0 to 2147483647"),
    ],
)
async def test_what_is_refused_is_named(
    autojump_clock: object, call: Callable[[DefaultSetup], Awaitable[object]], field: str, text: str
) -> None:
    async with opened() as platform:
        with pytest.raises(SetupServiceError) as caught:
            await call(service_of(platform))
        assert text in caught.value.text
        assert [violation.field for violation in caught.value.violations] == [field]
        assert not platform.database.exists


@pytest.mark.parametrize("used", [False, True], ids=["nothing stored", "others stored"])
async def test_what_is_not_there_is_not_found(autojump_clock: object, used: bool) -> None:
    async with opened() as platform:
        setups = service_of(platform)
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
        assert not await setups.delete_setup("x")
        assert not await setups.delete_setup_version("x")


async def test_a_version_of_one_setup_is_not_taken_over_by_another(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        first = SetupVersion(id="setup_versions:v", setup_id="setups:a", content={"n": 1})
        await setups.put_configured(first, module_id="modules:m", name="M")
        with pytest.raises(
            SetupExistsError, match="'setup_versions:v' is one of the setup 'setups:a', not of 'setups:b'"
        ):
            await setups.put_configured(
                SetupVersion(id="v", setup_id="setups:b", content={}), module_id="modules:m", name="M"
            )
        with pytest.raises(SetupExistsError, match="is stored for the module 'modules:m', not for 'modules:other'"):
            await setups.put_configured(first, module_id="modules:other", name="Other")
        assert current(await setups.get_setup("a")) == ("v", {"n": 1})
        assert (await setups.list_setups()).total_count == 1


@pytest.mark.parametrize(
    ("given_id", "given_name", "expected"),
    [
        ("setup_versions:7", "seven", ("setup_versions:7", "seven")),
        ("7", "", ("setup_versions:7", "7")),
        ("", "3", ("setup_versions:s-3", "3")),
        ("", "", ("setup_versions:s-1", "1")),
    ],
)
async def test_what_was_configured_is_current_and_replaces_its_like(
    autojump_clock: object, given_id: str, given_name: str, expected: tuple[str, str]
) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        for number in range(2):
            configured = SetupVersion(id=given_id, version=given_name, setup_id="setups:s", content={"n": number})
            await setups.put_configured(configured, module_id="modules:m", name="M")
        (version,) = await setups.search_setup_versions()
        assert (version.id, version.version, version.content) == (*expected, {"n": 1})
        # Another version of the same name takes its place: what is told as current is the id that was given.
        configured = SetupVersion(id="other", version=expected[1], setup_id="s", content={"n": 2})
        await setups.put_configured(configured, module_id="modules:m", name="renamed")
        (version,) = await setups.search_setup_versions()
        setup = await setups.get_setup("s")
        assert setup.current_setup_version == version
        assert (setup.name, version.id, version.content) == ("M", "setup_versions:other", {"n": 2})


# --- watching --------------------------------------------------------------------------------------------------------


async def test_each_change_is_told_once_and_a_refused_one_is_not(autojump_clock: object) -> None:
    async with opened() as platform:
        setups = service_of(platform)
        seen: list[tuple[str, str]] = []
        with platform.setups.watched(lambda *ids: seen.append(ids)):
            made = await setups.create_setup(**MODULE, setup_id="s", content={})
            old = made.current_setup_version
            assert old is not None
            new = await setups.create_setup_version("s", version="2", content={})
            await setups.update_setup_version(old.id, content={"n": 1})
            await setups.update_setup("s", current_setup_version_id=new.id)
            await setups.delete_setup_version(old.id)
            await setups.put_configured(SetupVersion(id="v", setup_id="s", content={}), module_id="shout", name="")
            with pytest.raises(SetupExistsError):
                await setups.create_setup_version("s", version="2", content={})
            await setups.delete_setup("s")
            await setups.delete_setup("s")
        await setups.create_setup(**MODULE)
        assert seen[:5] == [("setups:s", "modules:shout")] * 5
        assert len(seen) == 7


# --- durability ------------------------------------------------------------------------------------------------------


async def test_what_was_stored_outlives_the_process(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as platform:
        setups = service_of(platform)
        made = await setups.create_setup(**MODULE, setup_id="s", content={"prefix": "!"})
        draft = await setups.create_setup_version("s", version="2", content={"prefix": "?"})
    async with opened(tmp_path / "data") as platform:
        setups = service_of(platform)
        assert await setups.get_setup("s") == made
        assert await setups.get_setup_version(draft.id) == draft
        assert (await setups.list_setups()).setups == [made]


async def test_looking_for_what_nobody_has_stored_leaves_no_trace(autojump_clock: Any, tmp_path: Path) -> None:
    with trio.move_on_after(100) as scope:  # a thread would let the clock jump there
        async with LocalPlatform(tmp_path / "data").opened() as platform:
            setups = service_of(platform)
            with pytest.raises(SetupNotFoundError):
                await setups.get_setup("s")
            assert await setups.list_setups() == ([], 0)
            assert await setups.search_setup_versions(setup_id="s") == []
            assert not await setups.delete_setup("s")
    assert not scope.cancelled_caught
    assert not (tmp_path / "data").exists()


async def test_a_database_that_cannot_be_used_is_an_error_of_this_service(tmp_path: Path) -> None:
    (tmp_path / "dk-trio.sqlite3").write_bytes(b"no database" * 100)
    async with opened(tmp_path) as platform:
        setups = service_of(platform)
        with pytest.raises(SetupServiceError, match=str(tmp_path)) as caught:
            await setups.get_setup("s")
        assert "Move it away" in caught.value.hint
        with pytest.raises(SetupServiceError):
            await setups.check_health()


# --- against a model -------------------------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b", "c"])
OWNERS = st.sampled_from(["", "o", "p"])
STEPS = st.tuples(
    st.sampled_from(["create", "update", "delete", "version", "rename", "current", "remove", "configured", "list"]),
    IDS,
    OWNERS,
    st.sampled_from(["1", "2", "3"]),
    st.integers(0, 9),
    st.tuples(st.integers(1, 3), st.integers(0, 3)),
)


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
def test_setups_are_a_dict_of_dicts(steps: list[Any]) -> None:
    """By id: owner, the name of the current version, and contents by version name. Order is that of creation."""
    model: dict[str, dict[str, Any]] = {}
    order: list[tuple[str, str]] = []  # of the versions

    async def body() -> None:
        with trio.fail_after(86400):
            async with LocalPlatform().opened() as platform:
                setups = service_of(platform)
                for step in steps:
                    await apply(setups, *step)
                for key, expected in model.items():
                    setup = await setups.get_setup(key)
                    versions = await setups.search_setup_versions(setup_id=key)
                    assert {version.version: version.content["n"] for version in versions} == expected["versions"]
                    assert (current(setup) or (None,))[0] == expected["current"]
                found = await setups.search_setup_versions(limit=1000)
                assert [(it.setup_id.removeprefix("setups:"), it.version) for it in found] == order

    async def version_id(setups: DefaultSetup, key: str, name: str) -> str:
        found = await setups.search_setup_versions(setup_id=key, version=name)
        return found[0].id if found else "none"

    async def apply(setups: DefaultSetup, step: str, key: str, owner: str, name: str, n: int, page: Any) -> None:
        known = model.get(key)
        versions = {} if known is None else known["versions"]
        error: type[Exception] | None = None
        try:
            if step == "create":
                error = None if known is None else SetupExistsError
                if known is None:
                    model[key] = {"owner": owner, "current": name, "versions": {name: n}}
                    order.append((key, name))
                await setups.create_setup(
                    name="n", module_id="m", setup_id=key, owner_id=owner, version=name, content={"n": n}
                )
            elif step == "update":
                error = SetupNotFoundError if known is None else None
                if known is not None:
                    known["owner"] = owner
                assert (await setups.update_setup(key, owner_id=owner)).owner_id == owner
            elif step == "delete":
                order[:] = [row for row in order if row[0] != key]
                assert await setups.delete_setup(key) == (model.pop(key, None) is not None)
            elif step == "version":
                error = SetupNotFoundError if known is None else SetupExistsError if name in versions else None
                if error is None:
                    versions[name] = n
                    order.append((key, name))
                await setups.create_setup_version(key, version=name, content={"n": n})
            elif step == "rename":
                target, there = f"{n % 3 + 1}", await version_id(setups, key, name)
                if name not in versions:
                    error = SetupNotFoundError
                elif target in versions and target != name:
                    error = SetupExistsError
                else:
                    versions[target] = versions.pop(name)
                    order[order.index((key, name))] = (key, target)
                    assert known is not None
                    known["current"] = target if known["current"] == name else known["current"]
                await setups.update_setup_version(there, version=target)
            elif step == "current":
                error = None if name in versions else SetupNotFoundError
                there = await version_id(setups, key, name)
                if known is not None and error is None:
                    known["current"] = name
                await setups.update_setup(key, current_setup_version_id=there)
            elif step == "remove":
                there = await version_id(setups, key, name)
                if known is not None and known["current"] == name:
                    error = SetupServiceError
                gone = error is None and versions.pop(name, None) is not None
                if gone:
                    order.remove((key, name))
                assert await setups.delete_setup_version(there) == gone
            elif step == "configured":
                known = model.setdefault(key, {"owner": "", "current": name, "versions": {}})
                given = f"{key}-{name}-configured"
                replaced = [it for it in await setups.search_setup_versions(setup_id=key) if given in it.id]
                stays = replaced[0].version if replaced else None
                if stays is not None:  # the version of this id gets this name, in its place
                    if name != stays and (key, name) in order:
                        order.remove((key, name))
                    known["versions"].pop(stays)
                    order[order.index((key, stays))] = (key, name)
                else:
                    if (key, name) in order:
                        order.remove((key, name))
                    order.append((key, name))
                known["versions"][name] = n
                known["current"] = name
                version = SetupVersion(id=given, version=name, setup_id=key, content={"n": n})
                await setups.put_configured(version, module_id="m", name="n")
            else:
                limit, offset = page
                wanted = None if n % 2 else owner
                keys = [it for it, row in model.items() if wanted in {None, row["owner"]}]
                found = await setups.list_setups(owner_id=wanted, limit=limit, offset=offset)
                assert [it.id.removeprefix("setups:") for it in found.setups] == keys[offset : offset + limit]
                assert found.total_count == len(keys)
        except (SetupServiceError, SetupNotFoundError) as raised:
            assert error is not None, raised
            assert type(raised) is error
        else:
            assert error is None

    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
