"""The half of `PostgresDatabase` that speaks SQL: owning a schema, its tables, transactions, and what errors mean."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import outcome
import psycopg
import trio

from dk_trio.errors import DatabaseError

from ._psycopg import Answer, Connection, connect
from .postgres_errors import ConnectionLostError, InDoubtError, explained
from .work import Result, Statement, T, Work

# What keys count up with and never come back to.
_PLACE: Final = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"

# Text is compared by its code points, as SQLite does, and not by the rules of the language of some server.
_TEXT: Final = 'TEXT COLLATE "C"'

# Older ones are not maintained by anyone, nor tried by us.
_VERSION_MIN: Final = 13

# Seconds that a statement of a write may take. Stores' take milliseconds, so the server hangs, or its network is gone:
# the connection is given up, since callers wait for the writes of their batch, even when they are cancelled.
ANSWER_MAX: Final = 20.0

# Seconds that a statement of a read may take: it may be a scan.
READ_MAX: Final = 60.0

# Seconds that a new owner waits for the former to go: its connection may end a moment after its process.
OWNER_WAIT: Final = 2.0

# The first half of the advisory lock, "dkt" and a number of this use; the second is the schema.
_LOCK: Final = 0x646B7401

_BEGIN: Final = Statement("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
_BEGIN_READ: Final = Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
_COMMIT: Final = Statement("COMMIT")
_ROLLBACK: Final = Statement("ROLLBACK")
_SAVE: Final = Statement("SAVEPOINT item")
_RELEASE: Final = Statement("RELEASE SAVEPOINT item")
_UNDO: Final = Statement("ROLLBACK TO SAVEPOINT item")

# A commit is on disk when it is acknowledged, whatever the server's configuration says; `remote_apply` and the like say
# more than `on` and stay. A stranger's lock keeps a write for some seconds at most. And a server sees within half a
# minute that our machine is gone: until then it keeps the lock.
_SETTINGS: Final = """SELECT set_config('lock_timeout', '5s', false), set_config('tcp_keepalives_idle', '10', false),
    set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false),
    CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
        THEN set_config('synchronous_commit', 'on', false) END"""
_FACTS: Final = """SELECT current_setting('server_encoding'), current_schema(), current_setting('fsync'), pid,
    CAST(backend_start AS TEXT) FROM pg_stat_activity WHERE pid = pg_backend_pid()"""
_TAKE: Final = "SELECT pg_try_advisory_lock(CAST(? AS INTEGER), hashtext(CAST(current_schema() AS TEXT)))"
_HOLDER: Final = """SELECT activity.pid, application_name, coalesce(host(client_addr), 'the same machine')
    FROM pg_locks LEFT JOIN pg_stat_activity AS activity USING (pid)
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND CAST(classid AS BIGINT) = ? AND granted
    AND CAST(objid AS BIGINT) = (CAST(hashtext(CAST(current_schema() AS TEXT)) AS BIGINT) & 4294967295)"""
_END_BACKEND: Final = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = ? AND CAST(backend_start AS TEXT) = ?"""

# Each transaction leaves a random number, by which it is found when its COMMIT was not answered. The number that
# PostgreSQL gives a transaction does not do: after a crash it may give the same one again. They are inserted and not
# updated, since versions of a row pile up while someone takes a dump.
_COMMITS: Final = ("CREATE TABLE commits (place {place}, token BIGINT NOT NULL)",)
_LEAVE: Final = "INSERT INTO commits (token) VALUES (?)"
_FIND: Final = "SELECT count(*) FROM commits WHERE token = ?"
_PURGE: Final = Statement("DELETE FROM commits WHERE place < (SELECT max(place) FROM commits) - 100000")
_PURGE_EVERY: Final = 10_000

_VERSION: Final = """INSERT INTO schemas (name, version) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET version = excluded.version"""


class Owner:
    """The connection that owns the schema and writes. Its lock is the session's: who loses one loses the other.

    Args:
        connection: In no transaction.
        name: Of the database, for errors.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._transactions = 0
        self.backend: tuple[int, str] = (0, "")
        self.synced = True

    @property
    def lost(self) -> bool:
        """Whether the connection is closed, and with it the lock."""
        return self._connection.lost

    async def take(self, former: tuple[int, str] | None) -> None:
        """Own the schema.

        Args:
            former: `backend` of our last connection, which may not know yet that it is gone.

        Raises:
            DatabaseError: Another provider has it, or it is none that can be used.
        """
        run = self._connection.run
        if self._connection.server_version < _VERSION_MIN * 10000:
            found = f"PostgreSQL {self._connection.server_version // 10000}"
            raise self._refused(f"it is kept by {found}", f"PostgreSQL {_VERSION_MIN} or a newer one is needed.")
        facts = (await run(Statement(_SETTINGS), Statement(_FACTS)))[1].result.rows[0]
        encoding, schema, fsync, *backend = facts
        self.backend = (backend[0], backend[1])
        self.synced = fsync == "on"
        if encoding != "UTF8":
            raise self._refused(f"its encoding is {encoding}", "Create it anew with ENCODING 'UTF8'.")
        if schema is None:
            raise self._refused("its search_path names no schema that exists", "CREATE SCHEMA, or name another.")
        if former is not None:
            await run(Statement(_END_BACKEND, former))
        deadline = trio.current_time() + OWNER_WAIT
        while not (await run(Statement(_TAKE, (_LOCK,))))[0].result.rows[0][0]:
            if trio.current_time() > deadline:
                raise await self._taken(schema)
            await trio.sleep(OWNER_WAIT / 20)

    async def _taken(self, schema: str) -> DatabaseError:
        holders = (await self._connection.run(Statement(_HOLDER, (_LOCK,))))[0].result.rows
        who = "".join(f" (backend {pid}, {program}, from {place})" for pid, program, place in holders[:1])
        return self._refused(
            f"another provider uses its schema {schema!r}{who}",
            "One process owns a schema: end that one, or give this one another database.",
        )

    def _refused(self, why: str, hint: str) -> DatabaseError:
        return DatabaseError(f"The database {self._name} cannot be used: {why}.", hint=hint)

    async def migrate(self, schemas: Mapping[str, Sequence[str]]) -> None:
        """Bring the tables up to date.

        Raises:
            DatabaseError: They are from a newer release, or from another program.
        """
        run = self._connection.run
        try:
            await run(
                _BEGIN, Statement("CREATE TABLE IF NOT EXISTS schemas (name TEXT PRIMARY KEY, version BIGINT NOT NULL)")
            )
            versions = dict((await run(Statement("SELECT name, version FROM schemas")))[0].result.rows)
            for name, statements in {**schemas, "commits": _COMMITS}.items():
                version = versions.get(name, 0)
                if version > len(statements):
                    raise self._refused(
                        f"it is from a newer release, its tables of {name!r} have version {version}, this release"
                        f" knows {len(statements)}",
                        "Use the newer release, or another database.",
                    )
                for statement in statements[version:]:
                    await run(Statement(re.sub(r"\bTEXT\b", _TEXT, statement.replace("{place}", _PLACE))))
                if version < len(statements):
                    await run(Statement(_VERSION, (name, len(statements))))
            await run(_COMMIT)
        except (psycopg.errors.DuplicateTable, psycopg.errors.UndefinedColumn) as error:
            text = " ".join(str(error).split())
            hint = "Give the provider a database of its own, or a schema by `options=-csearch_path%3DNAME`."
            raise self._refused(f"it has tables of another program ({text})", hint) from error
        except psycopg.errors.InsufficientPrivilege as error:
            text = " ".join(str(error).split())
            hint = "Make the user of the URL the owner of the database or of the schema."
            raise self._refused(f"its user may make no tables ({text})", hint) from error
        finally:
            if not self._connection.lost and self._connection.in_transaction:
                self._connection.send(_ROLLBACK)

    async def committed(self, token: int) -> bool:
        """Whether a transaction of a former connection was committed. It has ended: we have its lock."""
        return bool((await self._connection.run(Statement(_FIND, (token,))))[0].result.rows[0][0])

    async def release(self) -> None:
        """Give the schema back and close."""
        try:
            await self._connection.run(Statement("SELECT pg_advisory_unlock_all()"))
        except (psycopg.Error, ConnectionLostError):
            pass
        finally:
            self._connection.close()

    def close(self) -> None:
        """Close; the server gives the schema back when it notices."""
        self._connection.close()

    # --- transactions ------------------------------------------------------------------------------------------------

    async def transact(self, works: Sequence[Callable[[], Work[Any]]]) -> list[outcome.Outcome[Any]]:
        """Run works in one transaction and commit it. A work that raises undoes itself alone.

        Savepoints cost a quarter more for each work, and PostgreSQL has 64 of a transaction at hand. So there are none
        at first: a work that fails before it has written needs none. If one fails later, all run again with them.

        Raises:
            ConnectionLostError: Nothing of any work is there.
            InDoubtError: All of them may be.
        """
        results = await self._together(works, savepoints=False)
        if results is None:
            results = await self._together(works, savepoints=True)
        assert results is not None
        return results

    async def _together(
        self, works: Sequence[Callable[[], Work[Any]]], *, savepoints: bool
    ) -> list[outcome.Outcome[Any]] | None:
        transaction = _Transaction(self._connection)
        if self._transactions % _PURGE_EVERY == 0:
            transaction.first(_PURGE)
        self._transactions += 1
        results: list[outcome.Outcome[Any]] = []
        for work in works:
            if savepoints:
                transaction.first(_SAVE)
            try:
                results.append(outcome.Value(await transaction.run(work)))
            except ConnectionLostError:
                raise
            except Exception as error:  # noqa: BLE001  boundary: one work of a batch, what it raises is its caller's
                if savepoints:
                    transaction.first(_UNDO)
                elif transaction.touched:
                    await transaction.end(_ROLLBACK)
                    if len(works) > 1:
                        return None
                results.append(outcome.Error(explained(self._name, error)))
            if savepoints:
                transaction.first(_RELEASE)
        try:
            await transaction.end(_COMMIT)
        except ConnectionLostError as error:
            raise InDoubtError(transaction.token, results) from error
        except psycopg.Error as error:
            return [outcome.Error(explained(self._name, error)) for _ in works]
        return results


class _Transaction:
    """A transaction that begins with the first statement of its first work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._begun = False
        self._first: list[Statement] = []
        self.token = secrets.randbits(63)
        self.touched = False  # the work at hand has written, or the transaction has failed with it

    def first(self, statement: Statement) -> None:
        """Send this with the next statement of a work."""
        self._first.append(statement)

    async def run(self, work: Callable[[], Work[T]]) -> T:
        """What a work returns."""
        self.touched = False
        steps = work()
        try:
            statement = next(steps)
            while True:
                statement = steps.send(await self._run(statement))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    async def _run(self, statement: Statement) -> Result:
        before = [*([] if self._begun else [_BEGIN, Statement(_LEAVE, (self.token,))]), *self._first]
        try:
            answers = await asked(self._connection, ANSWER_MAX, *before, statement)
        except psycopg.Error:  # and not a parameter that was refused before anything was sent
            self._begun = self.touched = True
            self._first.clear()
            raise
        self._begun = True
        self._first.clear()
        self.touched = self.touched or not answers[-1].tag.startswith(b"SELECT")
        return answers[-1].result

    async def end(self, how: Statement) -> None:
        """COMMIT or ROLLBACK, if anything was begun."""
        if self._connection.in_transaction:
            answers = await asked(self._connection, ANSWER_MAX, *self._first, how)
            if answers[-1].tag != how.sql.encode():
                raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back")


async def asked(connection: Connection, seconds: float, *statements: Statement) -> list[Answer]:
    """`connection.run`, which must end within so many seconds.

    Raises:
        ConnectionLostError: It has not; the connection is closed.
    """
    with trio.move_on_after(seconds):
        return await connection.run(*statements)
    connection.close()
    raise ConnectionLostError(f"there was no answer within {seconds:g} s")


async def snapshot(connection: Connection, work: Callable[[], Work[T]]) -> T:
    """What a work reads, all of one state of the database. The last word to the server is sent and not waited for."""
    steps = work()
    begin = [_BEGIN_READ]
    try:
        statement = next(steps)
        while True:
            answers = await asked(connection, READ_MAX, *begin, statement)
            begin = []
            statement = steps.send(answers[-1].result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()
        if not connection.lost and connection.in_transaction:
            connection.send(_ROLLBACK)


async def owned(url: str, name: str, schemas: Mapping[str, Sequence[str]], former: tuple[int, str] | None) -> Owner:
    """A connection that owns the schema, whose tables are up to date.

    Raises:
        DatabaseError, ConnectionLostError, psycopg.Error: It cannot be had.
    """
    connection = await connect(url)
    owner = Owner(connection, name)
    try:
        await owner.take(former)
        await owner.migrate(schemas)
    except BaseException:
        owner.close()
        raise
    return owner
