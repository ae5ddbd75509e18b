"""A store says the same on PostgreSQL as on SQLite: each scenario runs on both, and what it was told is compared.

That SQLite is right is what the tests of the stores are for.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio

from dk_trio.errors import DkTrioError
from dk_trio.services.cost import AmountLimit, CostType
from dk_trio.services.filesystem import FileFilter, UploadFileData
from dk_trio.services.local.snapshot import SCHEMA as SNAPSHOTS
from dk_trio.services.setup import SetupData, SetupVersionData
from dk_trio.services.stores.cost_pages import CostQuery
from dk_trio.services.stores.costs import CostStore, Entry, PlacedLimit
from dk_trio.services.stores.database import Database
from dk_trio.services.stores.files import FileStore
from dk_trio.services.stores.once import Once
from dk_trio.services.stores.postgres import PostgresDatabase
from dk_trio.services.stores.prices import PriceStore
from dk_trio.services.stores.profiles import ProfileStore
from dk_trio.services.stores.records import RecordStore
from dk_trio.services.stores.registrations import Facts, RegistrationStore, Wanted
from dk_trio.services.stores.setup_search import WantedSetups, setup_ids_work
from dk_trio.services.stores.setups import SetupTable
from dk_trio.services.stores.signals import NewSignal, SignalStore
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Statement, Work

# In this order for SQLite, in others for the languages of people.
NAMES = [
    "",
    "A",
    "B",
    "Z",
    "_",
    "a",
    "a b",
    "a%b",
    "a'b",
    "a\\b",
    "a_b",
    "ab",
    "b",
    "z",
    "ä",
    "é",
    "ß",
    "ﬀ",
    "😀",
    "😀a",
]

BIG = 2**53 + 1
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


class Told:
    """What a scenario was told, in its order."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    async def __call__(self, call: Awaitable[Any]) -> Any:
        try:
            value = await call
        except DkTrioError as error:
            self.said.append((type(error), str(error)))
            return None
        self.said.append(value)
        return value


Scenario = Callable[[Database, Told], Awaitable[None]]
SCENARIOS: list[Scenario] = []


def scenario(steps: Scenario) -> Scenario:
    SCENARIOS.append(steps)
    return steps


def without_times(row: Any) -> Any:
    if row is None:
        return None
    assert row.updated >= row.created
    return row.place, row.record_id, row.data_type, row.data


# --- records ---------------------------------------------------------------------------------------------------------


@scenario
async def records(database: Database, told: Told) -> None:
    store = RecordStore(database)

    async def plain(call: Awaitable[Any]) -> None:
        told.said.append(without_times(await call))

    for name in NAMES:
        await plain(store.insert("m", name, "id", "OUTPUT", json.dumps({"name": name, "big": BIG, "nul": "\0"})))
        await plain(store.insert("m", "names", name, "OUTPUT", name))
    await plain(store.insert("m", "names", "a", "OUTPUT", "twice"))
    await plain(store.upsert("m", "names", "a", "VIEW", "upserted"))
    await plain(store.upsert("m", "names", "new", "VIEW", "x" * 100_000))
    await plain(store.update("m", "names", "b", "updated"))
    await plain(store.update("m", "names", "missing", "updated"))
    await plain(store.amend("m", "names", "b", "OUTPUT", lambda data: f"{data} and amended"))
    await plain(store.amend("m", "names", "amended", "OUTPUT", lambda data: f"{data} and amended"))
    there = await store.get("m", "names", "b")
    assert there is not None
    await plain(store.update("m", "names", "b", "in time", updated=there.updated))
    try:
        await store.update("m", "names", "b", "too late", updated=there.updated)
    except DkTrioError as error:
        told.said.append(type(error))
    for name in ("A", "a", "ä", "Ä", "missing"):
        await plain(store.get("m", "names", name))
    for limit, offset in ((None, 0), (0, 0), (3, 0), (3, 2), (5, 18), (5, 100)):
        page = await store.page("m", "names", limit=limit, offset=offset)
        told.said.append(([without_times(row) for row in page.rows], page.after, page.last))
    first = await store.page("m", "names", limit=4, offset=0)
    second = await store.page("m", "names", after=first.after, last=first.last, limit=4, offset=0)
    told.said.append([row.record_id for row in (*first.rows, *second.rows)])
    await told(store.remove("m", "names", "a"))
    await told(store.remove("m", "names", "a"))
    await plain(store.insert("m", "names", "a", "OUTPUT", "again"))
    await told(store.remove_collection("m", "names"))
    await told(store.remove_collection("m", "names"))


# --- costs -----------------------------------------------------------------------------------------------------------


def entry(name: str, quantity: float, *, kind: CostType = CostType.OTHER, rate: float = 0.1, job: str = "j") -> Entry:
    return Entry("m", name, f"config {name}", kind, "€", rate, quantity, "v", job)


@scenario
async def costs(database: Database, told: Told) -> None:
    store = CostStore(database)
    for index, name in enumerate(NAMES):
        kind = (CostType.OTHER, CostType.API_CALL, CostType.TIME)[index % 3]
        await told(store.add(entry(name, index / 3, kind=kind, rate=0.1 * index), ()))
    for quantity in (1e300, 5e-324, 0.1, 1 / 3, 2.0**53):
        await told(store.add(entry("extreme", quantity), ()))
    limits = [PlacedLimit("f", AmountLimit(name="config limited", max_value=0.3, scope="mission"))]
    for _ in range(5):
        await told(store.add(entry("limited", 1.0), limits))
    await told(store.sums("m"))
    await told(store.sums("other"))
    for names in ([], ["a"], ["A", "a", "missing"], NAMES, [f"n{number}" for number in range(600)]):
        for kinds in ([], [CostType.TIME], [CostType.TIME, CostType.OTHER]):
            await told(store.filtered("m", names, kinds))
    await told(store.named("m", "extreme"))
    for query in (
        CostQuery(mission="m"),
        CostQuery(mission="m", names=["extreme", "a"]),
        CostQuery(mission="m", cost_types=["TIME"], setup_version_ids=["v", "w"]),
        CostQuery(mission="nobody"),
    ):
        for limit, offset in ((5, 0), (5, 20), (0, 0)):
            await told(database.read(partial(query.page, limit, offset)))
        await told(database.read(partial(query.after, 3, 9, 4)))


# --- setups ----------------------------------------------------------------------------------------------------------


def version(setup: str, name: str, content: Any = None) -> SetupVersionData:
    return SetupVersionData(
        id=f"setup_versions:{setup}-{name}",
        setup_id=f"setups:{setup}",
        version=name,
        content={"text": "ünï\0", "big": BIG} if content is None else content,
        creation_date=EPOCH + timedelta(microseconds=1),
    )


def setup(key: str, current: SetupVersionData | None = None, *, owner: str = "o", module: str = "m") -> SetupData:
    return SetupData(
        id=f"setups:{key}",
        name=f"Setup {key}",
        organisation_id="organizations:org",
        owner_id=owner,
        module_id=f"modules:{module}",
        current_setup_version=current,
    )


@scenario
async def setups(database: Database, told: Told) -> None:
    store = SetupTable(database)
    for key in NAMES[1:]:
        await told(store.create(setup(key, version(key, "1"), owner=key[0])))
    await told(store.create(setup("a")))
    await told(store.create(setup("bare")))
    await told(store.create_version(version("bare", "1")))
    await told(store.create_version(version("bare", "1")))
    await told(store.create_version(version("bare", "2", {"number": 0.1})))
    await told(store.create_version(version("missing", "1")))
    await told(store.get("bare"))
    changes: dict[str, str | None] = {"name": None, "owner_id": None, "status": None, "current": None}
    await told(store.update("bare", **{**changes, "name": "N"}))
    await told(store.update("bare", **{**changes, "status": "paused", "current": "bare-2"}))
    await told(store.update("bare", **{**changes, "current": "a-1"}))
    await told(store.update("missing", **changes))
    await told(store.put_version(setup("bare", version("bare", "2", {"put": 1}))))
    await told(store.put_version(setup("bare", version("bare", "3"))))
    await told(store.put_version(setup("bare", version("bare", "3"), module="x")))
    await told(store.put_version(setup("put", version("put", "3"))))
    for organisation in (None, "organizations:org", "ORG"):
        for owner in (None, "o", "a"):
            await told(store.page(organisation_id=organisation, owner_id=owner, limit=3, offset=1))
    for key in (None, "bare", "missing"):
        for name in (None, "1", "3"):
            await told(store.versions(setup_id=key, version=name, limit=10, offset=0))
    await told(store.update_version("bare-1", version="1b", content=None))
    await told(store.update_version("bare-1", version="3", content=None))
    await told(store.update_version("bare-1", version=None, content='{"x": 1}'))
    await told(store.get_version("bare-1"))
    await told(store.delete_version("bare-3"))
    await told(store.delete_version("bare-1"))
    await told(store.delete_version("bare-1"))
    await told(store.delete("bare"))
    await told(store.delete("bare"))
    await told(store.versions(setup_id="bare", version=None, limit=10, offset=0))


# --- files -----------------------------------------------------------------------------------------------------------


FILTERS: list[dict[str, Any]] = [
    {},
    {"names": []},
    {"names": ["a", "A", "missing", "😀"]},
    {"file_ids": ["3", "files:4", "missing"]},
    {"file_types": ["IMAGE", "CODE"]},
    {"prefix": "a"},
    {"prefix": "A"},
    {"prefix": "a_"},
    {"prefix": "a%"},
    {"prefix": "a\\"},
    {"prefix": "😀"},
    {"prefix": "ä"},
    {"content_type_prefix": "image/"},
    {"content_type": "image/png"},
    {"created_after": EPOCH + timedelta(seconds=5), "created_before": EPOCH + timedelta(seconds=10)},
    {"updated_after": EPOCH + timedelta(seconds=18)},
    {"updated_before": EPOCH + timedelta(seconds=3, microseconds=1)},
    {"min_size_bytes": 3, "max_size_bytes": 7},
    {"min_size_bytes": 2**62},
    {"status": "DELETED"},
    {"status": "ARCHIVED"},
]

ORDERS = [None, "name", "name desc", "size_bytes desc", "file_type", "content_type", "status", "update_date desc"]


@scenario
async def files(database: Database, told: Told) -> None:
    seconds = count(1)
    store = FileStore(database, None, now=lambda: EPOCH + timedelta(seconds=next(seconds)))

    async def plain(call: Awaitable[Any]) -> None:
        try:
            record = await call
        except DkTrioError as error:
            told.said.append((type(error), str(error)))
        else:
            told.said.append(shown(record))

    def shown(record: Any) -> dict[str, Any]:
        return record.model_dump(exclude={"storage_uri", "file_url", "content"})

    def upload(name: str, index: int, **more: Any) -> UploadFileData:
        return UploadFileData(
            content=bytes(index % 9),
            name=name,
            file_type=("IMAGE", "CODE", "OTHER")[index % 3],
            content_type=("image/png", "IMAGE/png", None)[index % 3],
            metadata={"name": name, "big": BIG, "float": 0.1},
            **more,
        )

    names = [name.replace("\\", "-") or "empty" for name in NAMES]
    for index, name in enumerate(names):
        await plain(store.put("missions:m", upload(name, index), max_size=100, file_id=str(index)))
    await plain(store.put("missions:m", upload("a", 1), max_size=100, file_id="twice"))
    await plain(store.put("missions:m", upload("a", 1), max_size=100, file_id="5"))
    await plain(store.put("missions:m", upload("a", 1, replace_if_exists=True), max_size=100, file_id="twice"))
    await plain(store.put("missions:other", upload("a", 1), max_size=100, file_id="other"))
    nothing = dict.fromkeys(("content", "file_type", "content_type", "metadata", "new_name", "status"))
    for change in ({"status": "ARCHIVED"}, {"new_name": "b"}, {"new_name": "renamed"}, {"content": b"new content"}):
        await plain(store.update("missions:m", "1", **{**nothing, **change}, max_size=100))
    await plain(store.update("missions:m", "missing", **nothing, max_size=100))
    deleted = FileFilter(names=["z", "Z"], file_ids=["missing"])
    await told(store.delete("missions:m", FileFilter(names=["z", "Z"]), permanent=False, force=False))
    result = await store.delete("missions:m", deleted, permanent=False, force=False)
    told.said.append((dict(result[0]), {key: str(error) for key, error in result.failures.items()}))
    for filters in FILTERS:
        found, total = await store.find("missions:m", FileFilter(**filters), list_size=50, offset=0, order=None)
        told.said.append((total, [shown(record) for record in found]))
    for order in ORDERS:
        for size, offset in ((50, 0), (4, 3), (4, 2**62)):
            found, total = await store.find("missions:m", FileFilter(), list_size=size, offset=offset, order=order)
            told.said.append((order, total, [record.id for record in found]))
    record = await store.get_with_content("missions:m", "1")
    told.said.append(record.content)
    await told(store.delete("missions:m", FileFilter(prefix="a"), permanent=True, force=True))
    await told(store.delete("missions:m", FileFilter(), permanent=True, force=True))
    found, total = await store.find("missions:other", FileFilter(), list_size=50, offset=0, order=None)
    told.said.append((total, [shown(record) for record in found]))


# --- the rest --------------------------------------------------------------------------------------------------------


@scenario
async def profiles_and_prices(database: Database, told: Told) -> None:
    profiles, prices = ProfileStore(database), PriceStore(database)
    for profile in ({"name": "ünï\0😀", "big": BIG, "none": None, "list": [0.1]}, {}):
        await told(profiles.get("missions:m"))
        await told(profiles.put("missions:m", profile))
        await told(profiles.get("m"))
    for text in ("[1]", "[2]"):
        await told(database.write(partial(prices.put_work, "v", text)))
        await told(database.read(partial(prices.get_work, "v")))
    await told(database.read(partial(prices.get_work, "w")))


@scenario
async def idempotency_keys(database: Database, told: Told) -> None:
    now = 1e9
    once = Once(database, ttl=100.0, now=lambda: now)
    runs = count()

    def work() -> Work[bytes]:
        rows = (yield Statement("SELECT ?", (next(runs),))).rows
        return bytes([0, 255, rows[0][0]])

    def fails() -> Work[bytes]:
        yield Statement("SELECT 1")
        raise DkTrioError("failed")

    for key, method, request in (
        ("", "/m", b"a"),
        ("k", "/m", b"\0\xff"),
        ("k", "/m", b"\0\xff"),
        ("k", "/m", b"other"),
        ("k", "/n", b"\0\xff"),
        ("K", "/m", b"\0\xff"),
    ):
        await told(database.write(partial(once, key, method, request, work, bytes, bytes)))
    await told(database.write(partial(once, "f", "/m", b"", fails, bytes, bytes)))
    await told(database.write(partial(once, "f", "/m", b"", work, bytes, bytes)))
    await told(once.purge())
    now += 101
    await told(once.purge())
    await told(database.write(partial(once, "k", "/m", b"other", work, bytes, bytes)))


@scenario
async def signals(database: Database, told: Told) -> None:
    store = SignalStore(database)
    digests = count()

    async def add(*signals: Sequence[str], now: int = 0) -> None:
        new = [
            NewSignal(task, action, reason, b"\0%d" % next(digests), f"{task} {action} {reason}".encode())
            for task, action, reason in signals
        ]
        await told(database.write(partial(store.add_work, new, now=now)))
        await look()

    async def look() -> None:
        told.said.append(sorted(await database.read(store.asked_work)))
        await told(database.read(partial(store.pending_work, ["a", "b", "A", "ä", "missing"])))
        await told(database.read(partial(store.last_work, ["a", "b", "A", "ä", "missing"])))

    await look()
    await add(("a", "start", ""), ("b", "start", ""), ("ä", "cancel", ""))
    await add(("a", "cancel", ""), ("b", "stop", "none"), ("A", "stop", "signal_service_stop"))
    await add(("a", "ack_cancel", ""), ("b", "stop", "completed"), now=5)
    await add(("a", "cancel", ""), ("a", "stop", "signal_service_cancel"), now=6)
    same = [NewSignal("twice", "cancel", "", b"same", b"message")] * 2
    await told(database.write(partial(store.add_work, same, now=BIG)))
    await add(*[("loop", "cancel", "")] * 150)
    pending = await database.read(partial(store.pending_work, ["loop", *[f"n{number}" for number in range(1200)]]))
    told.said.append([(one.place, one.message) for one in pending])
    for now in (0, 3600 * 1_000_000 + 6, BIG):
        await told(database.write(partial(store.purge_work, now=now)))
        await look()


@scenario
async def registrations(database: Database, told: Told) -> None:
    store = RegistrationStore(database, length=100)
    for index, name in enumerate(NAMES[1:]):
        facts = Facts(
            f"modules:{index}", "host", index, "1", ("tool", "archetype")[index % 2], "tool", name, f"Doc {name}"
        )
        await told(database.write(partial(store.register_work, facts, now=1000 + 10 * index)))
    await told(database.write(partial(store.register_work, Facts("3", "other", 0, "2"), now=1200)))
    for module in ("4", "modules:5", "missing"):
        await told(database.write(partial(store.beat_work, module, now=1200)))
        await told(database.write(partial(store.tell_work, module, served=module != "4", idle=True, now=1201)))
        await told(database.write(partial(store.withdraw_work, "6", now=1202)))
        await told(database.write(partial(store.beat_work, "6", now=1203)))
        await told(database.read(partial(store.get_work, module)))
    lease = await store.lease(1250)
    for module, place in (("3", "other:0"), ("3", "wrong:1"), ("6", "host:6"), ("missing", "host:1"), ("1", "host:1")):
        move = partial(store.move_work, module, from_place=place, place="unix:/x:0", seen=1240, now=1250, lease=lease)
        await told(database.write(move))
        await told(database.read(partial(store.get_work, module)))
    wanted = [Wanted(query=name) for name in [*NAMES, "Ä", "É", "SS", "modules:1", "MODULES:1", "!", "doc"]]
    wanted += [Wanted(name=name) for name in ["Ä", "%", "_", "A B", "😀"]]
    wanted += [Wanted(documentation="DOC A"), Wanted(types=["tool", "x"], alive=True), Wanted(kind="tool", alive=False)]
    setups = SetupTable(database)
    for index, name in enumerate(NAMES[1:]):
        await told(setups.create(setup(name, module=str(index), owner="o")))
    for looked in (
        WantedSetups(),
        WantedSetups(organization="organisations:org"),
        *[WantedSetups(query=name) for name in [*NAMES, "Ä", "setups:A", "SETUP"]],
        WantedSetups(statuses=["ready"], module_ids=["modules:3", "4"], module_types=["tool"]),
    ):
        await told(database.read(partial(setup_ids_work, looked, limit=100, offset=1)))
    for one in wanted:
        for limit, offset in ((100, 0), (3, 2)):
            await told(database.read(partial(store.page_work, one, lease, limit=limit, offset=offset)))


@scenario
async def schemas(database: Database, told: Told) -> None:
    database.declare("snapshots", SNAPSHOTS)
    database.declare("more", ("CREATE TABLE more (place {place}, name TEXT)", "ALTER TABLE more ADD COLUMN x TEXT"))

    def work() -> Work[list[Any]]:
        found: list[Any] = []
        for name in reversed(NAMES):
            found += (yield Statement("INSERT INTO more (name) VALUES (?) RETURNING place, x", (name,))).rows
        yield Statement("DELETE FROM more WHERE place > ?", (5,))
        found += (yield Statement("INSERT INTO more (name) VALUES (?) RETURNING place", ("last",))).rows
        for sql in (
            "SELECT name FROM more ORDER BY name",
            "SELECT max(name), min(name), count(*) FROM more",
            "SELECT name FROM more WHERE name > 'a' ORDER BY name DESC",
        ):
            result = yield Statement(sql)
            found.append((result.rows, result.count))
        for sql in ("UPDATE more SET x = name", "DELETE FROM more WHERE name = 'nobody'", "DELETE FROM more"):
            result = yield Statement(sql)
            found.append((result.rows, result.count))
        return found

    await told(database.write(work))


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", SCENARIOS, ids=lambda steps: steps.__name__)
async def test_both_engines_say_the_same(steps: Scenario, postgres_url: str) -> None:
    said = []
    with trio.fail_after(60):
        for database in (SqliteDatabase(None), PostgresDatabase(postgres_url)):
            told = Told()
            async with database.opened():
                await steps(database, told)
            said.append(told.said)
    sqlite, postgres = said
    for here, there in zip(sqlite, postgres, strict=True):
        assert here == there
    assert len(sqlite) > 0
