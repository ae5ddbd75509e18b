"""What a cost service promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio.errors import CostLimitError, CostServiceError
from dk_trio.services.cost import AmountLimit, Cost, CostConfig, CostType, QuantityLimit

from .kit import LOCAL, REMOTE, Jobs, cases, only

CONFIG = {
    "prompt": CostConfig(cost_name="prompt", cost_type=CostType.TOKEN_INPUT, unit="token", rate=0.002),
    "answer": CostConfig(cost_name="answer", cost_type=CostType.TOKEN_OUTPUT, unit="token", rate=0.006),
    "search": CostConfig(cost_name="search", cost_type=CostType.API_CALL, unit="call", rate=0.1),
}


async def quantities(cost: Cost) -> list[float]:
    return [entry.quantity for entry in await cost.get_filtered()]


async def test_a_cost_is_the_rate_times_the_quantity(jobs: Jobs) -> None:
    cost = jobs.cost()
    await cost.add("question", "search", 3)
    (entry,) = await cost.get("question")
    assert entry.model_dump() == {
        "cost": 0.3,  # not 0.30000000000000004
        "mission_id": "missions:m",
        "name": "question",
        "cost_type": "API_CALL",
        "unit": "call",
        "rate": 0.1,
        "setup_version_id": "setup_versions:v",
        "quantity": 3.0,
    }


async def test_entries_of_one_name_add_up(jobs: Jobs) -> None:
    cost = jobs.cost()
    for quantity in (1, 2, 3):
        await cost.add("question", "search", quantity)
    assert [entry.quantity for entry in await cost.get("question")] == [1, 2, 3]
    assert await cost.get("another") == []


async def test_entries_are_filtered_by_names_and_types(jobs: Jobs) -> None:
    cost = jobs.cost()
    for number in range(210):  # more than a page
        await cost.add(f"n{number % 3}", ("prompt", "answer")[number % 2], number)
    everything = [float(number) for number in range(210)]
    assert await quantities(cost) == everything

    async def found(names: Any, types: Any) -> list[float]:
        return [entry.quantity for entry in await cost.get_filtered(names, types)]

    assert await found(["n0"], None) == everything[::3]
    assert await found(None, [CostType.TOKEN_INPUT]) == everything[::2]
    assert await found(["n0", "n1"], ["token_output"]) == [n for n in everything if n % 3 < 2 and n % 2]
    assert await found([], []) == everything
    assert await found(["none"], None) == []


async def test_jobs_of_a_mission_share_its_entries_and_no_others(jobs: Jobs) -> None:
    await jobs.cost("missions:m", job_id="1").add("a", "search", 1)
    await jobs.cost("m", job_id="2").add("a", "search", 2)
    assert await quantities(jobs.cost()) == [1, 2]
    assert await quantities(jobs.cost("missions:other")) == []


async def test_prices_can_be_replaced_and_what_was_added_keeps_its_own(jobs: Jobs) -> None:
    cost = jobs.cost()
    assert await cost.get_cost_config() == list(CONFIG.values())
    await cost.add("a", "search", 1)
    dearer = CostConfig(cost_name="search", cost_type=CostType.API_CALL, unit="call", rate=5)
    assert await cost.set_cost_config([dearer])
    assert await cost.get_cost_config() == [dearer]
    await cost.add("a", "search", 1)
    assert [entry.cost for entry in await cost.get("a")] == [0.1, 5.0]
    with pytest.raises(CostServiceError, match=r"no cost config 'prompt' \(known: search\)"):
        await cost.add("a", "prompt", 1)


@cases(
    (lambda c: c.add("a", "nothing", 1), "cost_config_name"),
    (lambda c: c.add("a", "search", -1), "quantity"),
    (lambda c: c.add("a", "search", float("nan")), "quantity"),
    (lambda c: c.add("a", "search", float("inf")), "quantity"),
    (lambda c: c.add("a", "search", 10**400), "quantity"),
    (lambda c: c.add("a", "search", "3"), "quantity"),
    (lambda c: c.add("a", "search", None), "quantity"),
    (lambda c: c.add("", "search", 1), "name"),
    (lambda c: c.add("\ud800", "search", 1), "name"),
    (lambda c: c.add("a\x00b", "search", 1), "name"),
    (lambda c: c.check_limit("search", -1), "quantity"),
    (lambda c: c.get(""), "name"),
    (lambda c: c.get_filtered(cost_types=["gold"]), "cost_types"),
    (lambda c: c.set_limits([{"limit_type": "amount", "max_value": -1}]), "limits[0].amount.max_value"),
)
async def test_what_is_no_cost_is_refused_by_the_name_of_its_field(
    jobs: Jobs, call: Callable[[Cost], Any], field: str
) -> None:
    cost = jobs.cost()
    with pytest.raises(CostServiceError) as caught:
        await call(cost)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert not isinstance(caught.value, CostLimitError)
    assert await quantities(cost) == []


async def test_a_cost_that_no_number_can_hold_is_refused(jobs: Jobs) -> None:
    config = {"gold": CostConfig(cost_name="gold", cost_type=CostType.OTHER, unit="bar", rate=1e300)}
    cost = jobs.cost(config=config)
    with pytest.raises(CostServiceError, match="must be less"):
        await cost.add("a", "gold", 1e300)
    await cost.add("a", "gold", 1)


async def test_a_limit_has_room_for_exactly_its_value(jobs: Jobs) -> None:
    cost = jobs.cost(cost_limits=[AmountLimit(name="search", max_value=0.3)])
    for _ in range(3):  # in binary numbers, 0.1 + 0.1 + 0.1 is more than 0.3
        assert await cost.check_limit("search", 1)
        await cost.add("a", "search", 1)
    assert not await cost.check_limit("search", 1)
    with pytest.raises(CostLimitError) as caught:
        await cost.add("more", "search", 2)
    error = caught.value
    assert error.status is Status.FAILED_PRECONDITION
    rule = "cost of 'search' at most 0.3 in a job"
    assert error.message == f"A cost limit is reached ({rule}): 0.3 used, 0.2 asked for 'more'."
    assert [(v.field, v.description) for v in error.violations] == [
        ("input.cost_limits[0].max_value", f"{rule}: 0.3 used, 0.2 asked")
    ]
    assert len(await cost.get_filtered()) == 3
    await cost.add("a", "prompt", 1000)  # not limited


async def test_a_limit_covers_a_name_a_type_or_everything(jobs: Jobs) -> None:
    limits = [
        QuantityLimit(name="prompt", max_value=10),
        QuantityLimit(type=CostType.TOKEN_OUTPUT, max_value=20),
        AmountLimit(max_value=1),
    ]
    cost = jobs.cost(cost_limits=limits)
    for name, room, field in (("prompt", 10, 0), ("answer", 20, 1), ("search", 8, 2)):
        assert await cost.check_limit(name, room)
        with pytest.raises(CostLimitError) as caught:
            await cost.add("a", name, room + 0.7)
        assert caught.value.violations[0].field == f"input.cost_limits[{field}].max_value"
        await cost.add("a", name, room)
    assert "everything" in caught.value.message


async def test_a_limit_of_a_job_does_not_see_other_jobs_and_that_of_a_mission_does(jobs: Jobs) -> None:
    for scope, total in (("job", 4), ("mission", 2)):
        mission = f"missions:{scope}"
        limits = [QuantityLimit(name="search", max_value=2, scope=scope)]  # type: ignore[arg-type]
        for _ in range(2):
            cost = jobs.cost(mission, cost_limits=limits)
            for _ in range(3):
                try:
                    await cost.add("a", "search", 1)
                except CostLimitError as error:
                    assert f"in a {scope}" in error.message
        assert len(await quantities(cost)) == total


@cases(("job",), ("mission",))
async def test_adds_at_once_never_pass_a_limit_together(jobs: Jobs, scope: Any) -> None:
    limits = [QuantityLimit(name="search", max_value=10, scope=scope)]
    jobs = [jobs.cost(cost_limits=limits) for _ in range(1 if scope == "job" else 20)]
    refused = []

    async def add(cost: Cost) -> None:
        try:
            await cost.add("a", "search", 1)
        except CostLimitError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(add, jobs[number % len(jobs)])
    assert len(await quantities(jobs[0])) == 10
    assert len(refused) == 30


async def test_a_cancelled_add_adds_nothing_and_takes_no_room(jobs: Jobs) -> None:
    cost = jobs.cost(cost_limits=[QuantityLimit(name="search", max_value=1)])
    with trio.CancelScope() as scope:
        scope.cancel()
        await cost.add("a", "search", 1)
    assert scope.cancelled_caught
    assert await quantities(cost) == []
    await cost.add("a", "search", 1)


async def test_the_modules_own_limits_can_be_replaced_and_the_callers_cannot(jobs: Jobs) -> None:
    callers, own = QuantityLimit(name="search", max_value=5), QuantityLimit(name="search", max_value=1)
    cost = jobs.cost(cost_limits=[callers], limits=[own])
    with pytest.raises(CostLimitError) as caught:
        await cost.add("a", "search", 2)
    assert caught.value.violations[0].field == "limits[0].max_value"
    await cost.set_limits([])
    await cost.add("a", "search", 2)  # counts, though nobody limited it when it came
    assert not await cost.check_limit("search", 4)
    await cost.set_limits([QuantityLimit(name="search", max_value=2)])
    assert not await cost.check_limit("search", 1)


async def test_prices_may_be_dicts_and_wrong_ones_are_named(jobs: Jobs) -> None:
    plain = {"cost_name": "call", "cost_type": "api_call", "unit": "call", "rate": 2}
    cost = jobs.cost(config={"call": plain})
    await cost.add("a", "call", 1)
    with pytest.raises(CostServiceError) as caught:
        jobs.cost(config={"call": plain | {"rate": -1}})
    assert caught.value.violations[0].field == "config.call.rate"
    with pytest.raises(CostServiceError, match="no mission id"):
        jobs.cost(mission="")


async def test_every_operation_is_a_checkpoint(jobs: Jobs) -> None:
    cost = jobs.cost()
    for call in (
        lambda: cost.add("a", "search", 1),
        lambda: cost.get("a"),
        cost.get_filtered,
        cost.get_cost_config,
        lambda: cost.set_cost_config(list(CONFIG.values())),
        lambda: cost.set_limits([]),
        lambda: cost.check_limit("search", 1),
    ):
        with trio.testing.assert_checkpoints():
            await call()


async def test_a_limit_of_a_mission_counts_what_other_jobs_added_without_limits(jobs: Jobs) -> None:
    await jobs.cost().add("a", "search", 2)
    cost = jobs.cost(cost_limits=[QuantityLimit(name="search", max_value=3, scope="mission")])
    assert not await cost.check_limit("search", 2)
    with pytest.raises(CostLimitError, match="2 used, 2 asked") as caught:
        await cost.add("a", "search", 2)
    assert caught.value.status is Status.FAILED_PRECONDITION
    assert [violation.field for violation in caught.value.violations] == ["input.cost_limits[0].max_value"]
    await cost.add("a", "search", 1)
    assert await quantities(cost) == [2, 1]


@cases(("TOKEN_INPUT",), ("token_output",), ("API_CALL",), ("storage",), ("TIME",), ("OTHER",))
async def test_every_type_is_kept(jobs: Jobs, kind: str) -> None:
    config = {"it": CostConfig(cost_name="it", cost_type=CostType(kind), unit="u", rate=2)}
    cost = jobs.cost(config=config)
    await cost.add("a", "it", 0.5)
    (entry,) = await cost.get_filtered(cost_types=[kind])
    assert (entry.cost_type, entry.cost, entry.unit) == (CostType(kind), 1.0, "u")


@cases((0,), (0.1,), (1e-12,), (123456789.125,), (1e15,))
async def test_a_quantity_is_kept_to_the_last_digit(jobs: Jobs, quantity: float) -> None:
    cost = jobs.cost()
    await cost.add("a", "search", quantity)
    (entry,) = await cost.get("a")
    assert entry.quantity == quantity
    assert entry.cost == pytest.approx(quantity * 0.1, rel=1e-15)


async def test_a_free_price_costs_nothing(jobs: Jobs) -> None:
    cost = jobs.cost(config={"free": CostConfig(cost_name="free", cost_type=CostType.OTHER, unit="u", rate=0)})
    await cost.add("a", "free", 3)
    assert [(entry.quantity, entry.cost) for entry in await cost.get("a")] == [(3, 0)]


@only(LOCAL, "Prices that are set hold for the job. A provider keeps them with the version of the setup.")
async def test_prices_that_are_set_are_this_jobs(jobs: Jobs) -> None:
    await jobs.cost().set_cost_config([CONFIG["search"]])
    assert await jobs.cost().get_cost_config() == list(CONFIG.values())


@only(REMOTE, "Prices that are set are those of the version of the setup, for every job that asks for them.")
async def test_prices_that_are_set_are_those_of_the_version(jobs: Jobs) -> None:
    await jobs.cost().set_cost_config([CONFIG["search"]])
    other = jobs.cost("missions:other")
    await other.add("a", "prompt", 1)  # it has not asked
    assert await other.get_cost_config() == [CONFIG["search"]]
    with pytest.raises(CostServiceError, match=r"no cost config 'prompt' \(known: search\)"):
        await other.add("a", "prompt", 1)
    assert await jobs.cost(version="setup_versions:w").get_cost_config() == list(CONFIG.values())


async def test_health_leaves_no_cost(jobs: Jobs) -> None:
    cost: Any = jobs.cost()
    await cost.check_health()
    assert await quantities(cost) == []
    assert "search" in repr(cost)
    await cost.close()
