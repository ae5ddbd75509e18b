"""Where a provider keeps its data, from the options that its server and its backup share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dk_trio.settings import MEMORY as MEMORY

if TYPE_CHECKING:
    from dk_trio.services.stores.database import Database

SUBDIRECTORY: Final = "provider"
SETTING: Final = "--data-dir"
_POSTGRES: Final = ("postgresql://", "postgres://")

db_option = click.option(
    "--db",
    metavar="URL",
    help=f"Database: postgresql://USER@HOST/NAME, or {MEMORY} to keep nothing.  [default: SQLite in --data-dir]",
)
data_dir_option = click.option(
    "--data-dir",
    metavar="DIRECTORY",
    help="Where the SQLite database and the contents of files are; made when it is missing."
    f"  [default: {SUBDIRECTORY} in DIGITALKIN_DATA_DIR, which is .dk-trio]",
)


def check_given(db: str | None, data_dir: str | None) -> None:
    """Refuse empty texts: those of a variable that is not set, and not what the defaults are for.

    Raises:
        DatabaseError: One is empty.
    """
    for option, value in (("--db", db), (SETTING, data_dir)):
        if value is not None and not value.strip():
            from dk_trio.errors import DatabaseError

            raise DatabaseError(f"{option} is empty.", hint="Give it a value, or leave it out for its default.")


def is_postgres(db: str | None) -> bool:
    """Whether `--db` names a PostgreSQL database."""
    return db is not None and db.startswith(_POSTGRES)


def directory_of(data_dir: str | None, configured: Path | None) -> Path | None:
    """The directory of the data; None when nothing is to be kept.

    Args:
        data_dir: What `--data-dir` says.
        configured: What DIGITALKIN_DATA_DIR says, and its default.
    """
    if data_dir is not None:
        return None if data_dir == MEMORY else Path(data_dir)
    return None if configured is None else configured / SUBDIRECTORY


def database_of(db: str | None, data_dir: str | None, configured: Path | None) -> tuple[Database, Path | None]:
    """The database, not opened yet, and the directory of the contents of files.

    Raises:
        DatabaseError: `--db` names no database that is known, or is empty.
    """
    check_given(db, data_dir)
    directory = None if db == MEMORY else directory_of(data_dir, configured)
    from dk_trio.services.stores.open import open_database

    url = MEMORY if directory is None and not is_postgres(db) else db or ""
    database = open_database(url, directory=directory or Path(), setting=SETTING)
    if directory is not None and is_postgres(db):
        _make(directory)
    return database, directory


def _make(directory: Path) -> None:
    """SQLite makes its directory; contents beside another database would miss it at the first upload."""
    from dk_trio.errors import DatabaseError

    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(
            f"The directory {directory} for contents of files cannot be made: {error.strerror}.",
            hint="Name another with --data-dir.",
        ) from error
