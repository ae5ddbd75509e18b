"""Filters, pages and orders of files, against a list that is searched with Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.services.filesystem import FileFilter, FilesystemRecord
from dk_trio.services.stores.files import FileStore

from .file_kit import file, job, platform, put

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ["a", "ab", "b/a", "B", "é%", "a_"]
TYPES = ["IMAGE", "CODE"]
CONTENT_TYPES = ["image/png", "image/jpeg", "text/plain"]
STATUSES = ["ACTIVE", "ACTIVE", "ARCHIVED", "DELETED"]

moments = st.integers(-1, 3).map(lambda minutes: START + timedelta(minutes=minutes))
stored = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "file_type": st.sampled_from(TYPES),
        "content_type": st.sampled_from(CONTENT_TYPES),
        "size": st.integers(0, 4),
        "status": st.sampled_from(STATUSES),
        "setup": st.sampled_from([False, False, True]),
        "renewed": st.booleans(),
    }
)
CONDITIONS = {
    "context": st.sampled_from(["mission", "setup"]),
    "names": st.lists(st.sampled_from([*NAMES, "zz"]), max_size=3),
    "file_types": st.lists(st.sampled_from(TYPES), max_size=2),
    "created_after": moments,
    "created_before": moments,
    "updated_after": moments,
    "updated_before": moments,
    "status": st.sampled_from(STATUSES),
    "content_type_prefix": st.sampled_from(["image/", "", "text/plain", "x"]),
    "content_type": st.sampled_from([*CONTENT_TYPES, "image/"]),
    "min_size_bytes": st.integers(0, 5),
    "max_size_bytes": st.integers(0, 5),
    "prefix": st.sampled_from(["a", "", "b/", "é", "%", "_", "A"]),
}
# Few at a time: many together match nothing.
filters = st.lists(st.sampled_from(sorted(CONDITIONS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: CONDITIONS[name] for name in names})
)
ORDERS = {
    "name": lambda record: record.name,
    "size_bytes": lambda record: record.size_bytes,
    "file_type": lambda record: record.file_type,
    "content_type": lambda record: record.content_type,
    "status": lambda record: record.status,
    "creation_date": lambda record: record.creation_date,
    "update_date": lambda record: record.update_date,
}


def wanted(record: FilesystemRecord, given_: dict[str, Any]) -> bool:
    context = {"mission": "missions:m", "setup": "setups:s"}[given_.get("context", "mission")]
    rules = {
        "names": lambda value: record.name in value,
        "file_ids": lambda value: record.id in value,
        "file_types": lambda value: record.file_type in value,
        "created_after": lambda value: record.creation_date > value,
        "created_before": lambda value: record.creation_date < value,
        "updated_after": lambda value: record.update_date > value,
        "updated_before": lambda value: record.update_date < value,
        "status": lambda value: record.status == value,
        "content_type_prefix": record.content_type.startswith,
        "content_type": lambda value: record.content_type == value,
        "min_size_bytes": lambda value: record.size_bytes >= value,
        "max_size_bytes": lambda value: record.size_bytes <= value,
        "prefix": record.name.startswith,
        "context": lambda _: True,
    }
    if record.context != context or ("status" not in given_ and record.status == "DELETED"):
        return False
    return all(rules[name](value) for name, value in given_.items())


@settings(deadline=None, max_examples=size(150, 3000))
@given(
    files=st.lists(stored, max_size=12),
    given_=filters,
    chosen=st.none() | st.none() | st.sets(st.integers(0, 11)),
    order=st.none() | st.tuples(st.sampled_from(sorted(ORDERS)), st.sampled_from(["", " asc", " DESC"])),
    size=st.integers(1, 5),
)
def test_a_filter_finds_what_a_search_through_a_list_finds(files, given_, chosen, order, size) -> None:
    async def main() -> None:
        minutes = iter(range(100))
        async with platform() as shared:
            shared.files = FileStore(shared.database, None, now=lambda: START + timedelta(minutes=next(minutes) // 2))
            service = job(shared)
            model: dict[str, FilesystemRecord] = {}
            for values in files:
                context = "setup" if values["setup"] else "mission"
                upload = file(
                    values["name"],
                    b"x" * values["size"],
                    file_type=values["file_type"],
                    content_type=values["content_type"],
                    context=context,
                    replace_if_exists=True,
                )
                (record,), _, _ = await service.upload_files([upload])
                if values["status"] != "ACTIVE" or values["renewed"]:
                    record = await service.update_file(record.id, status=values["status"], context=context)
                model[record.id] = record  # one that was replaced keeps its id and its place

            asked = dict(given_)
            if chosen is not None:
                asked["file_ids"] = [record.id for place, record in enumerate(model.values()) if place in chosen] + [
                    "files:x"
                ]
            expected = [record for record in model.values() if wanted(record, asked)]
            if order is not None:
                expected.sort(key=ORDERS[order[0]], reverse="DESC" in order[1])
            sequence = None if order is None else "".join(order)

            paged: list[FilesystemRecord] = []
            for offset in range(0, len(expected) + size, size):
                found, total = await service.get_files(FileFilter(**asked), size, offset, sequence)
                assert total == len(expected)
                assert len(found) <= size
                paged += found
            assert paged == expected

            deleted = await service.delete_files(FileFilter(**asked), permanent=True)
            kept, _ = await service.get_files(FileFilter(context=asked.get("context", "mission")), 1000)
            gone = {file_id for file_id, done in deleted.deleted.items() if done}
            assert {record.id for record in expected} <= gone
            assert not gone & {record.id for record in kept}

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("field", ["created", "updated"])
async def test_after_and_before_exclude_the_moment_itself(autojump_clock: object, field: str) -> None:
    moment = START if field == "created" else START + timedelta(hours=1)
    dates = iter([START, START + timedelta(hours=1)])
    async with platform() as shared:
        shared.files = FileStore(shared.database, None, now=lambda: next(dates))
        record = await put(job(shared))
        await job(shared).update_file(record.id, new_name="b")
        for side, microseconds in (("after", -1), ("after", 0), ("before", 0), ("before", 1)):
            filters = FileFilter(**{f"{field}_{side}": moment + timedelta(microseconds=microseconds)})
            assert (await job(shared).get_files(filters))[1] == abs(microseconds)


async def test_a_moment_without_a_zone_is_utc(autojump_clock: object) -> None:
    async with platform() as shared:
        shared.files = FileStore(shared.database, None, now=lambda: START)
        await put(job(shared))
        bare = START.replace(tzinfo=None)
        found = await job(shared).get_files(FileFilter(created_after=bare - timedelta(seconds=1), created_before=bare))
        assert found == ([], 0)
        _, total = await job(shared).get_files(FileFilter(created_before=bare + timedelta(microseconds=1)))
        assert total == 1
