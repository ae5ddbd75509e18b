"""The half of `SqliteDatabase` without Trio: its file, lock, connections, transactions, and what its errors mean."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import outcome
from grpclib.const import Status

from dk_trio import buggify
from dk_trio.errors import ConfigurationError, StorageServiceError

from .durable import sync
from .sqlite import LOCK
from .work import Result, T, Work

if TYPE_CHECKING:
    from pathlib import Path

# Seconds that the writer waits for a stranger, such as a person's `sqlite3` shell, to end a transaction. Its callers
# wait along. A read on the loop waits for nobody: it would stop the server.
_BUSY: Final = 5.0

# Bytes of a database in memory. Such a platform is for tests and trials, and must not take the machine down.
MEMORY_MAX: Final = 256 * 1024 * 1024

# Bytes that a healthy disk has left: what a few transactions need, and the log until its next checkpoint.
FREE_MIN: Final = 8 * 1024 * 1024

_OTHER_DIRECTORY: Final = "or set {setting} to another directory"

# What keys count up with and never come back to.
_PLACE: Final = "INTEGER PRIMARY KEY AUTOINCREMENT"

# What an error means by its primary code, and the remedy. Others are mistakes of a statement: they stay what they are.
_MEANINGS: Final = {
    sqlite3.SQLITE_FULL: ("the disk is full", f"Free some space, {_OTHER_DIRECTORY}."),
    sqlite3.SQLITE_BUSY: ("another process has locked it", "End the process that has it open; only one may."),
    sqlite3.SQLITE_LOCKED: ("another process has locked it", "End the process that has it open; only one may."),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", f"Restore it from a copy or move it away, {_OTHER_DIRECTORY}."),
    sqlite3.SQLITE_NOTADB: ("it is no SQLite database", f"Move it away, {_OTHER_DIRECTORY}."),
    sqlite3.SQLITE_READONLY: ("it cannot be written", f"Make it and its directory writable, {_OTHER_DIRECTORY}."),
    sqlite3.SQLITE_PERM: ("it may not be opened", f"Make it and its directory writable, {_OTHER_DIRECTORY}."),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", f"Make it and its directory writable, {_OTHER_DIRECTORY}."),
    sqlite3.SQLITE_IOERR: ("reading or writing it failed", f"Look at the disk, {_OTHER_DIRECTORY}."),
    sqlite3.SQLITE_NOMEM: ("there is no memory", "Give the process more memory, or store smaller records."),
    sqlite3.SQLITE_TOOBIG: ("a value is too large", "Store smaller records; files belong in the filesystem service."),
}

# What the failure is for who asked over the network, if it is no defect: an outage may pass, a full disk may be freed.
_STATUSES: Final = {
    sqlite3.SQLITE_FULL: Status.RESOURCE_EXHAUSTED,
    sqlite3.SQLITE_NOMEM: Status.RESOURCE_EXHAUSTED,
    sqlite3.SQLITE_TOOBIG: Status.INVALID_ARGUMENT,
    **dict.fromkeys(
        (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_IOERR,
        ),
        Status.UNAVAILABLE,
    ),
}

# What keeps a directory from being used, if it is not its mode.
_REMEDIES: Final = {
    errno.EMFILE: "Raise the limit of open files",
    errno.ENFILE: "Raise the limit of open files",
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
}


class Connections:
    """The file of a database and its connections: one writes, one reads on the loop, one scans in a thread.

    Args:
        path: The file, whose directory is locked; None: one connection to a database in memory does everything.
        setting: What chooses the directory, for remedies.
    """

    def __init__(self, path: Path | None, setting: str) -> None:
        self._path = path
        self._setting = setting
        self.name = "in memory" if path is None else str(path)
        self._lock: int | None = None
        self._identity = (0, 0)  # of the file: device and inode
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._scanner: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open, and its directory locked."""
        return self._writer is not None

    def explained(self, error: Exception) -> Exception:
        """What the caller is told: a `StorageServiceError` with file and remedy; a mistake of a statement as it is."""
        code = getattr(error, "sqlite_errorcode", None)
        meaning = _MEANINGS.get(code & 0xFF) if isinstance(code, int) else None
        if meaning is None or code is None:
            return error
        primary = code & 0xFF
        if primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and self._free() < FREE_MIN:
            # SQLite says FULL of the database and its log alone, and not of the memory that it shares beside them.
            primary = sqlite3.SQLITE_FULL
        what, remedy = _MEANINGS[primary]
        if self._path is None and code == sqlite3.SQLITE_FULL:
            what, remedy = "it is full", f"It may have {MEMORY_MAX} bytes. {self._setting} names a directory."
        told = StorageServiceError(
            f"The database {self.name} cannot be used: {what} ({error}).",
            hint=self._remedy(remedy),
            status=_STATUSES.get(primary),
        )
        told.__cause__ = error
        return told

    def _remedy(self, text: str) -> str:
        return text.replace("{setting}", self._setting)

    # --- opening and closing -----------------------------------------------------------------------------------------

    def open(self, schemas: Mapping[str, Sequence[str]]) -> None:
        """Take the directory, open the file if it is not open, and bring its tables up to date."""
        try:
            if self._writer is None:
                self._connect()
            self._migrate(schemas)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and (told := self.explained(error)) is not error:
                raise told from error
            raise

    def _connect(self) -> None:
        if self._path is None:
            self._writer = self._reader = self._scanner = _connected(":memory:", 0)
            (size,) = self._writer.execute("PRAGMA page_size").fetchone()
            self._writer.execute(f"PRAGMA max_page_count = {MEMORY_MAX // size}")
            return
        self._lock = _locked(self._path.parent, self._setting)
        created = not self._path.exists()
        self._writer = _connected(str(self._path), _BUSY)
        if created:
            self._path.chmod(0o600)  # records of users; SQLite gives its other files the same mode
        (mode,) = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StorageServiceError(
                f"The database {self.name} cannot be used: its file system does not support WAL.",
                hint=f"Set {self._setting} to a directory on a local disk.",
            )
        self._writer.execute("PRAGMA synchronous = FULL")
        # Before anything is written on top of a damage. 1.6 s for each GB, once in the life of a server.
        damages = [row[0] for row in self._writer.execute("PRAGMA quick_check(3)")]
        if damages != ["ok"]:
            raise StorageServiceError(
                f"The database {self.name} cannot be used: it is damaged ({' '.join('; '.join(damages).split())}).",
                hint=self._remedy(_MEANINGS[sqlite3.SQLITE_CORRUPT][1]),
            )
        self._identity = _identity(self._path)
        self._reader = _connected(str(self._path), 0)
        self._scanner = _connected(str(self._path), _BUSY)
        for connection in (self._reader, self._scanner):
            connection.execute("PRAGMA query_only = ON")
        if created:
            sync(self._path.parent)  # SQLite does that for its log, not for the database

    def _migrate(self, schemas: Mapping[str, Sequence[str]]) -> None:
        writer = self._open_writer()
        writer.execute("BEGIN IMMEDIATE")
        try:
            writer.execute("CREATE TABLE IF NOT EXISTS schemas (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
            versions = dict(writer.execute("SELECT name, version FROM schemas"))
            for name, statements in schemas.items():
                version = versions.get(name, 0)
                if version > len(statements):
                    raise StorageServiceError(
                        f"The database {self.name} is from a newer release: its tables of {name!r} have version"
                        f" {version}, this release knows {len(statements)}.",
                        hint=self._remedy(f"Use the newer release, {_OTHER_DIRECTORY}."),
                    )
                for statement in statements[version:]:
                    writer.execute(statement.replace("{place}", _PLACE))
                writer.execute("INSERT OR REPLACE INTO schemas VALUES (?, ?)", (name, len(statements)))
            writer.execute("COMMIT")
        finally:
            _roll_back(writer)

    def close(self) -> None:
        """Move the log into the file, close, give the directory back. What is closed already stays so."""
        readers, self._reader, self._scanner = (self._reader, self._scanner), None, None
        for connection in readers:
            if connection is not None and connection is not self._writer:
                connection.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            # Convenience, not durability: what was committed is in the log, and the next owner reads that too.
            with suppress(sqlite3.Error):
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            writer.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            # Before the close: a forked child of the author's may hold the same lock through its copy of the file.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def check_file(self) -> None:
        """Raise when the open file is not the one that the next start will find."""
        if self._path is None or not self.is_open:
            return
        try:
            same = _identity(self._path) == self._identity
        except OSError:
            same = False
        if not same:
            raise StorageServiceError(
                f"The database {self.name} was deleted or replaced while it was in use.",
                hint="Nothing is written any more. Put it back where it was, or restart the server to begin anew.",
                status=Status.UNAVAILABLE,
            )

    def check_room(self) -> None:
        """Raise when the disk has less than `FREE_MIN` bytes: a small write may find room where records do not."""
        if self._path is None or not self.is_open:
            return
        free = self._free()
        if free < FREE_MIN:
            what, remedy = _MEANINGS[sqlite3.SQLITE_FULL]
            raise StorageServiceError(
                f"The database {self.name}: {what}, {free:.0f} bytes are free.", hint=self._remedy(remedy)
            )

    def _free(self) -> float:
        """Bytes that are free on the disk; `inf` in memory, and where nobody can tell."""
        if self._path is None:
            return math.inf
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return math.inf
        return disk.f_bavail * disk.f_frsize

    # --- using -------------------------------------------------------------------------------------------------------

    def transact(self, works: Sequence[Callable[[], Work[Any]]]) -> list[outcome.Outcome[Any]]:
        """Run works in one transaction and commit it. A work that raises undoes itself alone.

        Savepoints cost twice what an insert does, and a work that fails has mostly written nothing. So there are none
        at first; a work that fails with something to undo begins the transaction anew, with one for each work.

        Raises:
            Exception: The transaction was given up; nothing of any work is there.
        """
        writer = self._open_writer()
        try:
            results = self._together(writer, works, savepoints=False)
            if results is None:
                writer.execute("ROLLBACK")
                results = self._together(writer, works, savepoints=True)
                assert results is not None
            self.check_file()  # or the commit would go into a file that nobody finds again
            if buggify.fails("database.commit"):
                raise _failed_disk()
            writer.execute("COMMIT")
            buggify.fails("database.committed")
        finally:
            _roll_back(writer)
        return results

    def _together(
        self, writer: sqlite3.Connection, works: Sequence[Callable[[], Work[Any]]], *, savepoints: bool
    ) -> list[outcome.Outcome[Any]] | None:
        """Begin a transaction and run works in it; None when there is something to undo that has no savepoint."""
        results: list[outcome.Outcome[Any]] = []
        writer.execute("BEGIN IMMEDIATE")
        for work in works:
            before = writer.total_changes
            if savepoints:
                writer.execute("SAVEPOINT item")
            try:
                results.append(outcome.Value(run(writer, work)))
            except Exception as error:  # boundary: one work of a batch fails for its own caller, the others go on
                if not writer.in_transaction:  # full disk, failed I/O: SQLite has undone the works before, too
                    raise
                if savepoints:
                    writer.execute("ROLLBACK TO item")
                elif writer.total_changes != before:
                    return None
                results.append(outcome.Error(self.explained(error)))
            if savepoints:
                writer.execute("RELEASE item")
        return results

    def copy(self, destination: Path) -> None:
        """Copy the database to a file."""
        from .backup import copy

        copy(self._open_writer(), destination)

    def read(self, work: Callable[[], Work[T]]) -> T:
        """What `work` reads, on the loop."""
        return self._snapshot(self._reader, work)

    def scan(self, work: Callable[[], Work[T]]) -> T:
        """What `work` reads, in a thread."""
        return self._snapshot(self._scanner, work)

    def _snapshot(self, connection: sqlite3.Connection | None, work: Callable[[], Work[T]]) -> T:
        if connection is None:
            raise _closed()
        try:
            connection.execute("BEGIN")  # several statements of a work see one state
            try:
                return run(connection, work)
            finally:
                _roll_back(connection)
        except sqlite3.Error as error:
            told = self.explained(error)
            if told is error:
                raise
            raise told from error

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise _closed()
        return self._writer


def run(connection: sqlite3.Connection, work: Callable[[], Work[T]]) -> T:
    """What a unit of work returns, statement after statement on this connection."""
    steps = work()
    try:
        statement = next(steps)
        while True:
            cursor = connection.execute(statement.sql, statement.parameters)
            # All rows: a statement with RETURNING that was not run to its end would keep its transaction open.
            rows = cursor.fetchall()
            statement = steps.send(Result(rows, len(rows) or max(cursor.rowcount, 0)))
    except StopIteration as end:
        value: T = end.value
        return value


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _connected(path: str, timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _failed_disk() -> sqlite3.Error:
    """What SQLite raises when the disk does not take a transaction."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


def _closed() -> RuntimeError:
    return RuntimeError("This SqliteDatabase was closed.")


def _locked(directory: Path, setting: str) -> int:
    """The descriptor of the lock file of `directory`, which is made if need be. The kernel frees it when we die."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The directory for local data {directory} cannot be used: {error.strerror}.",
            hint=f"{_REMEDIES.get(error.errno or 0, 'Make it writable')}, or set {setting} to another directory.",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        pid = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ConfigurationError(
            f"The directory for local data {directory} is in use by the process {pid}.",
            hint=f"One process owns it: end that one, or set {setting} to another directory for this one.",
        ) from error
    with suppress(OSError):  # a full disk: whatever is written next says so
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
