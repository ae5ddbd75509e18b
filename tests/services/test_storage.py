"""The local storage: what an author may write, who sees it, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from pydantic import BaseModel

from dk_trio.errors import StorageServiceError
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.storage import DefaultStorage
from dk_trio.services.storage import Storage

from .test_database_failures import no_more_pages


class Note(BaseModel):
    text: str
    stars: int = 0


class Event(BaseModel):
    at: datetime
    by: Note | None = None


CONFIG: Mapping[str, type[BaseModel]] = {"notes": Note, "events": Event}


@asynccontextmanager
async def opened(directory: Path | None = None) -> AsyncIterator[LocalPlatform]:
    with trio.fail_after(86400 if directory is None else 30):
        async with LocalPlatform(directory).opened() as platform:
            yield platform


def storage_of(
    platform: LocalPlatform,
    mission: str = "missions:m",
    version: str = "setup_versions:v",
    config: Mapping[str, type[BaseModel]] = CONFIG,
    **options: Any,
) -> DefaultStorage:
    storage = DefaultStorage(mission, "setups:s", version, config=config, platform=platform, **options)
    typed: Storage = storage  # the strategy has the Protocol's methods; the type checker says so
    assert typed is storage
    return storage


async def texts(storage: DefaultStorage, **options: Any) -> list[str]:
    return [record.data.text for record in await storage.list("notes", **options)]


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_a_list_has_what_was_there_when_it_began_so_that_it_ends(autojump_clock: object) -> None:
    async with opened() as platform:
        storage, records = storage_of(platform), platform.records
        for number in range(150):
            await storage.store("notes", None, {"text": f"{number}"})
        first = await records.page("missions:m", "notes", limit=None, offset=0)
        await storage.store("notes", None, {"text": "late"})
        second = await records.page("missions:m", "notes", after=first.after, last=first.last, limit=None, offset=0)
        assert (len(first.rows), len(second.rows), second.last) == (100, 50, 0)


# --- whose it is -----------------------------------------------------------------------------------------------------


async def test_records_last_longer_than_the_server(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        stored = await storage_of(platform).store("notes", "a", {"text": "kept"})
    async with opened(tmp_path) as platform:
        assert await storage_of(platform).read("notes", "a") == stored


# --- around it -------------------------------------------------------------------------------------------------------


async def test_the_file_path_of_the_existing_sdk_is_accepted(autojump_clock: object, tmp_path: Path) -> None:
    async with opened() as platform:
        storage = storage_of(platform, storage_file_path=str(tmp_path / "local"))
        await storage.store("notes", "a", {"text": "x"})
    assert not list(tmp_path.iterdir())


async def test_a_health_check_leaves_no_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        storage = storage_of(platform)
        await storage.check_health()
        assert await storage.list("notes") == []
        assert "notes" in repr(storage)
        await storage.close()
        (tmp_path / "dk-trio.sqlite3").unlink()
        with pytest.raises(StorageServiceError):
            await storage.check_health()


async def test_a_storage_that_cannot_write_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        storage = storage_of(platform)

        await platform.database.write(no_more_pages)
        with pytest.raises(StorageServiceError, match="the disk is full"):
            await storage.store("notes", "a", {"text": "x" * 100_000})
        assert await storage.read("notes", "a") is None
