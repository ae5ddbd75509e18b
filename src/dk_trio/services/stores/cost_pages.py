"""Costs of a mission by page, with what all that match are together, of one state of the database.

Sums are decimal: the database counts how often each amount occurs, and the amounts are added up here, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Final, NamedTuple

from .work import Statement, Value, Work

_ARITHMETIC: Final = Context(prec=50)

_COLUMNS: Final = "place, cost, name, cost_type, unit, rate, setup_version_id, quantity"


class Cost(NamedTuple):
    """One entry."""

    place: int
    cost: float
    name: str
    cost_type: str
    unit: str
    rate: float
    setup_version_id: str
    quantity: float


@dataclass(frozen=True, slots=True)
class Totals:
    """All entries that match.

    Attributes:
        count: How many.
        cost: What they cost together.
        last: The place of the last of them; 0 when there are none.
    """

    count: int
    cost: Decimal
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQuery:
    """Which entries: those of a mission that meet every condition that is given. An empty one is none."""

    mission: str
    names: Sequence[str] = ()
    cost_types: Sequence[str] = ()
    setup_version_ids: Sequence[str] = ()

    def page(self, limit: int, offset: int) -> Work[tuple[list[Cost], Totals]]:
        """Entries in the order in which they were added, and all that match."""
        totals = yield from self.totals()
        where, values = self._where()
        sql = f"SELECT {_COLUMNS} FROM costs WHERE {where} ORDER BY place LIMIT ? OFFSET ?"  # noqa: S608 - our own text
        rows = (yield Statement(sql, (*values, limit, offset))).rows
        return [Cost(*row) for row in rows], totals

    def after(self, place: int, last: int, limit: int) -> Work[list[Cost]]:
        """Entries behind one place, up to another."""
        where, values = self._where()
        sql = f"SELECT {_COLUMNS} FROM costs WHERE {where} AND place > ? AND place <= ? ORDER BY place LIMIT ?"  # noqa: S608
        rows = (yield Statement(sql, (*values, place, last, limit))).rows
        return [Cost(*row) for row in rows]

    def totals(self) -> Work[Totals]:
        """All that match."""
        where, values = self._where()
        sql = f"SELECT cost, count(*), max(place) FROM costs WHERE {where} GROUP BY cost"  # noqa: S608
        count, cost, last = 0, Decimal(0), 0
        for amount, times, place in (yield Statement(sql, values)).rows:
            count += times
            cost = _ARITHMETIC.fma(Decimal(repr(amount)), Decimal(times), cost)
            last = max(last, place)
        return Totals(count, cost, last)

    def _where(self) -> tuple[str, list[Value]]:
        parts = ["mission = ?"]
        values: list[Value] = [self.mission]
        for column, wanted in (
            ("name", self.names),
            ("cost_type", self.cost_types),
            ("setup_version_id", self.setup_version_ids),
        ):
            if wanted:
                parts.append(f"{column} IN ({', '.join('?' * len(wanted))})")
                values += wanted
        return " AND ".join(parts), values
