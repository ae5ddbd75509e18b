"""Signals, registrations and setups in a file and in PostgreSQL: the same, and over a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import (
    DeregisterRequest,
    DiscoverSearchRequest,
    ModuleStatus,
    Tag,
    UpdateStatusRequest,
)
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import DiscoverSetupsRequest, ModuleType, SetupStatus
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
    CreateSetupRequest,
    GetSetupRequest,
    ListSetupsRequest,
    SetupVersion,
    UpdateSetupRequest,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider.task_manager import TaskManagerServicer
from dk_trio.services.stores import signals as stored
from dk_trio.services.stores.sqlite import SqliteDatabase

from .kit import Provided, provided
from .registry_kit import beat, found, older, register, registry, setups, status
from .test_signals import heartbeats, poll, send, signal, statistics

Backend = Callable[[], Any]


@pytest.fixture(params=["file", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Makes the database; the same one each time."""
    if request.param == "file":
        return lambda: SqliteDatabase(tmp_path)
    url = request.getfixturevalue("postgres_url")
    from dk_trio.services.stores.postgres import PostgresDatabase

    return lambda: PostgresDatabase(url)


async def test_what_is_pending_stays_so_over_a_restart(backend: Backend) -> None:
    with trio.fail_after(30):
        async with provided(database=backend()) as peer:
            await send(peer, signal("a", "start"), signal("a", "cancel", at=1), key="k")
            await send(peer, signal("b", "stop"), signal("c", "cancel"), signal("b", "start", at=1))
            await send(peer, signal("c", "ack_cancel", "signal_service_cancel"))
        async with provided(database=backend()) as peer:
            assert await poll(peer, "a", "b", "c") == [("a", "cancel"), ("b", "stop")]
            await send(peer, signal("a", "start"), signal("a", "cancel", at=1), key="k")
            await send(peer, signal("a", "cancel", at=1))
            assert await poll(peer, "a") == [("a", "cancel")]
            await send(
                peer, signal("a", "ack_cancel", "signal_service_cancel"), signal("a", "stop", "signal_service_cancel")
            )
            assert await poll(peer, "a", timeout=1) == []
            await send(peer, signal("d", "start", heartbeat_at=signal("d", "start").created_at), signal("e", "start"))
            assert set(await heartbeats(peer, "d", "e")) == {"d"}


async def test_a_poll_wakes_when_a_request_comes(backend: Backend) -> None:
    with trio.fail_after(30):
        async with provided(database=backend()) as peer, trio.open_nursery() as nursery:
            ends: list[Any] = []

            async def wait() -> None:
                ends.extend(await poll(peer, *(f"j{number}" for number in range(1200)), timeout=20))

            nursery.start_soon(wait)
            while not statistics(peer).polls:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            await send(peer, *(signal(f"j{number}", "cancel") for number in range(0, 1200, 2)))
    assert ends == [(f"j{number}", "cancel") for number in range(0, 1200, 2)]


async def test_of_one_job_so_many_signals_are_kept(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SIGNALS_MAX", 3)
    monkeypatch.setattr(stored, "ENDED_KEPT", 1_000_000)
    shift = 0.0
    with trio.fail_after(30):
        async with provided(database=backend(), now=lambda: 1e6 + shift) as peer:
            await send(peer, *(signal("a", "cancel", at=number) for number in range(9)))
            assert len(await poll(peer, "a")) == 3
            await send(peer, signal("a", "stop", "completed"))
            shift = 2.0
            (servicer,) = (it for it in peer.provider._servicers if isinstance(it, TaskManagerServicer))
            assert await servicer._purge() == 1
            await send(peer, signal("a", "cancel"))  # as if it had never been
            assert len(await poll(peer, "a")) == 1


async def _all_registrations(peer: Provided) -> None:
    await register(peer, "a", name="Älpha %", module_type="tool", documentation="Finds.")
    await register(peer, "a", port=2)
    await register(peer, "b")
    assert await found(peer) == ["a", "b"]
    assert await found(peer, "LPHA %", module_types=[ModuleType.TOOL]) == ["a"]
    assert await found(peer, "_") == []
    assert await beat(peer, "b") == "ACTIVE"
    assert (await older(peer).update_module_status(UpdateStatusRequest("b", ModuleStatus.IDLE))).success
    reply = await older(peer).discover_search_module(DiscoverSearchRequest(description="FINDS", module_type="tool"))
    assert [module.module_id for module in reply.modules] == ["modules:a"]
    assert (await older(peer).discover_search_module(DiscoverSearchRequest(tags=[Tag(tag="t")]))).modules == []
    assert (await older(peer).deregister_module(DeregisterRequest("a"))).success
    assert (await status(peer, "a"), await status(peer, "b")) == ("READY", "ACTIVE")
    assert await found(peer, status=[1]) == ["a"]


async def test_registrations_and_setups_are_kept(backend: Backend) -> None:
    with trio.fail_after(30):
        async with provided(database=backend()) as peer:
            await _all_registrations(peer)
            version = SetupVersion(content=Struct.from_dict({"a": 1}))
            request = CreateSetupRequest(name="S", module_id="modules:b", current_setup_version=version)
            made = (await setups(peer).create_setup(request)).setup
            assert made is not None
            version = SetupVersion(version="2", content=Struct.from_dict({"a": 2}))
            request_ = UpdateSetupRequest(made.id, name="T", current_setup_version=version)
            made = (await setups(peer).update_setup(request_)).setup
            assert made is not None
        async with provided(database=backend()) as peer:
            assert await found(peer, status=[2]) == ["b"]
            reply = await setups(peer).get_setup(GetSetupRequest(made.id, version="1"))
            assert reply.setup == made
            assert reply.setup_version is not None
            assert (await setups(peer).list_setups(ListSetupsRequest())).setups == [made]
            request__ = DiscoverSetupsRequest(
                query="t", module_ids=["b"], status=[SetupStatus.DRAFT], organization_id=""
            )
            (descriptor,) = (await registry(peer).discover_setups(request__)).setups
            assert descriptor.module is not None
            assert (descriptor.name, descriptor.setup_version, descriptor.module.port) == ("T", "2", 50051)
