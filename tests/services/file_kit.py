"""Filesystems of jobs that share a platform, and files to put into them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from dk_trio.services.filesystem import FilesystemRecord, UploadFileData
from dk_trio.services.local.filesystem import DefaultFilesystem
from dk_trio.services.local.platform import LocalPlatform

# In memory nothing takes real time; on a disk nothing takes longer than this.
DAY = 86400
REAL = 30


@asynccontextmanager
async def platform(directory: Path | None = None) -> AsyncIterator[LocalPlatform]:
    with trio.fail_after(DAY if directory is None else REAL):
        async with LocalPlatform(directory).opened() as opened:
            yield opened


@asynccontextmanager
async def filesystem(directory: Path | None = None, **options: int) -> AsyncIterator[DefaultFilesystem]:
    async with platform(directory) as opened:
        yield job(opened, **options)


def job(of: LocalPlatform, mission: str = "missions:m", setup: str = "setups:s", **options: int) -> DefaultFilesystem:
    return DefaultFilesystem(mission, setup, "setup_versions:v", platform=of, **options)


def file(name: str = "a.txt", content: object = b"content", **values: object) -> UploadFileData:
    return UploadFileData(**{"content": content, "name": name, "file_type": "DOCUMENT", **values})


async def put(
    files: DefaultFilesystem, name: str = "a.txt", content: object = b"content", **values
) -> FilesystemRecord:
    (record,), _, _ = await files.upload_files([file(name, content, **values)])
    return record


async def content_of(files: DefaultFilesystem, file_id: str, context: str = "mission") -> bytes:
    async with files.open_file(file_id, context) as pieces:
        return b"".join([piece async for piece in pieces])


def on_disk(directory: Path) -> set[str]:
    """Names of the contents in a platform's directory."""
    contents = directory / "files"
    return {path.name for path in contents.iterdir()} if contents.exists() else set()
