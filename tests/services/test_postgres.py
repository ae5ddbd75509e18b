"""A PostgreSQL database keeps what works write; each alone in its transaction, though they share one commit."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import trio
from grpclib.const import Status
from tests.postgres import PostgresServer

from dk_trio.errors import DatabaseError, StorageServiceError
from dk_trio.services.stores import _postgres, _psycopg
from dk_trio.services.stores.open import open_database
from dk_trio.services.stores.postgres import PostgresDatabase
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Statement, Work

THINGS = (
    "CREATE TABLE things (place {place}, name TEXT NOT NULL UNIQUE, number BIGINT, real DOUBLE PRECISION, bytes BYTEA)",
)


@asynccontextmanager
async def opened(url: str, things: tuple[str, ...] = THINGS) -> AsyncIterator[PostgresDatabase]:
    with trio.fail_after(60):
        database = PostgresDatabase(url)
        database.declare("things", things)
        async with database.opened():
            yield database


def one(sql: str, *parameters: Any) -> Callable[[], Work[list[tuple[Any, ...]]]]:
    def work() -> Work[list[tuple[Any, ...]]]:
        return (yield Statement(sql, parameters)).rows

    return work


def put(name: str, *, fails: bool = False) -> Callable[[], Work[int]]:
    def work() -> Work[int]:
        result = yield Statement("INSERT INTO things (name) VALUES (?) RETURNING place", (name,))
        assert result.count == 1
        if fails:
            raise LookupError(name)
        place: int = result.rows[0][0]
        return place

    return work


NAMES = one("SELECT name FROM things ORDER BY place")


async def names(database: PostgresDatabase) -> list[str]:
    return [name for (name,) in await database.read(NAMES)]


async def outcomes(database: PostgresDatabase, *works: Callable[[], Work[Any]]) -> list[Any]:
    """What each of the works returned or raised; all of them but the first in one batch."""
    found: list[Any] = [None] * len(works)

    async def run(index: int) -> None:
        try:
            found[index] = await database.write(works[index])
        except Exception as error:  # noqa: BLE001 - it is looked at
            found[index] = error

    async with trio.open_nursery() as nursery:
        for index in range(len(works)):
            nursery.start_soon(run, index)
    return found


# --- values ----------------------------------------------------------------------------------------------------------


async def test_values_come_back_as_they_were(postgres_url: str) -> None:
    rows = [
        ("a", 2**63 - 1, 0.1, b"\0\xff"),
        ("ünï\u2028 😀 '\\%", -(2**63), 1.7976931348623157e308, b""),
        ("", 0, -0.0, None),
        ("true", True, 5e-324, bytes(range(256))),
        ("none", None, None, None),
    ]
    async with opened(postgres_url) as database:
        for row in rows:
            await database.write(one("INSERT INTO things (name, number, real, bytes) VALUES (?, ?, ?, ?)", *row))
        assert await database.read(one("SELECT name, number, real, bytes FROM things ORDER BY place")) == rows
        sums = await database.read(one("SELECT sum(number), count(*), max(place) FROM things WHERE number < ?", 5))
        assert sums == [(-(2**63) + 1, 3, 4)]
        assert [type(value) for value in sums[0]] == [int, int, int]


@pytest.mark.parametrize(
    ("value", "said"), [("a\0b", "NUL"), ("a\ud800", "surrogate"), (2**63, "64 bits"), ("x" * 9000, "too large")]
)
async def test_a_value_that_cannot_be_kept_is_refused_and_harms_no_other_write(
    postgres_url: str, value: Any, said: str
) -> None:
    if said == "too large":  # of an index; PostgreSQL compresses what can be
        value = "".join(chr(0x100 + (i * 7919) % 5000) for i in range(9000))

    def work() -> Work[None]:
        yield Statement("INSERT INTO things (name) VALUES ('half')")
        column = "number" if isinstance(value, int) else "name"
        yield Statement(f"UPDATE things SET {column} = ? WHERE name = 'half'", (value,))

    async with opened(postgres_url) as database:
        first, a, refused, b = await outcomes(database, put("first"), put("a"), work, put("b"))
        assert isinstance(refused, StorageServiceError)
        assert said in refused.message
        assert refused.status == Status.INVALID_ARGUMENT
        assert {type(first), type(a), type(b)} == {int}
        assert sorted(await names(database)) == ["a", "b", "first"]


async def test_a_statement_may_be_larger_than_what_the_kernel_takes(postgres_url: str) -> None:
    text = "ünï" * 3_000_000
    async with opened(postgres_url) as database:
        assert await database.write(one("SELECT ?, length(?)", text, text)) == [(text, len(text))]
        assert await database.read(one("SELECT ?, length(?)", text, text)) == [(text, len(text))]


# --- writes ----------------------------------------------------------------------------------------------------------


async def test_writes_share_commits(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        places = await outcomes(database, *[put(str(number)) for number in range(100)])
        assert sorted(places) == list(range(1, 101))
        assert database.statistics().commits <= 3
        assert database.statistics().writes == 100


async def test_a_work_that_raises_undoes_itself_alone(postgres_url: str) -> None:
    works = [put(str(number), fails=number % 3 == 0) for number in range(30)]
    async with opened(postgres_url) as database:
        found = await outcomes(database, *works)
        for number, result in enumerate(found):
            assert isinstance(result, LookupError) == (number % 3 == 0)
        assert sorted(await names(database), key=int) == [str(number) for number in range(30) if number % 3]
        assert database.statistics().commits <= 3
        assert database.statistics().failed == 10


async def test_a_statement_that_fails_undoes_its_work_alone(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await database.write(put("taken"))
        found = await outcomes(database, put("a"), put("b"), put("taken"), one("SELECT nonsense"), put("c"))
        assert isinstance(found[2], psycopg.errors.UniqueViolation)
        assert isinstance(found[3], psycopg.errors.UndefinedColumn)
        assert sorted(await names(database)) == ["a", "b", "c", "taken"]


async def test_a_work_that_raises_before_it_has_written_costs_the_batch_nothing(postgres_url: str) -> None:
    runs = 0

    def reads_then_raises() -> Work[None]:
        nonlocal runs
        runs += 1
        yield Statement("SELECT 1")
        raise LookupError

    async with opened(postgres_url) as database:
        found = await outcomes(database, put("first"), put("a"), reads_then_raises, put("b"))
        assert isinstance(found[2], LookupError)
        assert runs == 1
        assert sorted(await names(database)) == ["a", "b", "first"]


async def test_works_of_a_batch_see_what_those_before_them_wrote(postgres_url: str) -> None:
    def count() -> Work[int]:
        number = (yield Statement("SELECT count(*) FROM things")).rows[0][0]
        yield Statement("INSERT INTO things (name, number) VALUES (?, ?)", (f"n{number}", number))
        return int(number)

    async with opened(postgres_url) as database:
        assert sorted(await outcomes(database, *[count] * 20)) == list(range(20))


async def test_a_work_without_statements_is_one(postgres_url: str) -> None:
    def nothing() -> Work[str]:
        return "done"
        yield

    async with opened(postgres_url) as database:
        assert await database.write(nothing) == "done"
        assert await database.read(nothing) == "done"


async def test_a_cancelled_write_was_not_written_unless_it_was_begun(postgres_url: str) -> None:
    def slow() -> Work[str]:
        yield Statement("SELECT pg_sleep(0.3)")
        yield Statement("INSERT INTO things (name) VALUES ('slow')")
        return "written"

    results = []
    async with opened(postgres_url) as database:
        await database.open()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                results.append(await database.write(slow))

            await trio.sleep(0.1)  # the server sleeps: this one is begun
            with trio.move_on_after(0) as scope:
                await database.write(put("withdrawn"))
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
        assert results == ["written"]
        assert await names(database) == ["slow"]
        assert database.statistics().withdrawn == 1


async def test_a_commit_is_on_disk_even_if_the_role_says_otherwise(
    postgres_url: str,
) -> None:
    async with opened(f"{postgres_url}%20-csynchronous_commit%3Doff") as database:
        assert await database.write(one("SELECT current_setting('synchronous_commit')")) == [("on",)]


# --- reads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thread", [False, True])
async def test_a_read_sees_one_state(postgres_url: str, thread: bool) -> None:
    async with opened(postgres_url) as database:
        counted, written = trio.Event(), trio.Event()

        def twice() -> Work[list[int]]:
            found = []
            for _ in range(3):
                found.append((yield Statement("SELECT count(*) FROM things, pg_sleep(0.05)")).rows[0][0])
                counted.set()
            return found

        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                assert await database.read(twice, thread=thread) == [0, 0, 0]
                assert written.is_set()

            await counted.wait()
            await database.write(put("a"))
            written.set()
        assert await names(database) == ["a"]


async def test_a_read_cannot_write(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        with pytest.raises(StorageServiceError, match="read-only"):
            await database.read(put("a"))
        assert await names(database) == []


async def test_a_cancelled_read_leaves_a_connection_that_can_be_used(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        for seconds in (0.2, 0.2, 0.2, 0.2, 0.2):  # more than there are connections
            with trio.move_on_after(0.05) as scope:
                await database.read(one("SELECT pg_sleep(?)", seconds))
            assert scope.cancelled_caught
            assert await names(database) == []


async def test_a_cancelled_read_that_does_not_end_is_ended(
    postgres_url: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_psycopg, "SETTLE", 0.2)
    async with opened(postgres_url) as database:
        before = trio.current_time()
        with trio.move_on_after(0.1):
            await database.read(one("SELECT pg_sleep(50)"))
        assert trio.current_time() - before < 10
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(50)%'"
        while postgres_server.sql(query) != [(0,)]:  # noqa: ASYNC110 - another process
            await trio.sleep(0.01)
        assert await names(database) == []


async def test_many_readers_share_a_few_connections(postgres_url: str, postgres_server: PostgresServer) -> None:
    async with opened(f"{postgres_url}&application_name=counted") as database:
        await database.write(put("a"))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                assert await database.read(NAMES, thread=True) == [("a",)]

            for _ in range(50):
                nursery.start_soon(names, database)
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'"
        assert postgres_server.sql(query) == [(5,)]
        assert database.statistics().reads == 51


async def test_statements_that_differ_do_not_pile_up_in_the_server(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        for number in range(300):
            assert await database.read(one(f"SELECT {number} + ?", 1)) == [(number + 1,)]
        assert (await database.read(one("SELECT count(*) FROM pg_prepared_statements")))[0][0] <= 256


# --- schemas and owners ----------------------------------------------------------------------------------------------


async def test_tables_are_made_once_and_later_statements_run_alone(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await database.write(put("a"))
    more = (*THINGS, "ALTER TABLE things ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
    async with opened(postgres_url, more) as database:
        assert await database.read(one("SELECT name, colour FROM things")) == [("a", "red")]
    async with opened(postgres_url) as database:
        with pytest.raises(DatabaseError, match=r"newer release.*'things' have version 2, this release knows 1"):
            await database.open()


async def test_an_opening_that_is_cancelled_leaves_nothing_behind(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        for seconds in (0, 0.001, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04):
            with trio.move_on_after(seconds):
                await database.open()
        await database.write(put("a"))
        assert await names(database) == ["a"]


async def test_a_store_may_be_declared_while_others_are_used(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await database.write(put("a"))
        database.declare("others", ("CREATE TABLE others (name TEXT)",))
        assert await database.read(one("SELECT count(*) FROM others")) == [(0,)]


async def test_a_table_of_another_program_is_not_taken_for_ours(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    postgres_server.sql("CREATE TABLE things (x INTEGER)", postgres_url)
    async with opened(postgres_url) as database:
        with pytest.raises(DatabaseError, match="another program"):
            await database.open()


async def test_a_schema_has_one_owner(
    postgres_url: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres, "OWNER_WAIT", 0.2)
    async with opened(postgres_url) as first:
        await first.write(put("a"))
        async with opened(postgres_url) as second:
            with pytest.raises(
                DatabaseError, match=r"another provider uses its schema 'test_\d+' \(backend \d+"
            ) as caught:
                await second.open()
            assert f"127.0.0.1:{postgres_server.port}/postgres" in caught.value.message
            assert "another database" in caught.value.hint
        async with opened(postgres_server.new_schema()) as third:
            await third.write(put("b"))
            assert await names(third) == ["b"]
        assert await names(first) == ["a"]
    async with opened(postgres_url) as second:
        assert await names(second) == ["a"]


async def test_health_is_a_write_and_a_read(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await database.check_health()
        assert database.statistics().writes == 1
        assert database.statistics().reads == 1
        assert database.statistics().open
        assert "connected" in repr(database)


# --- what an operator gives ------------------------------------------------------------------------------------------


async def refusal(url: str) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        async with opened(url) as database:
            await database.open()
    error: BaseException | None = caught.value
    while error is not None:
        for secret in ("p@ss", "p%40ss", "wrong", "secret"):
            assert secret not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert caught.value.hint
    return caught.value


async def test_a_wrong_password_is_told(postgres_server: PostgresServer) -> None:
    error = await refusal(postgres_server.url(password="wrong"))
    assert "password authentication failed" in error.message
    assert f"127.0.0.1:{postgres_server.port}/postgres" in error.message
    assert "password" in error.hint


async def test_an_unknown_database_is_told(postgres_server: PostgresServer) -> None:
    error = await refusal(postgres_server.url("nowhere"))
    assert 'database "nowhere" does not exist' in error.message
    assert "createdb" in error.hint


async def test_an_unknown_schema_is_told(postgres_url: str) -> None:
    error = await refusal(f"{postgres_url}_missing")
    assert "CREATE SCHEMA" in error.hint


async def test_a_database_that_is_not_unicode_is_told(postgres_server: PostgresServer) -> None:
    postgres_server.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    error = await refusal(postgres_server.url("latin"))
    assert "its encoding is LATIN1" in error.message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@127.0.0.1:1/x", "refused"),
        ("postgresql://u:secret@127.0.0.1:1,127.0.0.1:2/x", "refused"),
        ("postgresql://u:secret@nowhere.invalid/x", "'nowhere.invalid' is not known"),
        ("postgresql:///x?host=/nowhere", "No such file"),
        ("postgresql://u:secret@127.0.0.1:5432/x?nonsense=1", 'invalid URI query parameter: "..."'),
        ("postgresql://u:secret@127.0.0.1:5432/x?connect_timeout=secret", "cannot be understood"),
        ("postgresql://u:sec@ret@127.0.0.1:5432/x", "cannot be understood"),
        ("postgresql://u:sec/secret@127.0.0.1:5432/x", "cannot be understood"),
        ("postgresql://u:1/secret@127.0.0.1:5432/x", "cannot be understood"),
        ("postgresql://u:1?secret@127.0.0.1:5432/x", "cannot be understood"),
        ("postgresql://u@127.0.0.1:secret/x", "cannot be understood"),
        ("mysql://u:secret@127.0.0.1/x", "no scheme `postgresql://`"),
    ],
)
async def test_a_url_that_leads_nowhere_is_told_without_its_password(url: str, said: str) -> None:
    assert said in (await refusal(url)).message


async def test_psycopg_is_needed_for_postgresql_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dk_trio.services.stores._postgres", None)
    monkeypatch.delattr("dk_trio.services.stores._postgres", raising=False)
    error = await refusal("postgresql://127.0.0.1:1/x")
    assert "psycopg is not installed" in error.message
    assert "dk-trio[postgres]" in error.hint


def test_psycopg_is_not_imported_before_it_is_used() -> None:
    code = "import sys; from dk_trio.services.stores import open, postgres; sys.exit('psycopg' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_database_that_was_not_opened_says_so(postgres_url: str) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await PostgresDatabase(postgres_url).read(NAMES)


def test_the_url_chooses_the_database(tmp_path: Any) -> None:
    for url in ("", "sqlite"):
        assert open_database(url, directory=tmp_path).name == str(tmp_path / "dk-trio.sqlite3")
    assert open_database(":memory:", directory=tmp_path).name == "in memory"
    assert isinstance(open_database("", directory=tmp_path), SqliteDatabase)
    for url in ("postgresql://u:secret@h:5/d", "postgres://u:secret@h:5/d"):
        assert open_database(url, directory=tmp_path).name == "postgresql://h:5/d"
    with pytest.raises(DatabaseError, match=r"'mysql://\.\.\.'"):
        open_database("mysql://u:secret@h/d", directory=tmp_path)
    with pytest.raises(DatabaseError, match="'nonsense'"):
        open_database("nonsense", directory=tmp_path)
