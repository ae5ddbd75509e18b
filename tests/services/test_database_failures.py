"""What a full disk, a damaged file, a stranger's lock and a death do to the database of the local services."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from dk_trio.errors import ConfigurationError, StorageServiceError
from dk_trio.services.stores._sqlite import MEMORY_MAX
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Statement, Work

from .test_database import SCHEMA, Gate, names, opened, put, rows

FILE = "dk-trio.sqlite3"


def no_more_pages() -> Work[None]:
    """The disk is full now, for all that SQLite knows."""
    ((pages,),) = (yield Statement("PRAGMA page_count")).rows
    yield Statement(f"PRAGMA max_page_count = {pages}")


room_again = rows("PRAGMA max_page_count = 1000000")


def scribble(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8192:12288] = b"\xff" * 4096
    file.write_bytes(data)


LARGE = "x" * 100_000  # more than the pages of an empty database have room for


async def test_a_full_disk_fails_what_has_no_room_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(no_more_pages)
        gate, refused = Gate(database), []

        async def too_large(name: str) -> None:
            with pytest.raises(StorageServiceError) as caught:
                await database.write(put(name, LARGE))
            refused.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.hold)
            await gate.entered.wait()
            for index in range(5):  # one batch
                nursery.start_soon(database.write, put(f"small {index}"))
                nursery.start_soon(too_large, f"large {index}")
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert sorted(await database.read(names)) == [f"small {index}" for index in range(5)]
        assert len(refused) == 5
        assert all("the disk is full" in error.message and str(tmp_path / FILE) in error.message for error in refused)
        assert all("DIGITALKIN_DATA_DIR" in error.hint for error in refused)
        await database.write(room_again)
        await database.write(put("large", LARGE))
        assert await database.read(rows("PRAGMA integrity_check")) == [("ok",)]
    assert database.statistics().failed == 5


async def test_what_is_in_memory_has_a_bound(autojump_clock: object) -> None:
    async with opened(None) as database:
        (count,), (size,) = await database.read(rows("PRAGMA max_page_count", "PRAGMA page_size"))
        assert count * size == MEMORY_MAX
        await database.write(no_more_pages)
        with pytest.raises(StorageServiceError, match="in memory cannot be used: it is full") as caught:
            await database.write(put("large", LARGE))
        assert "DIGITALKIN_DATA_DIR" in caught.value.hint
        await database.write(put("small"))
        assert await database.read(names) == ["small"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file.write_bytes(b"no database at all, only text" * 100), "it is no SQLite database"),
        (lambda file: file.write_bytes(file.read_bytes()[:-6000]), "it is damaged"),
        (scribble, "it is damaged"),
    ],
    ids=["other file", "cut off", "scribbled"],
)
async def test_a_damaged_file_is_found_at_the_first_use(tmp_path: Path, damage: object, told: str) -> None:
    async with opened(tmp_path) as database:
        for index in range(50):
            await database.write(put(f"{index}", "y" * 500))
    damage(tmp_path / FILE)
    async with opened(tmp_path) as database:
        with pytest.raises(StorageServiceError) as caught:
            await database.read(names)
        assert told in caught.value.message
        assert str(tmp_path / FILE) in caught.value.message
        assert "move it away" in caught.value.hint.lower()
        (tmp_path / FILE).unlink()
        assert await database.read(names) == []  # the remedy, without a new start


async def test_a_stranger_that_locks_the_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dk_trio.services.stores._sqlite._BUSY", 0.05)
    async with opened(tmp_path) as database:
        await database.write(put("a"))
        stranger = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageServiceError, match="another process has locked it"):
            await database.write(put("b"))
        assert await database.read(names) == ["a"]
        stranger.execute("ROLLBACK")
        stranger.close()
        await database.write(put("c"))
        assert await database.read(names) == ["a", "c"]


async def test_a_health_check_finds_a_file_that_was_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.check_health()
        (tmp_path / FILE).unlink()
        with pytest.raises(StorageServiceError, match="deleted or replaced"):
            await database.check_health()


async def test_nothing_is_acknowledged_that_goes_into_a_deleted_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as database:
        await database.write(put("before"))
        (tmp_path / "data").rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(StorageServiceError, match="deleted or replaced"):
                await database.write(put("lost"))
        (tmp_path / "away").rename(tmp_path / "data")
        await database.write(put("after"))
        assert await database.read(names) == ["before", "after"]


async def test_a_health_check_finds_a_disk_that_takes_nothing_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(put("a"))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / f"{FILE}-wal").stat().st_size, limits[1]))
        try:
            with pytest.raises(StorageServiceError, match="reading or writing it failed"):
                await database.check_health()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        await database.check_health()
        assert await database.read(names) == ["a"]


async def test_a_health_check_finds_a_disk_that_is_almost_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as database:
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=3, f_frsize=4096))
            with pytest.raises(StorageServiceError, match="the disk is full, 12288 bytes are free"):
                await database.check_health()
        await database.check_health()


async def test_no_more_open_files_is_told_with_its_own_remedy(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with opened(tmp_path) as database:
        await trio.to_thread.run_sync(int)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(ConfigurationError, match="Too many open files") as caught:
                await database.write(put("a"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert caught.value.hint.startswith("Raise the limit of open files, or")
        await database.write(put("b"))
        assert await database.read(names) == ["b"]


async def test_no_thread_to_be_had_fails_the_writes_of_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_left(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    async with opened(tmp_path) as database:
        await database.write(put("a"))
        with monkeypatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", none_left)
            with pytest.raises(StorageServiceError, match="writer"):
                await database.write(put("b"))
        await database.write(put("c"))
        assert await database.read(names) == ["a", "c"]


# --- releases --------------------------------------------------------------------------------------------------------


async def test_a_later_release_runs_the_statements_that_the_file_lacks(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(put("a"))
    later = SqliteDatabase(tmp_path)
    later.declare("things", [*SCHEMA, "ALTER TABLE things ADD COLUMN colour TEXT DEFAULT 'red'"])
    with trio.fail_after(30):
        async with later.opened():
            assert await later.read(rows("SELECT name, colour FROM things")) == [("a", "red")]


async def test_a_file_of_a_newer_release_is_refused_and_not_touched(tmp_path: Path) -> None:
    newer = SqliteDatabase(tmp_path)
    newer.declare("things", [*SCHEMA, "CREATE TABLE newer (x)"])
    with trio.fail_after(30):
        async with newer.opened():
            await newer.open()
    async with opened(tmp_path) as database:
        with pytest.raises(StorageServiceError, match="newer release") as caught:
            await database.read(names)
        assert "'things' have version 2, this release knows 1" in caught.value.message


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(put("a"))
    broken = SqliteDatabase(tmp_path)
    broken.declare("things", [*SCHEMA, "CREATE TABLE half (x)", "CREATE TABLE things (x)"])
    with trio.fail_after(30):
        async with broken.opened():
            with pytest.raises(sqlite3.OperationalError, match="already exists"):
                await broken.open()
    async with opened(tmp_path) as database:
        assert await database.read(names) == ["a"]
        tables = await database.read(rows("SELECT name FROM sqlite_master"))
        assert ("half",) not in tables


# --- kill -9 ---------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from functools import partial
from pathlib import Path

import trio

from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Statement

def put(name):
    yield Statement("INSERT INTO things VALUES (?, ?)", (name, "v" * 200))

async def main(directory, first):
    database = SqliteDatabase(Path(directory))
    database.declare("things", ["CREATE TABLE things (name TEXT UNIQUE, value TEXT)"])

    async def writer(task):
        for number in range(10**9):
            name = f"{first}.{task}.{number}"
            await database.write(partial(put, name))
            sys.stdout.write(name + "\\n")
            sys.stdout.flush()

    async with database.opened(), trio.open_nursery() as nursery:
        for task in range(32):
            nursery.start_soon(writer, task)

trio.run(main, sys.argv[1], sys.argv[2])
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for round_ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(round_)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        with child:
            # It writes under load, and each kill comes at another moment.
            lines = [child.stdout.readline() for _ in range(500 * (round_ + 1))]
            child.kill()
            lines += child.stdout.read().splitlines(keepends=True)
            acknowledged += [line.strip() for line in lines if line.endswith("\n")]
        assert child.returncode == -9

    async def found() -> set[str]:
        async with opened(tmp_path) as database:
            assert await database.read(rows("PRAGMA integrity_check")) == [("ok",)]
            return set(await database.read(names))

    stored = trio.run(found)
    assert acknowledged
    assert all(acknowledged)
    assert stored >= set(acknowledged)
    assert len(stored) <= len(acknowledged) + 3 * 32  # and what was written when nobody could be told any more
