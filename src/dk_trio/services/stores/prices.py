"""Prices by version of a setup, as JSON; what they mean is their servicer's matter."""

from __future__ import annotations

from typing import Final

from .database import Database
from .work import Statement, Work

# Append only, see `Database.declare`.
_SCHEMA: Final = ("CREATE TABLE prices (setup_version TEXT PRIMARY KEY, prices TEXT NOT NULL)",)
_GET: Final = "SELECT prices FROM prices WHERE setup_version = ?"
_PUT: Final = """INSERT INTO prices (setup_version, prices) VALUES (?, ?)
    ON CONFLICT (setup_version) DO UPDATE SET prices = excluded.prices"""


class PriceStore:
    """Prices of each version of a setup, all of them in one text.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.declare("prices", _SCHEMA)

    def __repr__(self) -> str:
        return f"<PriceStore in {self._database!r}>"

    def put_work(self, setup_version: str, prices: str) -> Work[None]:
        """Keep prices, instead of those that were there."""
        yield Statement(_PUT, (setup_version, prices))

    def get_work(self, setup_version: str) -> Work[str | None]:
        """The prices of a version; None when it was given none."""
        rows = (yield Statement(_GET, (setup_version,))).rows
        return rows[0][0] if rows else None
