"""RegistryService: leases, searches, and setups with their modules."""

from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import extensions
from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import DeregisterRequest
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverSetupsRequest,
    GetModuleRequest,
    GetSetupRequest,
    HeartbeatRequest,
    ModuleStatus,
    ModuleType,
    RegisterModuleRequest,
    SetupStatus,
    Visibility,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import CreateSetupRequest, SetupVersion
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupStatus as StoredStatus
from dk_trio.pb.google.protobuf import Struct

from .kit import Provided, provided
from .registry_kit import beat, found, older, register, registry, setups, status


def clock() -> float:
    return 1_000_000 + trio.current_time()


async def refusal(call: Any) -> tuple[Status, str]:
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value.status, caught.value.message or ""


# --- leases ----------------------------------------------------------------------------------------------------------


async def test_a_module_is_active_while_its_lease_lasts(autojump_clock: Any) -> None:
    async with provided(now=clock, lease=30) as peer:
        module = await register(peer, "a", port=1234)
        assert (module.status, module.address, module.port) == (ModuleStatus.ACTIVE, "a.local", 1234)
        await trio.sleep(29)
        assert await beat(peer, "a") == "ACTIVE"
        await trio.sleep(29)
        assert await status(peer, "a") == "ACTIVE"
        await trio.sleep(1.5)
        assert await status(peer, "a") == "READY"
        known = await registry(peer).get_module(GetModuleRequest(module_id="modules:a"))
        assert (known.address, known.port) == ("a.local", 1234)
        assert await beat(peer, "a") == "ACTIVE"
        assert await status(peer, "a") == "ACTIVE"


async def test_a_module_that_nobody_registered_is_not_found(autojump_clock: Any) -> None:
    async with provided() as peer:
        for call in (status(peer, "x"), beat(peer, "x")):
            told, message = await refusal(call)
            assert told is Status.NOT_FOUND
            assert "'modules:x'" in message


async def test_a_module_that_was_deregistered_has_to_be_registered_again(autojump_clock: Any) -> None:
    """So a heartbeat that was on its way does not bring it back, and a second server of it notices."""
    async with provided(now=clock) as peer:
        await register(peer, "a")
        await older(peer).deregister_module(DeregisterRequest(module_id="modules:a"))
        assert await status(peer, "a") == "READY"
        assert (await refusal(beat(peer, "a")))[0] is Status.NOT_FOUND
        assert await status(peer, "a") == "READY"
        await register(peer, "a", port=2)
        assert await status(peer, "a") == "ACTIVE"


async def test_of_several_servers_at_one_address_the_last_takes_the_module_away(autojump_clock: Any) -> None:
    def told(instance: str) -> dict[str, str | bytes]:
        return {extensions.INSTANCE: instance, extensions.SERVED_AT: b"a.local:1234"}

    async def leave(peer: Provided, instance: str) -> None:
        request = DeregisterRequest("modules:a")
        assert (await older(peer).deregister_module(request, metadata=told(instance))).success

    async def live(peer: Provided, instance: str) -> None:
        await registry(peer).heartbeat(HeartbeatRequest("modules:a"), metadata=told(instance))

    async with provided(now=clock, lease=30) as peer:
        request = RegisterModuleRequest(module_id="modules:a", address="a.local", port=1234)
        for instance in ("one", "two", "three"):
            await registry(peer).register_module(request, metadata=told(instance))
        await trio.sleep(20)
        await live(peer, "two")
        await trio.sleep(20)
        await live(peer, "two")
        await leave(peer, "one")
        assert await status(peer, "a") == "ACTIVE"
        await leave(peer, "two")  # the third was not heard of for longer than a lease
        assert await status(peer, "a") == "READY"


async def test_ids_are_the_same_with_and_without_prefix(autojump_clock: Any) -> None:
    async with provided() as peer:
        await registry(peer).register_module(RegisterModuleRequest("a", "host", 1, "1"))
        assert (await registry(peer).get_module(GetModuleRequest("modules:a"))).id == "modules:a"
        assert (await registry(peer).get_module(GetModuleRequest("a"))).id == "modules:a"


async def test_a_clock_that_is_set_back_is_right_again_after_one_heartbeat(autojump_clock: Any) -> None:
    shift = 0.0
    async with provided(now=lambda: clock() + shift) as peer:
        await register(peer, "a")
        await register(peer, "dead")
        shift = -3600
        await beat(peer, "a")
        assert (await status(peer, "a"), await status(peer, "dead")) == ("ACTIVE", "READY")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (RegisterModuleRequest("", "host", 1, "1"), "module_id"),
        (RegisterModuleRequest("a", "", 1, "1"), "address"),
        (RegisterModuleRequest("a", "host", 0, "1"), "port"),
        (RegisterModuleRequest("a", "host", 70_000, "1"), "port"),
        (RegisterModuleRequest("a", "host", -1, "1"), "port"),
        (RegisterModuleRequest("a\0", "host", 1, "1"), "module_id"),
    ],
)
async def test_a_registration_that_is_of_no_use_is_refused(autojump_clock: Any, request_: Any, field: str) -> None:
    async with provided() as peer:
        told, message = await refusal(registry(peer).register_module(request_))
        assert told is Status.INVALID_ARGUMENT
        assert field in message


# --- what a module tells of itself -----------------------------------------------------------------------------------


async def test_what_a_module_told_once_stays_until_it_tells_something_else(autojump_clock: Any) -> None:
    async with provided() as peer:
        await register(peer, "a", name="Search", module_type="tool", documentation="Finds things.")
        module = await register(peer, "a")
        assert (module.name, module.module_type, module.documentation) == ("Search", ModuleType.TOOL, "Finds things.")
        module = await register(peer, "a", module_type="archetype")
        assert (module.name, module.module_type) == ("Search", ModuleType.ARCHETYPE)


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"name": 1}', b'{"module_type": "robot"}', b"\xff"])
async def test_metadata_that_tells_nothing_is_refused(autojump_clock: Any, value: bytes) -> None:
    async with provided() as peer:
        request = RegisterModuleRequest("a", "host", 1, "1")
        call = registry(peer).register_module(request, metadata={extensions.MODULE: value})
        told, message = await refusal(call)
        assert told is Status.INVALID_ARGUMENT
        assert extensions.MODULE in message


# --- searches --------------------------------------------------------------------------------------------------------


async def test_modules_are_found_by_what_they_are(autojump_clock: Any) -> None:
    async with provided(now=clock) as peer:
        await register(peer, "old", name="Web search", module_type="tool")
        await trio.sleep(40)
        await register(peer, "writer", name="100% Writer", module_type="archetype")
        await register(peer, "web-2", module_type="tool")
        await register(peer, "plain")
        assert await found(peer) == ["writer", "web-2", "plain", "old"]  # those that are served first
        assert await found(peer, "WEB") == ["web-2", "old"]
        assert await found(peer, "modules:web") == ["web-2"]
        assert await found(peer, "0% w") == ["writer"]
        assert await found(peer, "%") == ["writer"]
        assert await found(peer, "_") == []
        assert await found(peer, module_types=[ModuleType.TOOL]) == ["web-2", "old"]
        assert await found(peer, module_types=[ModuleType.TOOL, ModuleType.ARCHETYPE]) == ["writer", "web-2", "old"]
        assert await found(peer, status=[ModuleStatus.ACTIVE]) == ["writer", "web-2", "plain"]
        assert await found(peer, status=[ModuleStatus.READY]) == ["old"]
        assert await found(peer, status=[ModuleStatus.ARCHIVED]) == []
        assert await found(peer, status=[ModuleStatus.ACTIVE, ModuleStatus.READY], query="ol") == ["old"]
        assert await found(peer, visibility=[Visibility.PUBLIC], query="plain") == ["plain"]
        assert await found(peer, visibility=[Visibility.PRIVATE]) == []
        assert await found(peer, organization_id="organizations:any", query="plain") == ["plain"]


async def test_pages(autojump_clock: Any) -> None:
    async with provided() as peer:
        for number in range(105):
            await register(peer, f"m{number:03}")
        first, rest = await found(peer), await found(peer, offset=100)
        assert (len(first), len(rest)) == (100, 5)
        assert sorted(first + rest) == [f"m{number:03}" for number in range(105)]
        assert await found(peer, limit=3, offset=1) == ["m001", "m002", "m003"]
        assert len(await found(peer, limit=1000)) == 100
        assert await found(peer, offset=1000) == []
        assert (await refusal(found(peer, offset=-1)))[0] is Status.INVALID_ARGUMENT
        assert (await refusal(found(peer, limit=-1)))[0] is Status.INVALID_ARGUMENT


# --- a provider that comes back --------------------------------------------------------------------------------------


async def test_leases_go_on_over_a_restart(tmp_path: Path) -> None:
    """Those of the living begin anew, however long the provider was away; those of the dead do not."""
    shift = 0.0

    def now() -> float:
        return 1_000_000 + shift

    with trio.fail_after(30):
        async with provided(directory=tmp_path, now=now) as peer:
            await register(peer, "dead")
            await register(peer, "left")
            await older(peer).deregister_module(DeregisterRequest(module_id="left"))
            shift = 1000
            await register(peer, "alive")
        shift = 5000
        async with provided(directory=tmp_path, now=now) as peer:
            assert [await status(peer, key) for key in ("dead", "left", "alive")] == ["READY", "READY", "ACTIVE"]
            shift = 5029
            assert await status(peer, "alive") == "ACTIVE"
            shift = 5031
            assert await status(peer, "alive") == "READY"
            assert await beat(peer, "alive") == "ACTIVE"
            assert await status(peer, "dead") == "READY"


# --- setups ----------------------------------------------------------------------------------------------------------


async def make(
    peer: Provided, name: str, module: str, organisation: str = "", status: StoredStatus = StoredStatus.READY
) -> str:
    request = CreateSetupRequest(name=name, organisation_id=organisation, module_id=module, status=status)
    request.current_setup_version = SetupVersion(version="1", content=Struct.from_dict({"name": name}))
    reply = await setups(peer).create_setup(request)
    assert reply.setup is not None
    return reply.setup.id


async def test_a_setup_is_told_with_its_module(autojump_clock: Any) -> None:
    async with provided(now=clock) as peer:
        await register(peer, "web", module_type="tool")
        setup_id = await make(peer, "Web", "web", "organisations:o", status=StoredStatus.VALIDATING)
        for asked in (setup_id, setup_id.removeprefix("setups:")):
            setup = await registry(peer).get_setup(GetSetupRequest(setup_id=asked))
            assert (setup.id, setup.name, setup.module_id) == (setup_id, "Web", "modules:web")
            assert setup.status is SetupStatus.WAITING_FOR_APPROVAL
            assert setup.setup_version == "1"
            assert setup.config is not None
            assert setup.config.to_dict() == {"name": "Web"}
            assert setup.module is not None
            assert (setup.module.address, setup.module.status) == ("web.local", ModuleStatus.ACTIVE)
        assert (await refusal(registry(peer).get_setup(GetSetupRequest(setup_id="setups:x"))))[0] is Status.NOT_FOUND


async def test_setups_are_found_by_what_they_are(autojump_clock: Any) -> None:
    async with provided(now=clock) as peer:
        await register(peer, "web", module_type="tool")
        await make(peer, "Web", "web", "organisations:o")
        await make(peer, "Web too", "modules:web", "organizations:o", status=StoredStatus.DRAFT)
        await make(peer, "Other", "modules:lost", "p")

        async def searched(**fields: Any) -> list[str]:
            reply = await registry(peer).discover_setups(DiscoverSetupsRequest(**fields))
            return [setup.name for setup in reply.setups]

        assert await searched() == ["Web", "Web too", "Other"]
        assert await searched(query="wEB") == ["Web", "Web too"]
        assert await searched(organization_id="organizations:o") == ["Web", "Web too"]
        assert await searched(organization_id="organizations:p") == ["Other"]
        assert await searched(status=[SetupStatus.DRAFT]) == ["Web too"]
        assert await searched(module_ids=["modules:web"]) == ["Web", "Web too"]
        assert await searched(module_ids=["lost", "nobody"]) == ["Other"]
        assert await searched(module_types=[ModuleType.TOOL]) == ["Web", "Web too"]
        assert await searched(limit=1, offset=1) == ["Web too"]
        assert await searched(visibility=[Visibility.INTERNAL]) == []
