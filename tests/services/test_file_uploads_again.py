"""An upload that comes again under the same id, and files within a larger work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from dk_trio.errors import FileExistsInContextError, InvalidFileError
from dk_trio.services.filesystem import FileFilter

from .file_kit import DAY, REAL, file, on_disk, platform
from .test_database import rows

CONTEXT = "missions:m"
MAX = 1000


async def test_an_upload_that_comes_again_gives_the_file_that_is_there(autojump_clock: object) -> None:
    async with platform() as shared:
        files = shared.files
        first = await files.put(CONTEXT, file(), max_size=MAX, file_id="one")
        assert first.id == "files:one"

        async def never_read() -> AsyncIterator[bytes]:
            raise AssertionError
            yield b""

        assert await files.put(CONTEXT, file(content=never_read()), max_size=MAX, file_id="files:one") == first
        changed = await files.update(
            CONTEXT,
            "one",
            content=b"other",
            file_type=None,
            content_type=None,
            metadata=None,
            new_name="b.txt",
            status=None,
            max_size=MAX,
        )
        assert await files.put(CONTEXT, file(), max_size=MAX, file_id="one") == changed
        with pytest.raises(FileExistsInContextError, match=r"'b\.txt'"):
            await files.put(CONTEXT, file("b.txt"), max_size=MAX, file_id="two")
        with pytest.raises(FileExistsInContextError, match="outside of the context missions:other") as caught:
            await files.put("missions:other", file(), max_size=MAX, file_id="one")
        assert caught.value.violations[0].field == "file_id"
        with pytest.raises(InvalidFileError):
            await files.put(CONTEXT, file(), max_size=MAX, file_id="")


async def test_two_uploads_of_one_id_at_once_are_one_file(tmp_path: Path) -> None:
    with trio.fail_after(REAL):
        async with platform(tmp_path) as shared:
            both = trio.Event()
            arrived = 0
            records = []

            async def upload(content: bytes) -> None:
                async def pieces() -> AsyncIterator[bytes]:
                    nonlocal arrived
                    arrived += 1
                    both.set() if arrived == 2 else None
                    await both.wait()  # both have seen that there is no such file
                    yield content

                record = await shared.files.put(CONTEXT, file(content=pieces()), max_size=MAX, file_id="one")
                records.append(record)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(upload, b"first")
                nursery.start_soon(upload, b"second")
            assert records[0] == records[1]
            assert len(on_disk(tmp_path)) == 1  # the content that was not needed is gone, in the index too
            query = FileFilter()
            (deleted,) = (await shared.files.delete(CONTEXT, query, permanent=True, force=False)).deleted
            assert deleted == "files:one"
            assert on_disk(tmp_path) == set()
            assert await shared.database.read(rows("SELECT name FROM file_contents")) == []


async def test_files_are_deleted_within_a_larger_work(autojump_clock: object) -> None:
    with trio.fail_after(DAY):
        async with platform() as shared:
            files = shared.files
            await files.put(CONTEXT, file(), max_size=MAX)
            names = ["a.txt"]
            result, unused = await shared.database.write(
                lambda: files.delete_work(CONTEXT, FileFilter(names=names), permanent=True, force=False)
            )
            assert (len(result.deleted), len(unused)) == (1, 1)
            assert "1 contents" in repr(files)
            await files.remove_contents(unused)
            assert "0 contents" in repr(files)
