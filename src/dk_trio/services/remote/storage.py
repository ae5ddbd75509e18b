"""Storage behind a services-provider."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import trio
from grpclib.const import Status
from pydantic import BaseModel

from dk_trio import extensions
from dk_trio.errors import (
    DkTrioError,
    InvalidRecordError,
    RecordChangedError,
    RecordExistsError,
    StorageServiceError,
    Violation,
)
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
    StoreRecordRequest,
    StoreRecordResponse,
    UpdateRecordRequest,
    UpdateRecordResponse,
)
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import StorageRecord as WireRecord
from dk_trio.services.field_path import field_path
from dk_trio.services.record_models import (
    RecordModels,
    check_page,
    checked_id,
    checked_type,
    new_id,
    record_exists,
)
from dk_trio.services.storage import DataTypeName, RecordData, Scope, Storage, StorageRecord
from dk_trio.services.strategy import BaseStrategy

from .calls import HEALTH_TIMEOUT, Calls
from .errors import ErrorFamily
from .structs import NotSendableError, from_struct, to_struct

if TYPE_CHECKING:
    from dk_trio.pb.google.protobuf import Struct
    from dk_trio.services.provider_clients import ProviderClients

_FAMILY: Final = ErrorFamily(
    base=StorageServiceError,
    by_status={
        Status.ALREADY_EXISTS: RecordExistsError,
        Status.INVALID_ARGUMENT: InvalidRecordError,
        Status.ABORTED: RecordChangedError,
    },
)

ROUNDS: Final = 100
"""How often a change is made anew because another job was quicker. Each round is one that another one has won, so this
is more writers of one record at a time than any module has."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PROBE: Final = "dk-trio-health"


class GrpcStorage(BaseStrategy, Storage):
    """The remote `Storage`: see there for what its methods promise.

    Numbers travel as doubles: an integer beyond 2^53 is refused with `InvalidRecordError`, as it would come back as
    another one. A list is whole in one message, `limit` and `offset` are applied to it here.

    `upsert` and `amend` are made of several calls, since the contract has neither. No write of another job is lost
    between them if the provider honours conditional updates, as that of dk-trio does. With any other one `upsert` may
    write over what another job has just written, as an upsert does, and two changes by `amend` are kept apart within
    this process only.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        config: The model of each collection.
        providers: Calls to services-providers.
        client_config: Of another provider than the server's own.
        storage_file_path: Of the local strategy; nothing here depends on it.

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
        providers: ProviderClients,
        client_config: Any = None,
        storage_file_path: str | None = None,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._models = RecordModels(mission_id, setup_version_id, config)
        self._calls = Calls(providers, client_config, "agentic_mesh_protocol.storage.v1.StorageService", _FAMILY)
        self._locks = providers.locks

    def __repr__(self) -> str:
        return f"<GrpcStorage of {self.mission_id!r}, collections {self._models.collections}>"

    async def check_health(self) -> None:
        """Ask the provider for a record that is not there."""
        collection = next(iter(self._models.collections), _PROBE)
        await self._read(self._models.context("mission"), collection, _PROBE, timeout=HEALTH_TIMEOUT)

    async def store(
        self,
        collection: str,
        record_id: str | None,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        context, record_id = self._models.context(scope), new_id(record_id)
        struct = self._struct(collection, self._models.text(collection, data))
        return await self._store(context, collection, record_id, checked_type(data_type), struct)

    async def read(self, collection: str, record_id: str, scope: Scope = "mission") -> StorageRecord | None:
        context = self._models.context(scope)
        self._models.model(collection)
        wire = await self._read(context, collection, checked_id(record_id))
        return None if wire is None else self._record(context, collection, wire)

    async def update(
        self, collection: str, record_id: str, data: RecordData, scope: Scope = "mission"
    ) -> StorageRecord | None:
        context = self._models.context(scope)
        struct = self._struct(collection, self._models.text(collection, data))
        return await self._update(context, collection, checked_id(record_id), struct)

    async def upsert(
        self,
        collection: str,
        record_id: str,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        context = self._models.context(scope)
        struct = self._struct(collection, self._models.text(collection, data))
        record_id, kind = checked_id(record_id), checked_type(data_type)
        for _ in range(ROUNDS):
            record = await self._update(context, collection, record_id, struct)
            if record is not None:
                return record
            try:
                return await self._store(context, collection, record_id, kind, struct)
            except RecordExistsError:
                continue  # another job has stored it in between: then it is an update
        raise self._too_often(context, collection, record_id)

    async def amend(
        self,
        collection: str,
        record_id: str,
        change: Callable[[dict[str, Any] | None], Mapping[str, Any]],
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        """Read a record, change it and write it; what others write in between is read again first, see the class.

        Args:
            collection: Of the record.
            record_id: Its id; it is made when it is not there.
            change: Makes the new data of the JSON values that are there, None when there are none. Runs once for each
                attempt: it is short, does not wait, and has no other effect.
            data_type: Of a record that is made.
            scope: Whose record.

        Raises:
            InvalidRecordError: What `change` has returned does not fit the collection's model. Nothing was written.
            StorageServiceError: See `store`.
        """
        context, record_id, kind = self._models.context(scope), checked_id(record_id), checked_type(data_type)
        self._models.model(collection)
        # Without conditional updates this lock is all that there is; with them it saves the rounds of this process.
        async with self._locks(self._calls.target, context, collection, record_id):
            for _ in range(ROUNDS):
                wire = await self._read(context, collection, record_id)
                data = change(None if wire is None else self._json(wire))
                struct = self._struct(collection, self._models.text(collection, data))
                try:
                    if wire is None:
                        return await self._store(context, collection, record_id, kind, struct)
                    record = await self._update(context, collection, record_id, struct, at=wire.update_date)
                except (RecordExistsError, RecordChangedError):
                    continue
                if record is not None:
                    return record
        raise self._too_often(context, collection, record_id)

    async def remove(self, collection: str, record_id: str, scope: Scope = "mission") -> bool:
        self._models.model(collection)
        request = RemoveRecordRequest(
            context=self._models.context(scope), collection=collection, record_id=checked_id(record_id)
        )
        try:
            return (await self._calls.write("RemoveRecord", request, RemoveRecordResponse)).success
        except StorageServiceError as error:
            _pass_not_found(error)
            return False

    async def remove_collection(self, collection: str, scope: Scope = "mission") -> bool:
        self._models.model(collection)
        request = RemoveCollectionRequest(context=self._models.context(scope), collection=collection)
        try:
            return (await self._calls.write("RemoveCollection", request, RemoveCollectionResponse)).success
        except StorageServiceError as error:
            _pass_not_found(error)
            return False

    async def list(
        self, collection: str, scope: Scope = "mission", *, limit: int | None = None, offset: int = 0
    ) -> builtins.list[StorageRecord]:
        context = self._models.context(scope)
        self._models.model(collection)
        check_page(collection, limit, offset)
        request = ListRecordsRequest(context=context, collection=collection)
        try:
            reply = await self._calls.read("ListRecords", request, ListRecordsResponse)
        except StorageServiceError as error:  # a provider that takes an empty collection for none
            _pass_not_found(error)
            return []
        page = reply.records[offset : None if limit is None else offset + limit]
        records = []
        for number, wire in enumerate(page, 1):
            records.append(self._record(context, collection, wire))
            if not number % 100:
                await trio.lowlevel.checkpoint()  # a long list is models to be made: others get their turn
        return records

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _store(
        self, context: str, collection: str, record_id: str, data_type: str, struct: Struct
    ) -> StorageRecord:
        request = StoreRecordRequest(
            data=struct, context=context, collection=collection, record_id=record_id, data_type=DataType[data_type]
        )
        try:
            reply = await self._calls.write("StoreRecord", request, StoreRecordResponse)
        except RecordExistsError as error:
            raise record_exists(context, collection, record_id) from error.__cause__
        if not reply.success:
            raise self._calls.refused("StoreRecord")
        return self._record(context, collection, self._told("StoreRecord", reply.stored_data, record_id))

    async def _read(
        self, context: str, collection: str, record_id: str, *, timeout: float | None = None
    ) -> WireRecord | None:
        request = ReadRecordRequest(context=context, collection=collection, record_id=record_id)
        try:
            reply = await self._calls.read("ReadRecord", request, ReadRecordResponse, timeout=timeout)
        except StorageServiceError as error:
            _pass_not_found(error)
            return None
        if not reply.success:
            return None
        return self._told("ReadRecord", reply.stored_data, record_id)

    async def _update(
        self, context: str, collection: str, record_id: str, struct: Struct, *, at: datetime | None = None
    ) -> StorageRecord | None:
        """The changed record; None when there is none. `at`: only if this is still its update date."""
        metadata = None
        if at is not None:  # always told: who does not honour it ignores it
            metadata = {extensions.IF_UPDATED: str((at - _EPOCH) // timedelta(microseconds=1))}
        request = UpdateRecordRequest(data=struct, context=context, collection=collection, record_id=record_id)
        try:
            reply = await self._calls.write("UpdateRecord", request, UpdateRecordResponse, metadata=metadata)
        except StorageServiceError as error:
            _pass_not_found(error)
            return None
        if not reply.success:
            return None
        return self._record(context, collection, self._told("UpdateRecord", reply.stored_data, record_id))

    def _told(self, method: str, wire: WireRecord | None, record_id: str) -> WireRecord:
        """The record of a reply that says that there is one. Without it nobody may go on as if there were none."""
        if wire is None:
            raise self._calls.broken(method, "no record")
        wire.record_id = wire.record_id or record_id
        return wire

    # --- between models and messages ----------------------------------------------------------------------------------

    def _struct(self, collection: str, text: str) -> Struct:
        members = json.loads(text)
        if not isinstance(members, dict):  # a model with a root: a Struct is an object
            rule = f"must be a JSON object, not {type(members).__name__}: a services-provider keeps nothing else"
            raise InvalidRecordError(
                f"A record of collection {collection!r} {rule}.", violations=[Violation(collection, rule)]
            )
        try:
            return to_struct(members)
        except NotSendableError as error:
            raise InvalidRecordError(
                f"A record of collection {collection!r} cannot be sent: {error.rule}.",
                hint="Keep it as a text.",
                violations=[Violation(field_path(collection, *error.path), error.rule)],
            ) from error

    def _json(self, wire: WireRecord) -> dict[str, Any]:
        with self._calls.errors("ReadRecord"):
            return from_struct(wire.data)

    def _record(self, context: str, collection: str, wire: WireRecord) -> StorageRecord:
        kind = wire.data_type.name if wire.data_type else None
        return self._models.record(
            context,
            collection,
            wire.record_id,
            data_type=kind or "OTHER",  # which a type of a later contract is to us
            text=json.dumps(self._json(wire)),
            creation_date=wire.creation_date or _EPOCH,
            update_date=wire.update_date or wire.creation_date or _EPOCH,
        )

    def _too_often(self, context: str, collection: str, record_id: str) -> StorageServiceError:
        return StorageServiceError(
            f"Record {record_id!r} of collection {collection!r} in {context!r} was changed by others {ROUNDS} times "
            "while it was to be written: nothing was written.",
            hint="Let fewer jobs write one record at the same time.",
            status=Status.ABORTED,
        )


def _pass_not_found(error: DkTrioError) -> None:
    """Only what a provider says is not there is not there: everything else goes on."""
    if error.status is not Status.NOT_FOUND:
        raise error
