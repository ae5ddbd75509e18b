"""The platform of the local strategies: one owner of a directory, and nothing shared by accident."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from dk_trio.errors import ConfigurationError
from dk_trio.services.local.platform import LocalPlatform


async def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with LocalPlatform(tmp_path).opened() as owner, LocalPlatform(tmp_path).opened() as other:
            await owner.database.open()
            with pytest.raises(ConfigurationError) as caught:
                await other.database.open()
            assert str(tmp_path) in caught.value.message
            assert str(os.getpid()) in caught.value.message
            assert "DIGITALKIN_DATA_DIR" in caught.value.hint
        async with LocalPlatform(tmp_path).opened() as heir:
            await heir.database.check_health()


async def test_who_was_refused_may_try_again_when_the_owner_has_gone(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with LocalPlatform(tmp_path).opened() as other:
            async with LocalPlatform(tmp_path).opened() as owner:
                await owner.database.open()
                with pytest.raises(ConfigurationError):
                    await other.database.open()
            await other.database.open()


async def test_a_forked_child_of_the_owner_does_not_keep_the_directory(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with LocalPlatform(tmp_path).opened() as owner:
            await owner.database.open()
            lock = owner.database._connections._lock
            assert lock is not None
            childs = os.dup(lock)  # a fork shares the lock in the same way
        try:
            async with LocalPlatform(tmp_path).opened() as heir:
                await heir.database.open()
        finally:
            os.close(childs)


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with trio.fail_after(30):
        async with LocalPlatform(tmp_path / "file" / "data").opened() as platform:
            with pytest.raises(ConfigurationError, match="file/data cannot be used") as caught:
                await platform.database.open()
            assert "DIGITALKIN_DATA_DIR" in caught.value.hint


async def test_a_platform_that_nobody_uses_leaves_no_trace(tmp_path: Path) -> None:
    async with LocalPlatform(tmp_path / "data").opened() as platform:
        assert "data" in repr(platform)
        assert platform.records is platform.records
        assert platform.costs.database is platform.database
    assert not list(tmp_path.iterdir())


async def test_two_platforms_in_memory_share_nothing(autojump_clock: object) -> None:
    with trio.fail_after(86400):
        async with LocalPlatform().opened() as one, LocalPlatform().opened() as two:
            await one.records.insert("missions:m", "c", "id", "OUTPUT", "{}")
            assert await two.records.get("missions:m", "c", "id") is None
            assert await one.records.get("missions:m", "c", "id") is not None


async def test_a_directory_that_nobody_has_used_needs_neither_file_nor_thread(
    autojump_clock: object, tmp_path: Path
) -> None:
    with trio.move_on_after(100) as scope:  # a thread would let the clock jump there
        async with LocalPlatform(tmp_path / "data").opened():
            await trio.lowlevel.checkpoint()
    assert not scope.cancelled_caught
    assert trio.current_time() == 0
    assert not (tmp_path / "data").exists()
