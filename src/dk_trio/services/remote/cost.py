"""Cost behind a services-provider."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio
from grpclib.const import Status

from dk_trio import extensions
from dk_trio.errors import CostLimitError, CostServiceError
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import (
    AddCostRequest,
    AddCostResponse,
    CostFilter,
    GetCostConfigRequest,
    GetCostConfigResponse,
    GetCostRequest,
    GetCostResponse,
    GetCostsRequest,
    GetCostsResponse,
    SetCostConfigRequest,
    SetCostConfigResponse,
)
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import Cost as WireCost
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostConfig as WireConfig
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostType as WireType
from dk_trio.services.cost import Cost, CostConfig, CostData, CostLimit, CostType
from dk_trio.services.job_costs import JobCosts, checked_text, checked_type
from dk_trio.services.stores.costs import Entry, PlacedLimit, Sum, check
from dk_trio.services.strategy import BaseStrategy

from .calls import HEALTH_TIMEOUT, Calls
from .errors import ErrorFamily

if TYPE_CHECKING:
    from dk_trio.services.provider_clients import ProviderClients

_FAMILY: Final = ErrorFamily(base=CostServiceError)

_PAGE: Final = 1000  # GetCostsRequest.limit of the contract


class GrpcCost(BaseStrategy, Cost):
    """The remote `Cost`: see there for what its methods promise.

    Limits of a job count what went through this object; limits of a mission what the provider has. A provider of
    dk-trio checks those in the transaction that adds. Any other one is asked for the mission's costs before, so jobs
    that add at the same time can pass a limit together. An entry does not say which price it had, so there, and in
    `check_limit`, a limit on a price counts the entries with its type, unit and rate.

    Prices that are set are kept for the version of the setup. `get_cost_config` gives those if there are any, and `add`
    knows them from then on; the module's own otherwise.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        config: The prices, by the name that `add` is told.
        providers: Calls to services-providers.
        client_config: Of another provider than the server's own.
        job_id: For the log of this job only: the contract has no field for it.
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
        providers: ProviderClients,
        client_config: Any = None,
        job_id: str = "",
        cost_limits: Sequence[CostLimit] = (),
        limits: Sequence[CostLimit] = (),
    ) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._job = JobCosts(
            mission_id, setup_version_id, job_id, config=config, cost_limits=cost_limits, limits=limits
        )
        self._version = "setup_versions:" + setup_version_id.removeprefix("setup_versions:")
        self._calls = Calls(providers, client_config, "agentic_mesh_protocol.cost.v1.CostService", _FAMILY)
        self._adding = trio.Lock()

    def __repr__(self) -> str:
        return f"<GrpcCost of {self.mission_id!r}, configs {sorted(self._job.prices)}>"

    async def check_health(self) -> None:
        """Ask the provider for one cost of the mission."""
        request = GetCostsRequest(mission_id=self._job.mission, limit=1)
        await self._calls.read("GetCosts", request, GetCostsResponse, timeout=HEALTH_TIMEOUT)

    async def add(self, name: str, cost_config_name: str, quantity: float) -> None:
        entry = self._job.entry(name, cost_config_name, quantity)
        async with self._adding:
            self._job.check(entry)
            limits = self._job.limits("mission")
            if limits and not await self._calls.honours(extensions.LIMITS):
                check(limits, await self._sums(), entry)
            reply = await self._calls.write(
                "AddCost", self._request(entry), AddCostResponse, metadata=_told(entry, limits)
            )
            if not reply.success:
                raise self._calls.refused("AddCost")
            # No checkpoint since the reply: what the provider has is in here.
            self._job.count(entry)

    async def check_limit(self, cost_config_name: str, quantity: float) -> bool:
        entry = self._job.entry("check", cost_config_name, quantity)
        limits = self._job.limits("mission")
        try:
            self._job.check(entry)
            if limits:
                check(limits, await self._sums(), entry)
            else:
                await trio.lowlevel.checkpoint()
        except CostLimitError:
            return False
        return True

    async def get(self, name: str) -> list[CostData]:
        request = GetCostRequest(mission_id=self._job.mission, name=checked_text("name", name))
        try:
            reply = await self._calls.read("GetCost", request, GetCostResponse)
        except CostServiceError as error:
            if error.status is not Status.NOT_FOUND:
                raise
            return []
        return [self._data(cost) for cost in reply.costs]

    async def get_filtered(
        self, names: Sequence[str] | None = None, cost_types: Sequence[CostType | str] | None = None
    ) -> list[CostData]:
        wanted = [checked_text("names", name) for name in names or ()]
        kinds = [WireType[checked_type(value)] for value in cost_types or ()]
        return await self._costs(CostFilter(names=wanted, cost_types=kinds) if wanted or kinds else None)

    async def get_cost_config(self) -> list[CostConfig]:
        request = GetCostConfigRequest(setup_version_id=self._version)
        reply = await self._calls.read("GetCostConfig", request, GetCostConfigResponse)
        if reply.configs:
            self._job.set_prices([_config(config) for config in reply.configs])
        return list(self._job.prices.values())

    async def set_cost_config(self, configs: Sequence[CostConfig]) -> bool:
        wire = [
            WireConfig(
                name=config.cost_name,
                cost_type=WireType[config.cost_type],
                description=config.description or "",
                unit=config.unit,
                rate=config.rate,
            )
            for config in configs
        ]
        request = SetCostConfigRequest(setup_version_id=self._version, configs=wire)
        reply = await self._calls.write("SetCostConfig", request, SetCostConfigResponse)
        if reply.success:
            self._job.set_prices(configs)
        return reply.success

    async def set_limits(self, limits: Sequence[CostLimit]) -> None:
        await trio.lowlevel.checkpoint()
        self._job.set_limits(limits)

    # --- calls -------------------------------------------------------------------------------------------------------

    def _request(self, entry: Entry) -> AddCostRequest:
        return AddCostRequest(
            cost=float(entry.sum.amount),
            mission_id=entry.mission,
            name=entry.name,
            cost_type=WireType[entry.cost_type],
            unit=entry.unit,
            rate=entry.rate,
            setup_version_id=self._version,
            quantity=entry.quantity,
        )

    async def _costs(self, wanted: CostFilter | None) -> list[CostData]:
        """All pages: a page that came shorter than it was asked for may be the provider's own measure."""
        costs: list[CostData] = []
        while True:
            request = GetCostsRequest(mission_id=self._job.mission, filter=wanted, limit=_PAGE, offset=len(costs))
            try:
                reply = await self._calls.read("GetCosts", request, GetCostsResponse)
            except CostServiceError as error:
                if error.status is not Status.NOT_FOUND:
                    raise
                return costs
            costs += [self._data(cost) for cost in reply.costs]
            total = reply.total_count  # 0: not told
            whole = len(costs) >= total if total else len(reply.costs) < _PAGE
            # More than a page is everything, too: it comes from a provider that does not understand pages.
            if whole or not reply.costs or len(reply.costs) > _PAGE:
                return costs

    async def _sums(self) -> dict[tuple[str, CostType], Sum]:
        """What the mission has used, by price as far as it can be told."""
        prices = {(price.cost_type, price.unit, price.rate): name for name, price in self._job.prices.items()}
        sums: dict[tuple[str, CostType], Sum] = {}
        for cost in await self._costs(None):
            key = (prices.get((cost.cost_type, cost.unit, cost.rate), ""), cost.cost_type)
            sums[key] = sums.get(key, Sum()).plus(_entry(cost, key[0]).sum)
        return sums

    def _data(self, cost: WireCost) -> CostData:
        return CostData.model_construct(
            cost=cost.cost,
            mission_id=cost.mission_id,
            name=cost.name,
            cost_type=_kind(cost.cost_type),
            unit=cost.unit,
            rate=cost.rate,
            setup_version_id=cost.setup_version_id,
            quantity=cost.quantity,
        )


def _told(entry: Entry, limits: Sequence[PlacedLimit]) -> dict[str, str | bytes]:
    told: dict[str, str | bytes] = {extensions.COST_CONFIG: entry.config_name.encode(errors="backslashreplace")}
    if limits:
        rows = [
            {"field": field, "config_name": entry.config_name, "limit": limit.model_dump(mode="json")}
            for field, limit in limits
        ]
        told[extensions.COST_LIMITS] = json.dumps(rows).encode()
    return told


def _entry(cost: CostData, config_name: str) -> Entry:
    return Entry(
        mission=cost.mission_id,
        name=cost.name,
        config_name=config_name,
        cost_type=cost.cost_type,
        unit=cost.unit,
        rate=cost.rate,
        quantity=cost.quantity,
        setup_version_id=cost.setup_version_id,
        job_id="",
    )


def _kind(wire: WireType) -> CostType:
    """OTHER is what has no type, and what has one of a later contract."""
    return CostType.__members__.get(wire.name or "", CostType.OTHER)


def _config(config: WireConfig) -> CostConfig:
    # As the provider has it: a price that breaks our rules was not set by us, and is still the price.
    return CostConfig.model_construct(
        cost_name=config.name,
        cost_type=_kind(config.cost_type),
        description=config.description or None,
        unit=config.unit,
        rate=config.rate,
    )
