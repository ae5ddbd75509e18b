"""A unit of work of a store: a generator of SQL statements, without I/O.

    def rename(key: str, name: str) -> Work[bool]:
        result = yield Statement("UPDATE things SET name = ? WHERE id = ?", (name, key))
        return result.count > 0

Whoever has the connection runs it: SQLite in the thread of its one writer, PostgreSQL in a task that awaits each
statement. So a store is written once, a unit of work is atomic under both, and `yield from` makes one of several.

The SQL is what both understand: `?` for parameters, types TEXT, BIGINT, DOUBLE PRECISION and BYTEA, `ON CONFLICT` and
`RETURNING`. `{place}` in a schema stands for the type of a key that counts up and is never used again.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Value: TypeAlias = str | int | float | bytes | None


class Statement(NamedTuple):
    """One SQL statement.

    Attributes:
        sql: Its text; without literals that hold a question mark.
        parameters: For its question marks, in their order.
    """

    sql: str
    parameters: Sequence[Value] = ()


class Result(NamedTuple):
    """What a statement gave.

    Attributes:
        rows: All rows that it returned.
        count: How many rows it has read or written.
    """

    rows: list[tuple[Any, ...]]
    count: int  # type: ignore[assignment]  # instead of the method of tuples


Work: TypeAlias = Generator[Statement, Result, T]
"""Yields statements, is sent their results, returns its own. May run twice, so it must have no other effects."""
