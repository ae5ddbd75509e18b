"""The index of files: tables, rows, and what a filter is in SQL. All of it are parts of works."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from dk_trio.errors import FileExistsInContextError, StoredFileNotFoundError, Violation
from dk_trio.services.filesystem import ID_PREFIX, LIST_MAX, FileFilter, FilesystemRecord, check_text, refused, shown

from .contents import StoredContent
from .work import Statement, Value, Work

# A content is referred to by its rows and by no counter: a counter can be wrong. Deleted files give their names free.
SCHEMA: Final = (
    "CREATE TABLE file_contents (name TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, size BIGINT NOT NULL)",
    """CREATE TABLE files (
        seq {place}, id TEXT NOT NULL UNIQUE, context TEXT NOT NULL, name TEXT NOT NULL,
        file_type TEXT NOT NULL, content_type TEXT NOT NULL, metadata TEXT, status TEXT NOT NULL,
        created BIGINT NOT NULL, updated BIGINT NOT NULL, content TEXT NOT NULL REFERENCES file_contents (name))""",
    "CREATE UNIQUE INDEX files_by_name ON files (context, name) WHERE status <> 'DELETED'",
    "CREATE INDEX files_by_context ON files (context, seq)",
    "CREATE INDEX files_by_content ON files (content)",
    # Whose the directory of contents is: who has another database must not sweep it.
    "CREATE TABLE file_owner (place INTEGER PRIMARY KEY, id TEXT NOT NULL)",
)

IN_USE: Final = frozenset({"UPLOADING", "PROCESSING"})

_ORDERS: Final = {
    "name": "files.name",
    "file_type": "file_type",
    "content_type": "content_type",
    "size_bytes": "size",
    "status": "status",
    "creation_date": "created",
    "update_date": "updated",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = "id, context, files.name, file_type, content_type, metadata, status, created, updated, content, digest, size"
_FROM = "FROM files JOIN file_contents ON file_contents.name = content"


class Row(NamedTuple):
    """A file in the index; times in microseconds since 1970."""

    id: str
    context: str
    name: str
    file_type: str
    content_type: str
    metadata: str | None
    status: str
    created: int
    updated: int
    content: str
    digest: str
    size: int

    def stored_content(self) -> StoredContent:
        """What the store of contents knows it by."""
        return StoredContent(self.content, self.digest, self.size)

    def record(self, uri: Callable[[str], str]) -> FilesystemRecord:
        """The row as authors see it."""
        return FilesystemRecord(
            id=self.id,
            context=self.context,
            name=self.name,
            file_type=self.file_type,
            content_type=self.content_type,
            size_bytes=self.size,
            checksum=self.digest,
            metadata=None if self.metadata is None else json.loads(self.metadata),
            storage_uri=uri(self.content),
            file_url=uri(self.content),
            status=self.status,
            creation_date=_EPOCH + timedelta(microseconds=self.created),
            update_date=_EPOCH + timedelta(microseconds=self.updated),
        )


def microseconds(moment: datetime) -> int:
    """A moment as the index keeps it, without the rounding of a float."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def full_id(file_id: str) -> str:
    """The id with its prefix."""
    return ID_PREFIX + file_id.removeprefix(ID_PREFIX)


# --- rows ------------------------------------------------------------------------------------------------------------


def row_of(context: str, file_id: str) -> Work[Row]:
    """The row of an id.

    Raises:
        StoredFileNotFoundError: There is none in this context.
    """
    row = yield from row_with_id(full_id(check_text(file_id, "file_id")))
    if row is None or row.context != context:
        raise not_found(context, file_id)
    return row


def row_with_id(file_id: str) -> Work[Row | None]:
    """The row of a full id, whatever its context."""
    rows = (yield Statement(f"SELECT {_COLUMNS} {_FROM} WHERE id = ?", (file_id,))).rows
    return Row._make(rows[0]) if rows else None


def not_found(context: str, file_id: str, rule: str = "") -> StoredFileNotFoundError:
    """The error for an id that is not in a context."""
    text = f"No file {shown(file_id)} in the context {context}{rule}"
    hint = "A file of the setup is found with context='setup'." if context.startswith("missions:") else ""
    return StoredFileNotFoundError(f"{text}.", hint=hint, violations=[Violation("file_id", text)])


def row_named(context: str, name: str) -> Work[Row | None]:
    """The row that has a name, unless it is deleted."""
    query = f"SELECT {_COLUMNS} {_FROM} WHERE context = ? AND files.name = ? AND status <> 'DELETED'"
    rows = (yield Statement(query, (context, name))).rows
    return Row._make(rows[0]) if rows else None


def name_taken(context: str, name: str, field: str, hint: str) -> FileExistsInContextError:
    """The error for a name that another file has."""
    text = f"A file {shown(name)} is in the context {context} already"
    return FileExistsInContextError(f"{text}.", hint=hint, violations=[Violation(field, text)])


def id_taken(context: str, file_id: str) -> FileExistsInContextError:
    """The error for an id that a file of another context has."""
    text = f"The id {shown(file_id)} is that of a file outside of the context {context}"
    return FileExistsInContextError(
        f"{text}.", hint="Give each file an id of its own.", violations=[Violation("file_id", text)]
    )


def insert(row: Row) -> Work[None]:
    """A new row; its content must be there."""
    query = """INSERT INTO files
        (id, context, name, file_type, content_type, metadata, status, created, updated, content)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
    yield Statement(query, row[:10])


def change(row: Row) -> Work[None]:
    """A row as it is from now on."""
    query = """UPDATE files SET name = ?, file_type = ?, content_type = ?, metadata = ?, status = ?, updated = ?,
        content = ? WHERE id = ?"""
    parameters = (row.name, row.file_type, row.content_type, row.metadata, row.status, row.updated, row.content, row.id)
    yield Statement(query, parameters)


# --- contents --------------------------------------------------------------------------------------------------------


def adopt(content: StoredContent) -> Work[StoredContent]:
    """The content that stands for these bytes: the one that was there before, or else this one from now on."""
    rows = (yield Statement("SELECT name FROM file_contents WHERE digest = ?", (content.digest,))).rows
    if rows:
        return StoredContent(rows[0][0], content.digest, content.size)
    values = (content.name, content.digest, content.size)
    yield Statement("INSERT INTO file_contents (name, digest, size) VALUES (?, ?, ?)", values)
    return content


def drop_unused(names: Iterable[str]) -> Work[list[str]]:
    """Forget those of these contents that no file has. They can be removed once this is committed."""
    unused = []
    query = "DELETE FROM file_contents WHERE name = ? AND NOT EXISTS (SELECT 1 FROM files WHERE content = ?)"
    for name in sorted(set(names)):
        if (yield Statement(query, (name, name))).count:
            unused.append(name)  # noqa: PERF401  nothing may be yielded in a comprehension
    return unused


def known(names: Sequence[str]) -> Work[set[str]]:
    """Which of these contents the index knows."""
    query = f"SELECT name FROM file_contents WHERE name IN ({_marks(names)})"  # noqa: S608 - question marks
    return {name for (name,) in (yield Statement(query, names)).rows}


def owner() -> Work[str]:
    """The id of this index for `Contents.claim`; empty when it has none yet."""
    rows = (yield Statement("SELECT id FROM file_owner")).rows
    return rows[0][0] if rows else ""


def own(new: str) -> Work[str]:
    """`owner`, which `new` becomes when there is none."""
    yield Statement("INSERT INTO file_owner (place, id) VALUES (1, ?) ON CONFLICT DO NOTHING", (new,))
    return (yield from owner())


# --- filters ---------------------------------------------------------------------------------------------------------


class Condition(NamedTuple):
    """What follows WHERE, and its parameters."""

    text: str
    parameters: list[Value]


def condition_of(context: str, filters: FileFilter, *, with_deleted: bool = False) -> Condition:
    """A filter in SQL.

    Args:
        context: The id of the context.
        filters: Its own `context` is not looked at.
        with_deleted: Deleted files match too, when the filter asks for no status.

    Raises:
        InvalidFileError: A value can be no name, prefix or id, or a list is too long.
    """
    parts = ["context = ?"]
    parameters: list[Value] = [context]

    def add(part: str, *values: Value) -> None:
        parts.append(part)
        parameters.extend(values)

    ids = None if filters.file_ids is None else [full_id(file_id) for file_id in filters.file_ids]
    for field, column, values in (
        ("names", "files.name", filters.names),
        ("file_ids", "id", ids),
        ("file_types", "file_type", filters.file_types),
    ):
        if values is not None:
            if len(values) > LIST_MAX:
                raise refused(f"filters.{field}", f"{len(values)} values are more than {LIST_MAX}")
            for index, value in enumerate(values):
                check_text(value, f"filters.{field}[{index}]")
            add(f"{column} IN ({_marks(values)})", *values)
    for field, column, text in (
        ("prefix", "files.name", filters.prefix),
        ("content_type_prefix", "content_type", filters.content_type_prefix),
    ):
        if text is not None:
            check_text(text, f"filters.{field}")
            add(f"substr({column}, 1, ?) = ?", len(text), text)
    if filters.prefix is not None and ".." in filters.prefix:
        raise refused("filters.prefix", f"{shown(filters.prefix)} is refused, a name has no two dots in a row")
    if filters.content_type is not None:
        add("content_type = ?", check_text(filters.content_type, "filters.content_type"))
    for column, sign, moment in (
        ("created", ">", filters.created_after),
        ("created", "<", filters.created_before),
        ("updated", ">", filters.updated_after),
        ("updated", "<", filters.updated_before),
    ):
        if moment is not None:
            add(f"{column} {sign} ?", microseconds(moment))
    if filters.min_size_bytes is not None:
        add("size >= ?", filters.min_size_bytes)
    if filters.max_size_bytes is not None:
        add("size <= ?", filters.max_size_bytes)
    if filters.status is not None:
        add("status = ?", filters.status)
    elif not with_deleted:
        add("status <> 'DELETED'")
    return Condition(" AND ".join(parts), parameters)


def order_of(order: str | None) -> str:
    """What follows ORDER BY.

    Raises:
        InvalidFileError: There is no such order.
    """
    if order is None or not order.strip():
        return "seq"
    field, _, direction = order.strip().lower().partition(" ")
    if field not in _ORDERS or direction.strip() not in {"", "asc", "desc"}:
        raise refused("order", f"{shown(order)} is no order: one of {', '.join(_ORDERS)}, and `desc` if descending")
    return f"{_ORDERS[field]} {direction.strip()}, seq"


def page(condition: Condition, order: str, list_size: int, offset: int) -> Work[tuple[list[Row], int]]:
    """Rows of a page, and how many match in all, of one state of the index."""
    query = f"SELECT COUNT(*) {_FROM} WHERE {condition.text}"
    ((total,),) = (yield Statement(query, condition.parameters)).rows
    query = f"SELECT {_COLUMNS} {_FROM} WHERE {condition.text} ORDER BY {order} LIMIT ? OFFSET ?"
    rows = (yield Statement(query, [*condition.parameters, list_size, offset])).rows
    return [Row._make(row) for row in rows], total


def matching(condition: Condition) -> Work[list[Row]]:
    """All rows that match, in the order of their upload."""
    query = f"SELECT {_COLUMNS} {_FROM} WHERE {condition.text} ORDER BY seq"
    return [Row._make(row) for row in (yield Statement(query, condition.parameters)).rows]


def delete(rows: Sequence[Row]) -> Work[None]:
    """Rows go, their contents stay for `drop_unused`."""
    for row in rows:
        yield Statement("DELETE FROM files WHERE id = ?", (row.id,))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values)) or "NULL"  # an empty list is not SQL; nothing equals NULL
