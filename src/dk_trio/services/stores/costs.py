"""Costs of all missions, their sums, and whether a limit has room.

Sums are decimal, not binary: ten times 0.1 is 1, so a limit of 1 has room for exactly ten. They are kept beside the
entries, one row for each config of a mission, and change in the transaction that adds the entry: an add looks at a few
rows however many entries there are, and two jobs can never pass a limit together that neither passes alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from dk_trio import chance
from dk_trio.errors import CostLimitError, Violation
from dk_trio.services.cost import AmountLimit, CostData, CostLimit, CostType

from .database import Database
from .work import Statement, Value, Work

# A product of two floats as they are written has 34 digits at most; 50 leave room to add up 10^16 of them exactly.
_ARITHMETIC: Final = Context(prec=50)

# A product of floats differs from the decimal one by less than this part of it.
_ROUNDING: Final = 1e-12

# Append only, see `Database.declare`. Sums are text: SQLite has no decimal numbers.
_SCHEMA: Final = (
    """CREATE TABLE costs (
        place {place},
        mission TEXT NOT NULL,
        name TEXT NOT NULL,
        config_name TEXT NOT NULL,
        cost_type TEXT NOT NULL,
        unit TEXT NOT NULL,
        rate DOUBLE PRECISION NOT NULL,
        quantity DOUBLE PRECISION NOT NULL,
        cost DOUBLE PRECISION NOT NULL,
        setup_version_id TEXT NOT NULL,
        job_id TEXT NOT NULL,
        created BIGINT NOT NULL
    )""",
    "CREATE INDEX costs_of_mission ON costs (mission, place)",
    "CREATE INDEX costs_of_name ON costs (mission, name, place)",
    """CREATE TABLE cost_sums (
        mission TEXT NOT NULL,
        config_name TEXT NOT NULL,
        cost_type TEXT NOT NULL,
        quantity TEXT NOT NULL,
        amount TEXT NOT NULL,
        PRIMARY KEY (mission, config_name, cost_type)
    )""",
)
_INSERT: Final = """INSERT INTO costs (mission, name, config_name, cost_type, unit, rate, quantity, cost,
    setup_version_id, job_id, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_SUMS: Final = "SELECT config_name, cost_type, quantity, amount FROM cost_sums WHERE mission = ?"
_SUM: Final = """INSERT INTO cost_sums (mission, config_name, cost_type, quantity, amount) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (mission, config_name, cost_type)
    DO UPDATE SET quantity = excluded.quantity, amount = excluded.amount"""
_ENTRIES: Final = """SELECT place, cost, name, cost_type, unit, rate, setup_version_id, quantity FROM costs
    WHERE mission = ? AND place > ?"""

# Names that a query looks for; of more, all entries of the mission are read.
_NAMES_MAX: Final = 500

# Entries that are read and made into models in one go, on the loop.
_PAGE: Final = 200


class Sum(NamedTuple):
    """What was used: units, and money."""

    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)

    def plus(self, other: Sum) -> Sum:
        """Both together."""
        return Sum(
            _ARITHMETIC.add(self.quantity, other.quantity),
            _ARITHMETIC.add(self.amount, other.amount),
        )


Sums: TypeAlias = Mapping[tuple[str, CostType], Sum]
"""What was used by config name and type."""


class PlacedLimit(NamedTuple):
    """A limit, and the field it stands in, such as `input.cost_limits[0]`."""

    field: str
    limit: CostLimit


@dataclass(frozen=True, slots=True)
class Entry:
    """A cost that is to be added."""

    mission: str
    name: str
    config_name: str
    cost_type: CostType
    unit: str
    rate: float
    quantity: float
    setup_version_id: str
    job_id: str
    cost: float | None = None
    """As somebody else has worked it out; None: rate by quantity."""

    @property
    def sum(self) -> Sum:
        """What it adds to the sums: the decimal numbers that the floats are written as.

        A given cost that is the product of the floats counts as that of the numbers: no rounding passes a limit.
        """
        quantity = Decimal(repr(self.quantity))
        amount = _ARITHMETIC.multiply(Decimal(repr(self.rate)), quantity)
        if self.cost is not None and not math.isclose(self.cost, float(amount), rel_tol=_ROUNDING):
            amount = Decimal(repr(self.cost))
        return Sum(quantity, amount)


def check(limits: Sequence[PlacedLimit], sums: Sums, entry: Entry) -> None:
    """Raise when `entry`, on top of `sums`, exceeds one of `limits`.

    Raises:
        CostLimitError: Names the first that it exceeds.
    """
    for field, limit in limits:
        if not limit.covers(entry.config_name, entry.cost_type):
            continue
        used = Sum()
        for (config_name, cost_type), row in sums.items():
            if limit.covers(config_name, cost_type):
                used = used.plus(row)
        total = used.plus(entry.sum)
        money = isinstance(limit, AmountLimit)
        if (total.amount if money else total.quantity) <= Decimal(repr(limit.max_value)):
            continue
        what = " of ".join(filter(None, [limit.type, limit.name and repr(limit.name)])) or "everything"
        have, asked = (float(row.amount if money else row.quantity) for row in (used, entry.sum))
        rule = f"{'cost' if money else 'quantity'} of {what} at most {limit.max_value:.15g} in a {limit.scope}"
        state = f"{have:.15g} used, {asked:.15g} asked"
        raise CostLimitError(
            f"A cost limit is reached ({rule}): {state} for {entry.name!r}.",
            hint=f"Nothing was added. Raise `max_value` of the limit, or start another {limit.scope}.",
            violations=[Violation(f"{field}.max_value", f"{rule}: {state}")],
        )


class CostStore:
    """Costs by mission.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        database.declare("costs", _SCHEMA)

    def __repr__(self) -> str:
        return f"<CostStore in {self.database!r}>"

    async def add(self, entry: Entry, limits: Sequence[PlacedLimit]) -> None:
        """Add an entry, if the mission has room for it under `limits`.

        Raises:
            CostLimitError: It has not; nothing was added.
        """
        await self.database.write(partial(self.add_work, entry, limits))

    def add_work(self, entry: Entry, limits: Sequence[PlacedLimit]) -> Work[None]:
        """`add`, as a part of a larger work."""
        sums = yield from self.sums_work(entry.mission)
        check(limits, sums, entry)
        added = entry.sum
        total = sums.get((entry.config_name, entry.cost_type), Sum()).plus(added)
        key = (entry.config_name, entry.cost_type.value)
        yield Statement(
            _INSERT,
            (
                *(entry.mission, entry.name, *key, entry.unit, entry.rate, entry.quantity, float(added.amount)),
                *(entry.setup_version_id, entry.job_id, chance.wall_us()),
            ),
        )
        yield Statement(_SUM, (entry.mission, *key, str(total.quantity), str(total.amount)))

    async def sums(self, mission: str) -> Sums:
        """What a mission has used."""
        return await self.database.read(partial(self.sums_work, mission))

    def sums_work(self, mission: str) -> Work[Sums]:
        """`sums`, as a part of a larger work."""
        return {
            (config_name, CostType(cost_type)): Sum(Decimal(quantity), Decimal(amount))
            for config_name, cost_type, quantity, amount in (yield Statement(_SUMS, (mission,))).rows
        }

    async def named(self, mission: str, name: str) -> list[CostData]:
        """Entries of one name, oldest first."""
        return await self.filtered(mission, [name], ())

    async def filtered(self, mission: str, names: Sequence[str], cost_types: Sequence[CostType]) -> list[CostData]:
        """Entries that have one of the names and one of the types, oldest first; an empty filter lets all pass."""
        sql = _ENTRIES
        values: list[Value] = []
        asked = frozenset(names)
        for column, of in (
            ("name", sorted(asked) if len(asked) <= _NAMES_MAX else ()),
            ("cost_type", [cost_type.value for cost_type in cost_types]),
        ):
            if of:
                sql += f" AND {column} IN ({', '.join('?' * len(of))})"
                values += of
        sql += " ORDER BY place LIMIT ?"
        entries: list[CostData] = []
        after = 0
        while True:
            rows = await self.database.read(partial(_rows, sql, (mission, after, *values, _PAGE)))
            costs = (_cost(mission, *row) for _, *row in rows)
            entries += [cost for cost in costs if not asked or cost.name in asked]
            if len(rows) < _PAGE:
                return entries
            after = rows[-1][0]


def _rows(sql: str, parameters: Sequence[Value]) -> Work[list[tuple[Any, ...]]]:
    return (yield Statement(sql, parameters)).rows


def _cost(
    mission: str, cost: float, name: str, cost_type: str, unit: str, rate: float, version: str, quantity: float
) -> CostData:
    return CostData.model_construct(
        cost=cost,
        mission_id=mission,
        name=name,
        cost_type=CostType(cost_type),
        unit=unit,
        rate=rate,
        setup_version_id=version,
        quantity=quantity,
    )
