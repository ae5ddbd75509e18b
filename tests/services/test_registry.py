"""The registry of one process: what it serves, what was registered, what it was told of."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from dk_trio.errors import RegistryModuleNotFoundError, RegistryServiceError
from dk_trio.services.local import registry as local
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.registry import DefaultRegistry, LocalRegistry
from dk_trio.services.local.setup_service import DefaultSetup
from dk_trio.services.registry import ModuleInfo, RegistryModuleStatus, SetupInfo


def registry_of(process: LocalRegistry | None = None, **parameters: Any) -> DefaultRegistry:
    platform = SimpleNamespace(registry=process or LocalRegistry(), setups=LocalPlatform().setups)
    return DefaultRegistry("m", "s", "v", platform=platform, **parameters)


async def stream() -> trio.abc.Stream:
    raise OSError


async def test_a_module_is_active_while_it_is_served() -> None:
    process = LocalRegistry()
    registry = registry_of(process)
    with process.serving(ModuleInfo(module_id="modules:a", address="h", port=1), connect=stream):
        info = await registry.discover_by_id("a")
        assert (info.module_id, info.status) == ("modules:a", RegistryModuleStatus.ACTIVE)
        assert (await registry.get_status("modules:a")).status == "active"
        assert process.connect_for("h", 1) is stream
        assert process.connect_for("h", 2) is None
    with pytest.raises(RegistryModuleNotFoundError):
        await registry.discover_by_id("a")
    assert process.connect_for("h", 1) is None


async def test_a_module_without_an_address_gets_one_of_its_own() -> None:
    process = LocalRegistry()
    with (
        process.serving(ModuleInfo(module_id="modules:a b/c"), connect=stream) as one,
        process.serving(ModuleInfo(module_id="modules:d"), connect=stream) as other,
    ):
        assert one.address == "a-b-c.memory"
        assert one.address != other.address
        assert process.connect_for(one.address, one.port) is stream


async def test_the_last_server_of_an_id_is_found_and_the_first_again_after_it() -> None:
    process = LocalRegistry()
    registry = registry_of(process)
    with process.serving(ModuleInfo(module_id="a", address="one")):
        with process.serving(ModuleInfo(module_id="a", address="two")):
            assert (await registry.discover_by_id("a")).address == "two"
        assert (await registry.discover_by_id("a")).address == "one"


async def test_modules_and_setups_of_other_processes_are_parameters() -> None:
    registry = registry_of(
        modules=[{"module_id": "a", "address": "far", "port": 7.0}, ModuleInfo(module_id="modules:b")],
        setups=[{"setup_id": "setups:x", "module_id": "a", "name": "X"}],
    )
    assert (await registry.discover_by_id("modules:a")).port == 7
    assert (await registry.discover_by_id("b")).module_id == "modules:b"
    setup = await registry.get_setup("x")
    assert setup is not None
    assert setup.name == "X"
    assert await registry.get_setup("y") is None


async def test_a_stored_setup_is_found_with_its_module(autojump_clock: object) -> None:
    with trio.fail_after(86400):
        async with LocalPlatform().opened() as platform:
            registry = DefaultRegistry("m", "s", "v", platform=platform)
            assert await registry.get_setup("setups:x") is None
            assert not platform.database.exists  # looking has opened nothing
            setups = DefaultSetup(platform=platform)
            await setups.create_setup(
                setup_id="x", name="X", module_id="modules:a", organisation_id="o", owner_id="u", content={"n": 1}
            )
            await setups.create_setup(setup_id="y", name="Y", module_id="modules:a", status="draft")
            found = await registry.get_setup("setups:x")
            assert found is not None
            assert (found.setup_id, found.module_id, found.name) == ("setups:x", "modules:a", "X")
            assert (found.organization_id, found.owner_id, found.status) == ("o", "u", "ready")
            assert (found.setup_version, found.config) == ("1", {"n": 1})
            assert found.setup_version_id.startswith("setup_versions:")
            bare = await registry.get_setup("y")
            assert bare is not None
            assert (bare.status, bare.setup_version_id, bare.config) == ("draft", "", {})
            platform.registry.put_setup(SetupInfo(setup_id="x", module_id="modules:here"))
            here = await registry.get_setup("x")
            assert here is not None
            assert here.module_id == "modules:here"  # what this process serves goes before what is stored


async def test_what_is_served_here_goes_before_what_was_listed() -> None:
    process = LocalRegistry()
    registry = registry_of(process, modules=[{"module_id": "a", "address": "far"}])
    with process.serving(ModuleInfo(module_id="a", address="here")):
        assert (await registry.discover_by_id("a")).address == "here"
        assert [info.address for info in await registry.search()] == ["here"]
    assert (await registry.discover_by_id("a")).address == "far"


async def test_a_registered_module_is_seen_by_other_jobs_until_it_is_deregistered() -> None:
    process = LocalRegistry()
    info = await registry_of(process).register("modules:a", "h", 5, "1.0")
    assert info is not None
    other = registry_of(process)
    assert (await other.discover_by_id("a")).port == 5
    assert await other.heartbeat("a") is RegistryModuleStatus.ACTIVE
    assert await other.deregister("a")
    assert not await other.deregister("modules:a")
    with pytest.raises(RegistryModuleNotFoundError):
        await other.heartbeat("a")


async def test_an_unknown_module_is_named_with_those_that_are_known() -> None:
    registry = registry_of(modules=[{"module_id": "a"}])
    with pytest.raises(RegistryModuleNotFoundError, match=r"'modules:zz' \(known here: a\)") as caught:
        await registry.discover_by_id("modules:zz")
    assert "services_config_params" in caught.value.hint
    assert caught.value.violations[0].field == "module_id"


async def test_search_by_name_and_type() -> None:
    registry = registry_of(
        modules=[
            {"module_id": "a", "module_name": "Web Search", "module_type": "tool"},
            {"module_id": "searcher", "module_type": "archetype"},
            {"module_id": "c"},
        ]
    )
    assert [info.module_id for info in await registry.search("SEARCH")] == ["a", "searcher"]
    assert [info.module_id for info in await registry.search("search", "tool")] == ["a"]
    assert len(await registry.search()) == 3
    assert len(await registry.search("web\nsearch")) == 0
    assert await registry.wait_for_ready(1)


async def test_a_parameter_that_is_no_module_is_refused_by_its_place() -> None:
    with pytest.raises(RegistryServiceError, match=r"modules\[1\] is no ModuleInfo: module_id: .*\.$") as caught:
        registry_of(modules=[{"module_id": "a"}, {"address": "h"}])
    assert caught.value.violations[0].field == "modules[1].module_id"


async def test_the_oldest_configured_setup_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SETUPS_MAX", 2)
    process = LocalRegistry()
    for name in "abac":
        process.put_setup(SetupInfo(setup_id=name, module_id="m"))
    registry = registry_of(process)
    assert [name for name in "abc" if await registry.get_setup(f"setups:{name}")] == ["a", "c"]


async def test_the_module_that_was_registered_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "REGISTERED_MAX", 2)
    registry = registry_of(LocalRegistry())
    for name in "abac":
        await registry.register(name, "h", 1, "1")
    assert {info.module_id for info in await registry.search()} == {"a", "c"}
