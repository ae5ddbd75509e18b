"""Remote storage and costs before a provider that is not ours: the plain contract, and its flags."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from pydantic import BaseModel

from dk_trio.errors import (
    ConfigurationError,
    CostLimitError,
    CostServiceError,
    DkTrioError,
    FilesystemServiceError,
    InvalidRecordError,
    RecordExistsError,
    StorageServiceError,
)
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import (
    AddCostResponse,
    Cost,
    CostServiceBase,
    GetCostConfigResponse,
    GetCostResponse,
    GetCostsResponse,
    SetCostConfigResponse,
)
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostConfig as WireConfig
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostType as WireType
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsResponse,
    ReadRecordResponse,
    RemoveCollectionResponse,
    RemoveRecordResponse,
    StorageRecord,
    StorageServiceBase,
    StoreRecordResponse,
    UpdateRecordResponse,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.google.rpc import BadRequest, BadRequestFieldViolation, ErrorInfo
from dk_trio.services.cost import CostConfig, CostType, QuantityLimit
from dk_trio.services.remote import storage as remote_storage
from dk_trio.services.remote.cost import GrpcCost
from dk_trio.services.remote.storage import GrpcStorage

from .foreign_provider import IDS, Foreign, foreign, replies

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
OUTAGES = [Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.INTERNAL, Status.RESOURCE_EXHAUSTED]


class Note(BaseModel):
    text: str


def storage_of(it: Foreign) -> GrpcStorage:
    return GrpcStorage(*IDS, config={"notes": Note}, providers=it.clients)


def record(text: str = "x", updated: datetime | None = NOW) -> StorageRecord:
    data = Struct.from_dict({"text": text})
    return StorageRecord(data, "missions:m", "notes", "a", NOW, updated, DataType.OUTPUT)


# --- storage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", OUTAGES)
async def test_an_outage_is_never_taken_for_nothing_there(autojump_clock: object, status: Status) -> None:
    failing = {name: replies(status) for name in ("read_record", "update_record", "list_records", "remove_record")}
    stored = replies(StoreRecordResponse(True, record()))
    async with foreign(StorageServiceBase, store_record=stored, remove_collection=replies(status), **failing) as it:
        storage = storage_of(it)
        calls: list[Callable[[], Any]] = [
            lambda: storage.read("notes", "a"),
            lambda: storage.update("notes", "a", {"text": "x"}),
            lambda: storage.upsert("notes", "a", {"text": "x"}),
            lambda: storage.amend("notes", "a", lambda _: {"text": "x"}),
            lambda: storage.list("notes"),
            lambda: storage.remove("notes", "a"),
            lambda: storage.remove_collection("notes"),
            storage.check_health,
        ]
        for call in calls:
            with pytest.raises(StorageServiceError) as caught:
                await call()
            assert caught.value.status is status
            assert "StorageService/" in caught.value.message
            assert f"at elsewhere:7 ended with {status.name}: " in caught.value.message
            assert isinstance(caught.value.__cause__, GRPCError)
        assert it.asked("store_record") == []


async def test_a_provider_that_is_not_there_is_unavailable_with_a_remedy(autojump_clock: object) -> None:
    async with foreign(StorageServiceBase) as it:
        it.down = True
        with pytest.raises(StorageServiceError) as caught:
            await storage_of(it).read("notes", "a")
        assert caught.value.status is Status.UNAVAILABLE
        assert "DIGITALKIN_PROVIDER" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.ALREADY_EXISTS, RecordExistsError),
        (Status.INVALID_ARGUMENT, InvalidRecordError),
        (Status.PERMISSION_DENIED, StorageServiceError),
        (Status.UNIMPLEMENTED, StorageServiceError),
        (Status.NOT_FOUND, StorageServiceError),
    ],
)
async def test_a_status_says_what_was_wrong(autojump_clock: object, status: Status, kind: type) -> None:
    async with foreign(StorageServiceBase, store_record=replies(status)) as it:
        with pytest.raises(StorageServiceError) as caught:
            await storage_of(it).store("notes", "a", {"text": "x"})
        assert (type(caught.value), caught.value.status) == (kind, status)


async def test_flags_of_success_are_read(autojump_clock: object) -> None:
    async with foreign(
        StorageServiceBase,
        read_record=replies(ReadRecordResponse(False)),
        update_record=replies(UpdateRecordResponse(False)),
        remove_record=replies(RemoveRecordResponse(False)),
        remove_collection=replies(RemoveCollectionResponse(False)),
        store_record=replies(StoreRecordResponse(False), StoreRecordResponse(True)),
        list_records=replies(ListRecordsResponse()),
    ) as it:
        storage = storage_of(it)
        assert await storage.read("notes", "a") is None
        assert await storage.update("notes", "a", {"text": "x"}) is None
        assert not await storage.remove("notes", "a")
        assert not await storage.remove_collection("notes")
        assert await storage.list("notes") == []
        for text in ("success=false", "no record"):
            with pytest.raises(StorageServiceError, match=text):
                await storage.store("notes", "a", {"text": "x"})


async def test_not_found_is_nothing_there(autojump_clock: object) -> None:
    names = ("read_record", "update_record", "remove_record", "remove_collection", "list_records")
    async with foreign(StorageServiceBase, **{name: replies(Status.NOT_FOUND) for name in names}) as it:
        storage = storage_of(it)
        assert await storage.read("notes", "a") is None
        assert await storage.update("notes", "a", {"text": "x"}) is None
        assert not await storage.remove("notes", "a")
        assert not await storage.remove_collection("notes")
        assert await storage.list("notes") == []
        await storage.check_health()


async def test_an_upsert_that_others_cross_ends_with_a_write(autojump_clock: object) -> None:
    async with foreign(
        StorageServiceBase,
        update_record=replies(Status.NOT_FOUND, Status.NOT_FOUND, UpdateRecordResponse(True, record("mine"))),
        store_record=replies(Status.ALREADY_EXISTS),
    ) as it:
        assert (await storage_of(it).upsert("notes", "a", {"text": "mine"})).data == Note(text="mine")
        assert [name for name, _ in it.requests] == ["update_record", "store_record"] * 2 + ["update_record"]


async def test_a_provider_that_contradicts_itself_is_not_asked_for_ever(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_storage, "ROUNDS", 3)
    async with foreign(
        StorageServiceBase,
        read_record=replies(Status.NOT_FOUND),
        update_record=replies(Status.NOT_FOUND),
        store_record=replies(Status.ALREADY_EXISTS),
    ) as it:
        for call in (
            storage_of(it).upsert("notes", "a", {"text": "x"}),
            storage_of(it).amend("notes", "a", lambda _: {"text": "x"}),
        ):
            with pytest.raises(StorageServiceError, match="changed by others 3 times") as caught:
                await call
            assert caught.value.status is Status.ABORTED
        assert len(it.asked("store_record")) == 6


async def test_amends_of_one_process_are_kept_apart_without_conditional_updates(autojump_clock: object) -> None:
    kept = [""]

    async def read(_: Any) -> ReadRecordResponse:
        await trio.sleep(1)
        return ReadRecordResponse(True, record(kept[0]))

    async def update(request: Any) -> UpdateRecordResponse:
        await trio.sleep(1)
        kept[0] = request.data.to_dict()["text"]
        return UpdateRecordResponse(True, record(kept[0]))

    async with foreign(StorageServiceBase, read_record=read, update_record=update) as it:
        async with trio.open_nursery() as nursery:
            for letter in "abcd":
                change = lambda data, letter=letter: {"text": data["text"] + letter}  # noqa: E731
                nursery.start_soon(storage_of(it).amend, "notes", "a", change)
            await trio.testing.wait_all_tasks_blocked()
            assert len(it.clients.locks) == 1
        assert sorted(kept[0]) == ["a", "b", "c", "d"]
        assert len(it.clients.locks) == 0


async def test_what_a_provider_leaves_out_is_made_up_for(autojump_clock: object) -> None:
    bare = StorageRecord(Struct.from_dict({"text": "x"}), record_id="a", creation_date=NOW)
    async with foreign(StorageServiceBase, read_record=replies(ReadRecordResponse(True, bare))) as it:
        found = await storage_of(it).read("notes", "a")
        assert found is not None
        assert (found.data_type, found.creation_date, found.update_date) == ("OTHER", NOW, NOW)


async def test_data_that_are_no_struct_are_an_error_of_the_service(autojump_clock: object) -> None:
    broken = record()
    broken.data = Struct.parse(b"\x0a\xff")
    async with foreign(StorageServiceBase, list_records=replies(ListRecordsResponse([broken]))) as it:
        with pytest.raises(StorageServiceError):
            await storage_of(it).list("notes")


async def test_details_of_others_are_not_ours_and_refused_fields_are(autojump_clock: object) -> None:
    fields = BadRequest([BadRequestFieldViolation(field="record_id", description="is ugly")])
    theirs = GRPCError(Status.INVALID_ARGUMENT, "no", [ErrorInfo("RECORD_EXISTS", "example.org"), fields])
    unknown = GRPCError(Status.FAILED_PRECONDITION, "no", [ErrorInfo("NEW_IN_A_LATER_VERSION", "dk-trio")])
    async with foreign(StorageServiceBase, read_record=replies(theirs, unknown)) as it:
        with pytest.raises(InvalidRecordError) as caught:
            await storage_of(it).read("notes", "a")
        assert [(row.field, row.description) for row in caught.value.violations] == [("record_id", "is ugly")]
        with pytest.raises(StorageServiceError) as later:
            await storage_of(it).read("notes", "a")
        assert (type(later.value), later.value.status) == (StorageServiceError, Status.FAILED_PRECONDITION)


async def test_a_strategy_is_made_before_its_server_is_open_and_refuses_a_wrong_client_config() -> None:
    async with foreign(StorageServiceBase) as it:
        clients = it.clients
    storage = GrpcStorage(*IDS, config={"notes": Note}, providers=clients)
    assert "GrpcStorage" in repr(storage)
    with pytest.raises(ConfigurationError, match="port"):
        GrpcStorage(*IDS, config={}, providers=clients, client_config={"host": "h", "port": -1})


# --- cost ------------------------------------------------------------------------------------------------------------

PRICES = {
    "search": CostConfig(cost_name="search", cost_type=CostType.API_CALL, unit="call", rate=0.1),
    "prompt": CostConfig(cost_name="prompt", cost_type=CostType.TOKEN_INPUT, unit="token", rate=0.2),
}


def spent(quantity: float, rate: float = 0.1) -> Cost:
    return Cost(quantity * rate, "missions:m", "n", WireType.API_CALL, "call", rate, "setup_versions:w", quantity)


def cost_of(it: Foreign, **options: Any) -> GrpcCost:
    return GrpcCost(*IDS, config=PRICES, providers=it.clients, **options)


async def test_a_limit_of_a_mission_is_checked_here_when_the_provider_cannot(autojump_clock: object) -> None:
    limit = QuantityLimit(name="search", max_value=5, scope="mission")
    async with foreign(
        CostServiceBase,
        get_costs=replies(GetCostsResponse([spent(3), spent(100, rate=7)], 2)),  # the second had another price
        add_cost=replies(AddCostResponse(True)),
    ) as it:
        cost = cost_of(it, cost_limits=[limit])
        with pytest.raises(CostLimitError, match=r"3 used, 2\.5 asked") as caught:
            await cost.add("a", "search", 2.5)
        assert caught.value.violations[0].field == "input.cost_limits[0].max_value"
        assert it.asked("add_cost") == []
        assert await cost.check_limit("search", 2)
        assert not await cost.check_limit("search", 2.5)
        await cost.add("a", "search", 2)
        await cost.add("a", "prompt", 1000)
        assert [request.quantity for request in it.asked("add_cost")] == [2, 1000]


async def test_a_cost_that_was_not_added_takes_no_room(autojump_clock: object) -> None:
    answers = replies(Status.UNAVAILABLE, AddCostResponse(False), AddCostResponse(True))
    async with foreign(CostServiceBase, add_cost=answers) as it:
        cost = cost_of(it, limits=[QuantityLimit(name="search", max_value=1)])
        for status in (Status.UNAVAILABLE, Status.UNKNOWN):
            with pytest.raises(CostServiceError) as caught:
                await cost.add("a", "search", 1)
            assert caught.value.status is status
        await cost.add("a", "search", 1)
        with pytest.raises(CostLimitError):
            await cost.add("a", "search", 1)
        assert len(it.asked("add_cost")) == 3


async def test_all_pages_of_costs_are_read_whatever_their_size(autojump_clock: object) -> None:
    pages = [GetCostsResponse([spent(n) for n in range(at, at + 3)], 7) for at in (0, 3)]
    async with foreign(CostServiceBase, get_costs=replies(*pages, GetCostsResponse([spent(6)], 7))) as it:
        assert [entry.quantity for entry in await cost_of(it).get_filtered()] == [0, 1, 2, 3, 4, 5, 6]
        assert [(request.limit, request.offset) for request in it.asked("get_costs")] == [
            (1000, 0),
            (1000, 3),
            (1000, 6),
        ]


async def test_no_costs_and_no_answer_are_told_apart(autojump_clock: object) -> None:
    gone, away = Status.NOT_FOUND, Status.PERMISSION_DENIED
    async with foreign(
        CostServiceBase, get_cost=replies(GetCostResponse([spent(2)]), gone, away), get_costs=replies(gone, away)
    ) as it:
        cost = cost_of(it)
        assert [entry.quantity for entry in await cost.get("a")] == [2]
        assert await cost.get("a") == []
        assert await cost.get_filtered() == []
        for asked in (cost.get("a"), cost.get_filtered()):
            with pytest.raises(CostServiceError) as caught:
                await asked
            assert caught.value.status is away


async def test_prices_that_the_platform_does_not_take_are_not_counted_with(autojump_clock: object) -> None:
    answers = replies(SetCostConfigResponse(False), SetCostConfigResponse(True))
    none = replies(GetCostConfigResponse(True))
    async with foreign(CostServiceBase, set_cost_config=answers, get_cost_config=none) as it:
        cost = cost_of(it)
        dear = [price.model_copy(update={"rate": 1000.0}) for price in PRICES.values()]
        assert not await cost.set_cost_config(dear)
        assert await cost.get_cost_config() == [*PRICES.values()]
        assert await cost.set_cost_config(dear)
        assert await cost.get_cost_config() == dear


async def test_prices_of_the_platform_go_before_the_modules(autojump_clock: object) -> None:
    theirs = WireConfig("search", WireType.API_CALL, "", "call", 5.0)
    async with foreign(
        CostServiceBase,
        get_cost_config=replies(GetCostConfigResponse(True), GetCostConfigResponse(True, [theirs])),
        add_cost=replies(AddCostResponse(True)),
    ) as it:
        cost = cost_of(it)
        assert await cost.get_cost_config() == [*PRICES.values()]
        (price,) = await cost.get_cost_config()
        assert (price.cost_name, price.rate, price.description) == ("search", 5.0, None)
        await cost.add("a", "search", 2)
        assert it.asked("add_cost")[0].cost == 10


def test_an_error_names_what_it_is_by_its_type() -> None:
    """All of a family are told apart by their code, or a provider of ours could not name them."""
    codes = [kind.code for kind in _derived(StorageServiceError, FilesystemServiceError, CostServiceError)]
    assert len(codes) == len(set(codes))


def _derived(*kinds: type[DkTrioError]) -> list[type[DkTrioError]]:
    return [derived for kind in kinds for derived in (kind, *_derived(*kind.__subclasses__()))]
