"""A request that comes twice is applied once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from dk_trio.errors import IdempotencyError, RecordChangedError
from dk_trio.services.stores.once import Once
from dk_trio.services.stores.records import RecordStore, Row
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Work


class Clock:
    """A time that is set by hand, in seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[SqliteDatabase, RecordStore, Once, Clock]]:
    database, clock = SqliteDatabase(None), Clock()
    records, once = RecordStore(database), Once(database, now=clock)
    with trio.fail_after(86400):
        async with database.opened():
            yield database, records, once, clock


def stored(records: RecordStore, record_id: str) -> Work[str]:
    row = yield from records.insert_work("missions:m", "notes", record_id, "OUTPUT", "{}")
    return "new" if row is not None else "there"


def call(once: Once, key: str, records: RecordStore, record_id: str, method: str = "/S/Store") -> Work[str]:
    return once(key, method, record_id.encode(), partial(stored, records, record_id), str.encode, bytes.decode)


async def count(records: RecordStore) -> int:
    return len((await records.page("missions:m", "notes", limit=None, offset=0)).rows)


async def test_the_second_time_gives_the_first_reply(autojump_clock: object) -> None:
    async with opened() as (database, records, once, _):
        for _ in range(3):
            assert await database.write(lambda: call(once, "key", records, "a")) == "new"
        assert await database.write(lambda: call(once, "other key", records, "a")) == "there"
        assert await count(records) == 1


async def test_without_a_key_each_time_is_a_new_one(autojump_clock: object) -> None:
    async with opened() as (database, records, once, _):
        assert await database.write(lambda: call(once, "", records, "a")) == "new"
        assert await database.write(lambda: call(once, "", records, "a")) == "there"


@pytest.mark.parametrize(("record_id", "method"), [("b", "/S/Store"), ("a", "/S/Remove")])
async def test_a_key_stands_for_one_request(autojump_clock: object, record_id: str, method: str) -> None:
    async with opened() as (database, records, once, _):
        await database.write(lambda: call(once, "key", records, "a"))
        with pytest.raises(IdempotencyError, match="'key'") as caught:
            await database.write(lambda: call(once, "key", records, record_id, method))
        assert caught.value.violations[0].field == "idempotency_key"
        assert await count(records) == 1


async def test_what_failed_is_tried_again(autojump_clock: object) -> None:
    async with opened() as (database, records, once, _):

        def fails() -> Work[str]:
            yield from stored(records, "a")
            raise LookupError

        with pytest.raises(LookupError):
            await database.write(lambda: once("key", "/S/Store", b"a", fails, str.encode, bytes.decode))
        assert await count(records) == 0
        assert await database.write(lambda: call(once, "key", records, "a")) == "new"


async def test_keys_are_forgotten_after_a_day(autojump_clock: object) -> None:
    async with opened() as (database, records, once, clock):
        for number in range(1500):  # more than one step
            await database.write(partial(call, once, f"{number}", records, "a"))
        clock.now += 24 * 3600 - 1
        await database.write(lambda: call(once, "young", records, "a"))
        assert await once.purge() == 0
        clock.now += 2
        assert await once.purge() == 1500
        await records.remove("missions:m", "notes", "a")
        assert await database.write(lambda: call(once, "young", records, "a")) == "there"
        assert await database.write(lambda: call(once, "0", records, "a")) == "new"


async def test_they_are_forgotten_by_themselves(autojump_clock: object) -> None:
    async with opened() as (database, records, once, clock), trio.open_nursery() as nursery:
        nursery.start_soon(once.run)
        await database.write(lambda: call(once, "key", records, "a"))
        clock.now += 24 * 3600 + 1
        await trio.sleep(3600)
        assert await database.write(lambda: call(once, "key", records, "a")) == "there"
        nursery.cancel_scope.cancel()


async def test_two_stores_are_written_together_or_not_at_all(autojump_clock: object) -> None:
    async with opened() as (database, records, _, _):

        def both(second: str) -> Work[tuple[Row | None, Row]]:
            first = yield from records.insert_work("missions:m", "notes", "a", "OUTPUT", "{}")
            return first, (yield from records.upsert_work("missions:m", second, "b", "OUTPUT", "{}"))

        def failing() -> Work[None]:
            yield from both("more")
            raise LookupError

        with pytest.raises(LookupError):
            await database.write(failing)
        assert await records.get("missions:m", "notes", "a") is None
        first, second = await database.write(lambda: both("more"))
        assert (first and first.record_id, second.record_id) == ("a", "b")


async def test_an_update_of_what_another_has_changed_is_refused(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when both changes fall into one microsecond, or the clock is set back."""
    async with opened() as (_, records, _, _):
        monkeypatch.setattr("dk_trio.services.stores.records._now", lambda: 5_000_000)
        row = await records.upsert("missions:m", "notes", "a", "OUTPUT", "1")
        changed = await records.upsert("missions:m", "notes", "a", "OUTPUT", "2")
        assert changed.updated > row.updated
        with pytest.raises(RecordChangedError, match=f"{row.updated}, and has {changed.updated}"):
            await records.update("missions:m", "notes", "a", "3", updated=row.updated)
        monkeypatch.setattr("dk_trio.services.stores.records._now", lambda: 4_000_000)
        again = await records.update("missions:m", "notes", "a", "3", updated=changed.updated)
        assert again is not None
        assert again.data == "3"
        assert again.updated > changed.updated
        assert await records.update("missions:m", "notes", "absent", "3", updated=7) is None
        assert (await records.update("missions:m", "notes", "a", "4") or row).data == "4"
