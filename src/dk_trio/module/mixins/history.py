"""Histories: what was said in a mission and which files it has, in one record of storage each.

A history is appended to in memory, and written every few appends and at the end of the job. The record belongs to the
mission, and several jobs of one mission may run at once, here and elsewhere. So a write never replaces what is stored
by what this job knows: it puts this job's entries behind whatever is stored at that moment.

- Where the storage can change a record in one step (`AtomicStorage`), nothing is ever lost between jobs. Other storages
  are read right before they are written. Two jobs may still cross in that moment, and the entries of one be
  overwritten; it puts them back with its next write, which adds whatever of its own is not there.
- Each entry has an id of its own, so adding it twice is adding it once. A write whose answer was lost, or that was
  cancelled on its way, can be done again without anybody knowing whether it was done.
- Writes of one history follow each other. One that fails leaves its entries to be written with the next, and raises.

What this costs: the record is one, so each write sends all of it. That is the stored form of the existing SDK, which
others read too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import trio
from pydantic import BaseModel, ConfigDict, Field

from dk_trio import chance
from dk_trio.errors import InvalidRecordError

if TYPE_CHECKING:
    from dk_trio.module._context import ModuleContext

_ENTRY_ID: Final = "entry_id"


class BaseRole(StrEnum):
    """The roles that everybody knows."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


Role: TypeAlias = BaseRole | str
"""Who has said something; any word may be a role."""


class _Stored(BaseModel):
    # What another version has stored beside our fields stays there when it is written back. Every module imports this,
    # few use it: validators are built at first use.
    model_config = ConfigDict(extra="allow", defer_build=True)


class Entry(_Stored):
    """One entry of a history.

    Attributes:
        entry_id: Tells it from all others; entries that others have stored may have none.
    """

    entry_id: str = Field(default_factory=lambda: chance.new_uuid().hex)


class BaseMessage(Entry):
    """A message of a chat.

    Attributes:
        role: Who has said it.
        content: Text, or any JSON value.
    """

    role: Role
    content: Any


class FileModel(Entry):
    """A file that a mission has seen.

    Attributes:
        file_id: Id in the filesystem service.
        name: Name of the file.
        metadata: What there is to know about it; a dict of JSON values.
    """

    file_id: str
    name: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class ChatHistory(_Stored):
    """Record of the collection `chat_history`, which has to be in `services_config_params["storage"]["config"]`."""

    messages: list[BaseMessage] = Field(default_factory=list)


class FileHistory(_Stored):
    """Record of the collection `file_history`, which has to be in `services_config_params["storage"]["config"]`."""

    files: list[FileModel] = Field(default_factory=list)


HistoryT = TypeVar("HistoryT", bound=BaseModel)
Change = Callable[[dict[str, Any] | None], dict[str, Any]]


@runtime_checkable
class AtomicStorage(Protocol):
    """A storage that changes a record in one step, so that nobody can write between the reading and the writing."""

    async def amend(self, collection: str, record_id: str, change: Change) -> Any:
        """Store `change(data)`, where data are the JSON values of the record, or None when there is none.

        `change` is short, does not wait, and may be called again, in any thread. Returns the record.
        """
        ...


class History(Generic[HistoryT]):
    """A history of the job's mission.

    Args:
        context: The job's; its storage is used.
        model: Model of the record.
        entries: The field of the model that is the list of entries.
        collection: Of the record.
        record_id: Of the record.
        threshold: Appends that are written together.
    """

    def __init__(
        self,
        context: ModuleContext,
        *,
        model: type[HistoryT],
        entries: str,
        collection: str,
        record_id: str,
        threshold: int,
    ) -> None:
        self._context = context
        self._model = model
        self._entries = entries
        self._collection = collection
        self._record_id = record_id
        self._threshold = threshold
        self._stored: dict[str, Any] | None = None  # what storage had when it was last read or written
        self._own: dict[str, dict[str, Any]] = {}  # all that this job has appended, by entry id
        self._unwritten: set[str] = set()
        self._appends = 0  # since the last write
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<History {self._collection}/{self._record_id}, {len(self._unwritten)} entries to write>"

    @property
    def dirty(self) -> bool:
        """Whether something was appended that is not stored yet."""
        return bool(self._unwritten)

    async def load(self) -> HistoryT:
        """The history with what was appended, a copy. Storage is read once, and whenever it is written.

        Raises:
            StorageServiceError: The service failed.
        """
        if self._stored is None:
            async with self._turn:
                if self._stored is None:
                    self._stored = await self._read() or {}
        return self._model.model_validate(deepcopy(_merged(self._entries, self._own, self._stored)))

    async def append(self, entries: Iterable[Entry]) -> None:
        """Add entries. They are in the history from the start of the call, and written by the end of the job.

        When it is time to write, it does so before it returns.

        Raises:
            StorageServiceError: A write was due and failed. The entries are kept, and written with the next.

        Cancellation: may cut the write, not the append.
        """
        rows = [entry.model_dump(mode="json") for entry in entries]
        if not rows:
            await trio.lowlevel.checkpoint()
            return
        self._context.at_end((self._collection, self._record_id), self.flush)
        for row in rows:
            self._own[row[_ENTRY_ID]] = row
            self._unwritten.add(row[_ENTRY_ID])
        self._appends += 1
        if self._appends >= self._threshold:
            await self.flush()
        else:
            await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        """Write what is not written yet; nothing to write is nothing done.

        Raises:
            StorageServiceError: The service failed; the entries are kept, and written with the next.
            InvalidRecordError: The collection is not in the storage's config, or has another model.

        Cancellation: nobody knows whether the write was done; it is done again by the next, without doubling.
        """
        async with self._turn:
            if not self._unwritten:
                return
            appends = self._appends
            self._stored = await self._write()
            self._unwritten -= _ids(self._stored[self._entries])
            self._appends -= appends

    def clear(self) -> None:
        """Forget what was read: the next `load` reads anew. What is not written yet stays to be written."""
        self._stored = None

    async def _read(self) -> dict[str, Any] | None:
        record = await self._context.storage.read(self._collection, self._record_id)
        return None if record is None else _data(record)

    async def _write(self) -> dict[str, Any]:
        storage: Any = self._context.storage
        change = partial(_merged, self._entries, dict(self._own))
        if isinstance(storage, AtomicStorage):
            record = await storage.amend(self._collection, self._record_id, change)
        else:
            record = await storage.upsert(self._collection, self._record_id, change(await self._read()))
        written = _data(record)
        if not self._unwritten & _ids(written[self._entries]):
            raise InvalidRecordError(
                f"Collection {self._collection!r} was written with a model that leaves out {_ENTRY_ID!r}: each write "
                "would add all entries again.",
                hint=f"Give it {self._model.__module__}.{self._model.__name__}, or a model that derives from it.",
            )
        return written


def _merged(entries: str, own: dict[str, dict[str, Any]], stored: dict[str, Any] | None) -> dict[str, Any]:
    """What is stored, with those of our own behind it that are not there. May run in another thread."""
    stored = stored or {}
    rows = stored.get(entries, [])
    there = _ids(rows)
    return {**stored, entries: [*rows, *(row for key, row in own.items() if key not in there)]}


def _ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row[_ENTRY_ID] for row in rows if _ENTRY_ID in row}


def _data(record: Any) -> dict[str, Any]:
    """The data of a record as JSON values, whatever model its collection has."""
    data = record.data
    dumped: dict[str, Any] = data.model_dump(mode="json") if isinstance(data, BaseModel) else dict(data)
    return dumped
