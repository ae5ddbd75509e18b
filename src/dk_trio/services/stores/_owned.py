"""What databases that one process owns have in common: their lifetime, the tables declared, one shared way to open."""

from __future__ import annotations

import contextvars
import copy
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

import trio

from dk_trio.boundary import unwrapped
from dk_trio.errors import DkTrioError

from ._writes import Transact, Writes
from .database import DatabaseStatistics


class OwnedDatabase(ABC):
    """A `Database` that is opened by its first use and given back at the end of `opened`.

    Args:
        transact: Makes one transaction of several works, and returns the outcome of each.
    """

    def __init__(self, transact: Transact) -> None:
        self._schemas: dict[str, tuple[str, ...]] = {}
        self._ready = False  # the database is ours, and has all tables that were declared
        self._opening = trio.Lock()  # for what opens, replaces or closes it
        self._attempts = 0
        self._refusal: DkTrioError | None = None  # of the last attempt to open
        self._nursery: trio.Nursery | None = None
        self._context: contextvars.Context
        self._writes = Writes(transact)
        self._commits = self._reads = 0

    @property
    @abstractmethod
    def _is_open(self) -> bool:
        """Whether there is a file or a connection now."""

    @abstractmethod
    async def _prepare(self, schemas: Mapping[str, tuple[str, ...]]) -> None:
        """Own the database, and have these tables. Under `_opening`."""

    @abstractmethod
    async def _close(self) -> None:
        """Give the database back, within a bound."""

    def statistics(self) -> DatabaseStatistics:
        """Counts since the database was made."""
        return DatabaseStatistics(
            open=self._is_open,
            queued=self._writes.queued,
            blocked=self._writes.blocked,
            writes=self._writes.written,
            failed=self._writes.failed,
            withdrawn=self._writes.withdrawn,
            commits=self._commits,
            reads=self._reads,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """The length of the block is the lifetime. At its end all that was begun has ended, and others may own it.

        Cancelling the block does not stop the writer, so that the cleanup of a cancelled job can still write.
        """
        if self._nursery is not None:
            raise RuntimeError(f"This {type(self).__name__} is open already.")
        try:
            async with unwrapped(), trio.open_nursery() as nursery:
                self._nursery = nursery
                self._context = contextvars.copy_context()
                try:
                    yield self
                finally:
                    self._nursery = None
        finally:
            await self._close()

    def declare(self, name: str, statements: Sequence[str]) -> None:
        """Tables of one store; see `Database.declare`."""
        if self._schemas.get(name) != (declared := tuple(statements)):
            self._schemas[name] = declared
            self._ready = False

    async def open(self) -> None:
        """The database is ours, and all declared tables are there. `read` and `write` do this themselves.

        Not a checkpoint when all is done already. Many first users share one attempt, and its end.

        Raises:
            ConfigurationError: It belongs to another process, or cannot be made or reached.
            StorageServiceError: It is damaged, from a newer release, cannot be written, or was lost: UNAVAILABLE.
            RuntimeError: Outside of `opened`.
        """
        self._check_open()
        while not self._ready:  # again when another store was declared meanwhile
            await self._open()

    async def _open(self) -> None:
        attempt = self._attempts
        async with self._opening:
            self._check_open()
            if self._ready:
                return
            if self._attempts == attempt:
                self._attempts += 1
                self._refusal = None
                try:
                    await self._own()
                except DkTrioError as error:
                    self._refusal = error
                    raise
            elif self._refusal is not None:
                # Who waited for an attempt shares its end: a thousand callers must not try in turn.
                raise again(self._refusal) from self._refusal

    async def _own(self) -> None:
        schemas = dict(self._schemas)
        await self._prepare(schemas)
        self._ready = schemas == self._schemas

    def _check_open(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError(
                f"This {type(self).__name__} is not open: use it inside `async with database.opened():`."
            )
        return self._nursery


def again(error: Exception) -> Exception:
    """The same for one more task: raised in several, one object would collect the frames of all."""
    if not isinstance(error, DkTrioError):
        return error
    twin = copy.copy(error).with_traceback(None)
    twin.__cause__ = error.__cause__
    return twin
