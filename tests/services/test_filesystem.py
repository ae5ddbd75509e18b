"""The filesystem service as an author uses it: uploads, contexts, names that are taken, updates, deletions."""

from __future__ import annotations

import hashlib
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
from dk_trio.services.filesystem import FileFilter, Filesystem
from dk_trio.services.stores import files as files_module
from dk_trio.services.stores.contents import PIECE

from .file_kit import content_of, file, filesystem, job, platform, put


async def test_a_file_is_read_back_as_it_was_uploaded(autojump_clock: object) -> None:
    async with filesystem() as files:
        _: Filesystem = files
        record = await put(files, "reports/a.txt", b"hello", content_type="text/plain", metadata={"pages": [1, None]})
        assert record.id.startswith("files:")
        assert (record.context, record.name, record.file_type) == ("missions:m", "reports/a.txt", "DOCUMENT")
        assert (record.content_type, record.status) == ("text/plain", "ACTIVE")
        assert record.size_bytes == 5
        assert record.checksum == hashlib.sha256(b"hello").hexdigest()
        assert record.metadata == {"pages": [1, None]}
        assert record.content is None
        assert record.storage_uri
        assert record.creation_date == record.update_date
        assert await files.get_file(record.id) == record
        assert await files.get_file(record.id.removeprefix("files:")) == record
        assert (await files.get_file(record.id, include_content=True)).content == b"hello"


async def test_types_and_statuses_are_taken_in_both_forms_and_returned_without_prefix(autojump_clock: object) -> None:
    async with filesystem() as files:
        record = await put(files, file_type="FILE_TYPE_IMAGE")
        assert record.file_type == "IMAGE"
        assert (await put(files, "b", file_type="IMAGE")).file_type == "IMAGE"
        record = await files.update_file(record.id, file_type="FILE_TYPE_CODE", status="FILE_STATUS_ARCHIVED")
        assert (record.file_type, record.status) == ("CODE", "ARCHIVED")
        found, _ = await files.get_files(FileFilter(file_types=["FILE_TYPE_CODE"], status="FILE_STATUS_ARCHIVED"))
        assert found == [record]
        with pytest.raises(InvalidFileError, match="UNSPECIFIED") as refused:
            await files.update_file(record.id, file_type="UNSPECIFIED")
        assert [violation.field for violation in refused.value.violations] == ["file_type"]
        with pytest.raises(InvalidFileError, match="GONE"):
            await files.update_file(record.id, status="GONE")


async def test_contents_may_be_empty_or_of_any_pieces(autojump_clock: object, tmp_path) -> None:
    async def pieces():
        yield b""
        yield b"a"
        yield bytearray(b"b" * (2 * PIECE + 1))
        yield memoryview(b"c" * PIECE)

    whole = b"a" + b"b" * (2 * PIECE + 1) + b"c" * PIECE
    path = tmp_path / "source"
    path.write_bytes(whole)
    async with filesystem() as files:
        assert (await put(files, "empty", b"")).size_bytes == 0
        for number, content in enumerate((whole, pieces(), path)):
            record = await put(files, str(number), content)
            assert (record.size_bytes, record.checksum) == (len(whole), hashlib.sha256(whole).hexdigest())
            assert await content_of(files, record.id) == whole


async def test_a_bytearray_may_be_resized_between_pieces(autojump_clock: object) -> None:
    async def pieces():
        buffer = bytearray()
        for number in range(3):
            buffer += b"%d" % number
            yield buffer
            buffer.clear()

    async with filesystem() as files:
        assert await content_of(files, (await put(files, content=pieces())).id) == b"012"


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


async def test_a_single_file_that_fails_raises(autojump_clock: object) -> None:
    async def broken():
        yield b"begun"
        raise OSError("the source has gone")

    async with filesystem() as files:
        with pytest.raises(OSError, match="the source has gone"):
            await put(files, "a", broken())
        with pytest.raises(InvalidFileError, match=r"files\[0\].name: '\.\./etc/passwd'"):
            await put(files, "../etc/passwd")
        assert await files.upload_files([]) == ([], 0, 0)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "files[0].name"),
        ({"content": b"12345678901"}, "files[0].content"),
        ({"content_type": "text/plain\r\nx: y"}, "files[0].content_type"),
        ({"content_type": "x" * 256}, "files[0].content_type"),
        ({"metadata": {"a": object()}}, "files[0].metadata"),
        ({"metadata": {"a": float("nan")}}, "files[0].metadata"),
        ({"metadata": {"a": "\ud800"}}, "files[0].metadata"),
        ({"metadata": {"a": "x" * 70_000}}, "files[0].metadata"),
    ],
)
async def test_what_is_refused_is_named(autojump_clock: object, values: dict, field: str) -> None:
    async with filesystem(max_file_size=10) as files:
        with pytest.raises(InvalidFileError) as refused:
            await put(files, **values)
        assert [violation.field for violation in refused.value.violations] == [field]
        assert field in refused.value.text
        assert (await files.get_files(FileFilter()))[1] == 0


async def test_a_source_is_not_read_when_the_name_is_taken_or_the_file_is_not_there(autojump_clock: object) -> None:
    async def untouched():
        raise AssertionError
        yield b""

    async with filesystem() as files:
        await put(files)
        with pytest.raises(FileExistsInContextError):
            await put(files, content=untouched())
        with pytest.raises(StoredFileNotFoundError):
            await files.update_file("files:none", content=untouched())


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


async def test_mission_and_setup_are_separate(autojump_clock: object) -> None:
    async with platform() as shared:
        files = job(shared)
        of_mission = await put(files, content=b"mission")
        of_setup = await put(files, content=b"setup", context="setup")
        assert (of_mission.context, of_setup.context) == ("missions:m", "setups:s")
        with pytest.raises(StoredFileNotFoundError, match="context missions:m"):
            await files.get_file(of_setup.id)
        assert await content_of(files, of_setup.id, "setup") == b"setup"
        assert (await files.get_files(FileFilter()))[0] == [of_mission]
        assert (await files.get_files(FileFilter(context="setup")))[0] == [of_setup]
        await files.update_file(of_setup.id, new_name="b", context="setup")
        assert (await files.delete_files(FileFilter(context="setup"), permanent=True)).n_ok == 1
        assert await content_of(files, of_mission.id) == b"mission"
        with pytest.raises(InvalidFileError, match="neither mission nor setup"):
            await files.get_file(of_mission.id, context="missions:m")


async def test_jobs_see_the_files_of_their_mission_and_setup_and_no_others(autojump_clock: object) -> None:
    async with platform() as shared:
        one, same, other = job(shared), job(shared, "m", "s"), job(shared, "missions:n", "setups:s")
        record = await put(one)
        in_setup = await put(one, context="setup")
        assert await same.get_file(record.id) == record
        assert await other.get_file(in_setup.id, "setup") == in_setup
        with pytest.raises(StoredFileNotFoundError):
            await other.get_file(record.id)
        assert (await other.delete_files(FileFilter(file_ids=[record.id]))).deleted == {record.id: False}
        await put(other)  # the name is not taken there


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


async def test_a_replaced_file_keeps_its_id_and_who_reads_it_reads_on(autojump_clock: object) -> None:
    async with filesystem() as files:
        old = await put(files, content=b"x" * (PIECE + 1))
        async with files.open_file(old.id) as pieces:
            new = await put(files, content=b"new", replace_if_exists=True, file_type="CODE")
            assert sum([len(piece) async for piece in pieces]) == PIECE + 1
        assert (new.id, new.file_type, new.creation_date) == (old.id, "CODE", old.creation_date)
        assert await content_of(files, old.id) == b"new"
        with pytest.raises(FileExistsInContextError, match=r"'a\.txt' is in the context missions:m already"):
            await put(files)


async def test_an_update_changes_what_is_given(autojump_clock: object) -> None:
    async with filesystem() as files:
        old = await put(files, metadata={"a": 1})
        renamed = await files.update_file(old.id, new_name="b.txt")
        assert renamed == old.model_copy(update={"name": "b.txt", "update_date": renamed.update_date})
        assert await content_of(files, old.id) == b"content"
        changed = await files.update_file(old.id, b"other", content_type="a/b", metadata={"c": 2})
        assert changed == await files.get_file(old.id)
        assert (changed.size_bytes, changed.checksum) == (5, hashlib.sha256(b"other").hexdigest())
        assert (changed.content_type, changed.metadata, changed.name) == ("a/b", {"c": 2}, "b.txt")
        assert (await files.get_file(old.id, include_content=True)).content == b"other"
        await put(files, "a.txt")
        with pytest.raises(FileExistsInContextError):
            await files.update_file(old.id, b"third", new_name="a.txt")
        with pytest.raises(InvalidFileError, match="new_name"):
            await files.update_file(old.id, new_name="a/../b")
        assert await files.get_file(old.id) == changed


async def test_a_deleted_file_is_kept_out_of_sight_and_gives_its_name_free(autojump_clock: object) -> None:
    async with filesystem() as files:
        old = await put(files)
        deleted, n_ok, n_failed = await files.delete_files(FileFilter(names=["a.txt"]))
        assert (deleted, n_ok, n_failed) == ({old.id: True}, 1, 0)
        assert await files.get_files(FileFilter()) == ([], 0)
        found, total = await files.get_files(FileFilter(status="DELETED"))
        assert ([record.id for record in found], total) == ([old.id], 1)
        assert (await files.get_file(old.id)).status == "DELETED"
        new = await put(files)
        with pytest.raises(FileExistsInContextError):
            await files.update_file(old.id, status="ACTIVE")
        await files.update_file(old.id, status="ACTIVE", new_name="b.txt")
        assert [record.id for record in (await files.get_files(FileFilter()))[0]] == [old.id, new.id]


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


async def test_files_in_use_are_deleted_by_force_only(autojump_clock: object) -> None:
    async with filesystem() as files:
        record = await put(files)
        await files.update_file(record.id, status="PROCESSING")
        result = await files.delete_files(FileFilter(), permanent=True)
        assert (result.deleted, result.n_failed) == ({record.id: False}, 1)
        assert "PROCESSING" in str(result.failures[record.id])
        assert (await files.delete_files(FileFilter(), force=True)).deleted == {record.id: True}


async def test_an_id_that_is_not_deleted_is_told(autojump_clock: object) -> None:
    async with filesystem() as files:
        record = await put(files)
        result = await files.delete_files(FileFilter(file_ids=["gone", record.id], min_size_bytes=1000))
        assert result.deleted == {"files:gone": False, record.id: False}
        assert isinstance(result.failures["files:gone"], StoredFileNotFoundError)


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
