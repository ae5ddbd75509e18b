"""The local storage: what an author may write, who sees it, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from pydantic import BaseModel, ConfigDict, Field, computed_field, create_model

from dk_trio.errors import InvalidRecordError, RecordExistsError, StorageServiceError
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.local.storage import DefaultStorage
from dk_trio.services.storage import DataType, Storage

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


async def test_a_record_is_read_as_it_was_stored(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        before = datetime.now(UTC) - timedelta(seconds=1)
        stored = await storage.store("notes", "a", {"text": "hello", "stars": "3"}, "VIEW")
        assert stored == await storage.read("notes", "a")
        assert stored.data == Note(text="hello", stars=3)
        assert (stored.context, stored.collection, stored.record_id) == ("missions:m", "notes", "a")
        assert stored.data_type is DataType.VIEW
        assert before < stored.creation_date == stored.update_date < datetime.now(UTC) + timedelta(seconds=1)
        assert stored.model_dump(mode="json")["data"] == {"text": "hello", "stars": 3}


async def test_a_record_without_an_id_gets_one(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        ids = {(await storage.store("notes", none, Note(text="x"))).record_id for none in (None, "", None)}
        assert len(ids) == 3
        assert all(len(record_id) == 32 and int(record_id, 16) for record_id in ids)


async def test_store_refuses_a_record_that_exists(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        await storage.store("notes", "a", {"text": "first"})
        with pytest.raises(RecordExistsError, match="'a' of collection 'notes' exists already") as caught:
            await storage.store("notes", "a", {"text": "second"})
        assert isinstance(caught.value, ValueError)  # as code for the existing SDK expects
        assert "upsert" in caught.value.hint
        assert await texts(storage) == ["first"]


async def test_update_replaces_data_and_only_of_what_exists(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        assert await storage.update("notes", "a", {"text": "nothing"}) is None
        assert await storage.read("notes", "a") is None
        stored = await storage.store("notes", "a", {"text": "old", "stars": 5}, "LOGS")
        updated = await storage.update("notes", "a", {"text": "new"})
        assert updated is not None
        assert updated.data == Note(text="new", stars=0)
        assert updated.data_type is DataType.LOGS
        assert updated.creation_date == stored.creation_date <= updated.update_date
        assert updated == await storage.read("notes", "a")


async def test_upsert_writes_what_is_new_and_what_is_not(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        first = await storage.upsert("notes", "a", {"text": "first"}, "VIEW")
        await storage.upsert("notes", "b", {"text": "other"})
        second = await storage.upsert("notes", "a", {"text": "second"}, "LOGS")
        assert (second.data_type, second.creation_date) == (DataType.VIEW, first.creation_date)
        assert await texts(storage) == ["second", "other"]


async def test_remove_tells_whether_there_was_one(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        await storage.store("notes", "a", {"text": "x"})
        assert [await storage.remove("notes", "a") for _ in range(2)] == [True, False]
        assert await storage.read("notes", "a") is None
        for name in "abc":
            await storage.store("notes", name, {"text": name})
        await storage.store("events", "a", {"at": "2026-01-02T03:04:05Z"})
        assert [await storage.remove_collection("notes") for _ in range(2)] == [True, False]
        assert await texts(storage) == []
        assert len(await storage.list("events")) == 1


async def test_a_list_is_in_the_order_of_creation_and_has_pages(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        names = [f"{number * 7919 % 1000:03}" for number in range(350)]  # several pages, in no order of their own
        for name in names:
            await storage.store("notes", name, {"text": name})
        await storage.update("notes", names[0], {"text": "changed"})
        names[0] = "changed"
        assert await texts(storage) == names
        for limit, offset in ((None, 3), (0, 0), (1, 0), (100, 0), (101, 99), (250, 249), (5, 349), (5, 400)):
            end = None if limit is None else offset + limit
            assert await texts(storage, limit=limit, offset=offset) == names[offset:end]


async def test_a_list_has_what_was_there_when_it_began_so_that_it_ends(autojump_clock: object) -> None:
    async with opened() as platform:
        storage, records = storage_of(platform), platform.records
        for number in range(150):
            await storage.store("notes", None, {"text": f"{number}"})
        first = await records.page("missions:m", "notes", limit=None, offset=0)
        await storage.store("notes", None, {"text": "late"})
        second = await records.page("missions:m", "notes", after=first.after, last=first.last, limit=None, offset=0)
        assert (len(first.rows), len(second.rows), second.last) == (100, 50, 0)


async def test_types_that_json_does_not_have_come_back(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        at = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
        await storage.store("events", "e", Event(at=at, by=Note(text="\U0001f980 \x00 é")))
        record = await storage.read("events", "e")
        assert record is not None
        assert record.data == Event(at=at, by=Note(text="\U0001f980 \x00 é"))


async def test_aliases_and_computed_fields_do_not_get_in_the_way(autojump_clock: object) -> None:
    class Person(BaseModel):
        model_config = ConfigDict(extra="forbid")
        first: str = Field(alias="firstName")

        @computed_field  # type: ignore[prop-decorator]
        @property
        def loud(self) -> str:
            return self.first.upper()

    async with opened() as platform:
        storage = storage_of(platform, config={"people": Person})
        await storage.store("people", "p", {"firstName": "Ada"})
        await storage.store("people", "q", Person(firstName="Eve"))
        assert [record.data.loud for record in await storage.list("people")] == ["ADA", "EVE"]


async def test_what_the_author_does_to_the_data_later_changes_nothing(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        note = Note(text="kept")
        record = await storage.store("notes", "a", note)
        note.text = record.data.text = "changed"  # type: ignore[attr-defined]
        assert await texts(storage) == ["kept"]


# --- whose it is -----------------------------------------------------------------------------------------------------


async def test_records_of_a_mission_and_of_a_setup_are_apart(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform, mission="missions:same", version="setup_versions:same")
        await storage.store("notes", "a", {"text": "of the mission"})
        stored = await storage.store("notes", "a", {"text": "of the setup"}, scope="setup")
        assert stored.context == "setup_versions:same"
        assert await texts(storage) == ["of the mission"]
        assert await texts(storage, scope="setup") == ["of the setup"]
        await storage.remove_collection("notes", scope="setup")
        assert await texts(storage) == ["of the mission"]


async def test_jobs_see_the_records_of_their_mission_and_no_others(autojump_clock: object) -> None:
    async with opened() as platform:
        await storage_of(platform, "missions:m").store("notes", "a", {"text": "shared"})
        assert await texts(storage_of(platform, "m", "v2")) == ["shared"]  # the prefix is no part of the id
        assert await texts(storage_of(platform, "missions:other")) == []


async def test_jobs_that_upsert_one_record_at_once_end_with_one_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(storage_of(platform).upsert, "notes", "one", {"text": f"{number}"})
        assert len(await texts(storage_of(platform))) == 1


async def test_jobs_that_store_one_record_at_once_have_one_winner(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        won = []

        async def store(number: int) -> None:
            try:
                await storage_of(platform).store("notes", "one", {"text": f"{number}"})
            except RecordExistsError:
                return
            won.append(f"{number}")

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(store, number)
        assert await texts(storage_of(platform)) == won


async def test_records_last_longer_than_the_server(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        stored = await storage_of(platform).store("notes", "a", {"text": "kept"})
    async with opened(tmp_path) as platform:
        assert await storage_of(platform).read("notes", "a") == stored


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        (lambda s: s.store("notes", "a", {"stars": "many"}), ["notes.text", "notes.stars"]),
        (lambda s: s.upsert("events", "a", {"at": "2026-01-01", "by": {"text": 1}}), ["events.by.text"]),
        (lambda s: s.update("notes", "a", {}), ["notes.text"]),
        (lambda s: s.update("notes", "a", "no data"), ["notes"]),
        (lambda s: s.store("notes", "a", {"text": "\ud800"}), ["notes"]),
        (lambda s: s.store("pages", "a", {}), ["collection"]),
        (lambda s: s.read("pages", "a"), ["collection"]),
        (lambda s: s.list("pages"), ["collection"]),
        (lambda s: s.remove("pages", "a"), ["collection"]),
        (lambda s: s.remove_collection("pages"), ["collection"]),
        (lambda s: s.list("notes", "world"), ["scope"]),
        (lambda s: s.list("notes", limit=-1), ["notes.limit"]),
        (lambda s: s.list("notes", offset=-1), ["notes.offset"]),
        (lambda s: s.store("notes", "a", {"text": ""}, "PICTURE"), ["data_type"]),
        (lambda s: s.upsert("notes", "", {"text": ""}), ["record_id"]),
        (lambda s: s.read("notes", None), ["record_id"]),
        (lambda s: s.remove("notes", "\udcff"), ["record_id"]),
    ],
)
async def test_what_does_not_fit_is_refused_by_the_name_of_its_field(
    autojump_clock: object, call: Callable[[DefaultStorage], Any], fields: list[str]
) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        with pytest.raises(InvalidRecordError) as caught:
            await call(storage)
        assert [violation.field for violation in caught.value.violations] == fields
        assert all(violation.description for violation in caught.value.violations)
        assert isinstance(caught.value, ValueError)
        assert await storage.list("notes") == []


async def test_what_could_not_be_read_again_is_not_stored(autojump_clock: object) -> None:
    class Measure(BaseModel):
        value: float

    async with opened() as platform:
        storage = storage_of(platform, config={"measures": Measure})
        with pytest.raises(InvalidRecordError, match=r"could not be read again.*measures\.value"):
            await storage.store("measures", "m", {"value": float("nan")})
        assert await storage.list("measures") == []


async def test_a_record_that_fits_its_model_no_more_is_named(autojump_clock: object) -> None:
    class Later(BaseModel):
        text: str
        colour: str

    async with opened() as platform:
        await storage_of(platform).store("notes", "old", {"text": "x"})
        later = storage_of(platform, config={"notes": Later})
        await later.store("notes", "new", {"text": "x", "colour": "red"})
        for call in (lambda: later.read("notes", "old"), lambda: later.list("notes")):
            with pytest.raises(StorageServiceError, match=r"'old'.*'notes'.*Later any more: notes\.colour") as caught:
                await call()
            assert not isinstance(caught.value, ValueError)  # not the fault of who reads
        assert await later.remove("notes", "old")
        assert len(await later.list("notes")) == 1


async def test_a_job_without_an_id_for_its_scope_shares_with_nobody(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform, version="")
        with pytest.raises(StorageServiceError, match="no id for the scope 'setup'"):
            await storage.list("notes", "setup")
        assert await storage.list("notes") == []


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


async def test_every_operation_is_a_checkpoint(autojump_clock: object) -> None:
    async with opened() as platform:
        storage = storage_of(platform)
        for call in (
            lambda: storage.store("notes", None, {"text": "x"}),
            lambda: storage.upsert("notes", "a", {"text": "x"}),
            lambda: storage.update("notes", "a", {"text": "x"}),
            lambda: storage.read("notes", "a"),
            lambda: storage.list("notes"),
            lambda: storage.remove("notes", "a"),
            lambda: storage.remove_collection("notes"),
        ):
            with trio.testing.assert_checkpoints():
                await call()


async def test_a_refused_record_is_told_without_looking_through_all_of_it(autojump_clock: object) -> None:
    class Watched(dict[str, Any]):
        def __repr__(self) -> str:
            raise AssertionError("a whole record is no part of an error")

    model = create_model("Wide", **{f"field{number}": (int, ...) for number in range(500)})
    async with opened() as platform:
        storage = storage_of(platform, config={"wide": model})
        with pytest.raises(InvalidRecordError) as caught:
            await storage.store("wide", None, Watched(field0="x" * 1_000_000))
    assert len(caught.value.violations) == 500
    assert len(caught.value.violations[0].description) < 200
    assert caught.value.message.endswith("and 495 more.")
