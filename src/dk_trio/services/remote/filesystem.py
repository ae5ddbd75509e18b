"""Filesystem behind a services-provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio
from grpclib.const import Status

from dk_trio.errors import (
    FileExistsInContextError,
    FilesystemServiceError,
    InvalidFileError,
    StoredFileNotFoundError,
)
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    DeleteFilesRequest,
    DeleteFilesResponse,
    File,
    FileResult,
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
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import FileType as WireType
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import UploadFileData as WireUpload
from dk_trio.services.filesystem import (
    DEFAULT_CONTENT_TYPE,
    LIST_MAX,
    Content,
    DeleteResult,
    FileContext,
    FileFilter,
    FilesystemRecord,
    UploadFileData,
    check_content_type,
    check_metadata,
    check_name,
    check_status,
    check_text,
    check_type,
    refused,
)
from dk_trio.services.job_files import JobFiles
from dk_trio.services.stores import file_index as index
from dk_trio.services.stores.contents import PIECE, DiskContents, pieces_of

from .calls import HEALTH_TIMEOUT, Calls
from .errors import ErrorFamily
from .structs import NotSendableError, from_struct, to_struct

if TYPE_CHECKING:
    from dk_trio.pb.google.protobuf import Struct
    from dk_trio.services.provider_clients import ProviderClients

_FAMILY: Final = ErrorFamily(
    base=FilesystemServiceError,
    by_status={
        Status.ALREADY_EXISTS: FileExistsInContextError,
        Status.NOT_FOUND: StoredFileNotFoundError,
        Status.INVALID_ARGUMENT: InvalidFileError,
    },
)

CONTENT_MAX: Final = 100 * 1024 * 1024 - 128 * 1024
"""Bytes of a content: a message of the contract has 100 MB, and what is told of the file is in it too."""

_INT32_MAX: Final = 2**31 - 1


class GrpcFilesystem(JobFiles):
    """The remote `Filesystem`: see there for what its methods promise.

    A content is in one message of the contract, so a file has at most `CONTENT_MAX` bytes, and is in memory as a whole
    when it is uploaded or read, `open_file` included. Each file of an upload is a call of its own.

    The contract has no dates: records have none, and cannot be told `max_size_bytes` 0 or an empty new content, which
    mean "no condition" and "no change" there; both are refused with `InvalidFileError`.

    Args:
        mission_id: The mission, with or without prefix.
        setup_id: The setup, with or without prefix.
        setup_version_id: Its version; files are kept for the setup, not for one version.
        providers: Calls to services-providers.
        client_config: Of another provider than the server's own.
        config: Of the existing SDK's strategy; nothing here depends on it.
        max_file_size: Bytes that one file may have.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        providers: ProviderClients,
        client_config: Any = None,
        config: Mapping[str, Any] | None = None,
        max_file_size: int = CONTENT_MAX,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id, max_file_size=max_file_size)
        self._max_file_size = min(max_file_size, CONTENT_MAX)
        name = "agentic_mesh_protocol.filesystem.v1.FilesystemService"
        self._calls = Calls(providers, client_config, name, _FAMILY)

    def __repr__(self) -> str:
        return f"<GrpcFilesystem of {self.mission_id!r}>"

    async def check_health(self) -> None:
        """Ask the provider for one file of the mission."""
        context = self._contexts["mission"]
        request = GetFilesRequest(context=context, filters=WireFilter(context=context), list_size=1)
        await self._calls.read("GetFiles", request, GetFilesResponse, timeout=HEALTH_TIMEOUT)

    async def get_file(
        self, file_id: str, context: FileContext = "mission", include_content: bool = False
    ) -> FilesystemRecord:
        request = GetFileRequest(
            context=self._context(context), file_id=_full_id(file_id), include_content=include_content
        )
        try:
            reply = await self._calls.read("GetFile", request, GetFileResponse)
        except StoredFileNotFoundError as error:
            raise index.not_found(request.context, file_id) from error.__cause__
        if reply.file is None:
            raise self._calls.broken("GetFile", "no file")
        content = (reply.file.content or reply.content) if include_content else None
        return self._record("GetFile", reply.file, content)

    async def get_files(
        self,
        filters: FileFilter,
        list_size: int = 100,
        offset: int = 0,
        order: str | None = None,
        include_content: bool = False,
    ) -> tuple[list[FilesystemRecord], int]:
        context = self._context(filters.context)
        if not 1 <= list_size <= LIST_MAX:
            raise refused("list_size", f"{list_size} is not from 1 to {LIST_MAX}")
        if not 0 <= offset < 2**63:
            raise refused("offset", f"{offset} is negative or beyond 64 bits")
        wire = _filter(context, filters)
        index.order_of(order)
        if wire is None:
            await trio.lowlevel.checkpoint()
            return [], 0
        request = GetFilesRequest(
            context=context,
            filters=wire,
            list_size=list_size,
            offset=min(offset, _INT32_MAX),
            order=order or "",
            include_content=include_content,
        )
        reply = await self._calls.read("GetFiles", request, GetFilesResponse)
        records = [self._record("GetFiles", file, file.content if include_content else None) for file in reply.files]
        return records, max(reply.total_count, request.offset + len(records) if records else 0)

    async def update_file(
        self,
        file_id: str,
        content: Content | None = None,
        file_type: str | None = None,
        content_type: str | None = None,
        metadata: dict[str, Any] | None = None,
        new_name: str | None = None,
        status: str | None = None,
        *,
        context: FileContext = "mission",
    ) -> FilesystemRecord:
        request = UpdateFileRequest(context=self._context(context), file_id=_full_id(file_id))
        if file_type is not None:
            request.file_type = WireType[check_type(file_type)]
        if content_type is not None:
            request.content_type = check_content_type(content_type)
        if metadata is not None:
            request.metadata = _metadata(metadata, "metadata")
        if new_name is not None:
            request.new_name = check_name(new_name, "new_name")
        if status is not None:
            request.status = WireStatus[check_status(status)]
        if content is not None:
            if not isinstance(content, bytes):
                await self.get_file(file_id, context)  # a source is not read for a file that is not there
            request.content = await self._bytes(content, "content")
            if not request.content:
                raise refused(
                    "content",
                    "an empty content cannot be told to a services-provider: it means no change there",
                    hint="Upload the file again with replace_if_exists=True.",
                )
        try:
            reply = await self._calls.write("UpdateFile", request, UpdateFileResponse)
        except StoredFileNotFoundError as error:
            raise index.not_found(request.context, file_id) from error.__cause__
        except FileExistsInContextError as error:
            raise self._taken(request.context, new_name, "new_name", "Another name is needed.") from error.__cause__
        return self._result("UpdateFile", reply.result)

    async def delete_files(self, filters: FileFilter, permanent: bool = False, force: bool = False) -> DeleteResult:
        context = self._context(filters.context)
        wire = _filter(context, filters)
        wanted = [index.full_id(file_id) for file_id in filters.file_ids or ()]
        deleted: list[str] = []
        failed: set[str] = set(wanted)
        if wire is not None:
            request = DeleteFilesRequest(context=context, filters=wire, force=force, permanent=permanent)
            reply = await self._calls.write("DeleteFiles", request, DeleteFilesResponse)
            deleted = [file_id for file_id, done in reply.results.items() if done]
            failed = failed.difference(deleted) | {file_id for file_id, done in reply.results.items() if not done}
        else:
            await trio.lowlevel.checkpoint()
        return DeleteResult(deleted, await self._reasons(context, filters.context, failed) if failed else {})

    @asynccontextmanager
    async def open_file(self, file_id: str, context: FileContext = "mission") -> AsyncIterator[AsyncIterator[bytes]]:
        record = await self.get_file(file_id, context, include_content=True)
        async with aclosing(_pieces(record.content or b"")) as pieces:
            yield pieces

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _upload(self, file: UploadFileData, field: str) -> FilesystemRecord:
        context = self._context(file.context)
        wire = WireUpload(
            context=context,
            name=check_name(file.name, f"{field}.name"),
            file_type=WireType[file.file_type],
            content_type=check_content_type(file.content_type or DEFAULT_CONTENT_TYPE, f"{field}.content_type"),
            metadata=None if file.metadata is None else _metadata(file.metadata, f"{field}.metadata"),
            status=WireStatus.ACTIVE,
            replace_if_exists=file.replace_if_exists,
        )
        if not file.replace_if_exists and not isinstance(file.content, bytes):
            # A name that is taken is told before a source was read, not after.
            _, there = await self.get_files(FileFilter(context=file.context, names=[file.name]), 1)
            if there:
                raise self._taken(context, file.name, f"{field}.name", "replace_if_exists=True replaces it.")
        wire.content = await self._bytes(file.content, f"{field}.content")
        try:
            reply = await self._calls.write("UploadFiles", UploadFilesRequest(files=[wire]), UploadFilesResponse)
            result = reply.results[0] if reply.results else None
            if result is not None and result.error is not None and await self._is_for_its_name(file, result.error):
                raise FileExistsInContextError(result.error)
            return self._result("UploadFiles", result)
        except FileExistsInContextError as error:
            remedy = "replace_if_exists=True replaces it."
            raise self._taken(context, file.name, f"{field}.name", remedy) from error.__cause__

    async def _is_for_its_name(self, file: UploadFileData, error: str) -> bool:
        """Whether a file was refused since its name is taken, which most providers tell in words of their own."""
        if file.replace_if_exists or _FAMILY.named(error.partition(": ")[0]) is not None:
            return False
        try:
            _, there = await self.get_files(FileFilter(context=file.context, names=[file.name]), 1)
        except FilesystemServiceError:
            return False
        return there > 0

    def _result(self, method: str, result: FileResult | None) -> FilesystemRecord:
        """The file; or the error that the provider has for it, by its code if it tells one: `FILE_EXISTS: ...`."""
        if result is not None and result.file is not None:
            return self._record(method, result.file, None)
        if result is None or result.error is None:
            raise self._calls.broken(method, "neither a file nor an error")
        code, _, text = result.error.partition(": ")
        kind = _FAMILY.named(code)
        raise (kind or FilesystemServiceError)(text if kind else result.error)

    async def _reasons(self, context: str, which: FileContext, failed: set[str]) -> dict[str, Exception]:
        """Why files were not deleted: a provider only tells that they were not."""
        reasons: dict[str, Exception] = {}
        ids = sorted(failed)
        for start in range(0, len(ids), LIST_MAX):
            some = ids[start : start + LIST_MAX]
            found, _ = await self.get_files(FileFilter(context=which, file_ids=some), len(some))
            for record in found:
                if record.status in index.IN_USE:
                    reasons[record.id] = FilesystemServiceError(
                        f"The file {record.id} is in use: its status is {record.status}.", hint="force=True deletes it."
                    )
        for file_id in ids:
            reasons.setdefault(file_id, index.not_found(context, file_id, ", or the filter does not match it"))
        return reasons

    async def _bytes(self, content: Content, field: str) -> bytes:
        if isinstance(content, bytes):
            size, whole = len(content), content
        else:
            pieces: list[bytes] = []
            size = 0
            async with aclosing(pieces_of(content, DiskContents(Path()))) as source:  # of which only the threads count
                async for piece in source:
                    size += len(piece)
                    if size > self._max_file_size:
                        break
                    pieces.append(piece)
            whole = b"".join(pieces)
        if size > self._max_file_size:
            raise refused(field, f"the content has more than {self._max_file_size} bytes")
        return whole

    # --- between records and messages --------------------------------------------------------------------------------

    def _taken(self, context: str, name: str | None, field: str, hint: str) -> FileExistsInContextError:
        return index.name_taken(context, name or "", field, hint)

    def _record(self, method: str, file: File, content: bytes | None) -> FilesystemRecord:
        with self._calls.errors(method):
            metadata = None if file.metadata is None else from_struct(file.metadata)
        # Not validated: a provider may have statuses that we do not know of.
        return FilesystemRecord.model_construct(
            id=file.file_id,
            context=file.context,
            name=file.name,
            file_type=file.file_type.name or "OTHER",  # type: ignore[arg-type]
            content_type=file.content_type,
            size_bytes=file.size_bytes,
            checksum=file.checksum,
            metadata=metadata,
            storage_uri=file.storage_uri,
            file_url=file.file_url,
            status=file.status.name or "ACTIVE",  # type: ignore[arg-type]
            content=content,
            creation_date=None,
            update_date=None,
        )


def _full_id(file_id: str) -> str:
    return index.full_id(check_text(file_id, "file_id"))


def _metadata(metadata: Mapping[str, Any], field: str) -> Struct:
    check_metadata(metadata, field)
    try:
        return to_struct(dict(metadata))
    except NotSendableError as error:
        raise refused(field, f"metadata cannot be sent: {error.rule}") from error


def _filter(context: str, filters: FileFilter) -> WireFilter | None:
    """The filter as it is sent; None: nothing can match it, and to the provider it would be no condition."""
    index.condition_of(context, filters)  # what a local service refuses is refused here
    if filters.max_size_bytes == 0:
        raise refused(
            "filters.max_size_bytes",
            "0 cannot be told to a services-provider: it means no condition there",
            hint="Look for max_size_bytes=1, and at the size of what is found.",
        )
    if filters.content_type == "" or [] in (filters.names, filters.file_ids, filters.file_types):
        return None
    # No name has a NUL character, and not every database can be asked for one.
    names = [name for name in filters.names or () if "\x00" not in name]
    if (
        filters.names and not names
    ) or "\x00" in f"{filters.prefix}{filters.content_type}{filters.content_type_prefix}":
        return None
    return WireFilter(
        context=context,
        names=names,
        file_ids=[index.full_id(file_id) for file_id in filters.file_ids or ()],
        file_types=[WireType[file_type] for file_type in filters.file_types or ()],
        created_after=filters.created_after,
        created_before=filters.created_before,
        updated_after=filters.updated_after,
        updated_before=filters.updated_before,
        status=WireStatus.UNSPECIFIED if filters.status is None else WireStatus[filters.status],
        content_type_prefix=filters.content_type_prefix or "",
        min_size_bytes=filters.min_size_bytes or 0,
        max_size_bytes=filters.max_size_bytes or 0,
        prefix=filters.prefix or "",
        content_type=filters.content_type or "",
    )


async def _pieces(content: bytes) -> AsyncGenerator[bytes]:
    view = memoryview(content)
    for start in range(0, len(view), PIECE):
        await trio.lowlevel.checkpoint()
        yield bytes(view[start : start + PIECE])
