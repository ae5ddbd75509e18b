"""Records of all missions and setups, as JSON text; what they mean is their strategies' matter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .database import Database

if TYPE_CHECKING:
    import sqlite3

# Append only, see `Database.declare`. `place` is the order of creation; an id that was removed gets a new one.
_SCHEMA: Final = (
    """CREATE TABLE records (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        context TEXT NOT NULL,
        collection TEXT NOT NULL,
        record_id TEXT NOT NULL,
        data_type TEXT NOT NULL,
        data TEXT NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        UNIQUE (context, collection, record_id)
    )""",
    "CREATE INDEX records_in_order ON records (context, collection, place)",
)

# A clock that was set back does not make a record older than its creation.
_INSERT: Final = """INSERT INTO records (context, collection, record_id, data_type, data, created, updated)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (context, collection, record_id) DO NOTHING
    RETURNING place, record_id, data_type, data, created, updated"""
_UPSERT: Final = """INSERT INTO records (context, collection, record_id, data_type, data, created, updated)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (context, collection, record_id)
    DO UPDATE SET data = excluded.data, updated = max(created, excluded.updated)
    RETURNING place, record_id, data_type, data, created, updated"""
_UPDATE: Final = """UPDATE records SET data = ?, updated = max(created, ?)
    WHERE context = ? AND collection = ? AND record_id = ?
    RETURNING place, record_id, data_type, data, created, updated"""
_GET: Final = """SELECT place, record_id, data_type, data, created, updated FROM records
    WHERE context = ? AND collection = ? AND record_id = ?"""
_REMOVE: Final = "DELETE FROM records WHERE context = ? AND collection = ? AND record_id = ?"
_REMOVE_ALL: Final = "DELETE FROM records WHERE context = ? AND collection = ?"
_LAST: Final = "SELECT coalesce(max(place), 0) FROM records WHERE context = ? AND collection = ?"
_PAGE_OF: Final = """SELECT place, record_id, data_type, data, created, updated FROM records
    WHERE context = ? AND collection = ? AND place > ? AND place <= ? ORDER BY place LIMIT ? OFFSET ?"""

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

    async def insert(self, context: str, collection: str, record_id: str, data_type: str, data: str) -> Row | None:
        """The new record; None, and nothing written, when there is one."""
        now = _now()
        return await self._change(_INSERT, (context, collection, record_id, data_type, data, now, now))

    async def upsert(self, context: str, collection: str, record_id: str, data_type: str, data: str) -> Row:
        """The record, new or with other data. One statement: there is nothing between a read and a write."""
        now = _now()
        row = await self._change(_UPSERT, (context, collection, record_id, data_type, data, now, now))
        assert row is not None
        return row

    async def amend(
        self, context: str, collection: str, record_id: str, data_type: str, change: Callable[[str | None], str]
    ) -> Row:
        """The record with the data that `change` makes of those that it has; None are those of a record to be made."""

        def write(connection: sqlite3.Connection) -> Row:
            now = _now()
            there = _row(connection, _GET, (context, collection, record_id))
            data = change(None if there is None else there.data)
            row = _row(connection, _UPSERT, (context, collection, record_id, data_type, data, now, now))
            assert row is not None
            return row

        return await self.database.write(write)

    async def update(self, context: str, collection: str, record_id: str, data: str) -> Row | None:
        """The record with other data; None when there is none."""
        return await self._change(_UPDATE, (data, _now(), context, collection, record_id))

    async def _change(self, statement: str, parameters: tuple[str | int, ...]) -> Row | None:
        return await self.database.write(lambda connection: _row(connection, statement, parameters))

    async def get(self, context: str, collection: str, record_id: str) -> Row | None:
        """The record; None when there is none."""
        parameters = (context, collection, record_id)
        return await self.database.read(lambda connection: _row(connection, _GET, parameters))

    async def remove(self, context: str, collection: str, record_id: str) -> bool:
        """Whether there was one."""
        return await self._delete(_REMOVE, (context, collection, record_id))

    async def remove_collection(self, context: str, collection: str) -> bool:
        """Whether there was any."""
        return await self._delete(_REMOVE_ALL, (context, collection))

    async def _delete(self, statement: str, parameters: tuple[str, ...]) -> bool:
        return await self.database.write(lambda connection: connection.execute(statement, parameters).rowcount > 0)

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

        def read(connection: sqlite3.Connection) -> Page:
            end = last
            if end is None:
                (end,) = connection.execute(_LAST, (context, collection)).fetchone()
            found = connection.execute(_PAGE_OF, (context, collection, after, end, asked, offset))
            rows = [Row(*row) for row in found]
            full = len(rows) == asked and asked > 0
            return Page(rows, rows[-1].place if rows else after, end if full else 0)

        return await self.database.read(read)


def _row(connection: sqlite3.Connection, statement: str, parameters: tuple[str | int, ...]) -> Row | None:
    # All rows are fetched: a statement with RETURNING that was not run to its end would keep its transaction open.
    rows = connection.execute(statement, parameters).fetchall()
    return Row(*rows[0]) if rows else None


def _now() -> int:
    return time.time_ns() // 1000
