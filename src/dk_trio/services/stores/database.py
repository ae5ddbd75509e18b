"""What stores ask of a database: units of work that are atomic and durable, whichever engine keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from .work import T, Work

SETTING: Final = "DIGITALKIN_DATA_DIR"
"""What chooses the directory of what is kept, as remedies of errors name it where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatistics:
    """What a database does, and has done since it was made.

    Attributes:
        open: Whether its file is open; always False before the first use.
        queued: Writes that wait for their transaction to begin.
        blocked: Callers that wait for room in the queue.
        writes: Writes that were committed.
        failed: Writes that raised, and left nothing behind.
        withdrawn: Writes whose callers were cancelled before they were begun.
        commits: Transactions that were committed; `writes / commits` is how well the group commit works.
        reads: Reads.
    """

    open: bool
    queued: int
    blocked: int
    writes: int
    failed: int
    withdrawn: int
    commits: int
    reads: int


class Database(Protocol):
    """Tables of stores. Usable inside `async with database.opened():` only.

    Works are serialisable: each sees the database as if those that it meets in time had come before it or after it.
    """

    @property
    def name(self) -> str:
        """Where it is, for errors and logs; without secrets."""
        ...

    @property
    def exists(self) -> bool:
        """Whether there may be anything to read. Opens nothing."""
        ...

    def statistics(self) -> DatabaseStatistics:
        """Counts since the database was made."""
        ...

    def opened(self) -> AbstractAsyncContextManager[object]:
        """The length of the block is the lifetime. At its end all that was begun has ended."""
        ...

    def declare(self, name: str, statements: Sequence[str]) -> None:
        """Tables of one store. They exist before the next read or write. Declaring them again changes nothing.

        Args:
            name: Of the store; its version is kept under it.
            statements: One SQL statement each, in which `{place}` stands for the type of a key that counts up. Their
                number is the version of the schema: a later release appends statements and never changes what one
                means; a database that an earlier release wrote runs only those it lacks.
        """
        ...

    async def open(self) -> None:
        """The database is ours, and all declared tables are there. `read` and `write` do this themselves.

        Raises:
            ConfigurationError: It belongs to another process, or cannot be made.
            StorageServiceError: It is damaged, from a newer release, or cannot be reached.
            RuntimeError: Outside of `opened`.
        """
        ...

    async def check_health(self) -> None:
        """Raise when nothing can be written or read. Leaves nothing behind.

        Raises:
            StorageServiceError: See `write`.
        """
        ...

    async def read(self, work: Callable[[], Work[T]], *, thread: bool = False) -> T:
        """What `work` returns. It sees one state of the database: all that is committed when it begins.

        Args:
            work: Makes the unit of work, which must not write and should be short: some rows by key, or a page of them.
            thread: It is a scan: nobody else should have to wait for it.

        Raises:
            StorageServiceError: The database cannot be read.
            ConfigurationError: See `open`.
        """
        ...

    async def write(self, work: Callable[[], Work[T]]) -> T:
        """What `work` returned, when all that it wrote is durable.

        Args:
            work: Makes the unit of work; again for each attempt.

        Raises:
            Exception: What `work` raised. Nothing that it wrote is there, and no other write is touched.
            StorageServiceError: The database cannot be written. Nothing was written.
            ConfigurationError: See `open`.

        Cancellation:
            Nothing was written. A write that was begun ends first, and then succeeds.
        """
        ...
