"""StorageService: records in collections of a mission or of a version of a setup.

What a record is for is its writers' matter: data are a JSON object, kept and given back number for number. What is not
there is NOT_FOUND, also for who removes it: clients of the existing SDK do not look at `success`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dk_trio import extensions
from dk_trio.errors import RecordExistsError, RecordNotFoundError, Violation
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    ListRecordsResponse,
    ReadRecordRequest,
    ReadRecordResponse,
    RemoveCollectionRequest,
    RemoveCollectionResponse,
    RemoveRecordRequest,
    RemoveRecordResponse,
    StorageRecord,
    StorageServiceBase,
    StoreRecordRequest,
    StoreRecordResponse,
    UpdateRecordRequest,
    UpdateRecordResponse,
)
from dk_trio.pb.google.protobuf import Struct

from ._base import Servicer, json_text, known, refused, text
from ._large import Large

if TYPE_CHECKING:
    from dk_trio.services.stores.records import Row
    from dk_trio.services.stores.work import Work

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Records of a page, and bytes that a page should have: to make messages of it takes a few milliseconds of the loop.
_PAGE_MAX: Final = 100
_PAGE_BYTES: Final = 256 * 1024


class StorageServicer(Servicer, StorageServiceBase):
    """Keeps records."""

    async def store_record(self, message: StoreRecordRequest) -> StoreRecordResponse:
        """Add a record.

        Raises:
            RecordExistsError: There is one of this id.
        """
        place = _place(message)
        data_type = known(message.data_type, "data_type")
        data = json_text(message.data, "data")

        def work() -> Work[list[Any]]:
            row = yield from self._stores.records.insert_work(*place, data_type, data)
            if row is None:
                context, collection, record_id = place
                raise RecordExistsError(
                    f"Record {record_id!r} of collection {collection!r} exists already in {context!r}.",
                    hint="UpdateRecord replaces its data.",
                    violations=[Violation("record_id", f"must be new, {record_id!r} exists")],
                )
            return _facts(row)

        record = _record(*place, message.data, *await self._write_facts(work))
        return StoreRecordResponse(success=True, stored_data=record)

    async def read_record(self, message: ReadRecordRequest) -> ReadRecordResponse:
        """One record.

        Raises:
            RecordNotFoundError: There is none of this id.
        """
        place = _place(message)
        row = await self._stores.records.get(*place)
        if row is None:
            raise _not_found(*place)
        return ReadRecordResponse(success=True, stored_data=_record_of(*place[:2], row))

    async def update_record(self, message: UpdateRecordRequest) -> UpdateRecordResponse:
        """Replace the data of a record; with `IF_UPDATED` only if nobody has done so since.

        Raises:
            RecordNotFoundError: There is none of this id.
            RecordChangedError: It has another update date.
        """
        place = _place(message)
        data = json_text(message.data, "data")
        updated = self._if_updated()

        def work() -> Work[list[Any]]:
            row = yield from self._stores.records.update_work(*place, data, updated=updated)
            if row is None:
                raise _not_found(*place)
            return _facts(row)

        record = _record(*place, message.data, *await self._write_facts(work))
        return UpdateRecordResponse(success=True, stored_data=record)

    async def remove_record(self, message: RemoveRecordRequest) -> RemoveRecordResponse:
        """Delete a record.

        Raises:
            RecordNotFoundError: There is none of this id.
        """
        place = _place(message)

        def work() -> Work[RemoveRecordResponse]:
            if not (yield from self._stores.records.remove_work(*place)):
                raise _not_found(*place)
            return RemoveRecordResponse(success=True)

        return await self._write(work)

    async def list_records(self, message: ListRecordsRequest) -> ListRecordsResponse:
        """All records of a collection in the order of their creation, as it was when the call began.

        Each record is as it was when its page was read.

        Raises:
            ReplyTooLargeError: Together they have more bytes than one message.
        """
        context, collection = text(message.context, "context"), text(message.collection, "collection")
        reply = Large(f"The collection {collection!r} of {context!r}", "Read its records one by one, or divide it.")
        limit, after, last = _PAGE_MAX, 0, None
        while last != 0:
            page = await self._stores.records.page(context, collection, after=after, last=last, limit=limit, offset=0)
            after, last = page.after, page.last
            size = reply.add(ListRecordsResponse(records=[_record_of(context, collection, row) for row in page.rows]))
            limit = max(1, min(_PAGE_MAX, _PAGE_BYTES * len(page.rows) // max(size, 1)))
        return reply.as_reply(ListRecordsResponse)

    async def remove_collection(self, message: RemoveCollectionRequest) -> RemoveCollectionResponse:
        """Delete all records of a collection.

        Raises:
            RecordNotFoundError: There are none.
        """
        context, collection = text(message.context, "context"), text(message.collection, "collection")

        def work() -> Work[RemoveCollectionResponse]:
            if not (yield from self._stores.records.remove_collection_work(context, collection)):
                raise RecordNotFoundError(
                    f"There is no record in the collection {collection!r} of {context!r}.",
                    violations=[Violation("collection", f"{collection!r} of {context!r} is empty")],
                )
            return RemoveCollectionResponse(success=True)

        return await self._write(work)

    def _if_updated(self) -> int | None:
        value = self._call.text(extensions.IF_UPDATED)
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 19):
            raise refused(extensions.IF_UPDATED, f"must be microseconds since the epoch, not {value[:80]!r}")
        return int(value)


def _place(
    message: StoreRecordRequest | ReadRecordRequest | UpdateRecordRequest | RemoveRecordRequest,
) -> tuple[str, str, str]:
    """Context, collection and id."""
    return (
        text(message.context, "context"),
        text(message.collection, "collection"),
        text(message.record_id, "record_id"),
    )


def _not_found(context: str, collection: str, record_id: str) -> RecordNotFoundError:
    rule = f"no record {record_id!r} is in the collection {collection!r} of {context!r}"
    return RecordNotFoundError(f"N{rule[1:]}.", violations=[Violation("record_id", rule)])


def _facts(row: Row) -> list[Any]:
    """What a reply says that its request has not said."""
    return [row.data_type, row.created, row.updated]


def _record_of(context: str, collection: str, row: Row) -> StorageRecord:
    data = Struct.from_dict(json.loads(row.data))
    return _record(context, collection, row.record_id, data, row.data_type, row.created, row.updated)


def _record(
    context: str, collection: str, record_id: str, data: Struct | None, data_type: str, created: int, updated: int
) -> StorageRecord:
    return StorageRecord(
        data=data,
        context=context,
        collection=collection,
        record_id=record_id,
        creation_date=_EPOCH + timedelta(microseconds=created),
        update_date=_EPOCH + timedelta(microseconds=updated),
        data_type=DataType[data_type],
    )
