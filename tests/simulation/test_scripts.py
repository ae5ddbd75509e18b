"""What is drawn from a seed before a simulation begins, and that nothing of it is forgotten by all scenarios."""

from __future__ import annotations

from typing import get_args

import pytest

from dk_trio.buggify import POINTS
from dk_trio.testing.simulation.authors import Kind
from dk_trio.testing.simulation.scenarios import SCENARIOS
from dk_trio.testing.simulation.scripts import FaultKind, Script, write

SEEDS = range(25)


def scripts(name: str) -> list[Script]:
    return [write(SCENARIOS[name], seed) for seed in SEEDS]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_seed_has_one_script(name: str) -> None:
    assert scripts(name) == scripts(name)
    assert len({repr(script) for script in scripts(name)}) == len(SEEDS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_script_speaks_of_hosts_and_jobs_that_there_are(name: str) -> None:
    for script in scripts(name):
        hosts = {*script.servers, *script.clients, "provider"}
        assert all(hosts.issuperset(fault.where) for fault in script.faults)
        assert all({errand.client, errand.server} <= hosts for errand in script.errands)
        assert all(errand.job in script.plans for errand in script.errands)
        called = {act.child for plan in script.plans.values() for act in plan.acts if act.kind == "call"}
        assert set(script.plans) == called | {errand.job for errand in (*script.errands, *script.farewell)}


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_is_quiet_when_all_faults_have_ended_and_all_jobs_were_begun(name: str) -> None:
    for script in scripts(name):
        assert all(fault.at + fault.seconds < script.quiet_at for fault in script.faults)
        assert all(errand.at < script.quiet_at for errand in script.errands)


def test_the_last_jobs_begin_and_are_there_for_long() -> None:
    for name, scenario in SCENARIOS.items():
        last = [script for script in scripts(name) if script.farewell]
        assert bool(last) is scenario.provider
        for script in last:
            assert script.slots >= len(script.farewell) == 2
            assert all(script.plans[errand.job].acts[0].seconds > 30 for errand in script.farewell)


def test_every_point_every_fault_and_every_act_is_met_by_some_scenario() -> None:
    assert {point for scenario in SCENARIOS.values() for point in scenario.points} == set(POINTS)
    assert {kind for scenario in SCENARIOS.values() for kind in scenario.faults} == set(get_args(FaultKind))
    acts = {kind for scenario in SCENARIOS.values() for kind in scenario.acts}
    calls = {"call"} if any(scenario.calls for scenario in SCENARIOS.values()) else set()
    assert acts | calls == set(get_args(Kind))


def test_faults_of_a_provider_come_only_where_there_is_one() -> None:
    for scenario in SCENARIOS.values():
        needs = {"outage", "hang", "provider crash"} & set(scenario.faults)
        assert scenario.provider or not needs, scenario.name
