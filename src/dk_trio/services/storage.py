"""Storage: records of a mission or of a setup, in collections, each with a model of its own."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, SerializeAsAny


class DataType(StrEnum):
    """What a record is for."""

    OUTPUT = "OUTPUT"
    VIEW = "VIEW"
    LOGS = "LOGS"
    OTHER = "OTHER"


DataTypeName: TypeAlias = DataType | Literal["OUTPUT", "VIEW", "LOGS", "OTHER"]
Scope: TypeAlias = Literal["mission", "setup"]
"""Whose records: those of the mission, which all its jobs share, or those of the version of the setup."""

RecordData: TypeAlias = Mapping[str, Any] | BaseModel

if TYPE_CHECKING:
    Stored: TypeAlias = Any  # which model it is follows from the collection: only the author knows
else:
    Stored = SerializeAsAny[BaseModel]


class StorageRecord(BaseModel):
    """A record as it is stored.

    Attributes:
        context: The id of the mission or of the version of the setup, with its prefix.
        collection: Name of the collection.
        record_id: Unique in context and collection.
        data_type: What the record is for.
        data: An instance of the collection's model.
        creation_date: When it was stored first (UTC).
        update_date: When it was written last (UTC).
    """

    model_config = ConfigDict(frozen=True)

    context: str
    collection: str
    record_id: str
    data_type: DataType
    data: Stored
    creation_date: datetime
    update_date: datetime


class Storage(Protocol):
    """Records in collections. A module gives each collection a model: `services_config_params["storage"]["config"]`.

    What is written is validated by the model first, and kept as JSON. All methods raise `InvalidRecordError` for a
    collection, scope or data type that does not exist, or data that do not fit, and `StorageServiceError` when the
    storage does not work. A method that is cancelled has written nothing.
    """

    async def store(
        self,
        collection: str,
        record_id: str | None,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        """Write a new record.

        Args:
            collection: Name of the collection.
            record_id: None or empty for an id of its own, a uuid4 in hex.
            data: What the collection's model accepts.
            data_type: What the record is for.
            scope: Whose record it is.

        Raises:
            RecordExistsError: There is a record with this id.
        """
        ...

    async def read(self, collection: str, record_id: str, scope: Scope = "mission") -> StorageRecord | None:
        """The record, None when there is none.

        Raises:
            StorageServiceError: There is one, but it does not fit the collection's model any more.
        """
        ...

    async def update(
        self, collection: str, record_id: str, data: RecordData, scope: Scope = "mission"
    ) -> StorageRecord | None:
        """Replace the data of a record. None, and nothing written, when there is none."""
        ...

    async def remove(self, collection: str, record_id: str, scope: Scope = "mission") -> bool:
        """Remove a record. False when there was none."""
        ...

    async def list(
        self, collection: str, scope: Scope = "mission", *, limit: int | None = None, offset: int = 0
    ) -> builtins.list[StorageRecord]:
        """The records of a collection in the order in which they were stored.

        Args:
            collection: Name of the collection.
            scope: Whose records.
            limit: Return no more than these; None for all.
            offset: Leave out so many first.

        Raises:
            StorageServiceError: One of them does not fit the collection's model any more.
        """
        ...

    async def remove_collection(self, collection: str, scope: Scope = "mission") -> bool:
        """Remove all records of a collection. False when there were none."""
        ...

    async def upsert(
        self,
        collection: str,
        record_id: str,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        """Write a record, new or not. Atomic: no other job's write is lost between a read and a write.

        A record that is there keeps its creation date, its place in the list, and its data type.
        """
        ...
