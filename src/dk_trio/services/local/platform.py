"""What the local strategies of all jobs of a server share. The server owns it; jobs come and go.

A strategy belongs to one job and keeps nothing; what is to last longer than the job stands here, each store behind a
property that makes it at first use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

    from dk_trio.services.stores.costs import CostStore
    from dk_trio.services.stores.files import FileStore
    from dk_trio.services.stores.profiles import ProfileStore
    from dk_trio.services.stores.records import RecordStore
    from dk_trio.services.stores.setups import SetupTable
    from dk_trio.services.stores.sqlite import SqliteDatabase

    from .registry import LocalRegistry


class LocalPlatform:
    """Records, costs, files, the registry, user profiles and setups of one process.

    Args:
        directory: Where they are kept. It is made at first use, and locked: a second process that uses it gets a
            `ConfigurationError`. None: in memory, for as long as the platform is open, without files or threads.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"<LocalPlatform {'in memory' if self.directory is None else self.directory}>"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """The stores work inside the block. At its end what they acknowledged is durable, and the lock is released."""
        async with self.database.opened():
            yield self

    @cached_property
    def database(self) -> SqliteDatabase:
        """The database that the stores share."""
        from dk_trio.services.stores.sqlite import SqliteDatabase

        return SqliteDatabase(self.directory)

    @cached_property
    def records(self) -> RecordStore:
        """Records of the storage service."""
        from dk_trio.services.stores.records import RecordStore

        return RecordStore(self.database)

    @cached_property
    def costs(self) -> CostStore:
        """Costs of all missions, and their sums."""
        from dk_trio.services.stores.costs import CostStore

        return CostStore(self.database)

    @cached_property
    def files(self) -> FileStore:
        """Files of the filesystem service."""
        from dk_trio.services.stores.files import FileStore

        return FileStore(self.database, self.directory)

    @cached_property
    def registry(self) -> LocalRegistry:
        """Modules and setups that this process knows of."""
        from .registry import LocalRegistry

        return LocalRegistry()

    @cached_property
    def profiles(self) -> ProfileStore:
        """User profiles by mission."""
        from dk_trio.services.stores.profiles import ProfileStore

        return ProfileStore(self.database)

    @cached_property
    def setups(self) -> SetupTable:
        """Setups of all modules, with their versions."""
        from dk_trio.services.stores.setups import SetupTable

        return SetupTable(self.database)
