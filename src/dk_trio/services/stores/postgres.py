"""One schema of a PostgreSQL database for all that a process keeps: one owner, one writer, group commit.

One connection owns the schema by an advisory lock, and writes; a second process is refused. Writes that wait share a
transaction (`_writes`); each read has a transaction of its own, on one of a few other connections, and sees one state.

`write` returns when PostgreSQL has acknowledged the COMMIT with synchronous_commit on. When the connection is lost
before COMMIT was sent, the works run again on a new one. When it is lost after that, the writer connects again and
looks for what the transaction has left in a table: so callers are told the truth, unless PostgreSQL stays away for
`DOUBT_MAX` seconds. While there is no connection, writes and reads fail at once with UNAVAILABLE; there is an attempt
to connect whenever something is asked and the backoff has passed.

Everything is on the loop, without threads; only names of hosts are looked up in one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio
from grpclib.const import Status

from dk_trio.errors import DatabaseError, DkTrioError, StorageServiceError

from ._owned import OwnedDatabase, again
from .postgres_errors import BACKOFF, BadUrlError, ConnectionLostError, InDoubtError, Reach, explained, misread, place
from .work import Statement, T, Work

if TYPE_CHECKING:
    from types import ModuleType

    from ._postgres import Owner
    from ._psycopg import Connection

# Connections that read: statements of stores take a fraction of a millisecond. Scans have one of their own.
READERS: Final = 3

# Seconds in which a COMMIT that was not acknowledged is looked for. A restart of PostgreSQL after a crash takes less.
DOUBT_MAX: Final = 30.0

# Seconds for one attempt to become the owner again.
RECONNECT_MAX: Final = 20.0

# Connections that one batch may use up. Lost twice on the way to a COMMIT, it may be what breaks the server.
ATTEMPTS_MAX: Final = 3

# Seconds to give the schema back at the end.
CLOSE_GRACE: Final = 5.0

_log = logging.getLogger("dk_trio.storage")


class PostgresDatabase(OwnedDatabase):
    """A `Database` in a schema of PostgreSQL. Usable inside `async with database.opened():` only.

    Args:
        url: As libpq knows it. The connection must be a session's own: no pool that shares it between transactions.

    Raises:
        DatabaseError: The URL is none.
    """

    def __init__(self, url: str) -> None:
        super().__init__(self._transact)
        self._url = url
        self._name = place(url)
        self._owner: Owner | None = None
        self._former: tuple[int, str] | None = None  # the last owner that we were
        self._reach = Reach(self._name)
        self._readers, self._scanners = _Pool(READERS), _Pool(1)

    def __repr__(self) -> str:
        state = "closed" if self._nursery is None else "connected" if self._is_open else "not connected"
        return f"<PostgresDatabase {self._name}, {state}, {self._writes.queued} queued>"

    @property
    def name(self) -> str:
        """Host and database, without user and password."""
        return self._name

    @property
    def exists(self) -> bool:
        """Always True: only a connection could tell."""
        return True

    @property
    def _is_open(self) -> bool:
        return self._owner is not None and not self._owner.lost

    # --- lifetime ----------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        self._ready = False
        for pool in (self._readers, self._scanners):
            pool.close()
        owner, self._owner, self._former = self._owner, None, None
        if owner is not None:
            with trio.move_on_after(CLOSE_GRACE, shield=True):
                await owner.release()
            owner.close()

    async def check_health(self) -> None:
        """Raise when nothing can be written or read. Leaves nothing behind.

        Raises:
            DatabaseError: See `open`.
            StorageServiceError: See `write`.
        """
        await self.write(
            lambda: _one("UPDATE schemas SET version = version WHERE name = (SELECT min(name) FROM schemas)")
        )
        await self.read(lambda: _one("SELECT 1"))

    # --- connections -------------------------------------------------------------------------------------------------

    def _driver(self) -> ModuleType:
        try:
            from . import _postgres
        except ImportError as error:  # or libpq is missing
            raise DatabaseError(
                f"The database {self._name} cannot be used: psycopg is not installed ({error}).",
                hint="Install `dk-trio[postgres]`.",
            ) from error
        return _postgres

    async def _prepare(self, schemas: Mapping[str, tuple[str, ...]]) -> None:
        driver = self._driver()
        with self._explained():
            if self._owner is not None and not self._owner.lost:
                await self._owner.migrate(schemas)
            else:
                self._owner = await driver.owned(self._url, self._name, schemas, self._former)
                if not self._owner.synced:
                    _log.warning("%s: fsync is off, so a loss of power loses what was acknowledged", self._name)
                if self._former is not None:
                    _log.info("%s: connected again", self._name)
                self._former = self._owner.backend

    async def _regained(self) -> Owner:
        """The owner; after an attempt to become it again, if its connection was lost. Under `_opening`; bounded."""
        if self._owner is None or self._owner.lost:
            self._reach.check()
            with trio.move_on_after(RECONNECT_MAX) as scope:
                await self._own()
            if scope.cancelled_caught:
                raise self._reach.missed(f"there was no answer within {RECONNECT_MAX:g} s")
        assert self._owner is not None
        return self._owner

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong while a connection is made or asked, as it is told to callers."""
        try:
            yield
        except ConnectionLostError as error:
            raise self._reach.missed(str(error)) from error
        except BadUrlError as error:
            raise misread(self._name, str(error)) from None  # its text may quote a password
        except Exception as error:  # boundary: psycopg's errors are explained, all others pass
            told = explained(self._name, error)
            if told is error:
                raise
            raise told from error
        self._reach.found()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[], Work[T]], *, thread: bool = False) -> T:
        """What `work` returns. It sees one state of the database: all that is committed when it begins.

        Args:
            work: Makes the unit of work, which cannot write.
            thread: It is a scan: it has a connection apart from that of short reads, and scans run one after the other.

        Raises:
            StorageServiceError: The database cannot be read; UNAVAILABLE while there is no connection.
            DatabaseError: See `open`.

        Cancellation:
            Ends the statement, and its connection if it does not end at once.
        """
        await self.open()
        self._reads += 1
        pool = self._scanners if thread else self._readers
        async with pool.room:
            while True:
                fresh = not pool.idle
                connection = await self._new_reader() if fresh else pool.idle.pop()
                try:
                    return await self._snapshot(connection, work)
                except ConnectionLostError as error:
                    if fresh:
                        raise self._reach.missed(str(error)) from error
                finally:
                    if not connection.lost:
                        pool.idle.append(connection)
                    if self._nursery is None:
                        pool.close()

    async def _new_reader(self) -> Connection:
        from ._psycopg import connect

        self._reach.check()
        with self._explained():
            return await connect(self._url)

    async def _snapshot(self, connection: Connection, work: Callable[[], Work[T]]) -> T:
        from ._postgres import snapshot

        try:
            return await snapshot(connection, work)
        except Exception as error:  # boundary: psycopg's errors are explained, all others pass
            told = explained(self._name, error)
            if told is error:
                raise
            raise told from error

    # --- writing -----------------------------------------------------------------------------------------------------

    async def write(self, work: Callable[[], Work[T]]) -> T:
        """What `work` returned, when all that it wrote is durable.

        Args:
            work: Makes the unit of work; again for each attempt.

        Raises:
            Exception: What `work` raised. Nothing that it wrote is there, and no other write is touched.
            StorageServiceError: Nothing was written: UNAVAILABLE while there is no connection, INVALID_ARGUMENT for a
                value that PostgreSQL cannot keep. Or UNKNOWN: the connection was lost at COMMIT, and did not come back
                for `DOUBT_MAX` seconds.
            DatabaseError: See `open`.

        Cancellation:
            Nothing was written. A write that was begun ends first, and then succeeds.
        """
        await self.open()
        if not self._is_open:
            self._reach.check()
        return await self._writes.run(self._check_open(), self._context, work)

    async def _transact(self, works: Sequence[Callable[[], Work[Any]]]) -> list[outcome.Outcome[Any]]:
        async with self._opening:
            try:
                return await self._committed(works)
            except Exception as error:  # noqa: BLE001  boundary: whatever gave up the batch is told to each of its callers
                return [outcome.Error(again(error)) for _ in works]

    async def _committed(self, works: Sequence[Callable[[], Work[Any]]]) -> list[outcome.Outcome[Any]]:
        for _ in range(ATTEMPTS_MAX):
            try:
                owner = await self._regained()
            except DkTrioError as error:
                self._refuse(error)
                raise
            try:
                results = await owner.transact(works)
            except ConnectionLostError as error:
                _log.warning("%s: the connection was lost (%s), the batch runs again", self._name, error)
                continue
            except InDoubtError as doubt:
                if not await self._happened(doubt.token):
                    continue
                results = doubt.results
            self._commits += 1
            return results
        raise self._reach.missed(f"{ATTEMPTS_MAX} connections were lost on the way to one commit")

    async def _happened(self, token: int) -> bool:
        """Whether a transaction was committed; asked until there is an answer."""
        _log.warning("%s: the connection was lost at COMMIT, whether it happened is found out", self._name)
        with trio.move_on_after(DOUBT_MAX):
            while True:
                try:
                    return await (await self._regained()).committed(token)
                except DkTrioError as error:
                    self._refuse(error)
                    await trio.sleep(max(self._reach.wait, BACKOFF))
                except ConnectionLostError:
                    pass
        raise StorageServiceError(
            f"The database {self._name} was lost at a COMMIT, and is away since: it is not known whether this was"
            " written.",
            hint="Look whether it is there before you write it again, or use an idempotency key.",
            status=Status.UNKNOWN,
        )

    def _refuse(self, error: DkTrioError) -> None:
        """Those that wait need not, while there is no connection."""
        self._writes.refuse(lambda: again(error))


class _Pool:
    """Connections that read, and room for as many tasks.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self.room = trio.Semaphore(size, max_value=size)
        self.idle: list[Connection] = []

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()


def _one(sql: str) -> Work[None]:
    yield Statement(sql)
