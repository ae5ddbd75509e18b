"""The embedded services-provider: what the modules of a mesh share, served from one durable store.

One file for each service of the contract, and one for our own, all of the shape of `_base.Servicer`; `_servicers` lists
them, `_stores` what they keep, `_server` puts them on the network. See `docs/provider.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dk_trio.lazy import lazily

if TYPE_CHECKING:
    from dk_trio.services.stores.database import Database as Database
    from dk_trio.services.stores.database import DatabaseStatistics as DatabaseStatistics
    from dk_trio.services.stores.postgres import PostgresDatabase as PostgresDatabase
    from dk_trio.services.stores.sqlite import SqliteDatabase as SqliteDatabase

    from ._options import ProviderOptions as ProviderOptions
    from ._server import DrainReport as DrainReport
    from ._server import Provider as Provider
    from ._server import ProviderStatistics as ProviderStatistics
    from ._validation import ValidationStatistics as ValidationStatistics

# Lazily: whoever wants the options alone, such as a command line, does not load the services.
_HOMES: Final = {
    "Database": "dk_trio.services.stores.database",
    "DatabaseStatistics": "dk_trio.services.stores.database",
    "DrainReport": "dk_trio.provider._server",
    "PostgresDatabase": "dk_trio.services.stores.postgres",
    "Provider": "dk_trio.provider._server",
    "ProviderOptions": "dk_trio.provider._options",
    "ProviderStatistics": "dk_trio.provider._server",
    "SqliteDatabase": "dk_trio.services.stores.sqlite",
    "ValidationStatistics": "dk_trio.provider._validation",
}

__all__ = [*_HOMES]  # noqa: PLE0604  all of them names

__getattr__, __dir__ = lazily(__name__, _HOMES)
