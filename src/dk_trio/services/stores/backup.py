"""A copy of a database file while it is in use, by this process or by another: one state of it, whole or not there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from dk_trio import chance
from dk_trio.errors import StorageServiceError

from .durable import sync
from .sqlite import FILE

# Pages of one step, 4 MB: between two of them a cancel is noticed.
_STEP: Final = 1024

# Milliseconds that it waits for a stranger who has locked the source, such as a checkpoint of its log.
_BUSY: Final = 5000


def back_up(directory: Path, destination: Path, *, check: Callable[[], None] = lambda: None) -> None:
    """Copy the database in a directory, whoever owns that: nobody is kept from writing meanwhile.

    Args:
        directory: Where the database is.
        destination: The file that is made, durable and readable by its owner only. Its directory exists.
        check: Called now and then; what it raises ends the copy.

    Raises:
        StorageServiceError: There is no database, the destination exists, or one of them fails. Nothing is left behind.
    """
    source = directory / FILE
    if not source.is_file():
        raise StorageServiceError(f"There is no database in {directory}.", hint="Name the directory of one.")
    try:
        # Not read-only: who reads a database in WAL mode writes to its index of the log. Never created, though.
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as old:
            old.execute(f"PRAGMA busy_timeout = {_BUSY}")
            old.execute("PRAGMA query_only = ON")
            copy(old, destination, check)
    except sqlite3.Error as error:
        raise _failed(destination, error) from error


def copy(old: sqlite3.Connection, destination: Path, check: Callable[[], None] = lambda: None) -> None:
    """Copy what a connection sees now. It has no open transaction, before and after; see `back_up`."""
    staging = destination.with_name(f".{destination.name}.{chance.new_uuid().hex}")
    try:
        os.close(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(staging, isolation_level=None)) as new:
            # One state: without a transaction each step sees what was written since the last, and begins again.
            old.execute("BEGIN")
            try:
                old.execute("SELECT count(*) FROM sqlite_master").fetchall()
                old.backup(new, pages=_STEP, progress=lambda *_: check())
            finally:
                old.execute("ROLLBACK")
        sync(staging)
        os.link(staging, destination)  # a rename would replace what is there
        sync(destination.parent)
    except FileExistsError:
        raise StorageServiceError(
            f"{destination} exists, and is not overwritten.", hint="Choose another name."
        ) from None
    except (OSError, sqlite3.Error) as error:
        raise _failed(destination, error) from error
    finally:
        for path in (staging, staging.with_name(f"{staging.name}-journal")):
            path.unlink(missing_ok=True)


def _failed(destination: Path, error: Exception) -> StorageServiceError:
    return StorageServiceError(
        f"The copy {destination} of the database cannot be made: {error}.", hint="Nothing was left behind."
    )
