"""One SQLite file for all that a process keeps: one owner, one writer, group commit.

In directory mode writes that wait share a transaction in a thread (`_writes`): a thread hop costs twenty times what the
statement costs, and a sync to disk a thousand times. An exception undoes its own write alone: when one comes from a
write that has changed something already, the batch runs again with a savepoint for each. When SQLite gives up the whole
transaction (the disk is full), the writes run again, each in a transaction of its own, so that only those fail for
which there is no room.

`write` returns when what it wrote is on disk (WAL, synchronous=FULL): it survives `kill -9` and loss of power. A caller
who is cancelled withdraws a write that was not begun. One that was begun is waited for, as Trio waits for its threads:
so `Cancelled` from `write` always means that nothing was written.

Reads run on the loop, on a connection of their own: by key they take a few microseconds, far less than a hop. In memory
mode everything runs on the loop, on one connection and without threads, so that virtual time stands still meanwhile.

Nothing is opened before the first read or write: a module that uses no local service leaves no trace on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio

from dk_trio.errors import StorageServiceError

from ._owned import OwnedDatabase
from .database import SETTING
from .work import Statement, T, Work

if TYPE_CHECKING:
    from pathlib import Path

    from ._sqlite import Connections

FILE: Final = "dk-trio.sqlite3"
LOCK: Final = "dk-trio.lock"
"""Beside it: who has locked this file owns the directory."""

# Seconds to move the log into the file at the end, some GB of it: a third of what Kubernetes gives a pod to end.
CLOSE_GRACE: Final = 10.0

_log = logging.getLogger("dk_trio.storage")


class SqliteDatabase(OwnedDatabase):
    """A `Database` in one file, or in memory. Usable inside `async with database.opened():` only.

    Args:
        directory: Where the file `dk-trio.sqlite3` and its lock are; made at first use. None: in memory.
        setting: What chooses the directory, as the remedies of errors name it: a variable, or an option of a command.
    """

    def __init__(self, directory: Path | None, *, setting: str = SETTING) -> None:
        super().__init__(self._in_thread)
        self.directory = directory
        self._setting = setting
        self._path = None if directory is None else directory / FILE
        # Threads of our own: writers must not wait for threads that authors keep busy. One writes, one scans.
        self._writer = trio.CapacityLimiter(1)
        self._scanner = trio.CapacityLimiter(1)

    @property
    def name(self) -> str:
        """Its file, or `in memory`."""
        return "in memory" if self._path is None else str(self._path)

    def __repr__(self) -> str:
        where = "in memory" if self.directory is None else str(self.directory)
        state = "closed" if self._nursery is None else "open" if self._ready else "not used yet"
        return f"<SqliteDatabase {where}, {state}, {self._writes.queued} queued>"

    @property
    def exists(self) -> bool:
        """Whether there may be anything to read: the file is there, or the memory is in use. Opens nothing."""
        return self._is_open or (self._path is not None and self._path.exists())

    @property
    def _is_open(self) -> bool:
        return self._attempts > 0 and self._connections.is_open

    @cached_property
    def _connections(self) -> Connections:
        from ._sqlite import Connections  # sqlite3 takes 10 ms to import, and most modules keep nothing

        return Connections(self._path, self._setting)

    # --- lifetime ----------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        if not self._attempts:  # most modules use no local service, and a thread stops virtual time from being true
            return
        # What was acknowledged is in the log of the file, so a thread that hangs here may be left to the process's end.
        with trio.move_on_after(CLOSE_GRACE, shield=True) as scope:
            async with self._opening:
                self._ready = False
                if self.directory is None:
                    self._connections.close()
                else:
                    close = self._connections.close
                    await trio.to_thread.run_sync(close, limiter=self._writer, abandon_on_cancel=True)
        if scope.cancelled_caught:
            _log.error(
                "%r was not closed within %g s: its disk hangs. Nothing is lost, but the directory stays locked until "
                "this process ends",
                self,
                CLOSE_GRACE,
            )

    async def _prepare(self, schemas: Mapping[str, tuple[str, ...]]) -> None:
        await self._run(partial(self._connections.open, schemas))

    async def _run(self, work: Callable[[], T]) -> T:
        if self.directory is None:
            return work()
        return await trio.to_thread.run_sync(work, limiter=self._writer)

    async def check_health(self) -> None:
        """Raise when nothing can be written or read. Leaves nothing behind.

        Raises:
            ConfigurationError: See `open`.
            StorageServiceError: See `write`.
        """
        # Its number stays 0, but SQLite writes the page that it stands on: a full disk shows.
        await self.write(lambda: _one(Statement("PRAGMA user_version = 0")))
        self._connections.check_room()
        await self.read(lambda: _one(Statement("SELECT 1")))

    async def backup(self, destination: Path) -> None:
        """Copy the database to a file, as it is now. Reads and writes go on meanwhile; in memory mode they wait.

        Args:
            destination: The file, with which another process can begin: `dk-trio.sqlite3` in a directory of its own.
                The directory exists, the file does not.

        Raises:
            StorageServiceError: It exists or cannot be written, or the database cannot be read. Nothing is left behind.

        Cancellation:
            Noticed after some MB. Nothing is left behind.
        """
        from .backup import back_up

        await self.open()
        if self.directory is None:
            await trio.lowlevel.checkpoint()
            self._connections.copy(destination)
            return
        self._connections.check_file()
        # A thread beside those of reads and writes, which must not wait for gigabytes.
        work = partial(back_up, self.directory, destination, check=trio.from_thread.check_cancelled)
        await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))

    # --- reading -----------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[], Work[T]], *, thread: bool = False) -> T:
        """What `work` returns. It sees one state of the database: all that is committed when it begins.

        Args:
            work: Makes the unit of work. It runs on the loop, so it must be short: some rows by key, or a page of
                them. Must not write.
            thread: Run it in a thread instead, for scans. Such reads run one after the other, and a caller who is
                cancelled waits for the end of its own. In memory mode `work` runs on the loop all the same.

        Raises:
            StorageServiceError: The file is damaged, or cannot be read.
            ConfigurationError: See `open`.
        """
        await self.open()
        self._reads += 1
        if thread and self.directory is not None:
            scan = self._connections.scan
            return await trio.to_thread.run_sync(scan, work, limiter=self._scanner)
        await trio.lowlevel.checkpoint()
        return self._connections.read(work)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def write(self, work: Callable[[], Work[T]]) -> T:
        """What `work` returned, when all that it wrote is durable.

        Args:
            work: Makes the unit of work. It runs in the writer's thread, and must neither begin nor end a transaction.

        Raises:
            Exception: What `work` raised. Nothing that it wrote is there, and no other write is touched.
            StorageServiceError: The disk is full, or the file is damaged, locked by a stranger, not writable, or was
                deleted or replaced while it was in use. Nothing was written.
            ConfigurationError: See `open`.

        Cancellation:
            Nothing was written. A write that was begun ends first, and then succeeds.
        """
        await self.open()
        if self.directory is None:
            await trio.lowlevel.checkpoint()
            result: outcome.Outcome[T] = self._committed([work])[0]
            return self._writes.told(result)
        return await self._writes.run(self._check_open(), self._context, work)

    async def _in_thread(self, works: Sequence[Callable[[], Work[Any]]]) -> list[outcome.Outcome[Any]]:
        try:
            return await trio.to_thread.run_sync(self._committed, works, limiter=self._writer)
        except RuntimeError:  # no thread can be had now: these fail, the next may succeed
            return [
                outcome.Error(StorageServiceError("There was no thread for the writer of the database.")) for _ in works
            ]

    # --- in the writer's thread ---------------------------------------------------------------------------------------

    def _committed(self, works: Sequence[Callable[[], Work[Any]]]) -> list[outcome.Outcome[Any]]:
        try:
            results = self._connections.transact(works)
        except Exception as error:  # noqa: BLE001  boundary: whatever gave up the transaction is told to each of its callers
            if len(works) == 1:
                return [outcome.Error(self._connections.explained(error))]
            return [self._committed([work])[0] for work in works]
        self._commits += 1
        return results


def _one(statement: Statement) -> Work[None]:
    yield statement
