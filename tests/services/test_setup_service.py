"""The stored setups: what a program may make, find and change, what is refused, and what outlives the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.errors import SetupExistsError, SetupNotFoundError, SetupServiceError
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.setup_service import DefaultSetup
from dk_trio.services.setup import SetupData, SetupVersion

from .test_storage import opened

MODULE = {"name": "Loud", "module_id": "modules:shout"}


def service_of(platform: LocalPlatform) -> DefaultSetup:
    return DefaultSetup(platform=platform)


def current(setup: SetupData) -> Any:
    version = setup.current_setup_version
    return None if version is None else (version.version, version.content)


# --- setups ----------------------------------------------------------------------------------------------------------


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


# --- refused ---------------------------------------------------------------------------------------------------------


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


@settings(max_examples=size(80, 1600), deadline=None)
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
