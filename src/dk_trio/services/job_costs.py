"""Prices and limits of one job: what every cost service checks before anything is added, wherever it keeps costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dk_trio.errors import CostServiceError, Violation

from .cost import AmountLimit, CostConfig, CostLimit, CostType, QuantityLimit
from .field_path import field_path
from .stores.costs import Entry, PlacedLimit, Sum, check


class JobCosts:
    """Prices, limits, and what one job has added.

    Args:
        mission_id: The mission that pays.
        setup_version_id: The version of the setup whose job it is.
        job_id: Is kept with each entry.
        config: The prices, by the name that `add` is told.
        cost_limits: Limits of the caller. They stay for the whole job.
        limits: The module's own limits.

    Raises:
        CostServiceError: A price or a limit is none, or there is no mission.

    Attributes:
        mission: Its id, with prefix.
    """

    def __init__(
        self,
        mission_id: str,
        setup_version_id: str,
        job_id: str,
        *,
        config: Mapping[str, CostConfig],
        cost_limits: Sequence[CostLimit],
        limits: Sequence[CostLimit],
    ) -> None:
        owner = mission_id.removeprefix("missions:")
        if not owner:
            raise CostServiceError("The job has no mission id: nobody would pay its costs.")
        self.mission = f"missions:{owner}"
        self._setup_version_id = setup_version_id
        self._job_id = job_id
        self._configs = {name: _config(name, value) for name, value in config.items()}
        self._callers = _placed("input.cost_limits", cost_limits)
        self._own = _placed("limits", limits)
        self._added: dict[tuple[str, CostType], Sum] = {}

    @property
    def prices(self) -> Mapping[str, CostConfig]:
        """By the name that `add` is told."""
        return self._configs

    def set_prices(self, configs: Sequence[CostConfig]) -> None:
        """Replace the prices; costs that were added keep theirs."""
        self._configs = {value.cost_name: value for value in configs}

    def set_limits(self, limits: Sequence[CostLimit]) -> None:
        """Replace the module's own limits.

        Raises:
            CostServiceError: One of them is none.
        """
        self._own = _placed("limits", limits)

    def limits(self, scope: str) -> list[PlacedLimit]:
        """The caller's limits of a scope, then the module's."""
        return [placed for placed in (*self._callers, *self._own) if placed.limit.scope == scope]

    def check(self, entry: Entry) -> None:
        """Raise when an entry exceeds a limit of the job.

        Raises:
            CostLimitError: Names the limit.
        """
        check(self.limits("job"), self._added, entry)

    def count(self, entry: Entry) -> None:
        """An entry was added."""
        key = (entry.config_name, entry.cost_type)
        self._added[key] = self._added.get(key, Sum()).plus(entry.sum)

    def entry(self, name: str, cost_config_name: str, quantity: float) -> Entry:
        """What is to be added.

        Raises:
            CostServiceError: There is no such price, or the name or the quantity is none.
        """
        config = self._configs.get(cost_config_name)
        if config is None:
            known = ", ".join(sorted(self._configs)) or "none"
            raise CostServiceError(
                f"There is no cost config {cost_config_name!r} (known: {known}).",
                hint="Give it a price in `services_config_params['cost']['config']`.",
                violations=[Violation("cost_config_name", f"must be one of {known}, not {cost_config_name!r}")],
            )
        entry = Entry(
            mission=self.mission,
            name=checked_text("name", name),
            config_name=cost_config_name,
            cost_type=config.cost_type,
            unit=config.unit,
            rate=config.rate,
            quantity=_quantity(quantity),
            setup_version_id=self._setup_version_id,
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


def checked_text(field: str, value: Any) -> str:
    """The name of an entry, if it can be one.

    Raises:
        CostServiceError: It cannot.
    """
    try:
        if isinstance(value, str) and value and value.encode() and "\x00" not in value:
            return value
    except UnicodeEncodeError:
        pass
    rule = "must be a text that is not empty and has no NUL character"
    raise CostServiceError(f"The name of a cost {rule}, not {value!r}.", violations=[Violation(field, rule)])


def checked_type(value: CostType | str) -> CostType:
    """A type by its name.

    Raises:
        CostServiceError: There is none of this name.
    """
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
