"""Filesystem whose files are in the store that all jobs of this server share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from dk_trio.services.filesystem import (
    Content,
    DeleteResult,
    FileContext,
    FileFilter,
    FilesystemRecord,
    UploadFileData,
)
from dk_trio.services.job_files import JobFiles

if TYPE_CHECKING:
    from dk_trio.services.local.platform import LocalPlatform

# Bytes of one file, unless the parameters say otherwise: beyond any document, and below what fills a disk by mistake.
MAX_FILE_SIZE: Final = 1024**3


class DefaultFilesystem(JobFiles):
    """Files of the job's mission (`missions:...`) and of its setup (`setups:...`), in this server's directory.

    Args:
        mission_id: The mission, with or without prefix.
        setup_id: The setup, with or without prefix.
        setup_version_id: Its version; files are kept for the setup, not for one version.
        platform: Where the files are.
        config: Of the remote strategy; nothing here depends on it.
        max_file_size: Bytes that one file may have.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        platform: LocalPlatform,
        config: Mapping[str, Any] | None = None,
        max_file_size: int = MAX_FILE_SIZE,
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id, max_file_size=max_file_size)
        self._files = platform.files

    async def _upload(self, file: UploadFileData, field: str) -> FilesystemRecord:
        return await self._files.put(self._context(file.context), file, max_size=self._max_file_size, field=field)

    async def get_file(
        self, file_id: str, context: FileContext = "mission", include_content: bool = False
    ) -> FilesystemRecord:
        get = self._files.get_with_content if include_content else self._files.get
        return await get(self._context(context), file_id)

    async def get_files(
        self,
        filters: FileFilter,
        list_size: int = 100,
        offset: int = 0,
        order: str | None = None,
        include_content: bool = False,
    ) -> tuple[list[FilesystemRecord], int]:
        return await self._files.find(
            self._context(filters.context),
            filters,
            list_size=list_size,
            offset=offset,
            order=order,
            include_content=include_content,
        )

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
        return await self._files.update(
            self._context(context),
            file_id,
            content=content,
            file_type=file_type,
            content_type=content_type,
            metadata=metadata,
            new_name=new_name,
            status=status,
            max_size=self._max_file_size,
        )

    async def delete_files(self, filters: FileFilter, permanent: bool = False, force: bool = False) -> DeleteResult:
        return await self._files.delete(self._context(filters.context), filters, permanent=permanent, force=force)

    @asynccontextmanager
    async def open_file(self, file_id: str, context: FileContext = "mission") -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._files.opened(self._context(context), file_id) as (_, pieces):
            yield pieces

    async def check_health(self) -> None:
        await self._files.check_health()
