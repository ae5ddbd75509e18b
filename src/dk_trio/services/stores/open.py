"""Which database keeps the stores, by the text that an operator gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dk_trio.errors import DatabaseError

from .database import SETTING

if TYPE_CHECKING:
    from pathlib import Path

    from .database import Database


def open_database(url: str, *, directory: Path, setting: str = SETTING) -> Database:
    """The database that a URL names. Opens nothing yet.

    Args:
        url: Empty or `sqlite` for a file in `directory`, `:memory:`, or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`
            with what else libpq knows, such as `?sslmode=verify-full`.
        directory: For SQLite.
        setting: What chooses the directory, as the remedies of errors name it.

    Raises:
        DatabaseError: It names none.
    """
    scheme, colons, _ = url.partition("://")
    if colons and scheme in {"postgresql", "postgres"}:
        from .postgres import PostgresDatabase

        return PostgresDatabase(url)
    if url in {"", "sqlite", ":memory:"}:
        from .sqlite import SqliteDatabase

        return SqliteDatabase(None if url == ":memory:" else directory, setting=setting)
    # What stands behind a scheme may hold a password, and so may the other form that libpq knows, `host=... user=...`.
    word, equals, _ = url.partition("=")
    shown = f"{scheme}://..." if colons else f"{word}=..." if equals else url
    raise DatabaseError(
        f"There is no database {shown!r}.",
        hint="Use `sqlite`, `:memory:`, or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.",
    )
