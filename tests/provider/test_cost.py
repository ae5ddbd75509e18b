"""CostService of the provider."""

import json
import math
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.extensions import COST_CONFIG, COST_LIMITS
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import (
    AddCostRequest,
    CostConfig,
    CostFilter,
    CostServiceStub,
    CostType,
    GetCostConfigRequest,
    GetCostRequest,
    GetCostsRequest,
    SetCostConfigRequest,
)

from .calls import keyed, told
from .kit import Provided, provided

M, V = "missions:m", "setup_versions:v"


def cost(name: str = "answer", quantity: float = 1.0, rate: float = 0.1, **fields: Any) -> AddCostRequest:
    given = {
        "cost": quantity * rate,
        "mission_id": M,
        "cost_type": CostType.TOKEN_INPUT,
        "unit": "token",
        "setup_version_id": V,
    } | fields
    return AddCostRequest(name=name, quantity=quantity, rate=rate, **given)


def limits(*rows: dict[str, Any], config: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {COST_CONFIG: config.encode()} if config else {}
    placed = [{"field": f"limits[{index}]", "limit": row} for index, row in enumerate(rows)]
    return {**metadata, COST_LIMITS: json.dumps(placed).encode()}


def at_most(value: float, kind: str = "amount", **fields: Any) -> dict[str, Any]:
    return {"limit_type": kind, "max_value": value, "scope": "mission", **fields}


def stub(peer: Provided) -> Any:
    return CostServiceStub(peer.channel)


async def total(peer: Provided) -> float:
    reply = await stub(peer).get_costs(GetCostsRequest(mission_id=M))
    return float(reply.total_cost)


async def refused(call: Any) -> tuple[Status, str, dict[str, str]]:
    with pytest.raises(GRPCError) as caught:
        await call
    return told(caught.value)


async def test_costs_add_up_decimally(autojump_clock: Any) -> None:
    async with provided() as peer:
        for _ in range(10):
            assert (await stub(peer).add_cost(cost())).success
        await stub(peer).add_cost(cost("other", mission_id="m"))  # the same mission without its prefix
        reply = await stub(peer).get_cost(GetCostRequest(mission_id=M, name="answer"))
        assert len(reply.costs) == 10
        assert reply.total_cost == 1  # and not 0.9999999999999999
        first = reply.costs[0]
        assert (first.cost, first.rate, first.quantity, first.unit) == (0.1, 0.1, 1.0, "token")
        assert (first.cost_type, first.mission_id, first.setup_version_id) == (CostType.TOKEN_INPUT, M, V)
        assert await total(peer) == 1.1
        reply = await stub(peer).get_cost(GetCostRequest(mission_id=M, name="none"))
        assert (reply.costs, reply.total_cost) == ([], 0)


async def test_a_sum_is_that_of_the_numbers_as_they_are_written(autojump_clock: Any) -> None:
    async with provided() as peer:
        for _ in range(3):
            await stub(peer).add_cost(cost())
        assert await total(peer) == 0.3  # three times the double that 0.1 stands for is nearer to another one


async def test_a_cost_that_its_sender_has_worked_out_is_kept(autojump_clock: Any) -> None:
    async with provided() as peer:
        await stub(peer).add_cost(cost(quantity=3, rate=0.5, cost=1.0))  # a discount
        assert await total(peer) == 1.0


async def test_filters_and_pages(autojump_clock: Any) -> None:
    async with provided() as peer:
        for number in range(150):
            await stub(peer).add_cost(cost(f"n{number % 3}", cost_type=CostType(1 + number % 2), quantity=number))
        await stub(peer).add_cost(cost("n0", setup_version_id="setup_versions:w"))
        await stub(peer).add_cost(cost("n0", mission_id="missions:other"))

        async def page(limit: int = 0, offset: int = 0, **wanted: Any) -> tuple[list[float], int, float]:
            filters = CostFilter(**wanted) if wanted else None
            request = GetCostsRequest(mission_id=M, filter=filters, limit=limit, offset=offset)
            reply = await stub(peer).get_costs(request)
            return [row.quantity for row in reply.costs], reply.total_count, round(reply.total_cost, 9)

        everything = round(sum(range(150)) * 0.1 + 0.1, 9)
        assert await page() == ([float(number) for number in range(100)], 151, everything)
        assert await page(2, 150) == ([1.0], 151, everything)
        assert await page(2, 151) == ([], 151, everything)
        assert (await page(9999))[0][-1] == 1.0
        assert await page(1, names=["n0", "n1"]) == (
            [0.0],
            101,
            round(sum(n for n in range(150) if n % 3 != 2) * 0.1 + 0.1, 9),
        )
        assert (await page(3, cost_types=[CostType.TOKEN_OUTPUT]))[:2] == ([1.0, 3.0, 5.0], 75)
        assert await page(setup_version_ids=["w"]) == ([1.0], 1, 0.1)
        assert await page(names=["none"]) == ([], 0, 0.0)


async def test_a_limit_holds_for_all_callers_together(autojump_clock: Any) -> None:
    async with provided() as peer:
        refusals: list[dict[str, str]] = []

        async def add() -> None:
            async with peer.another() as channel:
                try:
                    await CostServiceStub(channel).add_cost(cost(), metadata=limits(at_most(1)))
                except GRPCError as error:
                    status, reason, fields = told(error)
                    assert (status, reason) == (Status.FAILED_PRECONDITION, "COST_LIMIT")
                    refusals.append(fields)

        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(add)
        assert len(refusals) == 15
        assert all("at most 1 " in fields["limits[0].max_value"] for fields in refusals)
        assert await total(peer) == 1


async def test_limits_cover_what_they_name(autojump_clock: Any) -> None:
    async with provided() as peer:

        async def add(request: AddCostRequest, *rows: dict[str, Any], config: str = "") -> bool:
            try:
                await stub(peer).add_cost(request, metadata=limits(*rows, config=config))
            except GRPCError as error:
                assert error.status is Status.FAILED_PRECONDITION
                return False
            return True

        by_price = at_most(2, "quantity", name="gpt")
        assert await add(cost("a", 2), by_price, config="gpt")
        assert not await add(cost("b", 1), by_price, config="gpt")
        assert await add(cost("b", 1), by_price, config="other")
        assert not await add(cost("gpt", 1), by_price)  # a price without a name goes by that of the cost
        by_type = at_most(0, "quantity", type="TIME")
        assert await add(cost(), by_type)
        assert not await add(cost(cost_type=CostType.TIME), by_price, by_type)


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b"{}",
        b"[1]",
        b'[{"field": "f"}]',
        b'[{"field": "f", "limit": {"limit_type": "amount", "max_value": -1}}]',
        b'[{"field": "f", "limit": {"limit_type": "amount", "max_value": 1}}]',  # of a job
        b'[{"field": "f", "limit": {"limit_type": "quantity", "max_value": 1, "scope": "mission"}}]',
    ],
)
async def test_limits_that_are_none_are_refused(autojump_clock: Any, value: bytes) -> None:
    async with provided() as peer:
        status, _, fields = await refused(stub(peer).add_cost(cost(), metadata={COST_LIMITS: value}))
        assert status is Status.INVALID_ARGUMENT
        assert fields
        assert await total(peer) == 0


async def test_a_cost_with_a_key_is_added_once(autojump_clock: Any) -> None:
    async with provided() as peer:
        for _ in range(5):
            await stub(peer).add_cost(cost(), metadata=keyed("k") | limits(at_most(0.1)))
        assert await total(peer) == 0.1


@pytest.mark.parametrize("validate", ["strict", "warn", "off"])
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cost": math.nan}, "cost"),
        ({"cost": -1.0}, "cost"),
        ({"quantity": math.inf}, "quantity"),
        ({"rate": -0.5}, "rate"),
        ({"name": ""}, "name"),
        ({"unit": ""}, "unit"),
        ({"mission_id": ""}, "mission_id"),
        ({"mission_id": "missions:"}, "mission_id"),
        ({"setup_version_id": ""}, "setup_version_id"),
        ({"cost_type": CostType(0)}, "cost_type"),
        ({"cost_type": CostType(42)}, "cost_type"),
    ],
)
async def test_what_is_no_cost_is_refused_and_named(
    autojump_clock: Any, validate: str, fields: dict[str, Any], field: str
) -> None:
    async with provided(validate=validate) as peer:
        status, reason, violations = await refused(stub(peer).add_cost(cost(**({"cost": 0.1} | fields))))
        assert (status, reason) == (Status.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert field in violations
    async with provided(validate="off") as peer:
        assert await total(peer) == 0


async def test_prices_of_a_version(autojump_clock: Any) -> None:
    prices = [
        CostConfig(name="gpt", cost_type=CostType.TOKEN_INPUT, description="d", unit="token", rate=0.25),
        CostConfig(name="free", cost_type=CostType.OTHER, unit="call"),
    ]
    async with provided() as peer:
        read = GetCostConfigRequest(setup_version_id=V)
        reply = await stub(peer).get_cost_config(read)
        assert (reply.success, reply.configs) == (True, [])
        assert (await stub(peer).set_cost_config(SetCostConfigRequest(setup_version_id=V, configs=prices))).success
        assert (await stub(peer).get_cost_config(read)).configs == prices
        await stub(peer).set_cost_config(SetCostConfigRequest(setup_version_id="v", configs=prices[:1]))
        assert (await stub(peer).get_cost_config(read)).configs == prices[:1]
        for bad, field in (
            ([prices[0], prices[0]], "configs[1].name"),
            ([CostConfig(name="x", cost_type=CostType(9), unit="u")], "configs[0].cost_type"),
            ([CostConfig(name="x", cost_type=CostType.TIME, unit="u", rate=math.nan)], "configs[0].rate"),
        ):
            request = SetCostConfigRequest(setup_version_id=V, configs=bad)
            status, _, fields = await refused(stub(peer).set_cost_config(request))
            assert status is Status.INVALID_ARGUMENT
            assert field in fields
        assert (await stub(peer).get_cost_config(read)).configs == prices[:1]


async def test_pages_that_are_none_are_refused(autojump_clock: Any) -> None:
    async with provided() as peer:
        for fields in ({"limit": -1}, {"offset": -1}):
            status, _, violations = await refused(stub(peer).get_costs(GetCostsRequest(mission_id=M, **fields)))
            assert status is Status.INVALID_ARGUMENT
            assert set(violations) == set(fields)
        many = CostFilter(names=["n"] * 1001)
        status, _, violations = await refused(stub(peer).get_costs(GetCostsRequest(mission_id=M, filter=many)))
        assert "1001" in violations["filter.names"]
