"""Cost in the server's own database: durable, with limits that hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import trio
from pydantic import TypeAdapter, ValidationError

from dk_trio.errors import CostLimitError, CostServiceError, Violation
from dk_trio.services.cost import AmountLimit, Cost, CostConfig, CostData, CostLimit, CostType, QuantityLimit
from dk_trio.services.field_path import field_path
from dk_trio.services.stores.costs import Entry, PlacedLimit, Sum, check
from dk_trio.services.strategy import BaseStrategy

if TYPE_CHECKING:
    from .platform import LocalPlatform


class DefaultCost(BaseStrategy, Cost):
    """The local `Cost`: see there for what its methods promise.

    Every `add` is an entry of its own, and `get` gives all of a name. (The local strategy of the existing SDK refuses a
    second entry of a name while its remote one adds it up, and so does the wire contract.) Prices that were set with
    `set_cost_config` hold for this job.

    Limits of a job count what went through this object, those of a mission what the database has. The adds of one job
    go one after the other, so the first are as exact as the second.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        config: The prices, by the name that `add` is told.
        platform: Where costs are kept.
        job_id: Is kept with each entry.
        cost_limits: Limits of the caller. They stay for the whole job.
        limits: The module's own limits, which `set_limits` replaces.

    Raises:
        CostServiceError: A price or a limit is none.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        config: Mapping[str, CostConfig],
        platform: LocalPlatform,
        job_id: str = "",
        cost_limits: Sequence[CostLimit] = (),
        limits: Sequence[CostLimit] = (),
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        owner = mission_id.removeprefix("missions:")
        if not owner:
            raise CostServiceError("The job has no mission id: nobody would pay its costs.")
        self._mission = f"missions:{owner}"
        self._job_id = job_id
        self._configs = {name: _config(name, value) for name, value in config.items()}
        self._callers = _placed("input.cost_limits", cost_limits)
        self._own = _placed("limits", limits)
        self._costs = platform.costs
        self._added: dict[tuple[str, CostType], Sum] = {}
        self._adding = trio.Lock()

    def __repr__(self) -> str:
        return f"<DefaultCost of {self.mission_id!r}, configs {sorted(self._configs)}>"

    async def check_health(self) -> None:
        """See `Database.check_health`. Leaves no cost behind."""
        await self._costs.database.check_health()

    async def add(self, name: str, cost_config_name: str, quantity: float) -> None:
        entry = self._entry(name, cost_config_name, quantity)
        async with self._adding:
            check(self._limits("job"), self._added, entry)
            await self._costs.add(entry, self._limits("mission"))
            # No checkpoint since the commit: what is in the database is in here.
            key = (entry.config_name, entry.cost_type)
            self._added[key] = self._added.get(key, Sum()).plus(entry.sum)

    async def check_limit(self, cost_config_name: str, quantity: float) -> bool:
        entry = self._entry("check", cost_config_name, quantity)
        sums = await self._costs.sums(self._mission)
        try:
            check(self._limits("job"), self._added, entry)
            check(self._limits("mission"), sums, entry)
        except CostLimitError:
            return False
        return True

    async def get(self, name: str) -> list[CostData]:
        return await self._costs.named(self._mission, _text("name", name))

    async def get_filtered(
        self, names: Sequence[str] | None = None, cost_types: Sequence[CostType | str] | None = None
    ) -> list[CostData]:
        wanted = [_text("names", name) for name in names or ()]
        return await self._costs.filtered(self._mission, wanted, [_type(value) for value in cost_types or ()])

    async def get_cost_config(self) -> list[CostConfig]:
        await trio.lowlevel.checkpoint()
        return list(self._configs.values())

    async def set_cost_config(self, configs: Sequence[CostConfig]) -> bool:
        await trio.lowlevel.checkpoint()
        self._configs = {value.cost_name: value for value in configs}
        return True

    async def set_limits(self, limits: Sequence[CostLimit]) -> None:
        await trio.lowlevel.checkpoint()
        self._own = _placed("limits", limits)

    def _limits(self, scope: str) -> list[PlacedLimit]:
        return [placed for placed in (*self._callers, *self._own) if placed.limit.scope == scope]

    def _entry(self, name: str, cost_config_name: str, quantity: float) -> Entry:
        config = self._configs.get(cost_config_name)
        if config is None:
            known = ", ".join(sorted(self._configs)) or "none"
            raise CostServiceError(
                f"There is no cost config {cost_config_name!r} (known: {known}).",
                hint="Give it a price in `services_config_params['cost']['config']`.",
                violations=[Violation("cost_config_name", f"must be one of {known}, not {cost_config_name!r}")],
            )
        entry = Entry(
            mission=self._mission,
            name=_text("name", name),
            config_name=cost_config_name,
            cost_type=config.cost_type,
            unit=config.unit,
            rate=config.rate,
            quantity=_quantity(quantity),
            setup_version_id=self.setup_version_id,
            job_id=self._job_id,
        )
        if not math.isfinite(float(entry.sum.amount)):
            raise _bad_quantity(quantity, f"must be less: {config.rate!r} times that is no cost")
        return entry


def _quantity(value: Any) -> float:
    try:
        quantity = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        quantity = math.inf
    if math.isfinite(quantity) and quantity >= 0:
        return quantity
    raise _bad_quantity(value, "must be a number, finite and not negative")


def _bad_quantity(value: object, rule: str) -> CostServiceError:
    shown = repr(value) if isinstance(value, float | str) else type(value).__name__
    return CostServiceError(f"The quantity {shown} {rule}.", violations=[Violation("quantity", f"{rule}, not {shown}")])


def _text(field: str, value: Any) -> str:
    try:
        if isinstance(value, str) and value and value.encode():
            return value
    except UnicodeEncodeError:
        pass
    rule = "must be a text that is not empty"
    raise CostServiceError(f"The name of a cost {rule}, not {value!r}.", violations=[Violation(field, rule)])


def _type(value: CostType | str) -> CostType:
    try:
        return CostType(value)
    except ValueError:
        known = ", ".join(CostType)
        raise CostServiceError(
            f"There is no cost type {value!r} (known: {known}).",
            violations=[Violation("cost_types", f"must be one of {known}, not {value!r}")],
        ) from None


def _config(name: str, value: Any) -> CostConfig:
    try:
        return CostConfig.model_validate(value)
    except ValidationError as error:
        raise _refused(f"config.{name}", error) from error


def _placed(field: str, limits: Sequence[Any]) -> list[PlacedLimit]:
    placed = []
    for index, value in enumerate(limits):
        limit = value
        if not isinstance(value, QuantityLimit | AmountLimit):
            adapter: TypeAdapter[CostLimit] = TypeAdapter(CostLimit)
            try:
                limit = adapter.validate_python(value)
            except ValidationError as error:
                raise _refused(f"{field}[{index}]", error) from error
        placed.append(PlacedLimit(f"{field}[{index}]", limit))
    return placed


def _refused(field: str, error: ValidationError) -> CostServiceError:
    violations = []
    for fault in error.errors(include_url=False, include_context=False):
        path = field_path(field, *fault["loc"])
        violations.append(Violation(path, f"{fault['msg'][:1].lower()}{fault['msg'][1:]} (got {fault['input']!r:.60})"))
    listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return CostServiceError(f"This is no price or limit: {listed}.", violations=violations)
