"""A directory of contents belongs to one database: another one would sweep away what it does not know."""

import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from dk_trio.errors import DatabaseError
from dk_trio.services.filesystem import FilesystemRecord
from dk_trio.services.stores.contents import _owner_of
from dk_trio.services.stores.files import FileStore
from dk_trio.services.stores.sqlite import SqliteDatabase

from .file_kit import REAL, file

MISSION = "missions:m"


@asynccontextmanager
async def store(tmp_path: Path, database: str, setting: str = "--data-dir") -> AsyncIterator[FileStore]:
    """Contents in one directory, whichever database it is."""
    with trio.fail_after(REAL):
        async with SqliteDatabase(tmp_path / database).opened() as opened:
            yield FileStore(opened, tmp_path, setting=setting)


async def put(files: FileStore, name: str) -> FilesystemRecord:
    return await files.put(MISSION, file(name), max_size=1000)


def on_disk(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "files").iterdir()}


async def test_another_database_is_refused_and_sweeps_nothing(tmp_path: Path) -> None:
    async with store(tmp_path, "a") as files:
        record = await put(files, "a.txt")
    kept = on_disk(tmp_path)
    for _ in range(2):
        async with store(tmp_path, "b") as files:
            for use in (files.open, lambda: put(files, "b.txt"), files.check_health):
                with pytest.raises(DatabaseError) as caught:
                    await use()
                assert f"{tmp_path / 'files'} has contents of files of another database" in caught.value.text
                assert "set --data-dir to another directory" in caught.value.text
    async with store(tmp_path, "a") as files:
        await files.get_with_content(MISSION, record.id)
    assert on_disk(tmp_path) == kept


async def test_of_two_databases_at_once_the_first_that_writes_has_the_directory(tmp_path: Path) -> None:
    async with store(tmp_path, "a") as first, store(tmp_path, "b") as second:
        await first.open()
        await second.open()  # there is nothing yet that it could sweep
        await put(second, "b.txt")
        with pytest.raises(DatabaseError):
            await put(first, "a.txt")
        await put(second, "c.txt")


def test_two_that_claim_a_directory_in_the_same_moment_agree_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "files"
    looked, over = threading.Event(), threading.Event()
    is_dir = Path.is_dir

    def slow(path: Path) -> bool:
        found = is_dir(path)
        if path == directory and not looked.is_set():
            looked.set()
            over.wait(0.2)  # nobody else may get that far meanwhile
        return found

    monkeypatch.setattr(Path, "is_dir", slow)
    owners: list[str] = []
    one = threading.Thread(target=lambda: owners.append(_owner_of(directory, "1" * 32)))
    one.start()
    assert looked.wait(REAL)
    owners.append(_owner_of(directory, "2" * 32))
    over.set()
    one.join(REAL)
    assert owners == ["1" * 32] * 2
    assert _owner_of(directory) == owners[0]


async def test_a_claim_that_was_not_written_to_its_end_is_none(tmp_path: Path) -> None:
    async with store(tmp_path, "a") as files:
        await files.open()
        (tmp_path / "files").mkdir()
        (tmp_path / "files.owner").write_text("0123")
        await put(files, "a.txt")
    async with store(tmp_path, "b") as files:
        with pytest.raises(DatabaseError):
            await files.open()


async def test_what_an_earlier_release_has_written_or_a_backup_is_known_by_its_contents(tmp_path: Path) -> None:
    async with store(tmp_path, "a") as files:
        record = await put(files, "a.txt")
    (tmp_path / "files.owner").unlink()
    async with store(tmp_path, "b") as files:
        with pytest.raises(DatabaseError):
            await files.open()
    async with store(tmp_path, "a") as files:
        await files.get_with_content(MISSION, record.id)
    assert (tmp_path / "files.owner").exists()


async def test_a_directory_that_was_moved_away_is_nobodys(tmp_path: Path) -> None:
    async with store(tmp_path, "a") as files:
        await put(files, "a.txt")
    shutil.move(tmp_path / "files", tmp_path / "moved")
    async with store(tmp_path, "b") as files:
        record = await put(files, "b.txt")
    async with store(tmp_path, "b") as files:
        await files.get_with_content(MISSION, record.id)
