"""Cost in the server's own database: durable, with limits that hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from dk_trio.errors import CostLimitError
from dk_trio.services.cost import Cost, CostConfig, CostData, CostLimit, CostType
from dk_trio.services.job_costs import JobCosts, checked_text, checked_type
from dk_trio.services.stores.costs import check
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
        self._job = JobCosts(
            mission_id, setup_version_id, job_id, config=config, cost_limits=cost_limits, limits=limits
        )
        self._costs = platform.costs
        self._adding = trio.Lock()

    def __repr__(self) -> str:
        return f"<DefaultCost of {self.mission_id!r}, configs {sorted(self._job.prices)}>"

    async def check_health(self) -> None:
        """See `Database.check_health`. Leaves no cost behind."""
        await self._costs.database.check_health()

    async def add(self, name: str, cost_config_name: str, quantity: float) -> None:
        entry = self._job.entry(name, cost_config_name, quantity)
        async with self._adding:
            self._job.check(entry)
            await self._costs.add(entry, self._job.limits("mission"))
            # No checkpoint since the commit: what is in the database is in here.
            self._job.count(entry)

    async def check_limit(self, cost_config_name: str, quantity: float) -> bool:
        entry = self._job.entry("check", cost_config_name, quantity)
        sums = await self._costs.sums(self._job.mission)
        try:
            self._job.check(entry)
            check(self._job.limits("mission"), sums, entry)
        except CostLimitError:
            return False
        return True

    async def get(self, name: str) -> list[CostData]:
        return await self._costs.named(self._job.mission, checked_text("name", name))

    async def get_filtered(
        self, names: Sequence[str] | None = None, cost_types: Sequence[CostType | str] | None = None
    ) -> list[CostData]:
        wanted = [checked_text("names", name) for name in names or ()]
        return await self._costs.filtered(
            self._job.mission, wanted, [checked_type(value) for value in cost_types or ()]
        )

    async def get_cost_config(self) -> list[CostConfig]:
        await trio.lowlevel.checkpoint()
        return list(self._job.prices.values())

    async def set_cost_config(self, configs: Sequence[CostConfig]) -> bool:
        await trio.lowlevel.checkpoint()
        self._job.set_prices(configs)
        return True

    async def set_limits(self, limits: Sequence[CostLimit]) -> None:
        await trio.lowlevel.checkpoint()
        self._job.set_limits(limits)
