"""Storage in the server's own database: durable, and one for all jobs."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from dk_trio.services.record_models import (
    RecordModels,
    check_page,
    checked_id,
    checked_type,
    date_of,
    new_id,
    record_exists,
)
from dk_trio.services.storage import DataTypeName, RecordData, Scope, Storage, StorageRecord
from dk_trio.services.stores.records import Row
from dk_trio.services.strategy import BaseStrategy

if TYPE_CHECKING:
    from .platform import LocalPlatform


class DefaultStorage(BaseStrategy, Storage):
    """The local `Storage`: see there for what its methods promise.

    Records are in the database of the platform, so jobs of one mission see each other's at once, and an `upsert` of one
    is atomic to all. A list is read in pages: it has what was there when it began, each record as it was when its page
    was read; a task that waits gets its turn between two pages.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        config: The model of each collection.
        platform: Where records are kept.
        storage_file_path: Taken for the parameters of the existing SDK, and not used: a file for each mission, which
            each of its jobs would overwrite, is what the database stands for. `DIGITALKIN_DATA_DIR` says where it is.

    Raises:
        InvalidRecordError: `config` gives a collection no model.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        config: Mapping[str, type[BaseModel]],
        platform: LocalPlatform,
        storage_file_path: str | None = None,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._models = RecordModels(mission_id, setup_version_id, config)
        self._records = platform.records

    def __repr__(self) -> str:
        return f"<DefaultStorage of {self.mission_id!r}, collections {self._models.collections}>"

    async def check_health(self) -> None:
        """See `Database.check_health`. Leaves no record behind."""
        await self._records.database.check_health()

    async def store(
        self,
        collection: str,
        record_id: str | None,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        context, record_id = self._models.context(scope), new_id(record_id)
        text = self._models.text(collection, data)
        row = await self._records.insert(context, collection, record_id, checked_type(data_type), text)
        if row is None:
            raise record_exists(context, collection, record_id)
        return self._record(context, collection, row)

    async def read(self, collection: str, record_id: str, scope: Scope = "mission") -> StorageRecord | None:
        context = self._models.context(scope)
        self._models.model(collection)
        row = await self._records.get(context, collection, checked_id(record_id))
        return None if row is None else self._record(context, collection, row)

    async def update(
        self, collection: str, record_id: str, data: RecordData, scope: Scope = "mission"
    ) -> StorageRecord | None:
        context = self._models.context(scope)
        row = await self._records.update(
            context, collection, checked_id(record_id), self._models.text(collection, data)
        )
        return None if row is None else self._record(context, collection, row)

    async def upsert(
        self,
        collection: str,
        record_id: str,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        context, text = self._models.context(scope), self._models.text(collection, data)
        row = await self._records.upsert(context, collection, checked_id(record_id), checked_type(data_type), text)
        return self._record(context, collection, row)

    async def amend(
        self,
        collection: str,
        record_id: str,
        change: Callable[[dict[str, Any] | None], Mapping[str, Any]],
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        """Read a record, change it and write it, in one step: nobody writes in between.

        Args:
            collection: Of the record.
            record_id: Its id; it is made when it is not there.
            change: Makes the new data of the JSON values that are there, None when there are none. Runs in the
                writer, maybe more than once: it is short, does not wait, and has no other effect.
            data_type: Of a record that is made.
            scope: Whose record.

        Raises:
            InvalidRecordError: What `change` has returned does not fit the collection's model. Nothing was written.
            StorageServiceError: See `store`.
        """
        context, record_id, kind = self._models.context(scope), checked_id(record_id), checked_type(data_type)
        self._models.model(collection)

        def text(stored: str | None) -> str:
            return self._models.text(collection, change(None if stored is None else json.loads(stored)))

        row = await self._records.amend(context, collection, record_id, kind, text)
        return self._record(context, collection, row)

    async def remove(self, collection: str, record_id: str, scope: Scope = "mission") -> bool:
        self._models.model(collection)
        return await self._records.remove(self._models.context(scope), collection, checked_id(record_id))

    async def remove_collection(self, collection: str, scope: Scope = "mission") -> bool:
        self._models.model(collection)
        return await self._records.remove_collection(self._models.context(scope), collection)

    async def list(
        self, collection: str, scope: Scope = "mission", *, limit: int | None = None, offset: int = 0
    ) -> builtins.list[StorageRecord]:
        context = self._models.context(scope)
        self._models.model(collection)
        check_page(collection, limit, offset)
        records: builtins.list[StorageRecord] = []
        page = await self._records.page(context, collection, limit=limit, offset=offset)
        while True:
            records += [self._record(context, collection, row) for row in page.rows]
            left = None if limit is None else limit - len(records)
            if not page.last or left == 0:
                return records
            page = await self._records.page(context, collection, after=page.after, last=page.last, limit=left, offset=0)

    def _record(self, context: str, collection: str, row: Row) -> StorageRecord:
        return self._models.record(
            context,
            collection,
            row.record_id,
            data_type=row.data_type,
            text=row.data,
            creation_date=date_of(row.created),
            update_date=date_of(row.updated),
        )
