"""All that a provider keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from dk_trio.services.stores.costs import CostStore
from dk_trio.services.stores.files import FileStore
from dk_trio.services.stores.once import Once
from dk_trio.services.stores.prices import PriceStore
from dk_trio.services.stores.profiles import ProfileStore
from dk_trio.services.stores.records import RecordStore
from dk_trio.services.stores.registrations import RegistrationStore
from dk_trio.services.stores.setups import SetupTable
from dk_trio.services.stores.signals import SignalStore

from ._siblings import Siblings

if TYPE_CHECKING:
    from pathlib import Path

    from dk_trio.services.stores.database import Database

    from ._options import ProviderOptions


@dataclass(frozen=True, slots=True)
class Stores:
    """The database, and each store in it. Contents of files are beside it."""

    database: Database
    records: RecordStore
    costs: CostStore
    prices: PriceStore
    files: FileStore
    profiles: ProfileStore
    setups: SetupTable
    signals: SignalStore
    registrations: RegistrationStore
    siblings: Siblings
    once: Once

    @classmethod
    def of(cls, database: Database, directory: Path | None, *, options: ProviderOptions) -> Self:
        """The stores of a database.

        Args:
            database: Where they are.
            directory: For contents of files; None: in memory.
            options: Of the provider.
        """
        return cls(
            database=database,
            records=RecordStore(database),
            costs=CostStore(database),
            prices=PriceStore(database),
            files=FileStore(database, directory, setting=options.setting),
            profiles=ProfileStore(database),
            setups=SetupTable(database),
            signals=SignalStore(database),
            registrations=RegistrationStore(database, length=round(options.lease * 1_000_000)),
            siblings=Siblings(length=round(options.lease * 1_000_000), now=lambda: round(options.now() * 1_000_000)),
            once=Once(database, ttl=options.key_ttl, now=options.now),
        )
