"""CostService: what missions have used, limits that hold, and prices by version of a setup.

An entry is what its sender says, and is added as it is: repeated calls add up. Limits travel with a call in metadata,
see `extensions.COST_LIMITS`, and are checked in the transaction that adds, so two jobs can never pass one together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from dk_trio import extensions
from dk_trio.errors import RequestError, Violation
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import (
    AddCostRequest,
    AddCostResponse,
    Cost,
    CostConfig,
    CostServiceBase,
    GetCostConfigRequest,
    GetCostConfigResponse,
    GetCostRequest,
    GetCostResponse,
    GetCostsRequest,
    GetCostsResponse,
    SetCostConfigRequest,
    SetCostConfigResponse,
)
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostType as WireType
from dk_trio.services.cost import CostLimit, CostType
from dk_trio.services.field_path import field_path
from dk_trio.services.stores.cost_pages import Cost as Row
from dk_trio.services.stores.cost_pages import CostQuery
from dk_trio.services.stores.costs import Entry, PlacedLimit
from dk_trio.services.stores.work import Work

from ._base import Servicer, known, refused, text
from ._large import Large

MISSION: Final = "missions:"
VERSION: Final = "setup_versions:"

# The contract's bounds of a page, and what a client gets that names no limit, as those of the existing SDK do.
LIST_MAX: Final = 1000
LIST_DEFAULT: Final = 100

# Values of one filter, and prices of one version: more than any caller has, well within what one statement takes.
MANY: Final = 1000

# Limits of one call: they travel in its metadata.
LIMITS_MAX: Final = 100


class CostServicer(Servicer, CostServiceBase):
    """Keeps costs and prices."""

    async def add_cost(self, message: AddCostRequest) -> AddCostResponse:
        """Add an entry.

        Raises:
            CostLimitError: It would pass a limit; nothing was added.
        """
        name = text(message.name, "name")
        entry = Entry(
            mission=_prefixed(MISSION, message.mission_id, "mission_id"),
            name=name,
            config_name=self._config_name() or name,
            cost_type=CostType(known(message.cost_type, "cost_type")),
            unit=text(message.unit, "unit"),
            rate=_amount(message.rate, "rate"),
            quantity=_amount(message.quantity, "quantity"),
            cost=_amount(message.cost, "cost"),
            setup_version_id=_prefixed(VERSION, message.setup_version_id, "setup_version_id"),
            job_id="",
        )
        limits = self._limits()

        def work() -> Work[AddCostResponse]:
            yield from self._stores.costs.add_work(entry, limits)
            return AddCostResponse(success=True)

        return await self._write(work)

    async def get_cost(self, message: GetCostRequest) -> GetCostResponse:
        """All entries of one name, oldest first, and their sum.

        Raises:
            ReplyTooLargeError: Together they have more bytes than one message.
        """
        mission = _prefixed(MISSION, message.mission_id, "mission_id")
        query = CostQuery(mission=mission, names=[text(message.name, "name")])
        totals = await self._stores.database.read(query.totals, thread=True)
        reply = Large(f"The costs {message.name!r} of {mission!r}", "GetCosts gives them by page.")
        reply.add(GetCostResponse(total_cost=float(totals.cost)))
        place = 0
        while place < totals.last:
            after = place
            rows = await self._stores.database.read(lambda: query.after(after, totals.last, LIST_DEFAULT))  # noqa: B023
            if not rows:
                break
            reply.add(GetCostResponse(costs=[_cost(mission, row) for row in rows]))
            place = rows[-1].place
        return reply.as_reply(GetCostResponse)

    async def get_costs(self, message: GetCostsRequest) -> GetCostsResponse:
        """A page of the entries that match, oldest first; how many match, and their sum."""
        limit = min(message.limit or LIST_DEFAULT, LIST_MAX)
        for field, value in (("limit", limit), ("offset", message.offset)):
            if value < 0:
                raise refused(field, f"must not be negative, not {value}")
        query = _query(message)
        rows, totals = await self._stores.database.read(lambda: query.page(limit, message.offset), thread=True)
        return GetCostsResponse(
            costs=[_cost(query.mission, row) for row in rows],
            total_count=totals.count,
            total_cost=float(totals.cost),
        )

    async def get_cost_config(self, message: GetCostConfigRequest) -> GetCostConfigResponse:
        """The prices of a version; none where none were set."""
        version = _prefixed(VERSION, message.setup_version_id, "setup_version_id")
        kept = await self._stores.database.read(lambda: self._stores.prices.get_work(version))
        return GetCostConfigResponse(
            success=True,
            configs=[
                CostConfig(name, WireType[cost_type], description, unit, rate)
                for name, cost_type, description, unit, rate in json.loads(kept or "[]")
            ],
        )

    async def set_cost_config(self, message: SetCostConfigRequest) -> SetCostConfigResponse:
        """Replace the prices of a version."""
        version = _prefixed(VERSION, message.setup_version_id, "setup_version_id")
        prices = json.dumps(_prices(message.configs))

        def work() -> Work[SetCostConfigResponse]:
            yield from self._stores.prices.put_work(version, prices)
            return SetCostConfigResponse(success=True)

        return await self._write(work)

    # --- metadata ----------------------------------------------------------------------------------------------------

    def _config_name(self) -> str:
        value = self._call.metadata.get(extensions.COST_CONFIG, b"")
        try:
            return text(bytes(value).decode(), extensions.COST_CONFIG, empty=True)  # type: ignore[arg-type]  # of -bin
        except UnicodeDecodeError as error:
            raise refused(extensions.COST_CONFIG, f"is not UTF-8: {error}") from None

    def _limits(self) -> list[PlacedLimit]:
        value = self._call.metadata.get(extensions.COST_LIMITS)
        if value is None:
            return []
        try:
            rows = json.loads(bytes(value))  # type: ignore[arg-type]  # of -bin
        except (ValueError, RecursionError) as error:
            raise refused(extensions.COST_LIMITS, f"is not JSON: {error}") from None
        if not isinstance(rows, list) or len(rows) > LIMITS_MAX:
            raise refused(extensions.COST_LIMITS, f"must be a list of at most {LIMITS_MAX} limits")
        return [_limit(f"{extensions.COST_LIMITS}[{index}]", row) for index, row in enumerate(rows)]


def _limit(place: str, row: Any) -> PlacedLimit:
    if not isinstance(row, dict) or not isinstance(row.get("field"), str):
        raise refused(place, f'must be {{"field": ..., "limit": ...}}, not {row!r:.80}')
    adapter: TypeAdapter[CostLimit] = TypeAdapter(CostLimit)
    try:
        limit = adapter.validate_python(row.get("limit"))
    except ValidationError as error:
        violations = [
            Violation(field_path(row["field"], *fault["loc"]), f"{fault['msg']} (got {fault['input']!r:.60})")
            for fault in error.errors(include_url=False, include_context=False)
        ]
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise RequestError(f"This is no limit of costs: {listed}.", violations=violations) from None
    if limit.scope != "mission":
        raise refused(f"{row['field']}.scope", f"must be 'mission', not {limit.scope!r}: what a job has used, it knows")
    return PlacedLimit(row["field"], limit)


def _query(message: GetCostsRequest) -> CostQuery:
    mission = _prefixed(MISSION, message.mission_id, "mission_id")
    wanted = message.filter
    if wanted is None:
        return CostQuery(mission=mission)
    for field in ("names", "cost_types", "setup_version_ids"):
        if (count := len(getattr(wanted, field))) > MANY:
            raise refused(f"filter.{field}", f"has {count} values, at most {MANY} are allowed")
    return CostQuery(
        mission=mission,
        names=[text(name, f"filter.names[{index}]") for index, name in enumerate(wanted.names)],
        cost_types=[known(kind, f"filter.cost_types[{index}]") for index, kind in enumerate(wanted.cost_types)],
        setup_version_ids=[
            _prefixed(VERSION, version, f"filter.setup_version_ids[{index}]")
            for index, version in enumerate(wanted.setup_version_ids)
        ],
    )


def _prices(configs: Sequence[CostConfig]) -> list[tuple[str, str, str, str, float]]:
    if len(configs) > MANY:
        raise refused("configs", f"has {len(configs)} prices, at most {MANY} are allowed")
    prices: dict[str, tuple[str, str, str, str, float]] = {}
    for index, config in enumerate(configs):
        field = f"configs[{index}]"
        name = text(config.name, f"{field}.name")
        if name in prices:
            raise refused(f"{field}.name", f"must differ from those before, {name!r} does not")
        prices[name] = (
            name,
            known(config.cost_type, f"{field}.cost_type"),
            config.description,
            text(config.unit, f"{field}.unit"),
            _amount(config.rate, f"{field}.rate"),
        )
    return list(prices.values())


def _cost(mission: str, row: Row) -> Cost:
    return Cost(
        cost=row.cost,
        mission_id=mission,
        name=row.name,
        cost_type=WireType[row.cost_type],
        unit=row.unit,
        rate=row.rate,
        setup_version_id=row.setup_version_id,
        quantity=row.quantity,
    )


def _prefixed(prefix: str, value: str, field: str) -> str:
    """An id with its prefix: both forms mean the same."""
    return prefix + text(value.removeprefix(prefix), field)


def _amount(value: float, field: str) -> float:
    if math.isfinite(value) and value >= 0:
        return value
    raise refused(field, f"must be finite and not negative, not {value!r}")
