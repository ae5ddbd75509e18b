"""Storage in the server's own database: durable, and one for all jobs."""

from __future__ import annotations

import builtins
import json
import reprlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from dk_trio.errors import InvalidRecordError, RecordExistsError, StorageServiceError, Violation
from dk_trio.services.field_path import field_path
from dk_trio.services.storage import DataType, DataTypeName, RecordData, Scope, Storage, StorageRecord
from dk_trio.services.stores.records import Row
from dk_trio.services.strategy import BaseStrategy

if TYPE_CHECKING:
    from .platform import LocalPlatform

# A refused value, which may be large: what is not shown is not looked at.
_shortened: Final = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 60


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
        self._models = _checked_config(config)
        self._records = platform.records

    def __repr__(self) -> str:
        return f"<DefaultStorage of {self.mission_id!r}, collections {sorted(self._models)}>"

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
        context, record_id = self._context(scope), _checked_id(record_id or uuid4().hex)
        text = self._text(collection, data)
        row = await self._records.insert(context, collection, record_id, _checked_type(data_type), text)
        if row is None:
            raise RecordExistsError(
                f"Record {record_id!r} of collection {collection!r} exists already in {context!r}.",
                hint="Use `upsert` to write it whether it exists or not, `update` to replace its data.",
                violations=[Violation(f"{collection}.record_id", f"must be new, {record_id!r} exists")],
            )
        return self._record(context, collection, row)

    async def read(self, collection: str, record_id: str, scope: Scope = "mission") -> StorageRecord | None:
        context = self._context(scope)
        self._model(collection)
        row = await self._records.get(context, collection, _checked_id(record_id))
        return None if row is None else self._record(context, collection, row)

    async def update(
        self, collection: str, record_id: str, data: RecordData, scope: Scope = "mission"
    ) -> StorageRecord | None:
        context = self._context(scope)
        row = await self._records.update(context, collection, _checked_id(record_id), self._text(collection, data))
        return None if row is None else self._record(context, collection, row)

    async def upsert(
        self,
        collection: str,
        record_id: str,
        data: RecordData,
        data_type: DataTypeName = "OUTPUT",
        scope: Scope = "mission",
    ) -> StorageRecord:
        context, text = self._context(scope), self._text(collection, data)
        row = await self._records.upsert(context, collection, _checked_id(record_id), _checked_type(data_type), text)
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
        context, record_id, kind = self._context(scope), _checked_id(record_id), _checked_type(data_type)
        self._model(collection)

        def text(stored: str | None) -> str:
            return self._text(collection, change(None if stored is None else json.loads(stored)))

        row = await self._records.amend(context, collection, record_id, kind, text)
        return self._record(context, collection, row)

    async def remove(self, collection: str, record_id: str, scope: Scope = "mission") -> bool:
        self._model(collection)
        return await self._records.remove(self._context(scope), collection, _checked_id(record_id))

    async def remove_collection(self, collection: str, scope: Scope = "mission") -> bool:
        self._model(collection)
        return await self._records.remove_collection(self._context(scope), collection)

    async def list(
        self, collection: str, scope: Scope = "mission", *, limit: int | None = None, offset: int = 0
    ) -> builtins.list[StorageRecord]:
        context = self._context(scope)
        self._model(collection)
        for name, value in (("limit", limit), ("offset", offset)):
            if value is not None and value < 0:
                raise InvalidRecordError(
                    f"A list's {name} must not be negative, not {value!r}.",
                    violations=[Violation(f"{collection}.{name}", f"must not be negative, not {value!r}")],
                )
        records: builtins.list[StorageRecord] = []
        page = await self._records.page(context, collection, limit=limit, offset=offset)
        while True:
            records += [self._record(context, collection, row) for row in page.rows]
            left = None if limit is None else limit - len(records)
            if not page.last or left == 0:
                return records
            page = await self._records.page(context, collection, after=page.after, last=page.last, limit=left, offset=0)

    # --- between models and text -------------------------------------------------------------------------------------

    def _context(self, scope: Scope) -> str:
        if scope == "mission":
            prefix, owner = "missions:", self.mission_id
        elif scope == "setup":
            prefix, owner = "setup_versions:", self.setup_version_id
        else:
            raise InvalidRecordError(
                f"There is no scope {scope!r}.",
                hint="Use 'mission' or 'setup'.",
                violations=[Violation("scope", f"must be 'mission' or 'setup', not {scope!r}")],
            )
        owner = owner.removeprefix(prefix)
        if not owner:
            raise StorageServiceError(f"The job has no id for the scope {scope!r}: its records would be everybody's.")
        return prefix + owner

    def _model(self, collection: str) -> type[BaseModel]:
        model = self._models.get(collection)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise InvalidRecordError(
                f"There is no collection {collection!r} (known: {known}).",
                hint="Give it a model in `services_config_params['storage']['config']`.",
                violations=[Violation("collection", f"must be one of {known}, not {collection!r}")],
            )
        return model

    def _text(self, collection: str, data: RecordData) -> str:
        """The JSON of what `data` is to the model. It is read back first: nothing is stored that cannot be read."""
        model = self._model(collection)
        try:
            valid = model.model_validate(data if isinstance(data, model | Mapping) else data.model_dump())
            text = valid.model_dump_json(by_alias=True, round_trip=True)
            text.encode()
        except ValidationError as error:
            violations = _violations(collection, error)
            raise InvalidRecordError(
                f"A record of collection {collection!r} does not fit {model.__name__}: {_listed(violations)}.",
                violations=violations,
            ) from error
        except (PydanticSerializationError, UnicodeEncodeError, AttributeError) as error:
            raise InvalidRecordError(
                f"A record of collection {collection!r} cannot be written as JSON: {error}.",
                violations=[Violation(collection, f"must be data that can be written as JSON: {error}")],
            ) from error
        try:
            model.model_validate_json(text)
        except ValidationError as error:
            violations = _violations(collection, error)
            raise InvalidRecordError(
                f"A record of collection {collection!r} could not be read again: as JSON it does not fit"
                f" {model.__name__}: {_listed(violations)}.",
                hint="Give the field a type that reads what it writes; NaN and infinity are no JSON.",
                violations=violations,
            ) from error
        return text

    def _record(self, context: str, collection: str, row: Row) -> StorageRecord:
        model = self._model(collection)
        try:
            data = model.model_validate_json(row.data)
        except ValidationError as error:
            raise StorageServiceError(
                f"Record {row.record_id!r} of collection {collection!r} in {context!r} does not fit {model.__name__}"
                f" any more: {_listed(_violations(collection, error))}.",
                hint="Give new fields of the model a default, or remove or update the record.",
            ) from error
        return StorageRecord.model_construct(
            context=context,
            collection=collection,
            record_id=row.record_id,
            data_type=DataType(row.data_type),
            data=data,
            creation_date=_date(row.created),
            update_date=_date(row.updated),
        )


def _checked_id(record_id: Any) -> str:
    try:
        if isinstance(record_id, str) and record_id and record_id.encode():
            return record_id
    except UnicodeEncodeError:
        pass
    raise InvalidRecordError(
        f"A record's id must be a text that is not empty, not {record_id!r}.",
        violations=[Violation("record_id", f"must be a text that is not empty, not {record_id!r}")],
    )


def _checked_type(data_type: DataTypeName) -> str:
    try:
        return DataType(data_type).value
    except ValueError:
        known = ", ".join(DataType)
        raise InvalidRecordError(
            f"There is no data type {data_type!r} (known: {known}).",
            violations=[Violation("data_type", f"must be one of {known}, not {data_type!r}")],
        ) from None


def _violations(collection: str, error: ValidationError) -> list[Violation]:
    rows = []
    for fault in error.errors(include_url=False, include_context=False):
        field = field_path(collection, *fault["loc"])
        reason = fault["msg"][:1].lower() + fault["msg"][1:]
        shown = fault["type"] != "missing"  # else it is the whole object
        rows.append(Violation(field, f"{reason} (got {_shortened.repr(fault['input'])})" if shown else reason))
    return rows


def _listed(violations: list[Violation]) -> str:
    shown = [f"{violation.field}: {violation.description}" for violation in violations[:5]]
    more = len(violations) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _date(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)


def _checked_config(config: object) -> Mapping[str, type[BaseModel]]:
    """Authors write it by hand, and no type checker looks into `services_config_params`."""
    if isinstance(config, Mapping):
        wrong = [
            name for name, model in config.items() if not (isinstance(model, type) and issubclass(model, BaseModel))
        ]
        if not wrong:
            return config
        found = f"{wrong[0]!r} has {config[wrong[0]]!r:.80}"
    else:
        found = f"config is {config!r:.80}"
    raise InvalidRecordError(
        f"The collections of the storage have no models: {found}.", hint='Give {"config": {"collection": MyModel}}.'
    )
