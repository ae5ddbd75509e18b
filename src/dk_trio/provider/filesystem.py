"""FilesystemService: files of missions and setups, contents beside the database.

A content goes to the disk in pieces, and comes from there in pieces; what is in memory is the one message. A file that
is uploaded is whole, so one that its sender calls UPLOADING, as clients of the existing SDK do, is stored as ACTIVE.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import trio

from dk_trio.errors import DkTrioError, Fault, StoredFileNotFoundError
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    DeleteFilesRequest,
    DeleteFilesResponse,
    File,
    FileResult,
    FilesystemServiceBase,
    FileType,
    GetFileRequest,
    GetFileResponse,
    GetFilesRequest,
    GetFilesResponse,
    UpdateFileRequest,
    UpdateFileResponse,
    UploadFilesRequest,
    UploadFilesResponse,
)
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import FileFilter as WireFilter
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import FileStatus as WireStatus
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import UploadFileData as WireUpload
from dk_trio.pb.google.protobuf import Struct
from dk_trio.services.filesystem import FileFilter, FileStatus, FilesystemRecord, UploadFileData

from ._base import Servicer, known, refused, struct, text
from ._large import MESSAGE_MAX, Large, field

if TYPE_CHECKING:
    from dk_trio.services.stores.work import Work

# The contract's bound of a page, and what a client gets that names no size.
LIST_MAX: Final = 1000
LIST_DEFAULT: Final = 100

# What a file that names no context belongs to; the contract lets uploads name it.
DEFAULT_CONTEXT: Final = "default"

# Files with up to 64 KiB of metadata each, after which others get their turn.
_TURN: Final = 20

# Number of the field `content` of a File.
_CONTENT: Final = 12

# Bytes that are hashed in one go: about half a millisecond of the loop.
_STEP: Final = 512 * 1024


class FilesystemServicer(Servicer, FilesystemServiceBase):
    """Keeps files."""

    async def upload_files(self, message: UploadFilesRequest) -> UploadFilesResponse:
        """Store files, one after the other; one that cannot be stored does not keep the others from it.

        Results are in the order of the request; an error begins with its code: `FILE_EXISTS: ...`. With an idempotency
        key each file has an id that follows from the key, its place and itself, so a file that was stored is found.

        Raises:
            DkTrioError: No file was stored, for a reason that lies with the store: then the call may be tried again.
        """
        results: list[FileResult] = []
        outage: DkTrioError | None = None
        for index, file in enumerate(message.files):
            try:
                results.append(FileResult(file=_file(await self._upload(file, index))))
            except DkTrioError as error:
                if error.fault is Fault.PLATFORM:
                    outage = error
                results.append(FileResult(error=f"{error.code}: {error.text}"))
            finally:
                file.content = b""  # of which nobody has any more use, while others are yet to come
        uploaded = sum(result.file is not None for result in results)
        if outage is not None and not uploaded:
            raise outage
        return UploadFilesResponse(results=results, total_uploaded=uploaded, total_failed=len(message.files) - uploaded)

    async def get_file(self, message: GetFileRequest) -> GetFileResponse:
        """A file by its id, whatever its status.

        The content is in `file.content`, where clients of the existing SDK look for it, and beside it in `content` if
        one message has room for both.

        Raises:
            StoredFileNotFoundError: No such file in this context.
            ReplyTooLargeError: The content has more bytes than one message.
        """
        context = text(message.context or DEFAULT_CONTEXT, "context")
        file_id = text(message.file_id, "file_id")
        if not message.include_content:
            return GetFileResponse(file=_file(await self._stores.files.get(context, file_id)))
        reply = Large(f"The file {file_id!r} with its content", "Ask for it without.")
        file, content = await self._with_content(context, file_id, reply)
        reply.add_pieces(field(1, file))
        beside = field(2, content)
        if sum(map(len, beside)) <= reply.room:
            reply.add_pieces(beside)
        return reply.as_reply(GetFileResponse)

    async def get_files(self, message: GetFilesRequest) -> GetFilesResponse:
        """A page of the files that match, and how many match.

        Raises:
            InvalidFileError: A value of the filter, or the order, is not allowed.
            ReplyTooLargeError: Contents were asked for, and have more bytes than one message.
        """
        context, filters = _filters(message.filters, message.context)
        size = min(message.list_size or LIST_DEFAULT, LIST_MAX)
        for name, value in (("list_size", size), ("offset", message.offset)):
            if value < 0:
                raise refused(name, f"must not be negative, not {value}")
        records, total = await self._stores.files.find(
            context, filters, list_size=size, offset=message.offset, order=message.order or None
        )
        reply = Large("The page of files", "Ask for fewer of them with list_size, or for no contents.")
        reply.add(GetFilesResponse(total_count=total))
        for number, record in enumerate(records, 1):
            file = [bytes(_file(record))]
            if number % _TURN == 0:
                await trio.lowlevel.checkpoint()
            if message.include_content:
                try:
                    file, _ = await self._with_content(context, record.id, reply)
                except StoredFileNotFoundError:
                    continue  # removed since the page was read
            reply.add_pieces(field(1, file))
        return reply.as_reply(GetFilesResponse)

    async def update_file(self, message: UpdateFileRequest) -> UpdateFileResponse:
        """Change what is set: everything that has its default stays as it is, metadata are replaced as a whole.

        Raises:
            StoredFileNotFoundError: No such file in this context.
            FileExistsInContextError: Another file has the new name.
            InvalidFileError: A value is not allowed.
        """
        once: Callable[..., Work[Any]] | None = None
        if key := self._key:
            # The content stands for itself by its hash: what is asked is the same when all of this is.
            digest = await _digest(message.content)
            content, message.content = message.content, b""
            once = partial(self._stores.once, key, self._call.path, bytes(message) + digest)
            message.content = content
        record = await self._stores.files.update(
            text(message.context or DEFAULT_CONTEXT, "context"),
            text(message.file_id, "file_id"),
            content=message.content or None,
            file_type=known(message.file_type, "file_type") if message.file_type else None,
            content_type=message.content_type or None,
            metadata=None if message.metadata is None else struct(message.metadata, "metadata"),
            new_name=message.new_name or None,
            status=known(message.status, "status") if message.status else None,
            max_size=MESSAGE_MAX,
            once=once,
        )
        return UpdateFileResponse(result=FileResult(file=_file(record)))

    async def delete_files(self, message: DeleteFilesRequest) -> DeleteFilesResponse:
        """Delete the files that match, by the rules of `Filesystem.delete_files`.

        Raises:
            InvalidFileError: A value of the filter is not allowed.
        """
        context, filters = _filters(message.filters, message.context)
        unused: list[str] = []

        def work() -> Work[DeleteFilesResponse]:
            result, unused[:] = yield from self._stores.files.delete_work(
                context, filters, permanent=message.permanent, force=message.force
            )
            return DeleteFilesResponse(results=result.deleted, total_deleted=result.n_ok, total_failed=result.n_failed)

        reply = await self._write(work)
        await self._stores.files.remove_contents(unused)
        return reply

    async def _with_content(self, context: str, file_id: str, reply: Large) -> tuple[list[bytes], list[bytes]]:
        """A file with its content, serialised, and the content alone, in the same pieces: it is in memory once."""
        async with self._stores.files.opened(context, file_id) as (record, pieces):
            if record.size_bytes > reply.room:
                raise reply.too_large()
            content = [piece async for piece in pieces]
        return [bytes(_file(record)), *field(_CONTENT, content)], content

    async def _upload(self, file: WireUpload, index: int) -> FilesystemRecord:
        place = f"files[{index}]"
        context = text(file.context or DEFAULT_CONTEXT, f"{place}.context")
        file_type: Any = known(file.file_type, f"{place}.file_type")
        status: FileStatus = known(file.status, f"{place}.status") if file.status else "ACTIVE"  # type: ignore[assignment]
        if status == "DELETED":
            raise refused(f"{place}.status", "must not be DELETED: a file that is uploaded is there")
        upload = UploadFileData.model_construct(
            content=file.content,
            name=file.name,
            file_type=file_type,
            content_type=file.content_type or None,
            metadata=None if file.metadata is None else struct(file.metadata, f"{place}.metadata"),
            replace_if_exists=file.replace_if_exists,
        )
        file_id = None
        if key := self._key:
            parts = json.dumps([key, index, context, file.name]).encode()
            digest = hashlib.sha256(parts + await _digest(file.content)).digest()
            file_id = str(UUID(bytes=digest[:16], version=4))
        return await self._stores.files.put(
            context,
            upload,
            max_size=MESSAGE_MAX,
            field=place,
            file_id=file_id,
            status="ACTIVE" if status == "UPLOADING" else status,
        )


async def _digest(content: bytes) -> bytes:
    digest = hashlib.sha256()
    view = memoryview(content)
    for start in range(0, len(view), _STEP):
        digest.update(view[start : start + _STEP])
        await trio.lowlevel.checkpoint()
    return digest.digest()


def _filters(filters: WireFilter | None, context: str) -> tuple[str, FileFilter]:
    """The context, and the conditions. On the wire what has its default is no condition."""
    wanted = filters if filters is not None else WireFilter()
    for name in ("min_size_bytes", "max_size_bytes"):
        if (size := getattr(wanted, name)) < 0:
            raise refused(f"filters.{name}", f"must not be negative, not {size}")
    return text(wanted.context or context or DEFAULT_CONTEXT, "filters.context"), FileFilter.model_construct(
        names=wanted.names or None,
        file_ids=wanted.file_ids or None,
        file_types=[
            known(file_type, f"filters.file_types[{index}]")  # type: ignore[misc]  # one of its literals
            for index, file_type in enumerate(wanted.file_types)
        ]
        or None,
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        updated_after=wanted.updated_after,
        updated_before=wanted.updated_before,
        status=known(wanted.status, "filters.status") if wanted.status else None,  # type: ignore[arg-type]  # the same
        content_type_prefix=wanted.content_type_prefix or None,
        min_size_bytes=wanted.min_size_bytes or None,
        max_size_bytes=wanted.max_size_bytes or None,
        prefix=wanted.prefix or None,
        content_type=wanted.content_type or None,
    )


def _file(record: FilesystemRecord) -> File:
    return File(
        file_id=record.id,
        context=record.context,
        name=record.name,
        file_type=FileType[record.file_type],
        content_type=record.content_type,
        size_bytes=record.size_bytes,
        checksum=record.checksum,
        metadata=None if record.metadata is None else Struct.from_dict(record.metadata),
        storage_uri=record.storage_uri,
        file_url=record.file_url,
        status=WireStatus[record.status],
    )
