"""FilesystemService of the provider."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    DeleteFilesRequest,
    FileFilter,
    FileStatus,
    FilesystemServiceStub,
    FileType,
    GetFileRequest,
    GetFilesRequest,
    UpdateFileRequest,
    UploadFileData,
    UploadFilesRequest,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import _large

from .calls import keyed, told
from .kit import Provided, provided

M = "missions:m"


def file(name: str = "a.txt", content: bytes = b"hello", **fields: Any) -> UploadFileData:
    given = {
        "context": M,
        "file_type": FileType.DOCUMENT,
        "content_type": "text/plain",
        "status": FileStatus.UPLOADING,
        "metadata": Struct.from_dict({"n": 1.0}),
    } | fields
    return UploadFileData(name=name, content=content, **given)


def stub(peer: Provided) -> Any:
    return FilesystemServiceStub(peer.channel)


async def uploaded(peer: Provided, *files: UploadFileData, **call: Any) -> list[Any]:
    reply = await stub(peer).upload_files(UploadFilesRequest(files=list(files)), **call)
    assert reply.total_failed == 0, reply
    return [result.file for result in reply.results]


async def found(peer: Provided, **wanted: Any) -> list[str]:
    filters = FileFilter(context=M, **wanted)
    reply = await stub(peer).get_files(GetFilesRequest(context=M, filters=filters, list_size=1000))
    assert reply.total_count == len(reply.files)
    return [row.name for row in reply.files]


async def refused(call: Any) -> tuple[Status, str, dict[str, str]]:
    with pytest.raises(GRPCError) as caught:
        await call
    return told(caught.value)


async def test_a_file_comes_back_as_it_was(autojump_clock: Any) -> None:
    async with provided() as peer:
        (stored,) = await uploaded(peer, file())
        assert stored.file_id.startswith("files:")
        assert (stored.name, stored.context, stored.size_bytes) == ("a.txt", M, 5)
        assert stored.checksum == hashlib.sha256(b"hello").hexdigest()
        assert stored.status is FileStatus.ACTIVE  # it is whole: nobody uploads it any more
        assert stored.metadata.to_dict() == {"n": 1.0}
        assert stored.storage_uri
        assert stored.file_url
        assert stored.content == b""
        reply = await stub(peer).get_file(GetFileRequest(context=M, file_id=stored.file_id))
        assert reply.file == stored
        reply = await stub(peer).get_file(GetFileRequest(context=M, file_id=stored.file_id, include_content=True))
        assert reply.file.content == reply.content == b"hello"
        bare = stored.file_id.removeprefix("files:")
        assert (await stub(peer).get_file(GetFileRequest(context=M, file_id=bare))).file == stored


async def test_a_bad_file_does_not_keep_others_from_being_stored(autojump_clock: Any) -> None:
    async with provided() as peer:
        files = [
            file("good.txt"),
            file("../bad"),
            file("good.txt", b"again"),
            file("typed", file_type=FileType(99)),
            file("gone", status=FileStatus.DELETED),
            file("nan", metadata=Struct.from_dict({"n": float("nan")})),
            file("empty", b""),
        ]
        reply = await stub(peer).upload_files(UploadFilesRequest(files=files))
        assert (reply.total_uploaded, reply.total_failed) == (2, 5)
        errors = [result.error for result in reply.results]
        assert errors[0] is errors[6] is None
        assert errors[1].startswith("INVALID_FILE: files[1].name")
        assert errors[2].startswith("FILE_EXISTS: ")
        assert errors[3].startswith("INVALID_REQUEST: files[3].file_type")
        assert errors[4].startswith("INVALID_REQUEST: files[4].status")
        assert errors[5].startswith("INVALID_FILE: files[5].metadata")
        assert await found(peer) == ["good.txt", "empty"]


async def test_a_file_may_be_replaced(autojump_clock: Any) -> None:
    async with provided() as peer:
        (old,) = await uploaded(peer, file())
        (new,) = await uploaded(peer, file(content=b"other", replace_if_exists=True))
        assert new.file_id == old.file_id
        assert new.checksum == hashlib.sha256(b"other").hexdigest()


async def test_files_of_one_context_are_not_found_in_another(autojump_clock: Any) -> None:
    async with provided() as peer:
        (stored,) = await uploaded(peer, file())
        await uploaded(peer, file(context="setups:s"), file(context="default"), file("b", context=""))
        status, reason, fields = await refused(
            stub(peer).get_file(GetFileRequest(context="missions:other", file_id=stored.file_id))
        )
        assert (status, reason) == (Status.NOT_FOUND, "FILE_NOT_FOUND")
        assert stored.file_id in fields["file_id"]
        assert await found(peer) == ["a.txt"]
        reply = await stub(peer).get_files(GetFilesRequest(filters=FileFilter(), list_size=9))
        assert [(row.context, row.name) for row in reply.files] == [("default", "a.txt"), ("default", "b")]


async def test_filters(autojump_clock: Any) -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    async with provided() as peer:
        a, _, _ = await uploaded(
            peer,
            file("a.txt", b"1"),
            file("dir/b.png", b"12", file_type=FileType.IMAGE, content_type="image/png"),
            file("dir/c.jpg", b"123", file_type=FileType.IMAGE, content_type="image/jpeg", status=FileStatus.ARCHIVED),
        )
        assert await found(peer) == ["a.txt", "dir/b.png", "dir/c.jpg"]
        assert await found(peer, names=["a.txt", "none"]) == ["a.txt"]
        assert await found(peer, file_ids=[a.file_id]) == ["a.txt"]
        assert await found(peer, file_types=[FileType.IMAGE]) == ["dir/b.png", "dir/c.jpg"]
        assert await found(peer, content_type_prefix="image/") == ["dir/b.png", "dir/c.jpg"]
        assert await found(peer, content_type="image/png") == ["dir/b.png"]
        assert await found(peer, prefix="dir/") == ["dir/b.png", "dir/c.jpg"]
        assert await found(peer, min_size_bytes=2, max_size_bytes=2) == ["dir/b.png"]
        assert await found(peer, status=FileStatus.ARCHIVED) == ["dir/c.jpg"]
        assert await found(peer, created_after=now - hour, updated_before=now + hour) == await found(peer)
        assert await found(peer, created_before=now - hour) == await found(peer, updated_after=now + hour) == []


async def test_pages_and_orders(autojump_clock: Any) -> None:
    async with provided() as peer:
        await uploaded(peer, *(file(f"{number:03}", b"x" * (number + 1)) for number in range(120)))

        async def page(**fields: Any) -> tuple[list[str], int]:
            request = GetFilesRequest(context=M, filters=FileFilter(context=M), **fields)
            reply = await stub(peer).get_files(request)
            return [row.name for row in reply.files], reply.total_count

        assert await page() == ([f"{number:03}" for number in range(100)], 120)
        assert await page(list_size=2, offset=119) == (["119"], 120)
        assert await page(list_size=2, order="size_bytes desc") == (["119", "118"], 120)
        assert (await page(list_size=5000))[1] == 120
        for bad in ({"list_size": -1}, {"offset": -1}, {"order": "price"}):
            status, _, fields = await refused(
                stub(peer).get_files(GetFilesRequest(context=M, filters=FileFilter(context=M), **bad))
            )
            assert status is Status.INVALID_ARGUMENT
            assert set(fields) == set(bad)
        for bad in ({"min_size_bytes": -1}, {"status": FileStatus(77)}, {"file_types": [FileType(77)]}):
            status, _, fields = await refused(
                stub(peer).get_files(GetFilesRequest(context=M, filters=FileFilter(context=M, **bad)))
            )
            assert status is Status.INVALID_ARGUMENT
            assert next(iter(fields)).startswith(f"filters.{next(iter(bad))}")


async def test_contents_of_a_page_fit_into_one_message(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with provided() as peer:
        stored = await uploaded(peer, *(file(str(number), b"x" * 30_000) for number in range(4)))
        request = GetFilesRequest(context=M, filters=FileFilter(context=M), include_content=True)
        reply = await stub(peer).get_files(request)
        assert [row.content for row in reply.files] == [b"x" * 30_000] * 4
        monkeypatch.setattr(_large, "MESSAGE_MAX", 100_000)
        status, reason, _ = await refused(stub(peer).get_files(request))
        assert (status, reason) == (Status.FAILED_PRECONDITION, "REPLY_TOO_LARGE")
        request.list_size = 3
        assert len((await stub(peer).get_files(request)).files) == 3
        one = GetFileRequest(context=M, file_id=stored[0].file_id, include_content=True)
        monkeypatch.setattr(_large, "MESSAGE_MAX", 50_000)
        reply = await stub(peer).get_file(one)
        assert reply.file.content == b"x" * 30_000
        assert reply.content == b""  # no room for it twice
        monkeypatch.setattr(_large, "MESSAGE_MAX", 20_000)
        status, reason, _ = await refused(stub(peer).get_file(one))
        assert (status, reason) == (Status.FAILED_PRECONDITION, "REPLY_TOO_LARGE")


async def test_an_update_changes_what_is_set(autojump_clock: Any) -> None:
    async with provided() as peer:
        (stored,) = await uploaded(peer, file())

        async def update(**fields: Any) -> Any:
            reply = await stub(peer).update_file(UpdateFileRequest(context=M, file_id=stored.file_id, **fields))
            return reply.result.file

        assert await update() == stored
        renamed = await update(new_name="b.txt")
        assert (renamed.name, renamed.checksum, renamed.metadata) == ("b.txt", stored.checksum, stored.metadata)
        changed = await update(
            content=b"new",
            file_type=FileType.CODE,
            content_type="text/x-c",
            status=FileStatus.PROCESSING,
            metadata=Struct.from_dict({}),
        )
        assert changed.checksum == hashlib.sha256(b"new").hexdigest()
        assert (changed.file_type, changed.status) == (FileType.CODE, FileStatus.PROCESSING)
        assert changed.content_type == "text/x-c"
        assert changed.metadata.to_dict() == {}
        for bad in ({"new_name": "../x"}, {"file_type": FileType(50)}, {"status": FileStatus(50)}):
            with pytest.raises(GRPCError) as caught:
                await update(**bad)
            status, _, fields = told(caught.value)
            assert status is Status.INVALID_ARGUMENT
            assert set(fields) == set(bad)
        await uploaded(peer, file("taken"))
        with pytest.raises(GRPCError) as caught:
            await update(new_name="taken")
        assert told(caught.value)[:2] == (Status.ALREADY_EXISTS, "FILE_EXISTS")


async def test_deleted_softly_and_for_good(autojump_clock: Any) -> None:
    async with provided() as peer:
        a, b, busy = await uploaded(peer, file("a"), file("b"), file("busy", status=FileStatus.PROCESSING))

        async def delete(*file_ids: str, **flags: Any) -> Any:
            filters = FileFilter(context=M, file_ids=list(file_ids))
            return await stub(peer).delete_files(DeleteFilesRequest(context=M, filters=filters, **flags))

        reply = await delete(a.file_id, busy.file_id, "files:none")
        assert reply.results == {a.file_id: True, busy.file_id: False, "files:none": False}
        assert (reply.total_deleted, reply.total_failed) == (1, 2)
        assert await found(peer) == ["b", "busy"]
        assert await found(peer, status=FileStatus.DELETED) == ["a"]
        kept = await stub(peer).get_file(GetFileRequest(context=M, file_id=a.file_id, include_content=True))
        assert kept.content == b"hello"
        reply = await delete(a.file_id, b.file_id, busy.file_id, permanent=True, force=True)
        assert reply.total_deleted == 3
        assert await found(peer) == []
        status, _, _ = await refused(stub(peer).get_file(GetFileRequest(context=M, file_id=a.file_id)))
        assert status is Status.NOT_FOUND


# --- once ------------------------------------------------------------------------------------------------------------


async def test_an_upload_with_a_key_happens_once(autojump_clock: Any) -> None:
    async with provided() as peer:
        files = [file("a"), file("b", b"other")]
        first = await uploaded(peer, *files, metadata=keyed("k"))
        assert await uploaded(peer, *files, metadata=keyed("k")) == first
        assert await found(peer) == ["a", "b"]
        reply = await stub(peer).upload_files(UploadFilesRequest(files=[file("a")]), metadata=keyed("other"))
        assert reply.results[0].error.startswith("FILE_EXISTS")
        reply = await stub(peer).upload_files(UploadFilesRequest(files=[file("a", b"else")]), metadata=keyed("k"))
        assert reply.results[0].error.startswith("FILE_EXISTS")


async def test_an_update_and_a_deletion_with_a_key_happen_once(autojump_clock: Any) -> None:
    async with provided() as peer:
        (stored,) = await uploaded(peer, file())
        update = UpdateFileRequest(context=M, file_id=stored.file_id, content=b"second")
        first = await stub(peer).update_file(update, metadata=keyed("u"))
        other = UpdateFileRequest(context=M, file_id=stored.file_id, content=b"third!")
        await stub(peer).update_file(other)
        assert await stub(peer).update_file(update, metadata=keyed("u")) == first
        kept = await stub(peer).get_file(GetFileRequest(context=M, file_id=stored.file_id, include_content=True))
        assert kept.content == b"third!"
        status, _, _ = await refused(stub(peer).update_file(other, metadata=keyed("u")))
        assert status is Status.FAILED_PRECONDITION
        delete = DeleteFilesRequest(context=M, filters=FileFilter(context=M), permanent=True)
        reply = await stub(peer).delete_files(delete, metadata=keyed("d"))
        await uploaded(peer, file("new"))
        assert await stub(peer).delete_files(delete, metadata=keyed("d")) == reply
        assert await found(peer) == ["new"]


async def test_uploads_that_are_cut_leave_whole_files_or_none(autojump_clock: Any) -> None:
    content = bytes(range(256)) * 4096  # several pieces, several turns of the loop
    async with provided() as peer:
        for turn in range(0, 60, 3):
            request = UploadFilesRequest(files=[file(f"f{turn}", content), file(f"g{turn}", content)])
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stub(peer).upload_files, request)
                    for _ in range(turn):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        reply = await stub(peer).get_files(
            GetFilesRequest(context=M, filters=FileFilter(context=M), list_size=1000, include_content=True)
        )
        assert all(row.content == content for row in reply.files)
        contents = peer.provider._stores.files._contents
        assert contents._used == (len(content) if reply.files else 0)  # type: ignore[attr-defined]


async def test_a_store_that_is_full_says_so_and_goes_on(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with provided() as peer:
        contents: Any = peer.provider._stores.files._contents
        contents._limit = 1000
        status, reason, _ = await refused(
            stub(peer).upload_files(UploadFilesRequest(files=[file("a", b"x" * 2000), file("../b")]))
        )
        assert (status, reason) == (Status.RESOURCE_EXHAUSTED, "FILESYSTEM_FAILED")
        reply = await stub(peer).upload_files(UploadFilesRequest(files=[file("a", b"x" * 2000), file("b", b"x")]))
        assert (reply.total_uploaded, reply.total_failed) == (1, 1)
        assert "FILESYSTEM_FAILED" in reply.results[0].error
        contents._limit = 10_000
        await uploaded(peer, file("a", b"x" * 2000))
        assert await found(peer) == ["b", "a"]
