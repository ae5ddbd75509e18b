"""Files in a directory: large ones in little memory, and what cancels, errors and crashes leave behind: nothing."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import tracemalloc
from pathlib import Path

import pytest
import trio

from dk_trio.errors import FileExistsInContextError, FilesystemServiceError, InvalidFileError, StoredFileNotFoundError
from dk_trio.services.filesystem import FileFilter
from dk_trio.services.stores.contents import PIECE, DiskContents
from dk_trio.services.stores.sqlite import SqliteDatabase

from .file_kit import content_of, filesystem, job, on_disk, platform, put

MB = 1024 * 1024


async def test_fifty_megabytes_go_through_in_little_memory(tmp_path: Path) -> None:
    sent = hashlib.sha256()

    async def pieces():
        for number in range(50):
            piece = number.to_bytes(4, "big") * (MB // 4)
            sent.update(piece)
            yield piece

    async with filesystem(tmp_path) as files:
        await put(files, "first")  # what is imported and opened once is not what is measured
        tracemalloc.start()
        try:
            record = await put(files, "large", pieces())
            received, largest = hashlib.sha256(), 0
            async with files.open_file(record.id) as stream:
                async for piece in stream:
                    received.update(piece)
                    largest = max(largest, len(piece))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert record.size_bytes == 50 * MB
        assert record.checksum == sent.hexdigest() == received.hexdigest()
        assert largest == PIECE
        assert peak < 5 * MB


async def test_files_outlive_the_process_that_stored_them(tmp_path: Path) -> None:
    async with filesystem(tmp_path) as files:
        record = await put(files, content=b"kept")
    async with filesystem(tmp_path) as files:
        assert await files.get_file(record.id) == record
        assert await content_of(files, record.id) == b"kept"
        path = Path(record.storage_uri.removeprefix("file://"))
        assert path.read_bytes() == b"kept"
        assert path.stat().st_mode & 0o777 == 0o400
        assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_the_directory_is_made_with_those_above_it_by_the_first_upload(tmp_path: Path) -> None:
    # As beside PostgreSQL, where no database makes it.
    async def pieces():
        yield b"content"

    contents = DiskContents(tmp_path / "a" / "b" / "files")
    stored = await contents.write(pieces())
    assert (tmp_path / "a" / "b" / "files" / stored.name).read_bytes() == b"content"


async def test_a_service_that_is_not_used_leaves_no_trace(tmp_path: Path) -> None:
    async with filesystem(tmp_path / "data"):
        pass
    assert not list(tmp_path.iterdir())


async def test_a_content_is_removed_with_its_last_file(tmp_path: Path) -> None:
    async with filesystem(tmp_path) as files:
        first = await put(files, "a", b"same")
        await put(files, "b", b"same")
        assert len(on_disk(tmp_path)) == 1
        await files.delete_files(FileFilter(names=["a"]), permanent=True)
        assert len(on_disk(tmp_path)) == 1
        async with files.open_file((await files.get_files(FileFilter()))[0][0].id) as pieces:
            await put(files, "b", b"new", replace_if_exists=True)
            assert len(on_disk(tmp_path)) == 1
            assert [piece async for piece in pieces] == [b"same"]
        with pytest.raises(StoredFileNotFoundError):
            await files.get_file(first.id)


async def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    async def broken():
        yield b"x" * PIECE * 2
        raise OSError("the source has gone")

    async with filesystem(tmp_path, max_file_size=3 * PIECE) as files:
        with pytest.raises(OSError, match="the source has gone"):
            await put(files, content=broken())
        with pytest.raises(InvalidFileError, match="more than"):
            await put(files, content=b"x" * (3 * PIECE + 1))
        await put(files)
        with pytest.raises(FileExistsInContextError):
            await put(files)
        assert len(on_disk(tmp_path)) == 1


async def test_a_pipe_is_no_content(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with filesystem(tmp_path / "data") as files:
        with pytest.raises(FilesystemServiceError, match="not a regular one"):
            await put(files, content=tmp_path / "pipe")


async def test_an_upload_that_is_cancelled_at_any_step_is_whole_or_not_there(tmp_path: Path, monkeypatch) -> None:
    steps = iter(())
    scope = trio.CancelScope()

    def cancelling(call):
        async def step(*args, **kwargs):
            if next(steps, None) == "cancel":
                scope.cancel()
            return await call(*args, **kwargs)

        return step

    closed = 0

    async def pieces():
        nonlocal closed
        try:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                yield b"x" * PIECE
        finally:
            closed += 1

    outcomes = []
    async with platform(tmp_path) as shared:
        files = job(shared)
        await put(files, "old", b"old")
        monkeypatch.setattr(DiskContents, "run", cancelling(DiskContents.run))
        monkeypatch.setattr(SqliteDatabase, "write", cancelling(SqliteDatabase.write))
        monkeypatch.setattr(SqliteDatabase, "read", cancelling(SqliteDatabase.read))
        for name in ("new", "old"):
            for number in range(100):
                with trio.CancelScope() as scope:
                    steps = iter(["go"] * number + ["cancel"])
                    await put(files, name, pieces(), replace_if_exists=True)
                steps = iter(())
                _, total = await files.get_files(FileFilter(names=["new"]))
                assert len(on_disk(tmp_path)) == 1 + total
                outcomes.append(scope.cancelled_caught)
                if not scope.cancel_called:
                    break
                if name == "old" and scope.cancelled_caught:
                    (old,), _ = await files.get_files(FileFilter(names=["old"]))
                    assert await content_of(files, old.id) == b"old"
            else:
                pytest.fail("the upload has more steps than were counted")
            assert number > 6
            await files.delete_files(FileFilter(names=["new"]), permanent=True)
    assert True in outcomes
    assert False in outcomes
    assert closed > 6


async def test_a_reader_that_is_cancelled_or_leaves_early_closes_its_file(tmp_path: Path) -> None:
    def open_files() -> int:
        return sum(
            str(tmp_path) in str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()
        )

    async with filesystem(tmp_path) as files:
        record = await put(files, content=b"x" * (3 * PIECE))
        before = open_files()
        async with files.open_file(record.id) as pieces:
            async for _ in pieces:
                assert open_files() == before + 1
                break
        with trio.CancelScope() as scope:
            async with files.open_file(record.id) as pieces:
                async for _ in pieces:
                    scope.cancel()
        assert scope.cancelled_caught
        assert open_files() == before


CRASH = """
import os, signal, sys, trio
from pathlib import Path
from tests.services.file_kit import filesystem, put

async def pieces():
    for _ in range(3):
        yield b"x" * 300_000
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with filesystem(Path(sys.argv[1])) as files:
        await put(files, "kept", b"kept")
        await put(files, "lost", pieces())

trio.run(main)
"""


async def test_what_a_crash_leaves_is_swept_and_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    with trio.fail_after(60):
        crashed = await trio.run_process([sys.executable, "-c", CRASH, str(tmp_path)], check=False, cwd=root)
    assert crashed.returncode == -signal.SIGKILL
    assert len(on_disk(tmp_path)) == 2
    stranger = tmp_path / "files" / "notes.txt"
    stranger.write_text("not ours")
    async with filesystem(tmp_path) as files:
        assert len(on_disk(tmp_path)) == 3
        (record,), total = await files.get_files(FileFilter())
        assert (record.name, total) == ("kept", 1)
        assert await content_of(files, record.id) == b"kept"
        assert len(on_disk(tmp_path)) == 2
    assert stranger.exists()


async def test_a_content_that_somebody_has_removed_or_cut_is_an_error_with_its_path(tmp_path: Path) -> None:
    async with filesystem(tmp_path) as files:
        cut = await put(files, "cut", b"x" * 100)
        path = Path(cut.storage_uri.removeprefix("file://"))
        path.chmod(0o600)
        os.truncate(path, 40)
        with pytest.raises(FilesystemServiceError, match="lacks its last 60 bytes"):
            await content_of(files, cut.id)
        path.unlink()
        with pytest.raises(FilesystemServiceError, match=f"is lost: {path.as_uri()}"):
            await files.get_file(cut.id, include_content=True)
        assert (await files.get_file(cut.id)).size_bytes == 100


@pytest.mark.parametrize("on_a_disk", [False, True])
async def test_in_a_storm_of_jobs_whoever_reads_reads_one_whole_content(tmp_path: Path, on_a_disk: bool) -> None:
    contents = [bytes([number]) * (PIECE + number) for number in range(3)]
    read = 0

    async def act(number: int) -> None:
        nonlocal read
        chance = random.Random(number)
        files = job(shared)
        for _ in range(25):
            name = chance.choice("abc")
            action = chance.choice(["put", "put", "read", "read", "delete", "rename", "update"])
            found, _ = await files.get_files(FileFilter(names=[name]))
            try:
                if action == "put":
                    await put(files, name, chance.choice(contents), replace_if_exists=True)
                elif action == "delete":
                    await files.delete_files(FileFilter(names=[name]), permanent=chance.random() < 0.8)
                elif found and action == "rename":
                    await files.update_file(found[0].id, new_name=chance.choice("abc"))
                elif found and action == "update":
                    await files.update_file(found[0].id, chance.choice(contents))
                elif found:
                    record = await files.get_file(found[0].id, include_content=True)
                    assert hashlib.sha256(record.content).hexdigest() == record.checksum
                    read += 1
            except (StoredFileNotFoundError, FileExistsInContextError):
                pass

    async with platform(tmp_path if on_a_disk else None) as shared:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(act, number)
        kept = [*(await job(shared).get_files(FileFilter()))[0]]
        kept += (await job(shared).get_files(FileFilter(status="DELETED")))[0]
        assert {await content_of(job(shared), record.id) for record in kept} <= set(contents)
        stored = on_disk(tmp_path) if on_a_disk else set(shared.files._contents._contents)
        assert stored == {record.storage_uri.rpartition("/")[2].removeprefix("memory:") for record in kept}
    assert read
