"""A consistent copy of a provider's data, taken while it runs.

A snapshot of the database names contents of files, and contents never change: so a snapshot, and then each content that
it names, make a copy of one moment. Only a removal can come between; then the next snapshot does not name that content
any more, and what was copied already need not be copied again. Contents are read once, hashed as they are copied.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from dk_trio.errors import DatabaseError, StorageServiceError
from dk_trio.services.stores.backup import back_up
from dk_trio.services.stores.contents import PIECE
from dk_trio.services.stores.durable import sync
from dk_trio.services.stores.postgres_errors import misread, place, remedy_for
from dk_trio.services.stores.sqlite import FILE

CONTENTS: Final = "files"
DUMP: Final = "postgresql.dump"

# Snapshots before it is given up. Each later round copies what has come in since the one before, so two or three do.
_ROUNDS: Final = 20

_LIST: Final = "SELECT name, digest, size FROM file_contents"

Contents = Mapping[str, tuple[str, int]]
"""Digest and size by name."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds: how many contents, and bytes of everything."""

    contents: int
    size: int


def copy_sqlite(directory: Path, destination: Path) -> Copied:
    """Copy the data in `directory`; `destination` becomes a directory that a provider can be started with.

    Raises:
        DatabaseError: There is nothing to copy, it is damaged, or the destination exists or cannot be written.
    """

    def snapshot(target: Path) -> Contents:
        return _sqlite_snapshot(directory, target / FILE)

    with _staged(destination) as target:
        return _copy(snapshot, directory / CONTENTS, target)


def copy_postgres(url: str, directory: Path | None, destination: Path) -> Copied:
    """Dump a PostgreSQL database with `pg_dump`, and copy the contents of files beside the dump.

    Raises:
        DatabaseError: There is no `pg_dump`, it or the database fails, or the destination exists or cannot be written.
    """
    if shutil.which("pg_dump") is None:
        command = " ".join(_dump_command(_without_password(url)[0], destination / DUMP))
        files = f", and copy {directory / CONTENTS} after it" if directory is not None else ""
        raise DatabaseError("There is no pg_dump on this machine.", hint=f"Where there is one, run: {command}{files}.")

    def snapshot(target: Path) -> Contents:
        return _postgres_snapshot(url, target / DUMP)

    with _staged(destination) as target:
        return _copy(snapshot, None if directory is None else directory / CONTENTS, target)


@contextmanager
def _staged(destination: Path) -> Iterator[Path]:
    """A directory that becomes `destination` at the end of the block, or nothing does."""
    staging = destination
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists():  # the current directory, too, which has no name
            raise DatabaseError(f"{destination} exists, and is not overwritten.", hint="Choose another name.")
        staging = destination.with_name(f"{destination.name}.partial")
        staging.mkdir(mode=0o700)
    except OSError as error:
        if isinstance(error, FileExistsError) and staging.is_dir():  # not a file where its parent should be
            raise DatabaseError(
                f"{staging} exists: another backup to it runs, or has ended early.", hint="Remove it when none runs."
            ) from None
        _give_up(destination, error)
    try:
        yield staging
        sync(staging)
        staging.rename(destination)
        sync(destination.parent)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        _give_up(destination, error)
    except StorageServiceError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise DatabaseError(error.message, hint=error.hint) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _give_up(destination: Path, error: OSError) -> NoReturn:
    where = f" ({error.filename})" if error.filename else ""
    raise DatabaseError(
        f"The copy {destination} cannot be made: {error.strerror or error}{where}.", hint="Nothing was left behind."
    ) from error


def _copy(snapshot: Callable[[Path], Contents], source: Path | None, target: Path) -> Copied:
    contents, missing = target / CONTENTS, set[str]()
    for _ in range(_ROUNDS):
        wanted = snapshot(target)
        if source is None:
            if wanted:
                hint = "Name their directory with --data-dir."
                raise DatabaseError("The contents of files are needed, too.", hint=hint)
            break
        if lost := missing & wanted.keys():  # not removed; and no content gets a name that was used before
            raise DatabaseError(
                f"The content {source / min(lost)} is not there, and the database names it.",
                hint="Name the data directory of the provider with --data-dir."
                " If that is this one, the content is lost: delete the files that have it.",
            )
        missing = _copy_contents(source, contents, wanted)
        if not missing:
            break
    else:
        raise DatabaseError("Files are removed faster than they can be copied.", hint="Try it when less goes on.")
    if contents.is_dir():
        for path in contents.iterdir():
            if path.name not in wanted:
                path.unlink()
        sync(contents)
    return Copied(len(wanted), sum(path.stat().st_size for path in target.rglob("*") if path.is_file()))


def _copy_contents(source: Path, target: Path, wanted: Contents) -> set[str]:
    """Copy those that are not there yet; which could not be found, such as those that have been removed meanwhile."""
    missing = set()
    for name, (digest, size) in wanted.items():
        path = target / name
        if path.exists():
            continue
        target.mkdir(mode=0o700, exist_ok=True)
        try:
            found = _copy_content(source / name, path)
        except FileNotFoundError:
            missing.add(name)
            continue
        if found != (digest, size):
            raise DatabaseError(
                f"The content {source / name} is damaged: it has other bytes than were written.",
                hint="Delete the files that have it, or put it back from an older copy.",
            )
    return missing


def _copy_content(source: Path, target: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with source.open("rb", buffering=0) as old, target.open("xb", buffering=0) as new:
        while piece := old.read(PIECE):
            digest.update(piece)
            size += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[new.write(rest) :]
        os.fsync(new.fileno())
    target.chmod(0o400)
    return digest.hexdigest(), size


# --- SQLite ----------------------------------------------------------------------------------------------------------


def _sqlite_snapshot(directory: Path, target: Path) -> Contents:
    target.unlink(missing_ok=True)
    back_up(directory, target)
    with closing(sqlite3.connect(target)) as copy:
        damages = [row[0] for row in copy.execute("PRAGMA integrity_check(3)")]
        if damages != ["ok"]:
            raise DatabaseError(
                f"The database in {directory} is damaged ({'; '.join(damages)}), and so is its copy.",
                hint="Nothing was left behind. Go back to an older copy.",
            )
        tables = {row[0] for row in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        rows = copy.execute(_LIST).fetchall() if "file_contents" in tables else []
    return {name: (digest, size) for name, digest, size in rows}


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def _postgres_snapshot(url: str, target: Path) -> Contents:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    target.unlink(missing_ok=True)
    name, (plain, password) = place(url), _without_password(url)
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise misread(name, str(error)) from None  # its text may quote a password
    try:
        with psycopg.connect(url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            rows = connection.execute(_LIST).fetchall()
            ((snapshot, schema),) = connection.execute("SELECT pg_export_snapshot(), current_schema()").fetchall()
            # Of a database that others share, our schema; `public` alone could not be restored: it is always there.
            only = [] if schema == "public" else [f"--schema={schema}"]
            _run([*_dump_command(plain, target), f"--snapshot={snapshot}", *only], password)
    except psycopg.errors.UndefinedTable:
        raise DatabaseError(
            f"There is nothing of a provider in the schema of {name}.", hint="Name the database of a provider."
        ) from None
    except psycopg.Error as error:
        why = " ".join(str(error).split()).partition(" Is the server running")[0].rstrip(".")
        raise DatabaseError(f"The database {name} cannot be copied: {why}.", hint=remedy_for(why)) from error
    _run(["pg_restore", "--list", str(target)], None)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return {name: (digest, size) for name, digest, size in rows}


def _dump_command(url: str, target: Path) -> list[str]:
    return ["pg_dump", "--format=custom", f"--file={target}", f"--dbname={url}"]


def _without_password(url: str) -> tuple[str, str | None]:
    """The URL without its password, which others would see in the list of processes, and the password."""
    head, _, query = url.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    passwords = [pair.partition("=")[2] for pair in pairs if pair.startswith("password=")]
    rest = "&".join(pair for pair in pairs if not pair.startswith("password="))
    head, at, tail = head.partition("@")
    scheme, _, login = head.partition("://")
    user, colon, password = login.partition(":")
    if at and colon:
        head, passwords = f"{scheme}://{user}", [password, *passwords]
    plain = f"{head}{at}{tail}{'?' if rest else ''}{rest}"
    return plain, passwords[-1] if passwords else None  # the last one counts, as for libpq


def _run(command: list[str], password: str | None) -> None:
    from urllib.parse import unquote

    env = {**os.environ, **({} if password is None else {"PGPASSWORD": unquote(password)})}
    done = subprocess.run(  # noqa: S603  an argument list, without a shell
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DatabaseError(f"{command[0]} failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}.")
