"""What was acknowledged is there, whatever becomes of the server or of the way to it; what failed is not."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from grpclib.const import Status
from tests.postgres import PostgresServer
from tests.services.test_postgres import NAMES, names, one, opened, outcomes, put

from dk_trio.errors import DatabaseError, StorageServiceError
from dk_trio.services.stores import _postgres, _psycopg, postgres, postgres_errors
from dk_trio.services.stores.postgres import PostgresDatabase


@pytest.fixture
def server(postgres_server: PostgresServer) -> Any:
    yield postgres_server
    if not postgres_server.running:
        postgres_server.start()


# --- the server ------------------------------------------------------------------------------------------------------


async def test_a_restart_between_two_uses_is_not_noticed(postgres_url: str, server: PostgresServer) -> None:
    async with opened(postgres_url) as database:
        await database.write(put("a"))
        assert await names(database) == ["a"]
        server.stop()
        server.start()
        assert await names(database) == ["a"]
        await database.write(put("b"))
        assert await names(database) == ["a", "b"]


async def test_without_a_server_callers_are_told_at_once_and_served_when_it_is_back(
    postgres_url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_errors, "BACKOFF_MAX", 0.4)
    async with opened(postgres_url) as database:
        await database.write(put("a"))
        assert await names(database) == ["a"]
        server.stop()
        before = trio.current_time()
        for result in await outcomes(database, *[put(str(number)) for number in range(50)]):
            assert isinstance(result, StorageServiceError)
            assert result.status == Status.UNAVAILABLE
            assert "cannot be reached" in result.message
        with pytest.raises(StorageServiceError, match="cannot be reached"):
            await names(database)
        with pytest.raises(StorageServiceError, match="cannot be reached"):
            await database.check_health()
        assert trio.current_time() - before < 5
        assert not database.statistics().open
        server.start()
        while True:
            with suppress(StorageServiceError):
                await database.write(put("b"))
                break
            await trio.sleep(0.05)
        assert await names(database) == ["a", "b"]


async def test_a_server_that_was_never_there_is_the_operators_mistake(
    postgres_url: str, server: PostgresServer
) -> None:
    server.stop()
    async with opened(postgres_url) as database:
        with pytest.raises(DatabaseError, match="refused"):
            await database.write(put("a"))
        server.start()
        await database.write(put("a"))


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_every_acknowledged_write_survives_the_death_of_the_server(
    postgres_url: str, server: PostgresServer, how: str
) -> None:
    acknowledged: set[str] = set()
    refused: set[str] = set()
    rounds = 0

    async def client(number: int) -> None:
        for count in range(100_000):
            name = f"{rounds}.{number}.{count}"
            try:
                await database.write(put(name))
            except StorageServiceError as error:
                assert error.status == Status.UNAVAILABLE  # never UNKNOWN: it comes back in time
                refused.add(name)
                await trio.sleep(0.02)
            else:
                acknowledged.add(name)

    async with opened(postgres_url) as database:
        await database.open()
        for _ in range(3):
            rounds += 1
            enough = len(acknowledged) + 200
            async with trio.open_nursery() as nursery:
                for number in range(16):
                    nursery.start_soon(client, number)
                while len(acknowledged) < enough:  # noqa: ASYNC110 - the test goes by numbers
                    await trio.sleep(0.01)
                getattr(server, how)()
                await trio.sleep(0.05)
                server.start()
                enough = len(acknowledged) + 50
                while len(acknowledged) < enough:  # noqa: ASYNC110 - the test goes by numbers
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        found = await names(database)
        assert len(found) == len(set(found))
        assert acknowledged <= set(found)
        assert not refused & set(found)
        # A client that is cancelled after its write was begun does not learn that it succeeded.
        assert len(set(found) - acknowledged) <= rounds * 16


async def test_a_connection_that_somebody_ends_is_replaced(postgres_url: str, server: PostgresServer) -> None:
    async with opened(postgres_url) as database:
        await database.write(put("a"))
        assert await names(database) == ["a"]
        for _ in range(3):
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dk-trio'")
            assert await names(database) == ["a"]
            await database.check_health()


async def test_a_statement_that_is_not_answered_is_given_up(
    postgres_url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres, "ANSWER_MAX", 0.2)
    monkeypatch.setattr(_psycopg, "SETTLE", 0.1)
    async with opened(postgres_url) as database:
        with pytest.raises(StorageServiceError, match="3 connections were lost") as caught:
            await database.write(one("SELECT pg_sleep(50)"))
        assert caught.value.status == Status.UNAVAILABLE
        await trio.sleep(0.3)
        await database.write(put("a"))
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(50)%'"
        assert server.sql(query) == [(0,)]  # a new owner ends what the former left behind


async def test_a_strangers_lock_keeps_a_write_for_a_moment_only(
    postgres_url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres, "_SETTINGS", _postgres._SETTINGS.replace("5s", "200ms"))
    import psycopg

    async with opened(postgres_url) as database:
        await database.open()
        with psycopg.connect(postgres_url) as stranger:
            stranger.execute("LOCK TABLE things")
            with pytest.raises(StorageServiceError, match="stranger has locked") as caught:
                await database.write(put("a"))
            assert caught.value.status == Status.UNAVAILABLE
        await database.write(put("a"))


# --- COMMIT in doubt -------------------------------------------------------------------------------------------------


class Cutter:
    """Between a database and its server: cuts the connection at the next COMMIT, before the server has it or after."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.arrives: bool | None = None  # whether the COMMIT that is cut off reaches the server; None: none is cut
        self.away = False  # let nobody through after it
        self.cuts = 0

    async def serve(self, *, task_status: Any) -> None:
        await trio.serve_tcp(self._pass, 0, host="127.0.0.1", task_status=task_status)

    async def _pass(self, client: trio.SocketStream) -> None:
        if self.away:
            return
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as server, trio.open_nursery() as nursery:
            nursery.start_soon(self._answers, client, server, nursery.cancel_scope)
            commit: bytes | None = None
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for data in client:
                    if found := re.search(rb"\x00\x00..(s\d+)\x00COMMIT\x00", data, re.DOTALL):
                        commit = found[1]
                    if commit and b"\x00" + commit + b"\x00" in data and self.arrives is not None:
                        self.cuts += 1
                        arrives, self.arrives = self.arrives, None
                        if arrives:
                            nursery.cancel_scope.cancel()
                            with trio.CancelScope(shield=True):
                                await server.send_all(data)
                                await server.receive_some()  # the answer, which nobody gets
                        break
                    await server.send_all(data)
            nursery.cancel_scope.cancel()

    async def _answers(self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in server:
                await client.send_all(data)
        scope.cancel()


@asynccontextmanager
async def cut(url: str, port: int) -> AsyncIterator[tuple[PostgresDatabase, Cutter]]:
    cutter = Cutter(port)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(lambda task_status: cutter.serve(task_status=task_status))
        own = listeners[0].socket.getsockname()[1]
        async with opened(url.replace(f":{port}/", f":{own}/") + "&sslmode=disable") as database:
            await database.write(put("before"))
            yield database, cutter
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_that_was_not_answered_is_looked_for(
    postgres_url: str, server: PostgresServer, arrives: bool
) -> None:
    runs = 0

    def work() -> Any:
        nonlocal runs
        runs += 1
        return put("a")()

    async with cut(postgres_url, server.port) as (database, cutter):
        cutter.arrives = arrives
        assert isinstance(await database.write(work), int)
        assert cutter.cuts == 1
        assert runs == (1 if arrives else 2)
        assert await names(database) == ["before", "a"]


@pytest.mark.parametrize("arrives", [True, False])
async def test_what_cannot_be_found_out_is_said_to_be_unknown(
    postgres_url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    monkeypatch.setattr(postgres, "DOUBT_MAX", 0.5)
    results: dict[str, Any] = {}

    async def write(database: PostgresDatabase, name: str, work: Callable[[], Any]) -> None:
        (results[name],) = await outcomes(database, work)

    async with cut(postgres_url, server.port) as (database, cutter):
        cutter.arrives, cutter.away = arrives, True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, database, "in doubt", put("a"))
            while not cutter.cuts:  # noqa: ASYNC110 - it is cut once
                await trio.sleep(0.01)
            await trio.sleep(0.1)
            before = trio.current_time()
            await write(database, "meanwhile", put("b"))
            assert trio.current_time() - before < 0.3  # not kept until the doubt is over
        assert results["meanwhile"].status == Status.UNAVAILABLE
        assert results["in doubt"].status == Status.UNKNOWN
        assert "not known whether" in results["in doubt"].message
        cutter.away = False
        await trio.sleep(database._reach.wait)
        await database.write(put("c"))
        assert await database.read(NAMES) == [("before",), *([("a",)] if arrives else []), ("c",)]
