"""SetupService: setups, their versions, and what clients leave out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import extensions
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupRequest,
    CreateSetupVersionRequest,
    DeleteSetupRequest,
    DeleteSetupVersionRequest,
    GetSetupRequest,
    GetSetupVersionRequest,
    ListSetupsRequest,
    SearchSetupVersionsRequest,
    Setup,
    SetupStatus,
    SetupVersion,
    UpdateSetupRequest,
    UpdateSetupVersionRequest,
)
from dk_trio.pb.google.protobuf import Struct

from .kit import Provided, provided
from .registry_kit import setups

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def content(**values: Any) -> Struct:
    return Struct.from_dict(values)


def values(version: SetupVersion | None) -> dict[str, Any]:
    assert version is not None
    assert version.content is not None
    return version.content.to_dict()


async def create(peer: Provided, name: str = "S", *, key: str = "", **fields: Any) -> Setup:
    metadata = {extensions.IDEMPOTENCY_KEY: key} if key else {}
    request = CreateSetupRequest(name=name, module_id="modules:m", **fields)
    reply = await setups(peer).create_setup(request, metadata=metadata)
    assert reply.success
    assert reply.setup is not None
    return reply.setup


async def update(peer: Provided, setup_id: str, **fields: Any) -> Setup:
    reply = await setups(peer).update_setup(UpdateSetupRequest(setup_id=setup_id, **fields))
    assert reply.success
    assert reply.setup is not None
    return reply.setup


async def add(peer: Provided, setup_id: str, version: str, **values: Any) -> SetupVersion:
    request = CreateSetupVersionRequest(setup_id=setup_id, version=version, content=content(**values))
    reply = await setups(peer).create_setup_version(request)
    assert reply.success
    assert reply.setup_version is not None
    return reply.setup_version


async def versions(peer: Provided, **fields: Any) -> list[str]:
    reply = await setups(peer).search_setup_versions(SearchSetupVersionsRequest(**fields))
    return [version.version for version in reply.setup_versions]


async def refusal(call: Any) -> tuple[Status, str]:
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value.status, caught.value.message or ""


# --- setups ----------------------------------------------------------------------------------------------------------


async def test_a_setup_is_made_with_its_current_version(autojump_clock: Any) -> None:
    async with provided(now=NOW.timestamp) as peer:
        version = SetupVersion(version="first", content=content(a=1))
        made = await create(
            peer, "Loud", organisation_id="o", owner_id="u", status=SetupStatus.PAUSED, current_setup_version=version
        )
        assert made.id.startswith("setups:")
        current = made.current_setup_version
        assert current is not None
        assert current.id.startswith("setup_versions:")
        assert (current.setup_id, current.version, current.creation_date) == (made.id, "first", NOW)
        assert (made.name, made.organisation_id, made.owner_id, made.status) == ("Loud", "o", "u", SetupStatus.PAUSED)
        for setup_id in (made.id, made.id.removeprefix("setups:")):
            reply = await setups(peer).get_setup(GetSetupRequest(setup_id=setup_id, version=""))
            assert reply.setup == made
            assert reply.setup_version == current
            assert values(current) == {"a": 1}


async def test_a_setup_needs_no_organisation_owner_status_or_version(autojump_clock: Any) -> None:
    async with provided() as peer:
        made = await create(peer)
        assert (made.organisation_id, made.current_setup_version, made.status) == ("", None, SetupStatus.DRAFT)
        nameless = await create(peer, current_setup_version=SetupVersion(content=content()))
        assert nameless.current_setup_version is not None
        assert nameless.current_setup_version.version == "1"


async def test_a_request_that_comes_again_makes_nothing_new(autojump_clock: Any) -> None:
    async with provided() as peer:
        version = SetupVersion(content=content(a=1))
        first = await create(peer, key="k", current_setup_version=version)
        assert await create(peer, key="k", current_setup_version=version) == first
        assert (await create(peer, key="other", current_setup_version=version)).id != first.id
        assert (await setups(peer).list_setups(ListSetupsRequest())).total_count == 2


async def test_a_request_that_comes_again_after_its_key_was_forgotten_makes_nothing_new(autojump_clock: Any) -> None:
    async with provided(now=lambda: 1e6 + trio.current_time(), key_ttl=60) as peer:
        await create(peer, key="k")
        await trio.sleep(2000)
        assert (await refusal(create(peer, key="k")))[0] is Status.ALREADY_EXISTS


async def test_what_an_update_leaves_empty_stays(autojump_clock: Any) -> None:
    async with provided() as peer:
        made = await create(
            peer, owner_id="u", status=SetupStatus.READY, current_setup_version=SetupVersion(content=content(a=1))
        )
        assert await update(peer, made.id) == made
        changed = await update(peer, made.id, name="T", status=SetupStatus.ARCHIVED)
        assert (changed.name, changed.owner_id, changed.status) == ("T", "u", SetupStatus.ARCHIVED)
        assert changed.current_setup_version == made.current_setup_version


async def test_the_current_version_is_chosen_by_id_or_given_with_its_content(autojump_clock: Any) -> None:
    async with provided() as peer:
        made = await create(peer, current_setup_version=SetupVersion(content=content(a=1)))
        second = await add(peer, made.id, "2", a=2)
        chosen = await update(peer, made.id, current_setup_version=SetupVersion(id=second.id))
        assert chosen.current_setup_version == second
        # as a client sends it that tells all it knows
        whole = SetupVersion(id=second.id, setup_id=made.id, version="2", content=content(a=22))
        chosen = await update(peer, made.id, current_setup_version=whole)
        assert (chosen.current_setup_version.id, values(chosen.current_setup_version)) == (second.id, {"a": 22})  # type: ignore[union-attr]
        # by its name
        chosen = await update(peer, made.id, current_setup_version=SetupVersion(version="1", content=content(a=11)))
        assert chosen.current_setup_version.id == made.current_setup_version.id  # type: ignore[union-attr]
        assert values(chosen.current_setup_version) == {"a": 11}
        # and a new one
        chosen = await update(peer, made.id, current_setup_version=SetupVersion(version="3", content=content(a=3)))
        assert values(chosen.current_setup_version) == {"a": 3}
        await update(peer, made.id, current_setup_version=SetupVersion(content=content(a=4)))
        assert len(await versions(peer, setup_id=made.id)) == 4


async def test_a_version_of_another_setup_cannot_be_current(autojump_clock: Any) -> None:
    async with provided() as peer:
        made, other = await create(peer), await create(peer)
        theirs = await add(peer, other.id, "1", a=1)
        for version in (
            SetupVersion(id=theirs.id),
            SetupVersion(id=theirs.id, content=content(a=2)),
            SetupVersion(id="setup_versions:x"),
        ):
            assert (await refusal(update(peer, made.id, current_setup_version=version)))[0] is Status.NOT_FOUND
        reply = await setups(peer).get_setup_version(GetSetupVersionRequest(theirs.id))
        assert values(reply.setup_version) == {"a": 1}


async def test_a_version_is_told_by_name_or_id(autojump_clock: Any) -> None:
    async with provided() as peer:
        made = await create(peer, current_setup_version=SetupVersion(content=content(a=1)))
        second = await add(peer, made.id, "2", a=2)
        for version in ("2", second.id):
            reply = await setups(peer).get_setup(GetSetupRequest(made.id, version=version))
            assert reply.setup_version == second
            assert reply.setup == made
        other = await add(peer, (await create(peer)).id, "9", a=9)
        for version in ("9", other.id):
            told, _ = await refusal(setups(peer).get_setup(GetSetupRequest(made.id, version=version)))
            assert told is Status.NOT_FOUND


async def test_setups_come_in_pages(autojump_clock: Any) -> None:
    async with provided() as peer:
        for number in range(130):
            await create(peer, f"S{number:03}", organisation_id="o" if number % 2 else "", owner_id=f"u{number % 3}")

        async def listed(**fields: Any) -> tuple[list[str], int]:
            reply = await setups(peer).list_setups(ListSetupsRequest(**fields))
            return [setup.name for setup in reply.setups], reply.total_count

        names = [f"S{number:03}" for number in range(130)]
        assert await listed() == (names[:100], 130)
        assert await listed(limit=1000) == (names, 130)
        assert await listed(limit=5000) == (names, 130)
        assert await listed(limit=60, offset=90) == (names[90:], 130)
        assert await listed(offset=500) == ([], 130)
        assert await listed(organisation_id="o", limit=2) == (["S001", "S003"], 65)
        assert await listed(organisation_id="o", owner_id="u0", limit=2) == (["S003", "S009"], 22)
        for field in ("limit", "offset"):
            told, message = await refusal(listed(**{field: -1}))
            assert (told, field in message) == (Status.INVALID_ARGUMENT, True)


async def test_a_setup_that_is_deleted_is_gone_with_its_versions(autojump_clock: Any) -> None:
    async with provided() as peer:
        made = await create(peer, current_setup_version=SetupVersion(content=content(a=1)))
        assert (await setups(peer).delete_setup(DeleteSetupRequest(made.id))).success
        assert await versions(peer) == []
        for call in (
            setups(peer).delete_setup(DeleteSetupRequest(made.id)),
            setups(peer).get_setup(GetSetupRequest(made.id)),
            update(peer, made.id, name="x"),
            update(peer, made.id, current_setup_version=SetupVersion(content=content())),
            add(peer, made.id, "1"),
        ):
            assert (await refusal(call))[0] is Status.NOT_FOUND


# --- versions --------------------------------------------------------------------------------------------------------


async def test_versions(autojump_clock: Any) -> None:
    async with provided() as peer:
        made = await create(peer)
        first, second = await add(peer, made.id, "1", a=1), await add(peer, made.id, "2", a=2)
        reply = await setups(peer).get_setup(GetSetupRequest(made.id))
        assert reply.setup_version == first  # the first is current
        assert (await refusal(add(peer, made.id, "2")))[0] is Status.ALREADY_EXISTS
        request = UpdateSetupVersionRequest(setup_version_id=second.id, version="two")
        changed = (await setups(peer).update_setup_version(request)).setup_version
        assert (changed.version, values(changed)) == ("two", {"a": 2})  # type: ignore[union-attr]
        request = UpdateSetupVersionRequest(setup_version_id=second.id, content=content(b=3))
        changed = (await setups(peer).update_setup_version(request)).setup_version
        assert (changed.version, values(changed)) == ("two", {"b": 3})  # type: ignore[union-attr]
        request = UpdateSetupVersionRequest(setup_version_id=second.id, version="1")
        assert (await refusal(setups(peer).update_setup_version(request)))[0] is Status.ALREADY_EXISTS
        told, _ = await refusal(setups(peer).delete_setup_version(DeleteSetupVersionRequest(first.id)))
        assert told is Status.FAILED_PRECONDITION
        assert (await setups(peer).delete_setup_version(DeleteSetupVersionRequest(second.id))).success
        for call in (
            setups(peer).delete_setup_version(DeleteSetupVersionRequest(second.id)),
            setups(peer).get_setup_version(GetSetupVersionRequest(second.id)),
            setups(peer).update_setup_version(UpdateSetupVersionRequest(second.id, version="x")),
        ):
            assert (await refusal(call))[0] is Status.NOT_FOUND


async def test_all_versions_that_fit_are_found(autojump_clock: Any) -> None:
    async with provided() as peer:
        one, other = await create(peer), await create(peer)
        for number in range(120):
            await add(peer, one.id, f"v{number}")
        await add(peer, other.id, "v7")
        assert await versions(peer, setup_id=one.id) == [f"v{number}" for number in range(120)]
        assert await versions(peer, version="v7") == ["v7", "v7"]
        assert await versions(peer, setup_id=other.id, version="v7") == ["v7"]
        assert await versions(peer, setup_id=other.id, version="v8") == []
        assert await versions(peer, setup_id="setups:x") == []


# --- what cannot be kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("create_setup", CreateSetupRequest(module_id="m"), "name"),
        ("create_setup", CreateSetupRequest(name="n"), "module_id"),
        ("create_setup", CreateSetupRequest(name="n", module_id="m", status=SetupStatus(3)), "status"),
        (
            "create_setup",
            CreateSetupRequest(
                name="n", module_id="m", current_setup_version=SetupVersion(content=content(a=[float("nan")]))
            ),
            "current_setup_version.content.a[0]",
        ),
        ("get_setup", GetSetupRequest(), "setup_id"),
        ("update_setup", UpdateSetupRequest(), "setup_id"),
        ("update_setup", UpdateSetupRequest("s", current_setup_version=SetupVersion()), "current_setup_version.id"),
        ("create_setup_version", CreateSetupVersionRequest(setup_id="s"), "version"),
        ("get_setup_version", GetSetupVersionRequest(), "setup_version_id"),
        ("search_setup_versions", SearchSetupVersionsRequest(setup_id="\0"), "setup_id"),
    ],
)
async def test_what_cannot_be_kept_is_refused(autojump_clock: Any, method: str, request_: Any, field: str) -> None:
    async with provided() as peer:
        told, message = await refusal(getattr(setups(peer), method)(request_))
        assert told is Status.INVALID_ARGUMENT
        assert message.startswith(field)


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_an_update_that_is_cancelled_is_done_or_not_done(autojump_clock: Any, steps: int) -> None:
    async with provided() as peer:
        made = await create(peer, current_setup_version=SetupVersion(content=content(a=1)))
        async with trio.open_nursery() as nursery:
            version = SetupVersion(version="2", content=content(a=2))

            async def change() -> None:
                await update(peer, made.id, name="T", current_setup_version=version)

            nursery.start_soon(change)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        setup = (await setups(peer).get_setup(GetSetupRequest(made.id))).setup
        assert setup is not None
        found = (setup.name, values(setup.current_setup_version), len(await versions(peer, setup_id=made.id)))
        assert found in [("S", {"a": 1}, 1), ("T", {"a": 2}, 2)]


async def test_setups_are_there_after_a_restart(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with provided(directory=tmp_path) as peer:
            made = await create(peer, current_setup_version=SetupVersion(content=content(a=[1, {"b": None}])))
        async with provided(directory=tmp_path) as peer:
            assert (await setups(peer).get_setup(GetSetupRequest(made.id))).setup == made


async def test_a_setup_has_the_id_that_its_maker_asks_for_unless_another_has_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with provided() as peer:
        request = CreateSetupRequest(name="S", module_id="modules:m", status=SetupStatus.READY)
        for asked in ("setups:demo", "other"):
            reply = await setups(peer).create_setup(request, metadata={extensions.SETUP_ID: asked})
            assert reply.setup is not None
            assert reply.setup.id == "setups:" + asked.removeprefix("setups:")
        with pytest.raises(GRPCError) as caught:
            await setups(peer).create_setup(request, metadata={extensions.SETUP_ID: "demo"})
        assert caught.value.status is Status.ALREADY_EXISTS
        assert "'setups:demo' exists already" in (caught.value.message or "")
