"""What a registry promises."""

from __future__ import annotations

from typing import Any

import pytest
from grpclib.const import Status

from dk_trio.errors import RegistryModuleNotFoundError
from dk_trio.services.registry import ModuleInfo, Registry, RegistryModuleStatus

from .kit import LOCAL, REMOTE, Jobs, cases, only


async def found(registry: Registry, *arguments: Any) -> list[str]:
    return sorted(info.module_id for info in await registry.search(*arguments))


async def test_a_registered_module_is_seen_by_other_jobs(jobs: Jobs) -> None:
    info = await jobs.registry().register("modules:a", "10.0.0.1", 5, "1.0")
    assert info is not None
    other = jobs.registry()
    assert await other.discover_by_id("modules:a") == info
    assert (info.module_id, info.address, info.port, info.version) == ("modules:a", "10.0.0.1", 5, "1.0")
    assert info.status is RegistryModuleStatus.ACTIVE
    assert list(await other.search()) == [info]


async def test_the_prefix_is_no_part_of_an_id(jobs: Jobs) -> None:
    registry = jobs.registry()
    await registry.register("modules:a", "h", 5, "1.0")
    assert (await registry.discover_by_id("a")).module_id == "modules:a"
    assert (await registry.get_status("a")).status is RegistryModuleStatus.ACTIVE
    assert await registry.heartbeat("a") is RegistryModuleStatus.ACTIVE


async def test_a_module_that_registers_again_has_moved(jobs: Jobs) -> None:
    registry = jobs.registry()
    await registry.register("modules:a", "old", 5, "1.0")
    await registry.register("modules:a", "new", 6, "2.0")
    info = await registry.discover_by_id("modules:a")
    assert (info.address, info.port, info.version) == ("new", 6, "2.0")
    assert await found(registry) == ["modules:a"]


async def test_the_status_and_the_heartbeat_say_that_it_is_served(jobs: Jobs) -> None:
    registry = jobs.registry()
    await registry.register("modules:a", "h", 5, "1.0")
    told = await registry.get_status("modules:a")
    assert (told.module_id, told.status) == ("modules:a", RegistryModuleStatus.ACTIVE)
    assert await registry.heartbeat("modules:a") is RegistryModuleStatus.ACTIVE


@cases(
    (lambda it: it.discover_by_id("modules:none"),),
    (lambda it: it.get_status("modules:none"),),
    (lambda it: it.heartbeat("modules:none"),),
    (lambda it: it.discover_by_id(""),),
)
async def test_an_unknown_module_is_not_found(jobs: Jobs, call: Any) -> None:
    await jobs.registry().register("modules:a", "h", 5, "1.0")
    with pytest.raises(RegistryModuleNotFoundError) as missing:
        await call(jobs.registry())
    assert missing.value.status is Status.NOT_FOUND
    assert [violation.field for violation in missing.value.violations] == ["module_id"]


@cases(
    (None, ["modules:search-web", "modules:searcher", "modules:x"]),
    ("", ["modules:search-web", "modules:searcher", "modules:x"]),
    ("search", ["modules:search-web", "modules:searcher"]),
    ("SEARCH-", ["modules:search-web"]),
    ("x", ["modules:x"]),
    ("none", []),
    ("%", []),
    ("search_web", []),
)
async def test_modules_are_found_by_a_part_of_their_id(jobs: Jobs, name: str | None, ids: list[str]) -> None:
    registry = jobs.registry()
    for module_id in ("modules:search-web", "modules:searcher", "modules:x"):
        await registry.register(module_id, "h", 5, "1.0")
    assert await found(registry, name) == ids


async def test_a_type_that_no_module_has_finds_none(jobs: Jobs) -> None:
    registry = jobs.registry()
    await registry.register("modules:a", "h", 5, "1.0")
    assert await found(registry, None, "tool") == []
    assert await found(registry, "a", "archetype") == []
    assert await found(registry, None, "no type at all") == []
    assert await found(registry, None, "unspecified") == ["modules:a"]


async def test_many_modules_are_found_together(jobs: Jobs) -> None:
    registry = jobs.registry()
    ids = [f"modules:{number:03}" for number in range(130)]  # more than a page of the contract
    for module_id in ids:
        await registry.register(module_id, "h", 5, "1.0")
    assert await found(registry) == ids
    assert await found(registry, "12") == ["modules:012", "modules:112", *ids[120:130]]


@only(LOCAL, "A module that was deregistered is forgotten.")
async def test_a_deregistered_module_is_forgotten(jobs: Jobs) -> None:
    registry = jobs.registry()
    await registry.register("modules:a", "h", 5, "1.0")
    assert await registry.deregister("a")
    assert not await registry.deregister("modules:a")
    with pytest.raises(RegistryModuleNotFoundError):
        await registry.discover_by_id("a")


@only(REMOTE, "A module that was deregistered stays known, as READY: its server may come back.")
async def test_a_deregistered_module_is_ready(jobs: Jobs) -> None:
    registry = jobs.registry()
    key = "modules:alone"  # a provider knows for a while who else has served a module, and hands it over
    await registry.register(key, "h", 5, "1.0")
    assert await registry.deregister("alone")
    info = await registry.discover_by_id("alone")
    assert (info.address, info.status) == ("h", RegistryModuleStatus.READY)
    assert (await registry.register(key, "h", 5, "1.0")).status is RegistryModuleStatus.ACTIVE  # type: ignore[union-attr]


async def test_what_was_never_registered_cannot_be_deregistered(jobs: Jobs) -> None:
    assert not await jobs.registry().deregister("modules:none")


@only(REMOTE, "A server says with its registration what the contract has no fields for.")
async def test_a_server_is_found_by_its_name_and_type(jobs: Jobs) -> None:
    told = ModuleInfo(module_id="modules:a", module_name="Web Search", module_type="tool", documentation="Looks it up.")
    await jobs.registry(told=told).register("modules:a", "h", 5, "1.0")
    await jobs.registry().register("modules:b", "h", 6, "1.0")
    info = await jobs.registry().discover_by_id("modules:a")
    assert (info.module_name, info.module_type, info.documentation) == ("Web Search", "tool", "Looks it up.")
    assert await found(jobs.registry(), "web") == ["modules:a"]
    assert await found(jobs.registry(), None, "tool") == ["modules:a"]
    assert await found(jobs.registry(), "web", "archetype") == []


async def test_a_stored_setup_is_found_with_its_module(jobs: Jobs) -> None:
    registry = jobs.registry()
    made = await jobs.setups().create_setup(
        name="X", module_id="modules:a", organisation_id="organizations:o", owner_id="users:u", content={"n": 1}
    )
    for setup_id in (made.id, made.id.removeprefix("setups:")):
        setup = await registry.get_setup(setup_id)
        assert setup is not None
        assert (setup.setup_id, setup.module_id, setup.name) == (made.id, "modules:a", "X")
        assert (setup.organization_id, setup.owner_id, setup.status) == ("organizations:o", "users:u", "ready")
        assert (setup.setup_version, setup.config) == ("1", {"n": 1})
        assert made.current_setup_version is not None
        assert setup.setup_version_id == made.current_setup_version.id


async def test_a_stored_setup_without_a_version_is_found(jobs: Jobs) -> None:
    made = await jobs.setups().create_setup(name="Y", module_id="modules:a", status="draft")
    setup = await jobs.registry().get_setup(made.id)
    assert setup is not None
    assert (setup.status, setup.setup_version_id, setup.config) == ("draft", "", {})


@cases(("setups:none",), ("none",), ("",), ("setups:",))
async def test_an_unknown_setup_is_none(jobs: Jobs, setup_id: str) -> None:
    await jobs.setups().create_setup(name="Y", module_id="modules:a")
    assert await jobs.registry().get_setup(setup_id) is None


async def test_a_registry_that_answers_is_ready(jobs: Jobs) -> None:
    registry: Any = jobs.registry()
    assert await registry.wait_for_ready(5)
    await registry.check_health()
    assert await found(registry) == []
    await registry.close()
