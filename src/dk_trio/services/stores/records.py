"""Records of all missions and setups, as JSON text; what they mean is their strategies' matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from dk_trio import chance
from dk_trio.errors import RecordChangedError, Violation

from .database import Database
from .work import Statement, Value, Work

# Append only, see `Database.declare`. `place` is the order of creation; an id that was removed gets a new one.
_SCHEMA: Final = (
    """CREATE TABLE records (
        place {place},
        context TEXT NOT NULL,
        collection TEXT NOT NULL,
        record_id TEXT NOT NULL,
        data_type TEXT NOT NULL,
        data TEXT NOT NULL,
        created BIGINT NOT NULL,
        updated BIGINT NOT NULL,
        UNIQUE (context, collection, record_id)
    )""",
    "CREATE INDEX records_in_order ON records (context, collection, place)",
)

# Each change moves the update date on, by a microsecond when the clock does not: `update` tells states apart by it.
_COLUMNS: Final = "place, record_id, data_type, data, created, updated"
_INSERT: Final = f"""INSERT INTO records (context, collection, record_id, data_type, data, created, updated)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (context, collection, record_id) DO NOTHING
    RETURNING {_COLUMNS}"""  # noqa: S608 - our own text, here and below
_UPSERT: Final = f"""INSERT INTO records (context, collection, record_id, data_type, data, created, updated)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (context, collection, record_id)
    DO UPDATE SET data = excluded.data, updated =
        CASE WHEN excluded.updated > records.updated THEN excluded.updated ELSE records.updated + 1 END
    RETURNING {", ".join(f"records.{column}" for column in _COLUMNS.split(", "))}"""  # noqa: S608
_UPDATE: Final = f"""UPDATE records SET data = ?, updated = CASE WHEN ? > updated THEN ? ELSE updated + 1 END
    WHERE context = ? AND collection = ? AND record_id = ? RETURNING {_COLUMNS}"""  # noqa: S608
_GET: Final = f"""SELECT {_COLUMNS} FROM records
    WHERE context = ? AND collection = ? AND record_id = ?"""  # noqa: S608
_REMOVE: Final = "DELETE FROM records WHERE context = ? AND collection = ? AND record_id = ?"
_REMOVE_ALL: Final = "DELETE FROM records WHERE context = ? AND collection = ?"
_LAST: Final = "SELECT coalesce(max(place), 0) FROM records WHERE context = ? AND collection = ?"
_PAGE_OF: Final = f"""SELECT {_COLUMNS} FROM records
    WHERE context = ? AND collection = ? AND place > ? AND place <= ? ORDER BY place LIMIT ? OFFSET ?"""  # noqa: S608

# Rows of one page: with their models, well below a millisecond or two of the loop.
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One record. Times are in microseconds since the epoch."""

    place: int
    record_id: str
    data_type: str
    data: str
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a collection, and where to go on; `last` is 0 when nothing is left."""

    rows: list[Row]
    after: int
    last: int


class RecordStore:
    """Records by context, collection and id.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        database.declare("records", _SCHEMA)

    def __repr__(self) -> str:
        return f"<RecordStore in {self.database!r}>"

    # --- writing -----------------------------------------------------------------------------------------------------

    async def insert(self, context: str, collection: str, record_id: str, data_type: str, data: str) -> Row | None:
        """The new record; None, and nothing written, when there is one."""
        return await self.database.write(partial(self.insert_work, context, collection, record_id, data_type, data))

    def insert_work(self, context: str, collection: str, record_id: str, data_type: str, data: str) -> Work[Row | None]:
        """`insert`, as a part of a larger work."""
        now = _now()
        return (yield from _row(_INSERT, context, collection, record_id, data_type, data, now, now))

    async def upsert(self, context: str, collection: str, record_id: str, data_type: str, data: str) -> Row:
        """The record, new or with other data. One statement: there is nothing between a read and a write."""
        return await self.database.write(partial(self.upsert_work, context, collection, record_id, data_type, data))

    def upsert_work(self, context: str, collection: str, record_id: str, data_type: str, data: str) -> Work[Row]:
        """`upsert`, as a part of a larger work."""
        now = _now()
        row = yield from _row(_UPSERT, context, collection, record_id, data_type, data, now, now)
        assert row is not None
        return row

    async def amend(
        self, context: str, collection: str, record_id: str, data_type: str, change: Callable[[str | None], str]
    ) -> Row:
        """The record with the data that `change` makes of those that it has; None are those of a record to be made."""
        return await self.database.write(partial(self.amend_work, context, collection, record_id, data_type, change))

    def amend_work(
        self, context: str, collection: str, record_id: str, data_type: str, change: Callable[[str | None], str]
    ) -> Work[Row]:
        """`amend`, as a part of a larger work."""
        there = yield from self.get_work(context, collection, record_id)
        data = change(None if there is None else there.data)
        return (yield from self.upsert_work(context, collection, record_id, data_type, data))

    async def update(
        self, context: str, collection: str, record_id: str, data: str, *, updated: int | None = None
    ) -> Row | None:
        """The record with other data; None when there is none.

        Args:
            context: Whose.
            collection: Name of the collection.
            record_id: Its id in the collection.
            data: Its data from now on, JSON text.
            updated: Only if it still has this update date, in microseconds since the epoch. None: in any case.

        Raises:
            RecordChangedError: It has another update date; nothing was written.
        """
        return await self.database.write(
            partial(self.update_work, context, collection, record_id, data, updated=updated)
        )

    def update_work(
        self, context: str, collection: str, record_id: str, data: str, *, updated: int | None = None
    ) -> Work[Row | None]:
        """`update`, as a part of a larger work."""
        if updated is not None:
            there = yield from self.get_work(context, collection, record_id)
            if there is not None and there.updated != updated:
                rule = f"the record was to have the update date {updated}, and has {there.updated}"
                raise RecordChangedError(
                    f"Record {record_id!r} of collection {collection!r} in {context!r} was changed by another: {rule}.",
                    hint="Nothing was written. Read it again, change what it is now, and write that.",
                    violations=[Violation("update_date", rule)],
                )
        now = _now()
        return (yield from _row(_UPDATE, data, now, now, context, collection, record_id))

    async def remove(self, context: str, collection: str, record_id: str) -> bool:
        """Whether there was one."""
        return await self.database.write(partial(self.remove_work, context, collection, record_id))

    def remove_work(self, context: str, collection: str, record_id: str) -> Work[bool]:
        """`remove`, as a part of a larger work."""
        return (yield Statement(_REMOVE, (context, collection, record_id))).count > 0

    async def remove_collection(self, context: str, collection: str) -> bool:
        """Whether there was any."""
        return await self.database.write(partial(self.remove_collection_work, context, collection))

    def remove_collection_work(self, context: str, collection: str) -> Work[bool]:
        """`remove_collection`, as a part of a larger work."""
        return (yield Statement(_REMOVE_ALL, (context, collection))).count > 0

    # --- reading -----------------------------------------------------------------------------------------------------

    async def get(self, context: str, collection: str, record_id: str) -> Row | None:
        """The record; None when there is none."""
        return await self.database.read(partial(self.get_work, context, collection, record_id))

    def get_work(self, context: str, collection: str, record_id: str) -> Work[Row | None]:
        """`get`, as a part of a larger work."""
        return _row(_GET, context, collection, record_id)

    async def page(
        self, context: str, collection: str, *, after: int = 0, last: int | None = None, limit: int | None, offset: int
    ) -> Page:
        """Some records of a collection in the order of their creation.

        Args:
            context: Whose.
            collection: Name of the collection.
            after: Place after which to begin: `after` of the page before.
            last: Place at which to end: `last` of the page before. None at the first page: what is created later than
                that is not listed, so a list ends however fast others write.
            limit: At most so many; None for as many as a page holds.
            offset: Leave out so many.
        """
        asked = _PAGE if limit is None else min(limit, _PAGE)

        def read() -> Work[Page]:
            end = last
            if end is None:
                end = (yield Statement(_LAST, (context, collection))).rows[0][0]
            found = yield Statement(_PAGE_OF, (context, collection, after, end, asked, offset))
            rows = [Row(*row) for row in found.rows]
            full = len(rows) == asked and asked > 0
            return Page(rows, rows[-1].place if rows else after, end if full else 0)

        return await self.database.read(read)


def _row(sql: str, *parameters: Value) -> Work[Row | None]:
    rows = (yield Statement(sql, parameters)).rows
    return Row(*rows[0]) if rows else None


def _now() -> int:
    return chance.wall_us()
