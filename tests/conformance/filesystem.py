"""What a filesystem promises."""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.const import Status
from tests.services.file_kit import content_of, file, put

from dk_trio.errors import (
    FileExistsInContextError,
    FilesystemServiceError,
    InvalidFileError,
    StoredFileNotFoundError,
)
from dk_trio.services.filesystem import FileFilter
from dk_trio.services.stores.contents import PIECE

from .kit import LOCAL, REMOTE, Jobs, cases, only, real_files


async def test_a_file_is_read_back_as_it_was_uploaded(jobs: Jobs) -> None:
    files = jobs.files()
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


async def test_types_and_statuses_are_taken_in_both_forms_and_returned_without_prefix(jobs: Jobs) -> None:
    files = jobs.files()
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


@real_files
async def test_contents_may_be_empty_or_of_any_pieces(jobs: Jobs) -> None:
    async def pieces():
        yield b""
        yield b"a"
        yield bytearray(b"b" * (2 * PIECE + 1))
        yield memoryview(b"c" * PIECE)

    whole = b"a" + b"b" * (2 * PIECE + 1) + b"c" * PIECE
    files = jobs.files()
    assert (await put(files, "empty", b"")).size_bytes == 0
    with tempfile.NamedTemporaryFile() as source:
        source.write(whole)
        source.flush()
        for number, content in enumerate((whole, pieces(), Path(source.name), trio.Path(source.name))):
            record = await put(files, str(number), content)
            assert (record.size_bytes, record.checksum) == (len(whole), hashlib.sha256(whole).hexdigest())
            assert await content_of(files, record.id) == whole


async def test_a_bytearray_may_be_resized_between_pieces(jobs: Jobs) -> None:
    async def pieces():
        buffer = bytearray()
        for number in range(3):
            buffer += b"%d" % number
            yield buffer
            buffer.clear()

    files = jobs.files()
    assert await content_of(files, (await put(files, content=pieces())).id) == b"012"


@real_files
async def test_of_several_files_those_that_can_be_stored_are_and_the_others_say_why(jobs: Jobs) -> None:
    async def broken():
        yield b"begun"
        raise OSError("the source has gone")

    uploads = [file("a"), file("../b"), file("c", broken()), file("a"), file("d", trio.Path("/nowhere/at/all"))]
    files = jobs.files()
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
    assert (await files.get_files(FileFilter()))[1] == 2


async def test_a_single_file_that_fails_raises(jobs: Jobs) -> None:
    async def broken():
        yield b"begun"
        raise OSError("the source has gone")

    files = jobs.files()
    with pytest.raises(OSError, match="the source has gone"):
        await put(files, "a", broken())
    with pytest.raises(InvalidFileError, match=r"files\[0\].name: '\.\./etc/passwd'"):
        await put(files, "../etc/passwd")
    assert await files.upload_files([]) == ([], 0, 0)


@cases(
    ({"name": ""}, "files[0].name"),
    ({"content": b"12345678901"}, "files[0].content"),
    ({"content_type": "text/plain\r\nx: y"}, "files[0].content_type"),
    ({"content_type": "x" * 256}, "files[0].content_type"),
    ({"metadata": {"a": object()}}, "files[0].metadata"),
    ({"metadata": {"a": float("nan")}}, "files[0].metadata"),
    ({"metadata": {"a": "\ud800"}}, "files[0].metadata"),
    ({"metadata": {"a": "x" * 70_000}}, "files[0].metadata"),
)
async def test_what_is_refused_is_named(jobs: Jobs, values: dict, field: str) -> None:
    files = jobs.files(max_file_size=10)
    with pytest.raises(InvalidFileError) as refused:
        await put(files, **values)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert field in refused.value.text
    assert (await files.get_files(FileFilter()))[1] == 0


async def test_a_source_is_not_read_when_the_name_is_taken_or_the_file_is_not_there(jobs: Jobs) -> None:
    async def untouched():
        raise AssertionError
        yield b""

    files = jobs.files()
    await put(files)
    with pytest.raises(FileExistsInContextError):
        await put(files, content=untouched())
    with pytest.raises(StoredFileNotFoundError):
        await files.update_file("files:none", content=untouched())


async def test_mission_and_setup_are_separate(jobs: Jobs) -> None:
    files = jobs.files()
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


async def test_jobs_see_the_files_of_their_mission_and_setup_and_no_others(jobs: Jobs) -> None:
    one, same, other = jobs.files(), jobs.files("m", "s"), jobs.files("missions:n", "setups:s")
    record = await put(one)
    in_setup = await put(one, context="setup")
    assert await same.get_file(record.id) == record
    assert await other.get_file(in_setup.id, "setup") == in_setup
    with pytest.raises(StoredFileNotFoundError):
        await other.get_file(record.id)
    assert (await other.delete_files(FileFilter(file_ids=[record.id]))).deleted == {record.id: False}
    await put(other)  # the name is not taken there


async def test_of_many_who_upload_one_name_one_wins(jobs: Jobs) -> None:
    won = []

    async def upload(number: int) -> None:
        try:
            won.append(await put(jobs.files(), content=b"%d" % number))
        except FileExistsInContextError:
            lost.append(number)

    lost: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(upload, number)
    assert (len(won), len(lost)) == (1, 9)


async def test_a_replaced_file_keeps_its_id_and_who_reads_it_reads_on(jobs: Jobs) -> None:
    files = jobs.files()
    old = await put(files, content=b"x" * (PIECE + 1))
    async with files.open_file(old.id) as pieces:
        new = await put(files, content=b"new", replace_if_exists=True, file_type="CODE")
        assert sum([len(piece) async for piece in pieces]) == PIECE + 1
    assert (new.id, new.file_type, new.creation_date) == (old.id, "CODE", old.creation_date)
    assert await content_of(files, old.id) == b"new"
    with pytest.raises(FileExistsInContextError, match=r"'a\.txt' is in the context missions:m already"):
        await put(files)


async def test_an_update_changes_what_is_given(jobs: Jobs) -> None:
    files = jobs.files()
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


async def test_a_deleted_file_is_kept_out_of_sight_and_gives_its_name_free(jobs: Jobs) -> None:
    files = jobs.files()
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


async def test_a_permanent_deletion_takes_deleted_files_too(jobs: Jobs) -> None:
    files = jobs.files()
    old = await put(files)
    await files.delete_files(FileFilter())
    assert await content_of(files, old.id) == b"content"
    assert (await files.delete_files(FileFilter(file_ids=[old.id]), permanent=True)).n_ok == 1
    with pytest.raises(StoredFileNotFoundError):
        await files.get_file(old.id)


async def test_files_in_use_are_deleted_by_force_only(jobs: Jobs) -> None:
    files = jobs.files()
    record = await put(files)
    await files.update_file(record.id, status="PROCESSING")
    result = await files.delete_files(FileFilter(), permanent=True)
    assert (result.deleted, result.n_failed) == ({record.id: False}, 1)
    assert "PROCESSING" in str(result.failures[record.id])
    assert (await files.delete_files(FileFilter(), force=True)).deleted == {record.id: True}


async def test_an_id_that_is_not_deleted_is_told(jobs: Jobs) -> None:
    files = jobs.files()
    record = await put(files)
    result = await files.delete_files(FileFilter(file_ids=["gone", record.id], min_size_bytes=1000))
    assert result.deleted == {"files:gone": False, record.id: False}
    assert isinstance(result.failures["files:gone"], StoredFileNotFoundError)


async def test_pages_come_with_contents_when_they_are_asked_for(jobs: Jobs) -> None:
    files = jobs.files()
    for name in "abc":
        await put(files, name, name.encode())
    found, total = await files.get_files(FileFilter(), 2, 1, "name desc", include_content=True)
    assert ([record.content for record in found], total) == ([b"b", b"a"], 3)


@cases(
    ({"list_size": 0}, {}, "list_size"),
    ({"list_size": 1001}, {}, "list_size"),
    ({"offset": -1}, {}, "offset"),
    ({"offset": 2**63}, {}, "offset"),
    ({"order": "seq; DROP TABLE files"}, {}, "order"),
    ({"order": "name desc, size_bytes"}, {}, "order"),
    ({}, {"prefix": "a/../b"}, "filters.prefix"),
    ({}, {"prefix": "\ud800"}, "filters.prefix"),
    ({}, {"names": ["a", "\ud800"]}, "filters.names[1]"),
    ({}, {"file_ids": ["\ud800"]}, "filters.file_ids[0]"),
    ({}, {"names": ["a"] * 1001}, "filters.names"),
    ({}, {"content_type": "\ud800"}, "filters.content_type"),
)
async def test_what_is_no_filter_page_or_order_is_refused(jobs: Jobs, call, values, field) -> None:
    files = jobs.files()
    with pytest.raises(InvalidFileError) as refused:
        await files.get_files(FileFilter(**values), **call)
    assert [violation.field for violation in refused.value.violations] == [field]
    if values:
        with pytest.raises(InvalidFileError):
            await files.delete_files(FileFilter(**values))


async def test_texts_with_quotes_and_zeros_are_only_texts(jobs: Jobs) -> None:
    files = jobs.files()
    await put(files, "it's")
    for name in ("it's", "' OR 1=1 --", "it's\x00", "IT'S"):
        found, total = await files.get_files(FileFilter(names=[name]))
        assert (len(found), total) == ((1, 1) if name == "it's" else (0, 0))
    for prefix in ("it'", "it\x00", "it'\x00"):
        assert (await files.get_files(FileFilter(prefix=prefix)))[1] == (prefix == "it'")


async def moments() -> tuple[datetime, datetime]:
    """Around now: a store tells dates to the microsecond."""
    return datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)


async def test_dates_are_conditions(jobs: Jobs) -> None:
    files = jobs.files()
    record = await put(files)
    before, after = await moments()
    for condition, found in (
        ({"created_after": before, "created_before": after}, 1),
        ({"updated_after": before.replace(tzinfo=None), "updated_before": after}, 1),
        ({"created_after": after}, 0),
        ({"updated_before": before}, 0),
    ):
        assert (await files.get_files(FileFilter(**condition)))[1] == found
    assert [file.id for file in (await files.get_files(FileFilter(created_after=before)))[0]] == [record.id]


@only(LOCAL, "A record has dates. The contract has none for files, so a provider tells none.")
async def test_a_record_has_dates(jobs: Jobs) -> None:
    record = await put(jobs.files())
    assert record.creation_date == record.update_date
    changed = await jobs.files().update_file(record.id, new_name="b")
    assert changed.creation_date == record.creation_date
    assert changed.update_date > record.update_date


@only(REMOTE, "A record of a file has no dates.")
async def test_a_record_has_no_dates(jobs: Jobs) -> None:
    record = await put(jobs.files())
    assert (record.creation_date, record.update_date) == (None, None)


@only(LOCAL, "A content can be replaced by an empty one. In the contract that is no change, and is refused.")
async def test_a_file_can_be_emptied(jobs: Jobs) -> None:
    record = await put(jobs.files())
    assert (await jobs.files().update_file(record.id, b"")).size_bytes == 0


@only(REMOTE, "An update with an empty content is refused.")
async def test_an_empty_new_content_is_refused(jobs: Jobs) -> None:
    record = await put(jobs.files())
    with pytest.raises(InvalidFileError) as refused:
        await jobs.files().update_file(record.id, b"")
    assert [violation.field for violation in refused.value.violations] == ["content"]
    assert await content_of(jobs.files(), record.id) == b"content"


@only(LOCAL, "max_size_bytes may be 0. In the contract that is no condition, and is refused.")
async def test_empty_files_are_found_by_their_size(jobs: Jobs) -> None:
    await put(jobs.files())
    empty = await put(jobs.files(), "empty", b"")
    assert (await jobs.files().get_files(FileFilter(max_size_bytes=0)))[0] == [empty]


@only(REMOTE, "A filter with max_size_bytes 0 is refused.")
async def test_no_size_at_all_is_refused_as_a_condition(jobs: Jobs) -> None:
    await put(jobs.files())
    for call in (jobs.files().get_files, jobs.files().delete_files):
        with pytest.raises(InvalidFileError) as refused:
            await call(FileFilter(max_size_bytes=0))
        assert [violation.field for violation in refused.value.violations] == ["filters.max_size_bytes"]
    assert (await jobs.files().get_files(FileFilter()))[1] == 1


@cases(
    ({"names": []},),
    ({"file_ids": []},),
    ({"file_types": []},),
    ({"content_type": ""},),
    ({"names": [], "file_ids": ["files:x"]},),
)
async def test_what_can_match_nothing_deletes_nothing(jobs: Jobs, condition: dict[str, Any]) -> None:
    files = jobs.files()
    await put(files)
    assert await files.get_files(FileFilter(**condition)) == ([], 0)
    result = await files.delete_files(FileFilter(**condition), permanent=True)
    assert result.deleted == dict.fromkeys(condition.get("file_ids", ()), False)
    assert (await files.get_files(FileFilter()))[1] == 1


@cases(
    ({"names": ["b/two.png", "none"]}, ["b/two.png"]),
    ({"file_types": ["IMAGE"]}, ["b/two.png"]),
    ({"content_type_prefix": "text/"}, ["a.txt", "c"]),
    ({"content_type": "text/plain"}, ["a.txt"]),
    ({"min_size_bytes": 2}, ["b/two.png", "c"]),
    ({"max_size_bytes": 2}, ["a.txt", "b/two.png"]),
    ({"prefix": "b/"}, ["b/two.png"]),
    ({"prefix": "", "content_type_prefix": "", "min_size_bytes": 0}, ["a.txt", "b/two.png", "c"]),
    ({"status": "ARCHIVED"}, ["c"]),
    ({"status": "ACTIVE"}, ["a.txt", "b/two.png"]),
)
async def test_a_condition_finds_what_it_says(jobs: Jobs, condition: dict[str, Any], names: list[str]) -> None:
    files = jobs.files()
    await put(files, "a.txt", b"1", content_type="text/plain")
    await put(files, "b/two.png", b"22", content_type="image/png", file_type="IMAGE")
    third = await put(files, "c", b"333", content_type="text/html")
    await files.update_file(third.id, status="ARCHIVED")
    found, total = await files.get_files(FileFilter(**condition))
    assert ([record.name for record in found], total) == (names, len(names))


@cases(
    ("name", "abc"), ("name desc", "cba"), ("size_bytes", "cab"), ("size_bytes DESC", "bac"), (None, "bca"), ("", "bca")
)
async def test_files_come_in_the_order_that_is_asked_for(jobs: Jobs, order: str | None, names: str) -> None:
    files = jobs.files()
    for name, size in (("b", 3), ("c", 1), ("a", 2)):
        await put(files, name, b"x" * size)
    found, _ = await files.get_files(FileFilter(), order=order)
    assert "".join(record.name for record in found) == names
    found, total = await files.get_files(FileFilter(), 1, 1, order)
    assert ("".join(record.name for record in found), total) == (names[1], 3)
    assert await files.get_files(FileFilter(), 10, 2**40, order) == ([], 3)


@cases(
    ({"pages": [1, None, 2.5], "deep": {"a": {"b": []}}},),
    ({},),
    ({"n": 2**53, "text": "\U0001f980"},),
)
async def test_metadata_come_back_as_they_were(jobs: Jobs, metadata: dict[str, Any]) -> None:
    files = jobs.files()
    record = await put(files, metadata=metadata)
    assert record.metadata == metadata
    assert (await files.get_file(record.id)).metadata == metadata
    assert (await put(files, "none")).metadata is None


async def test_bytes_of_any_value_come_back(jobs: Jobs) -> None:
    whole = bytes(range(256)) * 5000
    record = await put(jobs.files(), content=whole)
    assert await content_of(jobs.files(), record.id) == whole
    assert (await jobs.files().get_file(record.id, include_content=True)).content == whole


async def test_statuses_of_errors_are_those_that_a_caller_gets(jobs: Jobs) -> None:
    files = jobs.files()
    await put(files)
    with pytest.raises(FileExistsInContextError) as exists:
        await put(files)
    assert exists.value.status is Status.ALREADY_EXISTS
    assert [violation.field for violation in exists.value.violations] == ["files[0].name"]
    with pytest.raises(StoredFileNotFoundError) as missing:
        await files.get_file("files:none")
    assert missing.value.status is Status.NOT_FOUND
    assert [violation.field for violation in missing.value.violations] == ["file_id"]
    with pytest.raises(StoredFileNotFoundError):
        await files.update_file("none", new_name="b")
    with pytest.raises(StoredFileNotFoundError):
        await content_of(files, "none")


async def test_health_leaves_no_file(jobs: Jobs) -> None:
    files: Any = jobs.files()
    await files.check_health()
    assert await files.get_files(FileFilter()) == ([], 0)
    await files.close()


@cases((0,), (-1,), ("much",))
async def test_a_size_that_is_none_is_refused(jobs: Jobs, size: Any) -> None:
    with pytest.raises(InvalidFileError, match="max_file_size"):
        jobs.files(max_file_size=size)
