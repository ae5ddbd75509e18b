"""What a storage promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field, create_model

from dk_trio.errors import InvalidRecordError, RecordExistsError, StorageServiceError
from dk_trio.services.storage import DataType, Storage

from .kit import LOCAL, REMOTE, Jobs, cases, only


class Note(BaseModel):
    text: str
    stars: int = 0


class Event(BaseModel):
    at: datetime
    by: Note | None = None


class Anything(BaseModel):
    value: Any


class Texts(BaseModel):
    texts: list[str] = []


CONFIG: Mapping[str, type[BaseModel]] = {"notes": Note, "events": Event, "things": Anything, "texts": Texts}


async def texts(storage: Storage, **options: Any) -> list[str]:
    return [record.data.text for record in await storage.list("notes", **options)]


async def test_a_record_is_read_as_it_was_stored(jobs: Jobs) -> None:
    storage = jobs.storage()
    before = datetime.now(UTC) - timedelta(seconds=1)
    stored = await storage.store("notes", "a", {"text": "hello", "stars": "3"}, "VIEW")
    assert stored == await storage.read("notes", "a")
    assert stored.data == Note(text="hello", stars=3)
    assert (stored.context, stored.collection, stored.record_id) == ("missions:m", "notes", "a")
    assert stored.data_type is DataType.VIEW
    assert before < stored.creation_date == stored.update_date < datetime.now(UTC) + timedelta(seconds=1)
    assert stored.model_dump(mode="json")["data"] == {"text": "hello", "stars": 3}


async def test_a_record_without_an_id_gets_one(jobs: Jobs) -> None:
    storage = jobs.storage()
    ids = {(await storage.store("notes", none, Note(text="x"))).record_id for none in (None, "", None)}
    assert len(ids) == 3
    assert all(len(record_id) == 32 and int(record_id, 16) for record_id in ids)


async def test_store_refuses_a_record_that_exists(jobs: Jobs) -> None:
    storage = jobs.storage()
    await storage.store("notes", "a", {"text": "first"})
    with pytest.raises(RecordExistsError, match="'a' of collection 'notes' exists already") as caught:
        await storage.store("notes", "a", {"text": "second"})
    assert isinstance(caught.value, ValueError)  # as code for the existing SDK expects
    assert "upsert" in caught.value.hint
    assert await texts(storage) == ["first"]


async def test_update_replaces_data_and_only_of_what_exists(jobs: Jobs) -> None:
    storage = jobs.storage()
    assert await storage.update("notes", "a", {"text": "nothing"}) is None
    assert await storage.read("notes", "a") is None
    stored = await storage.store("notes", "a", {"text": "old", "stars": 5}, "LOGS")
    updated = await storage.update("notes", "a", {"text": "new"})
    assert updated is not None
    assert updated.data == Note(text="new", stars=0)
    assert updated.data_type is DataType.LOGS
    assert updated.creation_date == stored.creation_date <= updated.update_date
    assert updated == await storage.read("notes", "a")


async def test_upsert_writes_what_is_new_and_what_is_not(jobs: Jobs) -> None:
    storage = jobs.storage()
    first = await storage.upsert("notes", "a", {"text": "first"}, "VIEW")
    await storage.upsert("notes", "b", {"text": "other"})
    second = await storage.upsert("notes", "a", {"text": "second"}, "LOGS")
    assert (second.data_type, second.creation_date) == (DataType.VIEW, first.creation_date)
    assert await texts(storage) == ["second", "other"]


async def test_remove_tells_whether_there_was_one(jobs: Jobs) -> None:
    storage = jobs.storage()
    await storage.store("notes", "a", {"text": "x"})
    assert [await storage.remove("notes", "a") for _ in range(2)] == [True, False]
    assert await storage.read("notes", "a") is None
    for name in "abc":
        await storage.store("notes", name, {"text": name})
    await storage.store("events", "a", {"at": "2026-01-02T03:04:05Z"})
    assert [await storage.remove_collection("notes") for _ in range(2)] == [True, False]
    assert await texts(storage) == []
    assert len(await storage.list("events")) == 1


async def test_a_list_is_in_the_order_of_creation_and_has_pages(jobs: Jobs) -> None:
    storage = jobs.storage()
    names = [f"{number * 7919 % 1000:03}" for number in range(130)]  # more than a page, in no order of their own
    for name in names:
        await storage.store("notes", name, {"text": name})
    await storage.update("notes", names[0], {"text": "changed"})
    names[0] = "changed"
    assert await texts(storage) == names
    for limit, offset in ((None, 3), (0, 0), (1, 0), (100, 0), (101, 9), (50, 99), (5, 129), (5, 400)):
        end = None if limit is None else offset + limit
        assert await texts(storage, limit=limit, offset=offset) == names[offset:end]


async def test_types_that_json_does_not_have_come_back(jobs: Jobs) -> None:
    storage = jobs.storage()
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    await storage.store("events", "e", Event(at=at, by=Note(text="\U0001f980 \x00 é")))
    record = await storage.read("events", "e")
    assert record is not None
    assert record.data == Event(at=at, by=Note(text="\U0001f980 \x00 é"))


async def test_aliases_and_computed_fields_do_not_get_in_the_way(jobs: Jobs) -> None:
    class Person(BaseModel):
        model_config = ConfigDict(extra="forbid")
        first: str = Field(alias="firstName")

        @computed_field  # type: ignore[prop-decorator]
        @property
        def loud(self) -> str:
            return self.first.upper()

    storage = jobs.storage(config={"people": Person})
    await storage.store("people", "p", {"firstName": "Ada"})
    await storage.store("people", "q", Person(firstName="Eve"))
    assert [record.data.loud for record in await storage.list("people")] == ["ADA", "EVE"]


async def test_what_the_author_does_to_the_data_later_changes_nothing(jobs: Jobs) -> None:
    storage = jobs.storage()
    note = Note(text="kept")
    record = await storage.store("notes", "a", note)
    note.text = record.data.text = "changed"  # type: ignore[attr-defined]
    assert await texts(storage) == ["kept"]


async def test_records_of_a_mission_and_of_a_setup_are_apart(jobs: Jobs) -> None:
    storage = jobs.storage(mission="missions:same", version="setup_versions:same")
    await storage.store("notes", "a", {"text": "of the mission"})
    stored = await storage.store("notes", "a", {"text": "of the setup"}, scope="setup")
    assert stored.context == "setup_versions:same"
    assert await texts(storage) == ["of the mission"]
    assert await texts(storage, scope="setup") == ["of the setup"]
    await storage.remove_collection("notes", scope="setup")
    assert await texts(storage) == ["of the mission"]


async def test_jobs_see_the_records_of_their_mission_and_no_others(jobs: Jobs) -> None:
    await jobs.storage("missions:m").store("notes", "a", {"text": "shared"})
    assert await texts(jobs.storage("m", "v2")) == ["shared"]  # the prefix is no part of the id
    assert await texts(jobs.storage("missions:other")) == []


async def test_jobs_that_upsert_one_record_at_once_end_with_one_record(jobs: Jobs) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(jobs.storage().upsert, "notes", "one", {"text": f"{number}"})
    assert len(await texts(jobs.storage())) == 1


async def test_jobs_that_store_one_record_at_once_have_one_winner(jobs: Jobs) -> None:
    won = []

    async def store(number: int) -> None:
        try:
            await jobs.storage().store("notes", "one", {"text": f"{number}"})
        except RecordExistsError:
            return
        won.append(f"{number}")

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(store, number)
    assert await texts(jobs.storage()) == won


@cases(
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
    (lambda s: s.store("notes", "a\x00b", {"text": ""}), ["record_id"]),
)
async def test_what_does_not_fit_is_refused_by_the_name_of_its_field(
    jobs: Jobs, call: Callable[[Storage], Any], fields: list[str]
) -> None:
    storage = jobs.storage()
    with pytest.raises(InvalidRecordError) as caught:
        await call(storage)
    assert [violation.field for violation in caught.value.violations] == fields
    assert all(violation.description for violation in caught.value.violations)
    assert isinstance(caught.value, ValueError)
    assert await storage.list("notes") == []


async def test_what_could_not_be_read_again_is_not_stored(jobs: Jobs) -> None:
    class Measure(BaseModel):
        value: float

    storage = jobs.storage(config={"measures": Measure})
    with pytest.raises(InvalidRecordError, match=r"could not be read again.*measures\.value"):
        await storage.store("measures", "m", {"value": float("nan")})
    assert await storage.list("measures") == []


async def test_a_record_that_fits_its_model_no_more_is_named(jobs: Jobs) -> None:
    class Later(BaseModel):
        text: str
        colour: str

    await jobs.storage().store("notes", "old", {"text": "x"})
    later = jobs.storage(config={"notes": Later})
    await later.store("notes", "new", {"text": "x", "colour": "red"})
    for call in (lambda: later.read("notes", "old"), lambda: later.list("notes")):
        with pytest.raises(StorageServiceError, match=r"'old'.*'notes'.*Later any more: notes\.colour") as caught:
            await call()
        assert not isinstance(caught.value, ValueError)  # not the fault of who reads
    assert await later.remove("notes", "old")
    assert len(await later.list("notes")) == 1


async def test_a_job_without_an_id_for_its_scope_shares_with_nobody(jobs: Jobs) -> None:
    storage = jobs.storage(version="")
    with pytest.raises(StorageServiceError, match="no id for the scope 'setup'"):
        await storage.list("notes", "setup")
    assert await storage.list("notes") == []


async def test_every_operation_is_a_checkpoint(jobs: Jobs) -> None:
    storage = jobs.storage()
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


async def test_a_refused_record_is_told_without_looking_through_all_of_it(jobs: Jobs) -> None:
    class Watched(dict[str, Any]):
        def __repr__(self) -> str:
            raise AssertionError("a whole record is no part of an error")

    model = create_model("Wide", **{f"field{number}": (int, ...) for number in range(500)})
    storage = jobs.storage(config={"wide": model})
    with pytest.raises(InvalidRecordError) as caught:
        await storage.store("wide", None, Watched(field0="x" * 1_000_000))
    assert len(caught.value.violations) == 500
    assert len(caught.value.violations[0].description) < 200
    assert caught.value.message.endswith("and 495 more.")


# --- values ----------------------------------------------------------------------------------------------------------


@cases(
    (None,),
    (True,),
    (0,),
    (-1,),
    (2**53,),
    (-(2**53),),
    (1.5,),
    (1e300,),
    (-1e-300,),
    ("",),
    ("\U0001f980 \x00 \u2028",),
    ([],),
    ({},),
    ([[], {}, None, [0.5, "a", {"": [False]}]],),
    ({"a": {"b": {"c": [1, 2, {"d": None}]}}, "": 0},),
)
async def test_a_json_value_comes_back_as_it_was(jobs: Jobs, value: object) -> None:
    storage = jobs.storage()
    await storage.store("things", "t", {"value": value})
    for record in (await storage.read("things", "t"), *await storage.list("things")):
        assert record is not None
        assert record.data.value == value
        assert type(record.data.value) is type(value)


async def test_a_long_text_comes_back_whole(jobs: Jobs) -> None:
    storage = jobs.storage()
    text = "0123456789" * 200_000
    await storage.store("notes", "long", {"text": text})
    assert await texts(storage) == [text]


@only(LOCAL, "Integers beyond 2^53 are kept. A provider is told doubles, so they are refused there.")
@cases((2**53 + 1,), (-(2**60),), (10**30,), (10**400,))
async def test_an_integer_of_any_size_comes_back(jobs: Jobs, value: int) -> None:
    storage = jobs.storage()
    await storage.store("things", "t", {"value": value})
    record = await storage.read("things", "t")
    assert record is not None
    assert record.data.value == value


@only(REMOTE, "An integer beyond 2^53 is refused, since a double would come back as another number.")
@cases((2**53 + 1,), (-(2**60),), (10**30,), (10**400,))
async def test_an_integer_that_no_double_can_hold_is_refused(jobs: Jobs, value: int) -> None:
    storage = jobs.storage()
    for call in (storage.store, storage.upsert, storage.update):
        with pytest.raises(InvalidRecordError) as caught:
            await call("things", "t", {"value": {"deep": [0, value]}})
        assert [violation.field for violation in caught.value.violations] == ["things.value.deep[1]"]
    assert await storage.list("things") == []


@only(LOCAL, "A model may be anything that is JSON. A provider keeps objects, and refuses other models.")
async def test_a_model_may_be_a_list(jobs: Jobs) -> None:
    storage = jobs.storage(config={"rows": RootModel[list[int]]})
    await storage.store("rows", "r", RootModel[list[int]]([1, 2]))
    record = await storage.read("rows", "r")
    assert record is not None
    assert record.data.root == [1, 2]


@only(REMOTE, "A record is a JSON object: a model that is a list or a text is refused.")
async def test_a_model_that_is_no_object_is_refused(jobs: Jobs) -> None:
    storage = jobs.storage(config={"rows": RootModel[list[int]]})
    with pytest.raises(InvalidRecordError, match="must be a JSON object, not list"):
        await storage.store("rows", "r", RootModel[list[int]]([1, 2]))


# --- changes at the same time ----------------------------------------------------------------------------------------


async def add(storage: Any, text: str) -> None:
    def change(data: dict[str, Any] | None) -> dict[str, Any]:
        return {"texts": [*(data or {}).get("texts", []), text]}

    await storage.amend("texts", "one", change)


async def test_no_change_by_amend_is_lost(jobs: Jobs) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(add, jobs.storage(), str(number))
    record = await jobs.storage().read("texts", "one")
    assert record is not None
    assert sorted(record.data.texts, key=int) == [str(number) for number in range(30)]


async def test_an_amend_that_does_not_fit_changes_nothing(jobs: Jobs) -> None:
    storage: Any = jobs.storage()
    await add(storage, "a")
    with pytest.raises(InvalidRecordError) as caught:
        await storage.amend("texts", "one", lambda _: {"texts": 3})
    assert [violation.field for violation in caught.value.violations] == ["texts.texts"]
    with pytest.raises(ZeroDivisionError):
        await storage.amend("texts", "one", lambda _: {"texts": [1 / 0]})
    record = await storage.read("texts", "one")
    assert record.data == Texts(texts=["a"])


async def test_an_amend_keeps_creation_date_and_data_type(jobs: Jobs) -> None:
    storage: Any = jobs.storage()
    first = await storage.amend("texts", "one", lambda data: {"texts": [repr(data)]}, "VIEW")
    second = await storage.amend("texts", "one", lambda data: {"texts": [*data["texts"], "b"]}, "LOGS")
    assert second.data.texts == ["None", "b"]
    assert (second.data_type, second.creation_date) == (DataType.VIEW, first.creation_date)
    assert second.update_date > first.update_date


async def test_an_upsert_while_the_record_comes_and_goes_is_there_in_the_end(jobs: Jobs) -> None:
    storage = jobs.storage()

    async def come_and_go() -> None:
        for _ in range(20):
            await storage.remove("notes", "one")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_and_go)
        for number in range(20):
            nursery.start_soon(storage.upsert, "notes", "one", {"text": str(number)})
    await storage.upsert("notes", "one", {"text": "last"})
    assert await texts(storage) == ["last"]


async def test_a_removed_record_can_be_stored_again_and_comes_last(jobs: Jobs) -> None:
    storage = jobs.storage()
    for name in "ab":
        await storage.store("notes", name, {"text": name})
    await storage.remove("notes", "a")
    await storage.store("notes", "a", {"text": "again"})
    assert await texts(storage) == ["b", "again"]


async def test_a_cancelled_store_leaves_whole_records_or_none(jobs: Jobs) -> None:
    storage = jobs.storage()
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.store("notes", "a", {"text": "x"})
    assert scope.cancelled_caught
    assert await texts(storage) == []


# --- ids and names ---------------------------------------------------------------------------------------------------


@cases(("a/b",), (" ",), ("\U0001f980",), ("it's; DROP TABLE records",), ("a" * 500,), ("%_",), ("missions:m",), ("A",))
async def test_any_text_is_an_id(jobs: Jobs, record_id: str) -> None:
    storage = jobs.storage()
    await storage.store("notes", record_id, {"text": "mine"})
    await storage.store("notes", f"{record_id}x", {"text": "other"})
    await storage.store("notes", "a", {"text": "other"})
    record = await storage.read("notes", record_id)
    assert record is not None
    assert (record.record_id, record.data.text) == (record_id, "mine")
    assert await storage.remove("notes", record_id)
    assert await texts(storage) == ["other", "other"]


@cases(("OUTPUT",), ("VIEW",), ("LOGS",), ("OTHER",))
async def test_every_data_type_is_kept(jobs: Jobs, data_type: Any) -> None:
    stored = await jobs.storage().store("notes", "a", {"text": "x"}, data_type)
    assert stored.data_type is DataType(data_type)
    assert (await jobs.storage().list("notes"))[0].data_type is DataType(data_type)


async def test_a_config_without_models_is_refused(jobs: Jobs) -> None:
    for config in ({"notes": dict}, ["notes"]):
        with pytest.raises(InvalidRecordError, match="have no models"):
            jobs.storage(config=config)


async def test_a_refusal_has_the_status_that_a_caller_gets(jobs: Jobs) -> None:
    storage = jobs.storage()
    await storage.store("notes", "a", {"text": "x"})
    with pytest.raises(RecordExistsError) as exists:
        await storage.store("notes", "a", {"text": "x"})
    assert exists.value.status is Status.ALREADY_EXISTS
    assert [violation.field for violation in exists.value.violations] == ["notes.record_id"]
    with pytest.raises(InvalidRecordError) as invalid:
        await storage.store("notes", "b", {})
    assert invalid.value.status is Status.INVALID_ARGUMENT


async def test_health_leaves_nothing_behind(jobs: Jobs) -> None:
    storage: Any = jobs.storage()
    await storage.check_health()
    assert await texts(storage) == []
    assert "notes" in repr(storage)
    await storage.close()
