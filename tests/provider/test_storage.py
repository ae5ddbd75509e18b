"""StorageService of the provider."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.extensions import ALL, HONOURS, IF_UPDATED
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    ReadRecordRequest,
    RemoveCollectionRequest,
    RemoveRecordRequest,
    StorageServiceStub,
    StoreRecordRequest,
    StoreRecordResponse,
    UpdateRecordRequest,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import _large, storage

from .calls import called, keyed, told
from .kit import Provided, provided

DATA = {"n": 3.0, "big": 2.0**60, "zero": -0.0, "text": "ä\0", "list": [1.5, None, True, {"deep": []}], "": {}}


def store(record_id: str = "r", data: Any = DATA, **fields: Any) -> StoreRecordRequest:
    given = {"context": "missions:m", "collection": "c", "record_id": record_id, "data_type": DataType.VIEW} | fields
    return StoreRecordRequest(data=None if data is None else Struct.from_dict(data), **given)


def update(record_id: str = "r", data: Any = DATA, **fields: Any) -> UpdateRecordRequest:
    given = {"context": "missions:m", "collection": "c", "record_id": record_id} | fields
    return UpdateRecordRequest(data=None if data is None else Struct.from_dict(data), **given)


def read(record_id: str = "r") -> ReadRecordRequest:
    return ReadRecordRequest(context="missions:m", collection="c", record_id=record_id)


def stub(peer: Provided) -> Any:
    return StorageServiceStub(peer.channel)


async def listed(peer: Provided, collection: str = "c") -> list[Any]:
    request = ListRecordsRequest(context="missions:m", collection=collection)
    return (await stub(peer).list_records(request)).records


def microseconds(moment: datetime) -> str:
    return str((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


async def refused(call: Any) -> tuple[Status, str, dict[str, str]]:
    with pytest.raises(GRPCError) as caught:
        await call
    return told(caught.value)


async def test_a_record_comes_back_number_for_number(autojump_clock: Any) -> None:
    async with provided() as peer:
        stored = (await stub(peer).store_record(store())).stored_data
        reply = await stub(peer).read_record(read())
        assert reply.success
        assert reply.stored_data == stored
        data = reply.stored_data.data.to_dict()
        assert data == DATA
        assert math.copysign(1, data["zero"]) == -1
        assert (stored.context, stored.collection, stored.record_id) == ("missions:m", "c", "r")
        assert stored.data_type is DataType.VIEW
        assert stored.creation_date == stored.update_date
        assert await listed(peer) == [stored]


async def test_replies_say_what_is_honoured(autojump_clock: Any) -> None:
    async with provided() as peer:
        path = "storage.v1.StorageService/StoreRecord"
        _, metadata = await called(peer.channel, path, store(), StoreRecordResponse)
        assert set(metadata[HONOURS].split(",")) == ALL


async def test_a_record_that_exists_is_not_stored_again(autojump_clock: Any) -> None:
    async with provided() as peer:
        await stub(peer).store_record(store())
        status, reason, fields = await refused(stub(peer).store_record(store(data={"other": 1})))
        assert (status, reason) == (Status.ALREADY_EXISTS, "RECORD_EXISTS")
        assert "'r' exists" in fields["record_id"]
        (record,) = await listed(peer)
        assert record.data.to_dict() == DATA


async def test_an_update_replaces_the_data(autojump_clock: Any) -> None:
    async with provided() as peer:
        stored = (await stub(peer).store_record(store())).stored_data
        updated = (await stub(peer).update_record(update(data={"x": 1}))).stored_data
        assert updated.data.to_dict() == {"x": 1}
        assert updated.creation_date == stored.creation_date
        assert updated.update_date > stored.update_date
        assert updated.data_type is DataType.VIEW
        assert await listed(peer) == [updated]


async def test_what_is_not_there_is_not_found(autojump_clock: Any) -> None:
    async with provided() as peer:
        service = stub(peer)
        for call in (
            service.read_record(read()),
            service.update_record(update()),
            service.remove_record(RemoveRecordRequest(context="missions:m", collection="c", record_id="r")),
            service.remove_collection(RemoveCollectionRequest(context="missions:m", collection="c")),
        ):
            status, reason, fields = await refused(call)
            assert (status, reason) == (Status.NOT_FOUND, "RECORD_NOT_FOUND")
            assert fields
        assert await listed(peer) == []


async def test_removed_is_gone(autojump_clock: Any) -> None:
    async with provided() as peer:
        service = stub(peer)
        for record_id in "abc":
            await service.store_record(store(record_id))
        await service.store_record(store("d", collection="other"))
        request = RemoveRecordRequest(context="missions:m", collection="c", record_id="b")
        assert (await service.remove_record(request)).success
        assert [record.record_id for record in await listed(peer)] == ["a", "c"]
        request_all = RemoveCollectionRequest(context="missions:m", collection="c")
        assert (await service.remove_collection(request_all)).success
        assert await listed(peer) == []
        assert len(await listed(peer, "other")) == 1


async def test_an_update_of_a_state_that_is_no_more_is_aborted(autojump_clock: Any) -> None:
    async with provided() as peer:
        service = stub(peer)
        stored = (await service.store_record(store())).stored_data
        seen = microseconds(stored.update_date)
        first = await service.update_record(update(data={"by": "one"}), metadata={IF_UPDATED: seen})
        assert first.success
        status, reason, _ = await refused(
            service.update_record(update(data={"by": "two"}), metadata={IF_UPDATED: seen})
        )
        assert (status, reason) == (Status.ABORTED, "RECORD_CHANGED")
        (record,) = await listed(peer)
        assert record.data.to_dict() == {"by": "one"}
        status, _, fields = await refused(service.update_record(update(), metadata={IF_UPDATED: "yesterday"}))
        assert status is Status.INVALID_ARGUMENT
        assert "'yesterday'" in fields[IF_UPDATED]


# --- once ------------------------------------------------------------------------------------------------------------


async def test_a_key_makes_a_write_happen_once(autojump_clock: Any) -> None:
    async with provided() as peer:
        service = stub(peer)
        first = await service.store_record(store(), metadata=keyed("k1"))
        await service.update_record(update(data={"later": 1}))
        assert await service.store_record(store(), metadata=keyed("k1")) == first  # the reply of then
        changed = await service.update_record(update(data={"n": 2}), metadata=keyed("k2"))
        await service.update_record(update(data={"n": 3}))
        assert await service.update_record(update(data={"n": 2}), metadata=keyed("k2")) == changed
        (record,) = await listed(peer)
        assert record.data.to_dict() == {"n": 3}
        remove = RemoveRecordRequest(context="missions:m", collection="c", record_id="r")
        assert (await service.remove_record(remove, metadata=keyed("k3"))).success
        await service.store_record(store())
        assert (await service.remove_record(remove, metadata=keyed("k3"))).success
        assert len(await listed(peer)) == 1


async def test_a_key_of_another_request_is_refused(autojump_clock: Any) -> None:
    async with provided() as peer:
        service = stub(peer)
        await service.store_record(store(), metadata=keyed("k"))
        status, _, _ = await refused(service.store_record(store("other"), metadata=keyed("k")))
        assert status is Status.FAILED_PRECONDITION
        assert len(await listed(peer)) == 1
        status, _, _ = await refused(service.store_record(store("other"), metadata=keyed("k" * 257)))
        assert status is Status.INVALID_ARGUMENT


async def test_a_write_that_was_refused_keeps_no_reply(autojump_clock: Any) -> None:
    async with provided() as peer:
        service = stub(peer)
        await refused(service.update_record(update(), metadata=keyed("k")))
        await service.store_record(store(data={}))
        assert (await service.update_record(update(), metadata=keyed("k"))).success


async def test_a_reply_that_was_lost_is_given_again(autojump_clock: Any) -> None:
    """The connection breaks while the request is on its way or its reply is: nothing or all has happened."""
    async with provided() as peer:
        for turn in range(20):
            request, metadata = store(f"r{turn}"), keyed(f"k{turn}")
            async with peer.another() as channel, trio.open_nursery() as nursery:

                async def lose(channel: Any, request: Any, metadata: Any) -> None:
                    with pytest.raises((GRPCError, OSError)):
                        await StorageServiceStub(channel).store_record(request, metadata=metadata)
                        raise OSError("was faster")

                nursery.start_soon(lose, channel, request, metadata)
                for _ in range(turn):
                    await trio.lowlevel.checkpoint()
                await peer.cut()
            assert (await stub(peer).store_record(request, metadata=metadata)).success
        assert [record.record_id for record in await listed(peer)] == [f"r{turn}" for turn in range(20)]


async def test_a_caller_who_is_cancelled_leaves_all_or_nothing(autojump_clock: Any) -> None:
    async with provided() as peer:
        for turn in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stub(peer).store_record, store(f"r{turn}"))
                    for _ in range(turn):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        records = await listed(peer)
        assert all(record.data.to_dict() == DATA for record in records)
        assert peer.provider.statistics().rpc.rpcs == 0


async def test_many_clients_at_once(autojump_clock: Any) -> None:
    async with provided() as peer:
        await stub(peer).store_record(store("shared", {"n": 0}))
        won = 0

        async def client(number: int) -> None:
            nonlocal won
            async with peer.another() as channel:
                service = StorageServiceStub(channel)
                try:
                    await service.store_record(store("one", {"by": number}))
                    won += 1
                except GRPCError as error:
                    assert error.status is Status.ALREADY_EXISTS
                while True:  # a counter that everybody counts up
                    seen = (await service.read_record(read("shared"))).stored_data
                    at = microseconds(seen.update_date)
                    n = seen.data.to_dict()["n"]
                    try:
                        await service.update_record(update("shared", {"n": n + 1}), metadata={IF_UPDATED: at})
                        return
                    except GRPCError as error:
                        assert error.status is Status.ABORTED

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(client, number)
        assert won == 1
        shared = next(record for record in await listed(peer) if record.record_id == "shared")
        assert shared.data.to_dict() == {"n": 50}


# --- what cannot be kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validate", ["strict", "warn", "off"])
@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"record_id": ""}, "record_id", ""),
        ({"record_id": "a\0b"}, "record_id", "NUL"),
        ({"record_id": "ä" * 385}, "record_id", "770 bytes"),
        ({"collection": ""}, "collection", ""),
        ({"context": ""}, "context", ""),
        ({"data_type": DataType(9)}, "data_type", "9"),
        ({"data_type": DataType.UNSPECIFIED}, "data_type", "0"),
        ({"data": None}, "data", "set"),
        ({"data": {"a": [0, {"b": math.nan}]}}, "data.a[1].b", "nan"),
        ({"data": {"a": math.inf}}, "data.a", "inf"),
    ],
)
async def test_what_cannot_be_kept_is_refused_and_named(
    autojump_clock: Any, validate: str, fields: dict[str, Any], field: str, value: str
) -> None:
    async with provided(validate=validate) as peer:
        status, reason, violations = await refused(stub(peer).store_record(store(**fields)))
        assert (status, reason) == (Status.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert value in violations[field]
        assert await listed(peer) == []


async def test_bytes_that_are_no_struct_are_refused(autojump_clock: Any) -> None:
    async with provided() as peer:
        whole = bytes(store(data={"a": 1}))
        broken = StoreRecordRequest.parse(whole.replace(b"\x0a\x01a", b"\x0a\x05a"))
        status, _, fields = await refused(stub(peer).store_record(broken))
        assert status is Status.INVALID_ARGUMENT
        assert "Struct" in fields["data"]


# --- lists -----------------------------------------------------------------------------------------------------------


async def test_a_list_of_many_pages_is_whole_and_in_order(autojump_clock: Any) -> None:
    async with provided() as peer:
        sizes = [10, 300_000, 5, 5] + [1000] * 300
        async with trio.open_nursery() as nursery:
            for number, size in enumerate(sizes):
                nursery.start_soon(stub(peer).store_record, store(f"r{number}", {"text": "x" * size}))
        records = await listed(peer)
        assert sorted(record.record_id for record in records) == sorted(f"r{number}" for number in range(len(sizes)))
        dates = [record.creation_date for record in records]
        assert dates == sorted(dates, key=lambda date: date.timestamp() if date else 0)


async def test_a_list_that_no_message_can_hold_is_refused_with_the_remedy(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_large, "MESSAGE_MAX", 100_000)
    async with provided() as peer:
        for number in range(11):
            await stub(peer).store_record(store(f"r{number}", {"text": "x" * 10_000}))
        with pytest.raises(GRPCError) as caught:
            await listed(peer)
        status, reason, _ = told(caught.value)
        assert (status, reason) == (Status.FAILED_PRECONDITION, "REPLY_TOO_LARGE")
        assert "'c' of 'missions:m'" in str(caught.value.message)
        assert "one by one" in str(caught.value.message)


async def test_pages_of_a_list_shrink_with_its_records(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PAGE_BYTES", 10_000)
    async with provided() as peer:
        for number in range(120):
            await stub(peer).store_record(store(f"r{number}", {"text": "x" * 5_000}))
        before = peer.provider.statistics().database.reads
        assert len(await listed(peer)) == 120
        assert peer.provider.statistics().database.reads - before > 10
