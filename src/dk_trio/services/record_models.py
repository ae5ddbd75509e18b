"""Records between an author's models and JSON text: what every storage checks, wherever it keeps them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from dk_trio import chance
from dk_trio.errors import InvalidRecordError, RecordExistsError, StorageServiceError, Violation

from .field_path import field_path
from .storage import DataType, DataTypeName, RecordData, Scope, StorageRecord

# A refused value, which may be large: what is not shown is not looked at.
_shortened: Final = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 60


class RecordModels:
    """The collections of one job: whose records they are, and what fits into them.

    Args:
        mission_id: The mission of the job.
        setup_version_id: The version of its setup.
        config: The model of each collection.

    Raises:
        InvalidRecordError: `config` gives a collection no model.
    """

    def __init__(self, mission_id: str, setup_version_id: str, config: Mapping[str, type[BaseModel]]) -> None:
        self._owners = {"mission": ("missions:", mission_id), "setup": ("setup_versions:", setup_version_id)}
        self._models = _checked_config(config)

    @property
    def collections(self) -> list[str]:
        """Their names."""
        return sorted(self._models)

    def context(self, scope: Scope) -> str:
        """The id of whom the records of a scope belong to, with its prefix.

        Raises:
            InvalidRecordError: There is no such scope.
            StorageServiceError: The job has no id for it.
        """
        if scope not in self._owners:
            raise InvalidRecordError(
                f"There is no scope {scope!r}.",
                hint="Use 'mission' or 'setup'.",
                violations=[Violation("scope", f"must be 'mission' or 'setup', not {scope!r}")],
            )
        prefix, owner = self._owners[scope]
        owner = owner.removeprefix(prefix)
        if not owner:
            raise StorageServiceError(f"The job has no id for the scope {scope!r}: its records would be everybody's.")
        return prefix + owner

    def model(self, collection: str) -> type[BaseModel]:
        """The model of a collection.

        Raises:
            InvalidRecordError: There is no such collection.
        """
        model = self._models.get(collection)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise InvalidRecordError(
                f"There is no collection {collection!r} (known: {known}).",
                hint="Give it a model in `services_config_params['storage']['config']`.",
                violations=[Violation("collection", f"must be one of {known}, not {collection!r}")],
            )
        return model

    def text(self, collection: str, data: RecordData) -> str:
        """The JSON of what `data` is to the model. It is read back first: nothing is stored that cannot be read.

        Raises:
            InvalidRecordError: It does not fit, or there is no such collection.
        """
        model = self.model(collection)
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

    def record(
        self,
        context: str,
        collection: str,
        record_id: str,
        *,
        data_type: str,
        text: str,
        creation_date: datetime,
        update_date: datetime,
    ) -> StorageRecord:
        """A record as authors see it, of the JSON text of its data.

        Raises:
            StorageServiceError: It does not fit the collection's model any more.
        """
        model = self.model(collection)
        try:
            data = model.model_validate_json(text)
        except ValidationError as error:
            raise StorageServiceError(
                f"Record {record_id!r} of collection {collection!r} in {context!r} does not fit {model.__name__}"
                f" any more: {_listed(_violations(collection, error))}.",
                hint="Give new fields of the model a default, or remove or update the record.",
            ) from error
        return StorageRecord.model_construct(
            context=context,
            collection=collection,
            record_id=record_id,
            data_type=DataType(data_type),
            data=data,
            creation_date=creation_date,
            update_date=update_date,
        )


def checked_id(record_id: Any) -> str:
    """The id of a record, if it can be one.

    Raises:
        InvalidRecordError: It cannot.
    """
    try:
        if isinstance(record_id, str) and record_id and record_id.encode() and "\x00" not in record_id:
            return record_id
    except UnicodeEncodeError:
        pass
    # Not every database has texts with a NUL character, and a job should not have to know which one it is.
    rule = f"must be a text that is not empty and has no NUL character, not {record_id!r}"
    raise InvalidRecordError(f"A record's id {rule}.", violations=[Violation("record_id", rule)])


def new_id(record_id: str | None) -> str:
    """The id of a record to be stored: one of its own for None and the empty one."""
    return checked_id(record_id or chance.new_uuid().hex)


def checked_type(data_type: DataTypeName) -> str:
    """The name of a data type.

    Raises:
        InvalidRecordError: There is none of this name.
    """
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


def check_page(collection: str, limit: int | None, offset: int) -> None:
    """Refuse a negative limit or offset of a list."""
    for name, value in (("limit", limit), ("offset", offset)):
        if value is not None and value < 0:
            raise InvalidRecordError(
                f"A list's {name} must not be negative, not {value!r}.",
                violations=[Violation(f"{collection}.{name}", f"must not be negative, not {value!r}")],
            )


def record_exists(context: str, collection: str, record_id: str) -> RecordExistsError:
    """The error for a new record whose id is taken."""
    return RecordExistsError(
        f"Record {record_id!r} of collection {collection!r} exists already in {context!r}.",
        hint="Use `upsert` to write it whether it exists or not, `update` to replace its data.",
        violations=[Violation(f"{collection}.record_id", f"must be new, {record_id!r} exists")],
    )


def date_of(microseconds: int) -> datetime:
    """A time of a store."""
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
