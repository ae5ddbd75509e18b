"""The database of the local services: what it promises to those who write, read, come together and go."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from dk_trio.errors import StorageServiceError
from dk_trio.services.stores._writes import BATCH_MAX, QUEUE_MAX
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Statement, Work

SCHEMA = ["CREATE TABLE things (name TEXT UNIQUE, value TEXT)"]


@asynccontextmanager
async def opened(directory: Path | None) -> AsyncIterator[SqliteDatabase]:
    """A database with one table. Real time where there are files: threads do not count for a virtual clock."""
    database = SqliteDatabase(directory)
    database.declare("things", SCHEMA)
    with trio.fail_after(30):
        async with database.opened():
            yield database


def put(name: str, value: str = "") -> Callable[[], Work[int]]:
    def work() -> Work[int]:
        return (yield Statement("INSERT INTO things VALUES (?, ?)", (name, value))).count

    return work


def names() -> Work[list[str]]:
    return [row[0] for row in (yield Statement("SELECT name FROM things ORDER BY rowid")).rows]


def rows(*queries: str) -> Callable[[], Work[list[tuple[Any, ...]]]]:
    """The rows of some statements without parameters."""

    def work() -> Work[list[tuple[Any, ...]]]:
        found = []
        for query in queries:
            found += (yield Statement(query)).rows
        return found

    return work


@pytest.fixture(params=["memory", "directory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "data"


class Gate:
    """A write that keeps the writer's thread busy until it is let go: those that come meanwhile wait together."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._token = trio.lowlevel.current_trio_token()
        self.entered = trio.Event()
        self._leave = trio.Event()

    async def hold(self) -> None:
        await self._database.write(self._work)

    def _work(self) -> Work[None]:
        yield Statement("SELECT 1")

        async def wait() -> None:
            self.entered.set()
            await self._leave.wait()

        trio.from_thread.run(wait, trio_token=self._token)

    def open(self) -> None:
        self._leave.set()


# --- both modes ------------------------------------------------------------------------------------------------------


async def test_a_read_sees_what_a_write_has_acknowledged(directory: Path | None) -> None:
    async with opened(directory) as database:
        assert await database.write(put("a")) == 1
        assert await database.read(names) == ["a"]
        assert await database.read(names, thread=True) == ["a"]
        assert database.statistics().writes == database.statistics().commits == 1


async def test_an_exception_undoes_its_own_write_alone(directory: Path | None) -> None:
    async with opened(directory) as database:

        def fail() -> Work[None]:
            yield from put("half")()
            raise LookupError("mine")

        async def failing() -> None:
            with pytest.raises(LookupError, match="mine"):
                await database.write(fail)

        async with trio.open_nursery() as nursery:
            for index in range(10):
                nursery.start_soon(database.write, put(f"{index}"))
                nursery.start_soon(failing)
        assert sorted(await database.read(names)) == sorted(map(str, range(10)))
        assert database.statistics().failed == 10


@pytest.mark.parametrize(("writes_first", "runs"), [(False, 1), (True, 2)])
async def test_others_run_again_only_for_a_failure_that_has_something_to_undo(
    tmp_path: Path, *, writes_first: bool, runs: int
) -> None:
    ran = 0

    def count() -> Work[None]:
        nonlocal ran
        ran += 1
        yield from put(f"counted {ran}")()

    def fail() -> Work[None]:
        yield from (put("half")() if writes_first else rows("SELECT 1")())
        raise LookupError("mine")

    async def failing() -> None:
        with pytest.raises(LookupError, match="mine"):
            await database.write(fail)

    async with opened(tmp_path) as database:
        gate = Gate(database)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.hold)
            await gate.entered.wait()
            nursery.start_soon(database.write, count)
            await trio.testing.wait_all_tasks_blocked()  # before the other, whatever the scheduler likes
            nursery.start_soon(failing)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert ran == runs
        assert await database.read(names) == [f"counted {runs}"]


async def test_a_mistake_of_a_statement_is_raised_as_it_is(directory: Path | None) -> None:
    async with opened(directory) as database:
        await database.write(put("a"))
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(put("a"))
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await database.read(rows("SELECT * FROM absent"))


async def test_every_operation_is_a_checkpoint(directory: Path | None) -> None:
    async with opened(directory) as database:
        await database.open()
        for operation in (
            lambda: database.write(put(f"{trio.current_time()}")),
            lambda: database.read(names),
            lambda: database.read(names, thread=True),
        ):
            with trio.testing.assert_checkpoints():
                await operation()
            with trio.CancelScope() as scope:
                scope.cancel()
                await operation()
            assert scope.cancelled_caught
        assert len(await database.read(names)) == 1


async def test_outside_of_its_block_it_says_so(directory: Path | None) -> None:
    database = SqliteDatabase(directory)
    for name in ("a", "b"):
        for operation in (database.read, database.write):
            with pytest.raises(RuntimeError, match="inside `async with"):
                await operation(names)
        database.declare("things", SCHEMA)
        async with database.opened():
            await database.write(put(name))
            with pytest.raises(RuntimeError, match="already"):
                async with database.opened():
                    raise AssertionError


async def test_an_exception_of_the_block_goes_on_as_it_was(directory: Path | None) -> None:
    with pytest.raises(KeyError):
        async with opened(directory) as database:
            await database.write(put("a"))
            raise KeyError


async def test_a_store_that_comes_later_has_its_tables(directory: Path | None) -> None:
    async with opened(directory) as database:
        await database.write(put("a"))
        database.declare("more", ["CREATE TABLE more (x)", "INSERT INTO more VALUES (1)"])
        for _ in range(2):
            assert await database.read(rows("SELECT x FROM more")) == [(1,)]
            database.declare("more", ["CREATE TABLE more (x)", "INSERT INTO more VALUES (1)"])
            assert "open" in repr(database)  # declared again, nothing to do
        assert await database.read(names) == ["a"]


async def test_it_tells_what_it_is(directory: Path | None) -> None:
    async with opened(directory) as database:
        assert "not used yet" in repr(database)
        assert not database.statistics().open
        await database.open()
        assert "open, 0 queued" in repr(database)
        assert database.statistics().open
    assert "closed" in repr(database)


async def test_a_health_check_leaves_nothing(directory: Path | None) -> None:
    async with opened(directory) as database:
        await database.check_health()
        assert await database.read(names) == []


async def test_memory_is_gone_with_its_block() -> None:
    database = SqliteDatabase(None)
    database.declare("things", SCHEMA)
    for _ in range(2):
        async with database.opened():
            assert await database.read(names) == []
            await database.write(put("a"))


async def test_memory_needs_no_thread_so_that_virtual_time_stands_still(autojump_clock: object) -> None:
    with trio.fail_after(86400):
        before = trio.current_time()
        async with opened(None) as database, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 20)
            for index in range(20):
                await database.write(put(f"{index}"))
                await database.read(names, thread=True)
            await database.check_health()
            assert trio.current_time() == before
            nursery.cancel_scope.cancel()


# --- a directory -----------------------------------------------------------------------------------------------------


async def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as database:
        assert list(tmp_path.iterdir()) == []
        await database.open()
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "dk-trio.sqlite3").stat().st_mode & 0o777 == 0o600


async def test_the_next_owner_finds_what_was_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(put("a"))
    assert {path.name for path in tmp_path.iterdir()} == {"dk-trio.sqlite3", "dk-trio.lock"}  # the log is in the file
    async with opened(tmp_path) as database:
        assert await database.read(names) == ["a"]


async def test_writes_that_come_together_share_a_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as database, trio.open_nursery() as nursery:
        await database.open()
        gate = Gate(database)
        nursery.start_soon(gate.hold)
        await gate.entered.wait()
        for index in range(BATCH_MAX + 1):
            nursery.start_soon(database.write, put(f"{index}"))
        await trio.testing.wait_all_tasks_blocked()
        assert database.statistics().queued == BATCH_MAX + 1
        gate.open()
    assert database.statistics().commits == 3
    assert database.statistics().writes == BATCH_MAX + 2


async def test_the_queue_is_bounded_and_first_come_first_served(tmp_path: Path) -> None:
    async with opened(tmp_path) as database, trio.open_nursery() as nursery:
        await database.open()
        gate = Gate(database)
        nursery.start_soon(gate.hold)
        await gate.entered.wait()
        for index in range(QUEUE_MAX + 10):
            nursery.start_soon(database.write, put(f"{index:05}"))
            await trio.testing.wait_all_tasks_blocked() if index % 50 == 0 else await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        statistics = database.statistics()
        assert (statistics.queued, statistics.blocked) == (QUEUE_MAX - 1, 11)  # one place is the gate's
        gate.open()
    async with opened(tmp_path) as database:
        assert len(await database.read(names)) == QUEUE_MAX + 10


async def test_a_cancelled_write_that_was_not_begun_is_withdrawn(tmp_path: Path) -> None:
    async with opened(tmp_path) as database, trio.open_nursery() as nursery:
        await database.open()
        gate = Gate(database)
        nursery.start_soon(gate.hold)
        await gate.entered.wait()
        nursery.start_soon(database.write, put("before"))
        with trio.move_on_after(0.01) as scope:
            await database.write(put("cancelled"))
        assert scope.cancelled_caught
        nursery.start_soon(database.write, put("after"))
        await trio.testing.wait_all_tasks_blocked()
        gate.open()
    assert database.statistics().withdrawn == 1
    async with opened(tmp_path) as database:
        assert sorted(await database.read(names)) == ["after", "before"]


async def test_a_cancelled_write_that_was_begun_succeeds(tmp_path: Path) -> None:
    async with opened(tmp_path) as database, trio.open_nursery() as nursery:
        await database.open()
        gate = Gate(database)
        scope = trio.CancelScope()
        ended = []

        async def cancelled() -> None:
            with scope:
                await gate.hold()
                ended.append("acknowledged")
                await trio.lowlevel.checkpoint()

        nursery.start_soon(cancelled)
        await gate.entered.wait()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not ended
        gate.open()
        await database.write(put("after"))
        assert ended == ["acknowledged"]
        assert scope.cancelled_caught


async def test_cleanup_of_a_cancelled_job_can_still_write(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with opened(tmp_path) as database:
            await database.write(put("before"))
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(20, shield=True):
                    await database.write(put("cleanup"))
                    await database.write(put("again"))
    async with opened(tmp_path) as database:
        assert await database.read(names) == ["before", "cleanup", "again"]


async def test_many_first_users_share_one_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as database:
        times = []
        real = database._connections.open
        monkeypatch.setattr(database._connections, "open", lambda schemas: (times.append(1), real(schemas)))
        async with trio.open_nursery() as nursery:
            for index in range(20):
                nursery.start_soon(database.write, put(f"{index}"))
        assert len(times) == 1


async def test_many_first_users_share_one_failure_and_the_next_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as database:
        times, errors = [], []

        def fail(schemas: object) -> None:
            times.append(1)
            raise StorageServiceError("broken", hint="mend it")

        async def use() -> None:
            with pytest.raises(StorageServiceError, match="broken") as caught:
                await database.read(names)
            errors.append(caught.value)

        with monkeypatch.context() as patch:
            patch.setattr(database._connections, "open", fail)
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(use)
        assert len(times) == 1
        assert len(set(map(id, errors))) == 20
        assert {error.hint for error in errors} == {"mend it"}
        assert await database.read(names) == []


async def test_a_read_in_a_thread_leaves_the_loop_free(tmp_path: Path) -> None:
    async with opened(tmp_path) as database, trio.open_nursery() as nursery:
        await database.write(put("a"))
        token, entered, leave = trio.lowlevel.current_trio_token(), trio.Event(), trio.Event()

        async def wait() -> None:
            entered.set()
            await leave.wait()

        def scan() -> Work[list[str]]:
            found = yield from names()
            trio.from_thread.run(wait, trio_token=token)
            assert (yield from names()) == found  # one state, though a write came between
            return found

        async def read() -> None:
            assert await database.read(scan, thread=True) == ["a"]

        nursery.start_soon(read)
        await entered.wait()
        await database.write(put("b"))
        assert await database.read(names) == ["a", "b"]
        leave.set()


async def test_a_read_cannot_write(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with pytest.raises(StorageServiceError):
            await database.read(put("a"))
        assert await database.read(names) == []
