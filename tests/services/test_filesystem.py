"""The filesystem service as an author uses it: uploads, contexts, names that are taken, updates, deletions."""

from __future__ import annotations

import logging

import pytest
import trio
from pydantic import ValidationError

from dk_trio.errors import (
    FileExistsInContextError,
    FilesystemServiceError,
    InvalidFileError,
    StoredFileNotFoundError,
)
from dk_trio.services.filesystem import FileFilter
from dk_trio.services.stores import files as files_module

from .file_kit import content_of, file, filesystem, job, platform, put


@pytest.mark.parametrize("content", ["text", 5, None, [b"a"]])
def test_what_is_no_content_is_refused_when_the_upload_is_made(content: object) -> None:
    with pytest.raises(ValidationError, match="content is bytes, a path object or an async iterable"):
        file(content=content)


def test_a_misspelt_condition_is_refused() -> None:
    with pytest.raises(ValidationError, match="file_id"):
        FileFilter(file_id=["files:a"])


# --- failures --------------------------------------------------------------------------------------------------------


async def test_of_several_files_those_that_can_be_stored_are_and_the_others_say_why(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken():
        yield b"begun"
        raise OSError("the source has gone")

    uploads = [file("a"), file("../b"), file("c", broken()), file("a"), file("d", trio.Path("/nowhere/at/all"))]
    async with filesystem() as files:
        result = await files.upload_files([*uploads, file("e")])
        records, n_ok, n_failed = result
        assert ([record.name for record in records], n_ok, n_failed) == (["a", "e"], 2, 4)
        kinds = [(failure.index, failure.name, type(failure.error)) for failure in result.failures]
        assert kinds == [
            (1, "../b", InvalidFileError),
            (2, "c", OSError),
            (3, "a", FileExistsInContextError),
            (4, "d", FilesystemServiceError),
        ]
        assert result.failures[0].error.violations[0].field == "files[1].name"
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 4
        assert (await files.get_files(FileFilter()))[1] == 2


async def test_memory_is_bounded(autojump_clock: object) -> None:
    async with platform() as shared:
        files = job(shared)
        shared.files._contents._limit = 10
        await put(files, "a", b"123456")
        with pytest.raises(FilesystemServiceError, match="10 bytes together") as refused:
            await put(files, "b", b"123456")
        assert "DIGITALKIN_DATA_DIR" in refused.value.hint
        await put(files, "a", b"654321"[:4], replace_if_exists=True)
        await put(files, "b", b"abcdef")


async def test_contents_that_do_not_fit_into_one_answer_are_refused(autojump_clock: object, monkeypatch) -> None:
    async with filesystem() as files:
        records = [await put(files, name, name.encode() * 6) for name in "ab"]
        monkeypatch.setattr(files_module, "INLINE_MAX", 10)
        found, _ = await files.get_files(FileFilter(names=["a"]), include_content=True)
        assert [record.content for record in found] == [b"aaaaaa"]
        with pytest.raises(FilesystemServiceError, match="does not fit") as refused:
            await files.get_files(FileFilter(), include_content=True)
        assert "open_file" in refused.value.hint
        assert await content_of(files, records[1].id) == b"bbbbbb"


# --- contexts and jobs -----------------------------------------------------------------------------------------------


async def test_of_many_who_upload_one_name_one_wins(autojump_clock: object) -> None:
    won = []

    async def upload(number: int) -> None:
        try:
            won.append(await put(job(shared), content=b"%d" % number))
        except FileExistsInContextError:
            lost.append(number)

    lost: list[int] = []
    async with platform() as shared:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(upload, number)
        assert (len(won), len(lost)) == (1, 9)
        assert len(shared.files._contents._contents) == 1


# --- changes ---------------------------------------------------------------------------------------------------------


async def test_a_permanent_deletion_takes_deleted_files_too(autojump_clock: object) -> None:
    async with platform() as shared:
        files = job(shared)
        old = await put(files)
        await files.delete_files(FileFilter())
        assert await content_of(files, old.id) == b"content"
        assert (await files.delete_files(FileFilter(file_ids=[old.id]), permanent=True)).n_ok == 1
        with pytest.raises(StoredFileNotFoundError):
            await files.get_file(old.id)
        assert not shared.files._contents._contents


async def test_a_list_of_nothing_deletes_nothing(autojump_clock: object) -> None:
    async with filesystem() as files:
        await put(files)
        for filters in (FileFilter(file_ids=[]), FileFilter(names=[]), FileFilter(file_types=[])):
            assert await files.delete_files(filters) == ({}, 0, 0)
        assert (await files.get_files(FileFilter()))[1] == 1


async def test_one_content_is_stored_once_and_goes_with_its_last_file(autojump_clock: object) -> None:
    async with platform() as shared:
        files, other = job(shared), job(shared, "missions:n")
        records = [await put(files, "a"), await put(files, "b"), await put(files, "c", context="setup")]
        stored = shared.files._contents._contents
        elsewhere = await put(other)
        assert len(stored) == 1
        assert len({record.storage_uri for record in records}) == 1
        await files.delete_files(FileFilter(), permanent=True)
        await files.update_file(records[2].id, b"other", context="setup")
        assert len(stored) == 2
        assert await content_of(other, elsewhere.id) == b"content"
        await other.delete_files(FileFilter(), permanent=True)
        assert len(stored) == 1


async def test_health_is_that_of_the_store(autojump_clock: object) -> None:
    async with platform() as shared:
        await job(shared).check_health()
        shared.files._contents._limit = 0
        with pytest.raises(FilesystemServiceError):
            await job(shared).check_health()
