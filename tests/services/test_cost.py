"""The local cost service: prices, entries, and limits of a job and of a mission."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from pydantic import TypeAdapter, ValidationError

from dk_trio.errors import CostLimitError, CostServiceError
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


# --- entries ---------------------------------------------------------------------------------------------------------


async def test_a_cost_is_the_rate_times_the_quantity(autojump_clock: object) -> None:
    async with opened() as platform:
        cost = cost_of(platform)
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


async def test_entries_of_one_name_add_up(autojump_clock: object) -> None:
    async with opened() as platform:
        cost = cost_of(platform)
        for quantity in (1, 2, 3):
            await cost.add("question", "search", quantity)
        assert [entry.quantity for entry in await cost.get("question")] == [1, 2, 3]
        assert await cost.get("another") == []


async def test_entries_are_filtered_by_names_and_types(autojump_clock: object) -> None:
    async with opened() as platform:
        cost = cost_of(platform)
        for number in range(250):  # more than a page
            await cost.add(f"n{number % 3}", ("prompt", "answer")[number % 2], number)
        everything = [float(number) for number in range(250)]
        assert await quantities(cost) == everything

        async def found(names: Any, types: Any) -> list[float]:
            return [entry.quantity for entry in await cost.get_filtered(names, types)]

        assert await found(["n0"], None) == everything[::3]
        assert await found(None, [CostType.TOKEN_INPUT]) == everything[::2]
        assert await found(["n0", "n1"], ["token_output"]) == [n for n in everything if n % 3 < 2 and n % 2]
        assert await found([], []) == everything
        assert await found(["none"], None) == []
        many = [f"absent {number}" for number in range(40_000)]  # more than a statement may have values
        assert await found(["n0", *many], [CostType.TOKEN_INPUT]) == everything[::6]


async def test_jobs_of_a_mission_share_its_entries_and_no_others(autojump_clock: object) -> None:
    async with opened() as platform:
        await cost_of(platform, "missions:m", job_id="1").add("a", "search", 1)
        await cost_of(platform, "m", job_id="2").add("a", "search", 2)
        assert await quantities(cost_of(platform)) == [1, 2]
        assert await quantities(cost_of(platform, "missions:other")) == []


async def test_prices_can_be_replaced_and_what_was_added_keeps_its_own(autojump_clock: object) -> None:
    async with opened() as platform:
        cost = cost_of(platform)
        assert await cost.get_cost_config() == list(CONFIG.values())
        await cost.add("a", "search", 1)
        dearer = CostConfig(cost_name="search", cost_type=CostType.API_CALL, unit="call", rate=5)
        assert await cost.set_cost_config([dearer])
        assert await cost.get_cost_config() == [dearer]
        await cost.add("a", "search", 1)
        assert [entry.cost for entry in await cost.get("a")] == [0.1, 5.0]
        with pytest.raises(CostServiceError, match=r"no cost config 'prompt' \(known: search\)"):
            await cost.add("a", "prompt", 1)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.add("a", "nothing", 1), "cost_config_name"),
        (lambda c: c.add("a", "search", -1), "quantity"),
        (lambda c: c.add("a", "search", float("nan")), "quantity"),
        (lambda c: c.add("a", "search", float("inf")), "quantity"),
        (lambda c: c.add("a", "search", 10**400), "quantity"),
        (lambda c: c.add("a", "search", "3"), "quantity"),
        (lambda c: c.add("a", "search", None), "quantity"),
        (lambda c: c.add("", "search", 1), "name"),
        (lambda c: c.add("\ud800", "search", 1), "name"),
        (lambda c: c.check_limit("search", -1), "quantity"),
        (lambda c: c.get(""), "name"),
        (lambda c: c.get_filtered(cost_types=["gold"]), "cost_types"),
        (lambda c: c.set_limits([{"limit_type": "amount", "max_value": -1}]), "limits[0].amount.max_value"),
    ],
)
async def test_what_is_no_cost_is_refused_by_the_name_of_its_field(
    autojump_clock: object, call: Callable[[DefaultCost], Any], field: str
) -> None:
    async with opened() as platform:
        cost = cost_of(platform)
        with pytest.raises(CostServiceError) as caught:
            await call(cost)
        assert [violation.field for violation in caught.value.violations] == [field]
        assert not isinstance(caught.value, CostLimitError)
        assert await quantities(cost) == []


async def test_a_cost_that_no_number_can_hold_is_refused(autojump_clock: object) -> None:
    config = {"gold": CostConfig(cost_name="gold", cost_type=CostType.OTHER, unit="bar", rate=1e300)}
    async with opened() as platform:
        cost = cost_of(platform, config=config)
        with pytest.raises(CostServiceError, match="must be less"):
            await cost.add("a", "gold", 1e300)
        await cost.add("a", "gold", 1)


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_a_limit_has_room_for_exactly_its_value(autojump_clock: object) -> None:
    async with opened() as platform:
        cost = cost_of(platform, cost_limits=[AmountLimit(name="search", max_value=0.3)])
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


async def test_a_limit_covers_a_name_a_type_or_everything(autojump_clock: object) -> None:
    async with opened() as platform:
        limits = [
            QuantityLimit(name="prompt", max_value=10),
            QuantityLimit(type=CostType.TOKEN_OUTPUT, max_value=20),
            AmountLimit(max_value=1),
        ]
        cost = cost_of(platform, cost_limits=limits)
        for name, room, field in (("prompt", 10, 0), ("answer", 20, 1), ("search", 8, 2)):
            assert await cost.check_limit(name, room)
            with pytest.raises(CostLimitError) as caught:
                await cost.add("a", name, room + 0.7)
            assert caught.value.violations[0].field == f"input.cost_limits[{field}].max_value"
            await cost.add("a", name, room)
        assert "everything" in caught.value.message


async def test_a_limit_of_a_job_does_not_see_other_jobs_and_that_of_a_mission_does(autojump_clock: object) -> None:
    async with opened() as platform:
        for scope, total in (("job", 4), ("mission", 2)):
            mission = f"missions:{scope}"
            limits = [QuantityLimit(name="search", max_value=2, scope=scope)]  # type: ignore[arg-type]
            for _ in range(2):
                cost = cost_of(platform, mission, cost_limits=limits)
                for _ in range(3):
                    try:
                        await cost.add("a", "search", 1)
                    except CostLimitError as error:
                        assert f"in a {scope}" in error.message
            assert len(await quantities(cost)) == total


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


@pytest.mark.parametrize("scope", ["job", "mission"])
async def test_adds_at_once_never_pass_a_limit_together(tmp_path: Path, scope: Any) -> None:
    limits = [QuantityLimit(name="search", max_value=10, scope=scope)]
    async with opened(tmp_path) as platform:
        jobs = [cost_of(platform, cost_limits=limits) for _ in range(1 if scope == "job" else 20)]
        refused = []

        async def add(cost: DefaultCost) -> None:
            try:
                await cost.add("a", "search", 1)
            except CostLimitError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(add, jobs[number % len(jobs)])
        assert len(await quantities(jobs[0])) == 10
        assert len(refused) == 30


async def test_a_cancelled_add_adds_nothing_and_takes_no_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        cost = cost_of(platform, cost_limits=[QuantityLimit(name="search", max_value=1)])
        with trio.CancelScope() as scope:
            scope.cancel()
            await cost.add("a", "search", 1)
        assert scope.cancelled_caught
        assert await quantities(cost) == []
        await cost.add("a", "search", 1)


async def test_the_modules_own_limits_can_be_replaced_and_the_callers_cannot(autojump_clock: object) -> None:
    async with opened() as platform:
        callers, own = QuantityLimit(name="search", max_value=5), QuantityLimit(name="search", max_value=1)
        cost = cost_of(platform, cost_limits=[callers], limits=[own])
        with pytest.raises(CostLimitError) as caught:
            await cost.add("a", "search", 2)
        assert caught.value.violations[0].field == "limits[0].max_value"
        await cost.set_limits([])
        await cost.add("a", "search", 2)  # counts, though nobody limited it when it came
        assert not await cost.check_limit("search", 4)
        await cost.set_limits([QuantityLimit(name="search", max_value=2)])
        assert not await cost.check_limit("search", 1)


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


async def test_prices_may_be_dicts_and_wrong_ones_are_named(autojump_clock: object) -> None:
    async with opened() as platform:
        plain = {"cost_name": "call", "cost_type": "api_call", "unit": "call", "rate": 2}
        cost = cost_of(platform, config={"call": plain})
        await cost.add("a", "call", 1)
        with pytest.raises(CostServiceError) as caught:
            cost_of(platform, config={"call": plain | {"rate": -1}})
        assert caught.value.violations[0].field == "config.call.rate"
        with pytest.raises(CostServiceError, match="no mission id"):
            cost_of(platform, mission="")


async def test_a_health_check_leaves_no_cost(tmp_path: Path) -> None:
    async with opened(tmp_path) as platform:
        cost = cost_of(platform)
        await cost.check_health()
        assert await quantities(cost) == []
        assert "search" in repr(cost)
        await cost.close()


async def test_every_operation_is_a_checkpoint(autojump_clock: object) -> None:
    async with opened() as platform:
        cost = cost_of(platform)
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
