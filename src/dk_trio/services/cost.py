"""Cost: what a mission has used, priced by rates, and limits that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator


class CostType(StrEnum):
    """What is counted. Read without regard to case: the existing SDK writes it both ways."""

    TOKEN_INPUT = "TOKEN_INPUT"  # noqa: S105 - a token of a language model
    TOKEN_OUTPUT = "TOKEN_OUTPUT"  # noqa: S105
    API_CALL = "API_CALL"
    STORAGE = "STORAGE"
    TIME = "TIME"
    OTHER = "OTHER"

    @classmethod
    def _missing_(cls, value: object) -> CostType | None:
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


class CostConfig(BaseModel):
    """A price.

    Attributes:
        cost_name: What the price is for, as `add` names it.
        cost_type: What is counted.
        description: For people.
        unit: Of a quantity, such as `token` or `second`.
        rate: Cost of one unit, in the currency of the platform.
    """

    model_config = ConfigDict(frozen=True)

    cost_name: str = Field(min_length=1)
    cost_type: CostType
    description: str | None = None
    unit: str = Field(min_length=1)
    rate: float = Field(ge=0, allow_inf_nan=False)


class CostData(BaseModel):
    """One cost that was added.

    Attributes:
        cost: `rate * quantity`.
        mission_id: The mission that pays.
        name: The entry's name, as `add` was told; several entries may have it.
        cost_type: What was counted.
        unit: Of the quantity.
        rate: Cost of one unit at that time.
        setup_version_id: The version of the setup whose job added it.
        quantity: Units.
    """

    model_config = ConfigDict(frozen=True)

    cost: float
    mission_id: str
    name: str
    cost_type: CostType
    unit: str
    rate: float
    setup_version_id: str
    quantity: float


class _Limit(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str | None = None
    type: CostType | None = None
    max_value: float = Field(ge=0, allow_inf_nan=False)
    scope: Literal["job", "mission"] = "job"

    def covers(self, config_name: str, cost_type: CostType) -> bool:
        """Whether costs of this config count against the limit."""
        return self.name in {None, config_name} and self.type in {None, cost_type}


class QuantityLimit(_Limit):
    """At most so many units of a cost config, or of all that count the same type.

    Attributes:
        limit_type: Tells the kinds apart in JSON.
        name: The cost config that is limited; None for all of `type`. One of the two is needed.
        type: The type that is limited; None for any.
        max_value: Units. Exactly so many are allowed.
        scope: Whose costs count: those that this job adds, or those of the whole mission, across all its jobs.
    """

    limit_type: Literal["quantity"] = "quantity"

    @model_validator(mode="after")
    def _counts_one_thing(self) -> QuantityLimit:
        if self.name is None and self.type is None:
            raise ValueError("a limit of a quantity needs a name or a type: tokens and seconds have no sum")
        return self


class AmountLimit(_Limit):
    """At most so much money.

    Attributes:
        limit_type: Tells the kinds apart in JSON.
        name: The cost config that is limited; None for all.
        type: The type that is limited; None for any. Without `name` and `type` the limit is on everything together.
        max_value: In the currency of the rates. Exactly so much is allowed.
        scope: Whose costs count: those that this job adds, or those of the whole mission, across all its jobs.
    """

    limit_type: Literal["amount"] = "amount"


CostLimit: TypeAlias = Annotated[QuantityLimit | AmountLimit, Field(discriminator="limit_type")]


class Cost(Protocol):
    """What a mission has used. A module gives the prices: `services_config_params["cost"]["config"]`.

    All methods raise `CostServiceError` for what is no cost of the module, and `StorageServiceError` when the costs
    cannot be kept. A method that is cancelled has added nothing.
    """

    async def add(self, name: str, cost_config_name: str, quantity: float) -> None:
        """Add a cost of `quantity` units at the rate of the config.

        Each call is an entry of its own: calls with one name add up.

        Args:
            name: Of the entry, for `get`.
            cost_config_name: Which price.
            quantity: Units, not negative.

        Raises:
            CostLimitError: It would exceed a limit. Nothing was added.
            CostServiceError: No such config, or a quantity that is negative, infinite or no number.
        """
        ...

    async def get(self, name: str) -> list[CostData]:
        """The mission's entries of this name, oldest first; empty when there are none."""
        ...

    async def get_filtered(
        self, names: Sequence[str] | None = None, cost_types: Sequence[CostType | str] | None = None
    ) -> list[CostData]:
        """The mission's entries with one of `names` and one of `cost_types`, oldest first. None: any."""
        ...

    async def get_cost_config(self) -> list[CostConfig]:
        """The prices that `add` knows."""
        ...

    async def set_cost_config(self, configs: Sequence[CostConfig]) -> bool:
        """Replace the prices. Costs that were added keep theirs. True when that was done."""
        ...

    async def set_limits(self, limits: Sequence[CostLimit]) -> None:
        """Replace the module's own limits. Those of the caller stay."""
        ...

    async def check_limit(self, cost_config_name: str, quantity: float) -> bool:
        """Whether `add` would be within all limits now. Another job may use what is left before this one does."""
        ...
