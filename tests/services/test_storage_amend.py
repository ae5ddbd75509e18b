"""A record that many change at once: each change is made to what the one before has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel

from dk_trio.errors import InvalidRecordError
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.storage import DefaultStorage


class Notes(BaseModel):
    texts: list[str] = []


def storage_of(platform: LocalPlatform) -> DefaultStorage:
    return DefaultStorage("missions:m", "setups:s", "setup_versions:v", config={"notes": Notes}, platform=platform)


async def add(storage: DefaultStorage, text: str) -> None:
    def change(data: dict[str, Any] | None) -> dict[str, Any]:
        return {"texts": [*(data or {}).get("texts", []), text]}

    await storage.amend("notes", "one", change)


@pytest.mark.parametrize("on_disk", [False, True])
async def test_no_change_is_lost(tmp_path: Path, on_disk: bool) -> None:
    with trio.fail_after(30):
        async with LocalPlatform(tmp_path if on_disk else None).opened() as platform:
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(add, storage_of(platform), str(number))
            record = await storage_of(platform).read("notes", "one")
    assert record is not None
    assert isinstance(record.data, Notes)
    assert sorted(record.data.texts, key=int) == [str(number) for number in range(50)]


async def test_a_change_that_does_not_fit_changes_nothing() -> None:
    with trio.fail_after(30):
        async with LocalPlatform(None).opened() as platform:
            storage = storage_of(platform)
            await add(storage, "a")
            with pytest.raises(InvalidRecordError):
                await storage.amend("notes", "one", lambda _: {"texts": 3})
            with pytest.raises(ZeroDivisionError):
                await storage.amend("notes", "one", lambda _: {"texts": [1 / 0]})
            record = await storage.read("notes", "one")
    assert record is not None
    assert record.data == Notes(texts=["a"])
