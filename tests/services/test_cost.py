"""The local cost service: prices, entries, and limits of a job and of a mission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dk_trio.errors import CostLimitError
from dk_trio.services.cost import AmountLimit, Cost, CostConfig, CostLimit, CostType, QuantityLimit
from dk_trio.services.local.cost import DefaultCost
from dk_trio.services.local.platform import LocalPlatform

from .test_storage import opened

CONFIG = {
    "prompt": CostConfig(cost_name="prompt", cost_type=CostType.TOKEN_INPUT, unit="token", rate=0.002),
    "answer": CostConfig(cost_name="answer", cost_type=CostType.TOKEN_OUTPUT, unit="token", rate=0.006),
    "search": CostConfig(cost_name="search", cost_type=CostType.API_CALL, unit="call", rate=0.1),
}


def cost_of(platform: LocalPlatform, mission: str = "missions:m", **options: Any) -> DefaultCost:
    cost = DefaultCost(mission, "setups:s", "setup_versions:v", **{"config": CONFIG, "platform": platform} | options)
    typed: Cost = cost  # the strategy has the Protocol's methods; the type checker says so
    assert typed is cost
    return cost


async def quantities(cost: DefaultCost) -> list[float]:
    return [entry.quantity for entry in await cost.get_filtered()]


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_a_limit_of_a_mission_counts_what_was_added_before_the_server_was_started(tmp_path: Path) -> None:
    limits = [QuantityLimit(name="search", max_value=3, scope="mission")]
    async with opened(tmp_path) as platform:
        await cost_of(platform).add("a", "search", 2)
    async with opened(tmp_path) as platform:
        cost = cost_of(platform, cost_limits=limits)
        assert not await cost.check_limit("search", 2)
        with pytest.raises(CostLimitError, match="2 used, 2 asked"):
            await cost.add("a", "search", 2)
        await cost.add("a", "search", 1)


def test_limits_are_told_apart_in_json() -> None:
    adapter: TypeAdapter[list[CostLimit]] = TypeAdapter(list[CostLimit])
    limits = adapter.validate_python(
        [
            {"limit_type": "quantity", "name": "prompt", "type": "token_input", "max_value": 5},
            {"limit_type": "amount", "max_value": 2, "scope": "mission"},
        ]
    )
    assert limits == [
        QuantityLimit(name="prompt", type=CostType.TOKEN_INPUT, max_value=5),
        AmountLimit(max_value=2, scope="mission"),
    ]
    for wrong in (
        {"limit_type": "quantity", "max_value": 5},  # of what?
        {"limit_type": "amount", "max_value": float("nan")},
        {"limit_type": "amount", "max_value": 1, "scope": "world"},
        {"max_value": 1},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python([wrong])


# --- around it -------------------------------------------------------------------------------------------------------


async def test_a_health_check_leaves_no_cost(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        cost = cost_of(platform)
        await cost.check_health()
        assert await quantities(cost) == []
        assert "search" in repr(cost)
        await cost.close()
