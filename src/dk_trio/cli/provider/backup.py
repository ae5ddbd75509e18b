"""`dk-trio provider backup`: a consistent copy of what a provider keeps, whether it runs or not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from dk_trio.cli._exits import CODES

from ._where import MEMORY, check_given, data_dir_option, database_of, db_option, directory_of, is_postgres


@click.command(
    "backup",
    epilog=f"""\b
Examples:
  dk-trio provider backup /backups/today
  dk-trio provider backup --data-dir /var/lib/dk-trio /backups/today
  dk-trio provider --data-dir /backups/today

The copy is of one moment, and is checked: the database by SQLite, each content of a file by its digest. To go back to
it, start the provider with it as --data-dir, or with a copy of it. Of PostgreSQL, pg_dump writes the database and the
contents of files are copied beside it; pg_restore brings that back.

\b
{CODES}""",
)
@click.argument("destination", type=click.Path(path_type=Path))
@db_option
@data_dir_option
def command(*, destination: Path, db: str | None, data_dir: str | None) -> None:
    """Copy what a provider keeps to a new directory; the provider may run meanwhile."""
    from dk_trio.errors import DatabaseError
    from dk_trio.settings import Settings

    from ._copy import DUMP, copy_postgres, copy_sqlite

    check_given(db, data_dir)
    configured = Settings.from_environment(serving=False).services.data_dir
    if is_postgres(db):
        assert db is not None
        directory = directory_of(data_dir, configured)
        with _cleaned_up():
            copied = copy_postgres(db, directory, destination)
        again = f"pg_restore --dbname=URL {destination / DUMP}, then dk-trio provider --db URL --data-dir {destination}"
    else:
        _, directory = database_of(db, data_dir, configured)  # refuses what the server refuses
        if directory is None:
            raise DatabaseError(
                f"There is nothing to copy from {MEMORY}.",
                hint="Name what the provider uses: --data-dir or --db.",
            )
        with _cleaned_up():
            copied = copy_sqlite(directory, destination)
        again = f"dk-trio provider --data-dir {destination}"
    click.echo(f"{destination}: {copied.size} bytes, contents of {copied.contents} files. To use it: {again}")


@contextmanager
def _cleaned_up() -> Iterator[None]:
    """Who ends this process, such as a scheduler or a shell that goes, gets what Ctrl-C gets: nothing is left."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    ours = {number: handler for number, handler in handlers.items() if handler is signal.SIG_DFL}  # none under nohup
    try:
        for number in ours:
            signal.signal(number, leave)
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
