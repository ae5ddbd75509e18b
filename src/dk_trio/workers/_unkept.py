"""What one of several workers keeps by itself: nothing. Two processes cannot own one directory, nor share a memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from dk_trio.errors import ConfigurationError
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.stores.sqlite import SqliteDatabase


class _UnkeptDatabase(SqliteDatabase):
    def __init__(self) -> None:
        super().__init__(None)

    async def _prepare(self, schemas: Mapping[str, tuple[str, ...]]) -> None:
        raise ConfigurationError(
            "Several workers cannot keep data by themselves: each would have its own "
            f"({', '.join(sorted(schemas)) or 'nothing declared'}).",
            hint="Keep it in one place for all, with `dk-trio provider` and --provider, or serve with --workers 1.",
        )


class UnkeptPlatform(LocalPlatform):
    """Refuses to keep anything, at the first use: when the server starts, where that is known then."""

    def __init__(self) -> None:
        super().__init__(None)

    @cached_property
    def database(self) -> SqliteDatabase:
        """Cannot be opened."""
        return _UnkeptDatabase()
