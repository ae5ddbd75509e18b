"""The local storage against a dict, and limits against a sum: whatever is done, in whatever order."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.errors import CostLimitError, RecordExistsError
from dk_trio.services.cost import AmountLimit, CostConfig, CostLimit, CostType, QuantityLimit
from dk_trio.services.local.cost import DefaultCost
from dk_trio.services.local.platform import LocalPlatform

from .test_storage import Note, opened, storage_of


def run(body: Callable[[], Awaitable[None]]) -> None:
    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))


# --- storage ---------------------------------------------------------------------------------------------------------

# Ids with a NUL are refused, see test_storage.py.
IDS = st.one_of(
    st.sampled_from(["a", "b", "c"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=3),
)
OWNERS = st.sampled_from([("missions:1", "v1", "mission"), ("2", "v1", "mission"), ("1", "setup_versions:v1", "setup")])
STEPS = st.tuples(
    st.sampled_from(["store", "upsert", "update", "read", "remove", "list", "remove_collection"]),
    OWNERS,
    st.sampled_from(["notes", "more"]),
    IDS,
    st.text(max_size=5),
    st.sampled_from(["OUTPUT", "VIEW"]),
    st.tuples(st.none() | st.integers(0, 5), st.integers(0, 5)),
)


@settings(max_examples=size(60, 1200), deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
def test_storage_is_a_dict_that_keeps_its_order(steps: list[Any]) -> None:
    """A dict by context and collection, of dicts by id, of data and data type: insertion order is creation order."""
    model: dict[Any, dict[str, tuple[str, str]]] = {}

    def state(record: Any) -> tuple[str, str] | None:
        return None if record is None else (record.data.text, record.data_type.value)

    async def body() -> None:
        async with opened() as platform:
            for step, (mission, version, scope), collection, record_id, text, kind, (limit, offset) in steps:
                storage = storage_of(platform, mission, version, {"notes": Note, "more": Note})
                records = model.setdefault((mission if scope == "mission" else version, collection), {})
                data = {"text": text}
                if step == "store":
                    try:
                        stored = await storage.store(collection, record_id, data, kind, scope)
                        assert record_id not in records
                        assert state(stored) == (text, kind)
                        records[record_id] = text, kind
                    except RecordExistsError:
                        assert record_id in records
                elif step == "upsert":
                    records[record_id] = text, records.get(record_id, ("", kind))[1]
                    assert state(await storage.upsert(collection, record_id, data, kind, scope)) == records[record_id]
                elif step == "update":
                    if record_id in records:
                        records[record_id] = text, records[record_id][1]
                    assert state(await storage.update(collection, record_id, data, scope)) == records.get(record_id)
                elif step == "read":
                    assert state(await storage.read(collection, record_id, scope)) == records.get(record_id)
                elif step == "remove":
                    assert await storage.remove(collection, record_id, scope) == (record_id in records)
                    records.pop(record_id, None)
                elif step == "remove_collection":
                    assert await storage.remove_collection(collection, scope) == bool(records)
                    records.clear()
                else:
                    found = await storage.list(collection, scope, limit=limit, offset=offset)
                    expected = list(records.items())[offset : None if limit is None else offset + limit]
                    assert [(record.record_id, state(record)) for record in found] == expected

    run(body)


# --- limits ----------------------------------------------------------------------------------------------------------

RATES = {"in": Fraction("0.1"), "out": Fraction("0.7"), "call": Fraction(3)}
CONFIG = {
    "in": CostConfig(cost_name="in", cost_type=CostType.TOKEN_INPUT, unit="token", rate=0.1),
    "out": CostConfig(cost_name="out", cost_type=CostType.TOKEN_OUTPUT, unit="token", rate=0.7),
    "call": CostConfig(cost_name="call", cost_type=CostType.API_CALL, unit="call", rate=3),
}
TENTHS = st.integers(0, 30).map(lambda number: number / 10)
LIMITS = st.builds(
    lambda amount, name, value, scope: (
        AmountLimit(name=name, max_value=value, scope=scope)
        if amount
        else QuantityLimit(name=name or "in", max_value=value, scope=scope)
    ),
    st.booleans(),
    st.sampled_from([None, "in", "out", "call"]),
    TENTHS.map(lambda value: value * 3),
    st.sampled_from(["job", "mission"]),
)
ADDS = st.tuples(st.integers(0, 2), st.sampled_from(sorted(CONFIG)), TENTHS)


def exact(value: float) -> Fraction:
    return Fraction(repr(value))


def fits(limit: CostLimit, entries: list[tuple[str, float]]) -> bool:
    """What a limit means, in fractions."""
    counted = [(name, exact(quantity)) for name, quantity in entries if limit.name in {None, name}]
    total = sum(
        (quantity * RATES[name] if isinstance(limit, AmountLimit) else quantity for name, quantity in counted),
        Fraction(),
    )
    return total <= exact(limit.max_value)


def jobs_of(platform: LocalPlatform, limits: list[CostLimit]) -> list[DefaultCost]:
    return [
        DefaultCost("m", "s", "v", config=CONFIG, platform=platform, job_id=uuid.uuid4().hex, cost_limits=limits)
        for _ in range(3)
    ]


@settings(max_examples=size(60, 1200), deadline=None)
@given(limits=st.lists(LIMITS, max_size=3), adds=st.lists(ADDS, max_size=30))
@example(limits=[QuantityLimit(name="in", max_value=0.3)], adds=[(0, "in", 0.1)] * 4)
@example(limits=[AmountLimit(max_value=2.1, scope="mission")], adds=[(0, "out", 1.0), (1, "out", 1.0), (2, "out", 1.0)])
def test_exactly_what_fits_is_added(limits: list[CostLimit], adds: list[tuple[int, str, float]]) -> None:
    async def body() -> None:
        async with opened() as platform:
            jobs = jobs_of(platform, limits)
            added: list[tuple[int, str, float]] = []
            for job, name, quantity in adds:
                here = [(n, q) for j, n, q in added if j == job]
                everywhere = [(n, q) for _, n, q in added]
                allowed = all(
                    fits(limit, [*(here if limit.scope == "job" else everywhere), (name, quantity)])
                    for limit in limits
                    if limit.name in {None, name}
                )
                assert await jobs[job].check_limit(name, quantity) == allowed
                try:
                    await jobs[job].add("entry", name, quantity)
                    assert allowed
                    added.append((job, name, quantity))
                except CostLimitError:
                    assert not allowed
            entries = await jobs[0].get("entry")
            assert [(entry.unit, entry.quantity) for entry in entries] == [(CONFIG[n].unit, q) for _, n, q in added]
            assert [entry.cost for entry in entries] == [float(exact(q) * RATES[n]) for _, n, q in added]

    run(body)


@settings(max_examples=size(30, 1000), deadline=None)
@given(limits=st.lists(LIMITS, min_size=1, max_size=3), adds=st.lists(ADDS, max_size=30))
def test_jobs_never_pass_a_limit_together(limits: list[CostLimit], adds: list[tuple[int, str, float]]) -> None:
    async def body() -> None:
        async with opened() as platform:
            jobs = jobs_of(platform, limits)
            added: list[tuple[int, str, float]] = []

            async def add(job: int, name: str, quantity: float) -> None:
                try:
                    await jobs[job].add("entry", name, quantity)
                except CostLimitError:
                    return
                added.append((job, name, quantity))

            async with trio.open_nursery() as nursery:
                for each in adds:
                    nursery.start_soon(add, *each)
            for limit in limits:
                if limit.scope == "mission":
                    assert fits(limit, [(n, q) for _, n, q in added])
                else:
                    assert all(fits(limit, [(n, q) for j, n, q in added if j == job]) for job in range(3))
            assert len(await jobs[0].get_filtered()) == len(added)

    run(body)
