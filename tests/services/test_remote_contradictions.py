"""Answers of a provider that knows more than we do, or less than the contract says."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from pydantic import BaseModel
from tests.services.foreign_provider import IDS, Foreign, foreign, replies

from dk_trio.errors import FileExistsInContextError, RegistryServiceError, StorageServiceError
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import Cost, CostServiceBase, GetCostConfigResponse, GetCostsResponse
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostConfig as WireConfig
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import File, FilesystemServiceBase, GetFilesResponse
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverModulesResponse,
    HeartbeatResponse,
    ModuleDescriptor,
    RegistryServiceBase,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import ListSetupsResponse, Setup, SetupServiceBase
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    ListRecordsResponse,
    ReadRecordResponse,
    StorageRecord,
    StorageServiceBase,
    StoreRecordResponse,
    UpdateRecordResponse,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services import GrpcCost, GrpcFilesystem, GrpcRegistry, GrpcSetup, GrpcStorage
from dk_trio.services.cost import CostConfig, CostType
from dk_trio.services.filesystem import FileFilter, UploadFileData
from dk_trio.services.registry import RegistryModuleStatus, RegistryModuleType

LATER: Any = 77
"""A number that no enumeration of the contract has: yet."""
PRICES = {"search": CostConfig(cost_name="search", cost_type=CostType.API_CALL, unit="call", rate=0.5)}


class Note(BaseModel):
    text: str


def storage_of(it: Foreign) -> GrpcStorage:
    return GrpcStorage(*IDS, config={"notes": Note}, providers=it.clients)


def cost_of(it: Foreign) -> GrpcCost:
    return GrpcCost(*IDS, config=PRICES, providers=it.clients)


def registry_of(it: Foreign) -> GrpcRegistry:
    return GrpcRegistry(*IDS, providers=it.clients)


def record(record_id: str = "a", data_type: Any = LATER) -> StorageRecord:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return StorageRecord(Struct.from_dict({"text": "x"}), "missions:m", "notes", record_id, now, now, data_type)


# --- types of a later contract ---------------------------------------------------------------------------------------


async def test_a_record_of_a_later_type_is_an_other(autojump_clock: object) -> None:
    async with foreign(
        StorageServiceBase,
        store_record=replies(StoreRecordResponse(True, record())),
        list_records=replies(ListRecordsResponse([record()])),
    ) as it:
        assert (await storage_of(it).store("notes", "a", {"text": "x"})).data_type == "OTHER"
        assert [found.data_type for found in await storage_of(it).list("notes")] == ["OTHER"]


async def test_a_cost_of_a_later_type_is_an_other(autojump_clock: object) -> None:
    entry = Cost(1.0, "missions:m", "n", LATER, "u", 1.0, "setup_versions:v", 1.0)
    async with foreign(
        CostServiceBase,
        get_costs=replies(GetCostsResponse([entry], 1)),
        get_cost_config=replies(GetCostConfigResponse(True, [WireConfig("search", LATER, "", "call", 5.0)])),
    ) as it:
        assert [entry.cost_type for entry in await cost_of(it).get_filtered()] == [CostType.OTHER]
        assert [price.cost_type for price in await cost_of(it).get_cost_config()] == [CostType.OTHER]


async def test_a_module_of_a_later_type_is_found(autojump_clock: object) -> None:
    module = ModuleDescriptor(id="modules:a", module_type=LATER, status=LATER, address="h", port=7)
    async with foreign(
        RegistryServiceBase,
        get_module=replies(module),
        discover_modules=replies(DiscoverModulesResponse([module])),
        heartbeat=replies(HeartbeatResponse(LATER)),
    ) as it:
        found = await registry_of(it).discover_by_id("a")
        assert (found.module_type, found.address, found.port) == (RegistryModuleType.UNSPECIFIED, "h", 7)
        assert await registry_of(it).search("a") == [found]
        assert await registry_of(it).heartbeat("a") is RegistryModuleStatus.UNSPECIFIED


# --- pages -----------------------------------------------------------------------------------------------------------


def modules(*numbers: int) -> DiscoverModulesResponse:
    return DiscoverModulesResponse([ModuleDescriptor(id=f"modules:{number}") for number in numbers])


async def test_a_search_goes_on_after_a_page_of_the_providers_own_size(autojump_clock: object) -> None:
    pages = replies(modules(*range(20)), modules(*range(20, 40)), modules(40), modules())
    async with foreign(RegistryServiceBase, discover_modules=pages) as it:
        assert len(await registry_of(it).search("a")) == 41
        assert [request.offset for request in it.asked("discover_modules")] == [0, 20, 40, 41]


async def test_a_provider_that_does_not_understand_pages_is_not_asked_for_ever(autojump_clock: object) -> None:
    async with foreign(RegistryServiceBase, discover_modules=replies(modules(*range(150)))) as it:
        assert len(await registry_of(it).search("a")) == 150
        assert len(it.asked("discover_modules")) == 2
    entry = Cost(1.0, "missions:m", "n", 1, "u", 1.0, "setup_versions:v", 1.0)  # type: ignore[arg-type]
    for total in (0, 1500):
        async with foreign(CostServiceBase, get_costs=replies(GetCostsResponse([entry] * 1500, total))) as it:
            assert len(await cost_of(it).get_filtered()) == 1500
            assert len(it.asked("get_costs")) == 1
    async with foreign(CostServiceBase, get_costs=replies(GetCostsResponse([entry] * 1000, 1000))) as it:
        assert len(await cost_of(it).get_filtered()) == 1000
        assert len(it.asked("get_costs")) == 1


async def test_there_are_as_many_as_were_given_whatever_total_is_told(autojump_clock: object) -> None:
    file = File(context="missions:m", file_id="files:a", name="n")
    async with foreign(FilesystemServiceBase, get_files=replies(GetFilesResponse([file]))) as it:
        files = GrpcFilesystem(*IDS, providers=it.clients)
        found, total = await files.get_files(FileFilter(), offset=3)
        assert (len(found), total) == (1, 4)
        with pytest.raises(FileExistsInContextError):  # found out before the source is read
            await files.upload_files([UploadFileData(content=Path("not-read"), name="n", file_type="OTHER")])
    async with foreign(SetupServiceBase, list_setups=replies(ListSetupsResponse([Setup(id="setups:s")]))) as it:
        page = await GrpcSetup(providers=it.clients).list_setups(offset=3)
        assert (len(page.setups), page.total_count) == (1, 4)


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_text_that_cannot_be_sent_is_refused_by_its_field(autojump_clock: object) -> None:
    async with foreign(RegistryServiceBase) as it:
        registry = registry_of(it)
        calls: list[tuple[str, Awaitable[object]]] = [
            ("module_id", registry.discover_by_id("\ud800")),
            ("query", registry.search("\ud800")),
            ("version", registry.register("m", "h", 1, "\ud800")),
            ("address", registry.register("m", "\ud800", 1, "1")),
            ("port", registry.register("m", "h", 2**40, "1")),
            ("module_id", registry.deregister("\ud800")),
        ]
        for field, call in calls:
            with pytest.raises(RegistryServiceError, match="was not called: ") as caught:
                await call
            assert caught.value.status is Status.INVALID_ARGUMENT
            assert [violation.field for violation in caught.value.violations] == [field]
        assert it.requests == []


# --- records ---------------------------------------------------------------------------------------------------------


async def test_success_without_a_record_is_not_taken_for_nothing_there(autojump_clock: object) -> None:
    async with foreign(StorageServiceBase, read_record=replies(ReadRecordResponse(True))) as it:
        for call in (
            storage_of(it).read("notes", "a"),
            storage_of(it).amend("notes", "a", lambda _: {"text": "x"}),
        ):
            with pytest.raises(StorageServiceError, match="answered StorageService/ReadRecord with no record"):
                await call
        assert it.asked("store_record") == []


async def test_an_id_that_a_provider_leaves_out_is_the_one_that_was_asked_for(autojump_clock: object) -> None:
    async with foreign(
        StorageServiceBase,
        read_record=replies(ReadRecordResponse(True, record(""))),
        store_record=replies(StoreRecordResponse(True, record(""))),
        update_record=replies(UpdateRecordResponse(True, record(""))),
    ) as it:
        storage = storage_of(it)
        found = await storage.read("notes", "a")
        changed = await storage.update("notes", "a", {"text": "x"})
        assert found is not None
        assert changed is not None
        stored = await storage.store("notes", "a", {"text": "x"})
        assert [found.record_id, changed.record_id, stored.record_id] == ["a", "a", "a"]
