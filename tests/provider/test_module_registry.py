"""The older registry, over the registrations of the newer one."""

from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import (
    DeregisterRequest,
    DiscoverInfoRequest,
    DiscoverSearchRequest,
    GetAllModulesStatusRequest,
    ListModulesStatusRequest,
    Metadata,
    ModuleStatus,
    ModuleStatusRequest,
    RegisterRequest,
    Tag,
    UpdateStatusRequest,
)

from .kit import Provided, provided
from .registry_kit import beat, older, register, status


def clock() -> float:
    return 1_000_000 + trio.current_time()


async def enter(peer: Provided, key: str, kind: str = "tool", *tags: str, name: str = "", text: str = "") -> None:
    metadata = Metadata(name=name, description=text or None, tags=[Tag(tag=tag) for tag in tags])
    request = RegisterRequest(f"modules:{key}", kind, "host", 1, "1.0", metadata if name or text or tags else None)
    assert (await older(peer).register_module(request)).success


async def told(peer: Provided, key: str) -> str | None:
    return (await older(peer).get_module_status(ModuleStatusRequest(f"modules:{key}"))).status.name


async def searched(peer: Provided, **fields: Any) -> list[str]:
    reply = await older(peer).discover_search_module(DiscoverSearchRequest(**fields))
    return [module.module_id.removeprefix("modules:") for module in reply.modules]


async def test_both_registries_tell_of_the_same_modules(autojump_clock: Any) -> None:
    async with provided(now=clock) as peer:
        await enter(peer, "a", "kin", "x", "y", name="A", text="Does it.")
        await register(peer, "b", module_type="tool")
        assert await status(peer, "a") == "ACTIVE"
        info = await older(peer).discover_info_module(DiscoverInfoRequest("modules:a"))
        assert (info.module_id, info.module_type, info.address, info.port) == ("modules:a", "kin", "host", 1)
        assert info.metadata == Metadata(name="A", description="Does it.", tags=[Tag(tag="x"), Tag(tag="y")])
        assert (await older(peer).discover_info_module(DiscoverInfoRequest("modules:b"))).module_type == "tool"
        await trio.sleep(40)
        assert (await told(peer, "a"), await told(peer, "b")) == ("ENDED", "ENDED")
        await beat(peer, "b")
        assert (await told(peer, "a"), await told(peer, "b")) == ("ENDED", "RUNNING")


async def test_a_module_says_how_it_is(autojump_clock: Any) -> None:
    async with provided(now=clock) as peer:
        await enter(peer, "a")
        for wanted, active in (("IDLE", "ACTIVE"), ("RUNNING", "ACTIVE"), ("ENDED", "READY"), ("IDLE", "ACTIVE")):
            await trio.sleep(25)
            request = UpdateStatusRequest("modules:a", ModuleStatus[wanted])
            assert (await older(peer).update_module_status(request)).success
            assert (await told(peer, "a"), await status(peer, "a")) == (wanted, active)


async def test_a_module_that_is_deregistered_has_ended(autojump_clock: Any) -> None:
    async with provided() as peer:
        await enter(peer, "a")
        for _ in range(2):
            assert (await older(peer).deregister_module(DeregisterRequest("modules:a"))).success
            assert (await told(peer, "a"), await status(peer, "a")) == ("ENDED", "READY")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("deregister_module", DeregisterRequest("modules:x")),
        ("discover_info_module", DiscoverInfoRequest("modules:x")),
        ("get_module_status", ModuleStatusRequest("modules:x")),
        ("update_module_status", UpdateStatusRequest("modules:x", ModuleStatus.IDLE)),
    ],
)
async def test_a_module_that_nobody_registered_is_not_found(autojump_clock: Any, method: str, request_: Any) -> None:
    async with provided() as peer:
        with pytest.raises(GRPCError) as caught:
            await getattr(older(peer), method)(request_)
        assert caught.value.status is Status.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("register_module", RegisterRequest("m", "robot", "host", 1, "1"), "module_type"),
        ("register_module", RegisterRequest("m", "tool", "host", 0, "1"), "port"),
        (
            "register_module",
            RegisterRequest("m", "tool", "host", 1, "1", Metadata(tags=[Tag(tag="x")] * 101)),
            "metadata.tags",
        ),
        ("update_module_status", UpdateStatusRequest("m"), "status"),
        ("list_module_status", ListModulesStatusRequest(list_size=-1), "list_size"),
        ("list_module_status", ListModulesStatusRequest(offset=-1), "offset"),
    ],
)
async def test_what_is_of_no_use_is_refused(autojump_clock: Any, method: str, request_: Any, field: str) -> None:
    async with provided() as peer:
        with pytest.raises(GRPCError) as caught:
            await getattr(older(peer), method)(request_)
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert field in (caught.value.message or "")


async def test_modules_are_found_by_what_they_are(autojump_clock: Any) -> None:
    async with provided(now=clock) as peer:
        await enter(peer, "a", "tool", "x", "y", name="Alpha", text="Finds things")
        await enter(peer, "b", "trigger", "y", name="Beta")
        await enter(peer, "c", "kin", name="Gamma alpha")
        await register(peer, "d", name="Delta", module_type="tool")
        assert await searched(peer) == ["a", "b", "c", "d"]
        assert await searched(peer, module_type="tool") == ["a", "d"]
        assert await searched(peer, module_type="trigger") == ["b"]
        assert await searched(peer, module_type="kin") == ["c"]
        assert await searched(peer, name="ALPHA") == ["a", "c"]
        assert await searched(peer, description="things") == ["a"]
        assert await searched(peer, tags=[Tag(tag="y")]) == ["a", "b"]
        assert await searched(peer, tags=[Tag(tag="y"), Tag(tag="x")], name="alpha") == ["a"]
        assert await searched(peer, tags=[Tag(tag="z")]) == []


async def test_all_states_in_pages_and_as_a_stream(autojump_clock: Any) -> None:
    async with provided() as peer:
        for number in range(12):
            await enter(peer, f"m{number:02}")
        page = await older(peer).list_module_status(ListModulesStatusRequest(list_size=5, offset=10))
        assert (page.list_size, [row.module_id for row in page.modules_statuses]) == (2, ["modules:m10", "modules:m11"])
        assert (await older(peer).list_module_status(ListModulesStatusRequest())).list_size == 12
        rows = [row async for row in older(peer).get_all_module_status(GetAllModulesStatusRequest())]
        assert [row.module_id for row in rows] == [f"modules:m{number:02}" for number in range(12)]
        assert {row.status for row in rows} == {ModuleStatus.RUNNING}
