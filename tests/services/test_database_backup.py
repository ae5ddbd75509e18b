"""Copies of a database that is in use."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio

from dk_trio.errors import StorageServiceError
from dk_trio.services.stores import backup
from dk_trio.services.stores.backup import back_up

from .test_database import directory, names, opened, put, rows  # noqa: F401  a fixture is among them

FILE = "dk-trio.sqlite3"


async def copied(of: Path) -> list[str]:
    async with opened(of) as database:
        assert await database.read(rows("PRAGMA integrity_check")) == [("ok",)]
        return await database.read(names)


async def test_a_copy_is_a_database_of_its_own(directory: Path | None, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "copy").mkdir()
    async with opened(directory) as database:
        await database.write(put("before"))
        await database.backup(tmp_path / "copy" / FILE)
        await database.write(put("after"))
        assert await database.read(names) == ["before", "after"]
    assert (tmp_path / "copy" / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "copy").iterdir()] == [FILE]
    assert await copied(tmp_path / "copy") == ["before"]


async def test_a_copy_is_one_state_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_STEP", 1)
    (tmp_path / "copy").mkdir()
    async with opened(tmp_path / "data") as database, trio.open_nursery() as nursery:
        for number in range(100):
            await database.write(put(f"{number:04}", "v" * 2000))

        async def writing() -> None:
            number = 100
            while True:
                await database.write(put(f"{number:04}", "v" * 2000))
                number += 1

        nursery.start_soon(writing)
        while database.statistics().writes < 110:  # noqa: ASYNC110  there is no event for it
            await trio.sleep(0.001)
        await database.backup(tmp_path / "copy" / FILE)
        nursery.cancel_scope.cancel()
    found = await copied(tmp_path / "copy")
    assert found == [f"{number:04}" for number in range(len(found))]
    assert len(found) >= 110


async def test_what_is_there_is_not_overwritten(directory: Path | None, tmp_path: Path) -> None:  # noqa: F811
    there = tmp_path / "there"
    there.write_text("mine")
    async with opened(directory) as database:
        with pytest.raises(StorageServiceError, match="there exists, and is not overwritten"):
            await database.backup(there)
        with pytest.raises(StorageServiceError, match="cannot be made"):
            await database.backup(tmp_path / "absent" / "copy")
    assert there.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"there", "data"}


async def test_a_copy_that_is_cancelled_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_STEP", 1)
    async with opened(tmp_path / "data") as database:
        for number in range(10):
            await database.write(put(f"{number}", "v" * 5000))
        with trio.CancelScope() as scope:
            cancel = trio.lowlevel.current_trio_token().run_sync_soon
            real = trio.from_thread.check_cancelled

            def check() -> None:
                cancel(scope.cancel)
                trio.from_thread.run_sync(int)  # by now it has been
                real()

            monkeypatch.setattr(trio.from_thread, "check_cancelled", check)
            await database.backup(tmp_path / "copy")
        assert scope.cancelled_caught
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_a_file_that_was_replaced_is_not_copied(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as database:
        await database.write(put("a"))
        (tmp_path / "data" / FILE).unlink()
        (tmp_path / "data" / FILE).write_bytes(b"")
        with pytest.raises(StorageServiceError, match="deleted or replaced"):
            await database.backup(tmp_path / "copy")


CHILD = """
import sys
from pathlib import Path
from dk_trio.services.stores.backup import back_up
back_up(Path(sys.argv[1]), Path(sys.argv[2]))
"""


async def test_another_process_copies_what_this_one_owns(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    async with opened(tmp_path / "data") as database:
        await database.write(put("a"))
        await trio.run_process([sys.executable, "-c", CHILD, str(tmp_path / "data"), str(tmp_path / "copy" / FILE)])
        await database.write(put("b"))  # the log and its index are still ours
        assert await database.read(names) == ["a", "b"]
    assert await copied(tmp_path / "data") == ["a", "b"]
    assert await copied(tmp_path / "copy") == ["a"]


def test_a_directory_that_nobody_owns_is_copied_too(tmp_path: Path) -> None:
    with pytest.raises(StorageServiceError, match="There is no database"):
        back_up(tmp_path, tmp_path / "copy")

    async def fill() -> None:
        async with opened(tmp_path) as database:
            await database.write(put("a"))

    trio.run(fill)
    back_up(tmp_path, tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("SELECT name FROM things").fetchall() == [("a",)]
