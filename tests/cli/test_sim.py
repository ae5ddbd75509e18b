"""`dk-trio sim`: one seed, many, in several processes; what a seed that breaks a promise gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dk_trio.cli._exits import Exit
from dk_trio.cli._sim_batch import Tally, shares
from dk_trio.testing.simulation import SCENARIOS, History
from dk_trio.testing.simulation.checker import Violation

from .processes import here


def sim(*arguments: str) -> tuple[int, str, str]:
    done = here("sim", *arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_seed_is_told_by_its_figures() -> None:
    code, out, _ = sim("--seed", "3", "--scenario", "jobs")
    assert code == Exit.OK
    assert out.startswith("1 seeds, 0 violations in 0 of them\n")
    assert "  digest    " in out
    _, out, _ = sim("--seed", "3", "--scenario", "jobs", "--json")
    (row,) = rows(out)
    assert (row["seed"], row["scenario"], row["violations"]) == (3, "jobs", [])


def test_a_timeline_for_people_and_for_programs() -> None:
    _, told, _ = sim("--seed", "3", "--scenario", "jobs", "--timeline")
    assert told.lstrip().startswith("step")
    assert "world begin seed=3 scenario=jobs" in told
    _, out, _ = sim("--seed", "3", "--scenario", "jobs", "--timeline", "--json")
    events = rows(out)
    assert [event["step"] for event in events] == list(range(1, len(events) + 1))
    _, out, _ = sim("--seed", "3", "--scenario", "jobs", "--timeline", "--json", "--job", "j1")
    of_one = rows(out)
    assert 0 < len(of_one) < len(events)
    assert {"j1"} < {event.get("job", event["event"]) for event in of_one}, "what may be the cause is there, too"
    assert {event.get("job", "j1") for event in of_one} == {"j1"}


def test_many_seeds_in_this_process_and_in_others_show_the_same() -> None:
    _, alone, _ = sim("--seeds", "4", "--from", "2", "--json")
    _, shared, _ = sim("--seeds", "4", "--from", "2", "--json", "--processes", "2", "--quiet")
    *one_by_one, total = rows(alone)
    *in_any_order, same = rows(shared)
    assert [row["seed"] for row in one_by_one] == [2, 3, 4, 5]
    assert sorted(row["digest"] for row in in_any_order) == sorted(row["digest"] for row in one_by_one)
    assert total["digest"] == same["digest"]
    assert total["total"] == 4
    assert total["violations"] == 0


def test_the_list_of_scenarios() -> None:
    _, out, _ = sim("--list")
    assert [line.split()[0] for line in out.splitlines()] == list(SCENARIOS)
    _, out, _ = sim("--list", "--json")
    assert [row["name"] for row in rows(out)] == list(SCENARIOS)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--scenario", "mehs"], "no scenario is called 'mehs'. Did you mean 'mesh'?"),
        (["--scenario", "zzz"], "There are jobs, "),
        (["--seed", "1", "--seeds", "2"], "Give the one or the other"),
        (["--timeline"], "say which with --seed"),
        (["--seed", "3", "--job", "j1"], "add --timeline"),
        (["--seed", "3", "--scenario", "jobs", "--timeline", "--job", "j"], "this seed has no job 'j'. It has j1, "),
    ],
)
def test_wrong_arguments(arguments: list[str], why: str) -> None:
    code, _, told = sim(*arguments)
    assert code == Exit.USAGE
    assert why in " ".join(told.split())


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every history breaks a promise."""

    def check(history: History) -> list[Violation]:
        return [Violation("P1 told", "j1", (2,), "was never told")]

    monkeypatch.setattr("dk_trio.testing.simulation.run.check", check)


@pytest.mark.usefixtures("broken")
def test_a_seed_that_breaks_a_promise_says_how_to_see_it_again() -> None:
    code, out, _ = sim("--seed", "3", "--scenario", "jobs")
    assert code == Exit.VIOLATED
    assert "\n>>     2 " in out
    assert "seed 3 of jobs: 1 violations\n  P1 told j1: was never told (steps 2)\n" in out
    assert "  again: dk-trio sim --seed 3 --scenario jobs --timeline\n" in out


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("more", "played"), [([], 1), (["--keep-going"], 2)])
def test_the_first_such_seed_is_the_last_unless_told_otherwise(more: list[str], played: int) -> None:
    code, out, _ = sim("--seeds", "2", "--scenario", "jobs", "--json", *more)
    assert code == Exit.VIOLATED
    *_, total = rows(out)
    assert (total["total"], total["failed"]) == (played, [[seed, "jobs"] for seed in range(played)])
    code, out, told = sim("--seeds", "2", "--scenario", "jobs", "--quiet", *more)
    assert code == Exit.VIOLATED
    assert (out + told).count("was never told") >= played
    assert f"{played} seeds, {played} violations in {played} of them\n" in out


def test_what_was_done_is_told_when_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    from dk_trio.testing.simulation import run

    play = run.simulate

    def simulate(seed: int, scenario: str | None) -> run.Result:
        if seed == 1:
            raise KeyboardInterrupt
        return play(seed, scenario)

    monkeypatch.setattr(run, "simulate", simulate)
    code, out, _ = sim("--seeds", "9", "--scenario", "jobs", "--json")
    assert code == Exit.INTERRUPTED
    assert rows(out)[-1]["total"] == 1


@pytest.mark.parametrize(("seeds", "processes", "sizes"), [(10, 3, [4, 3, 3]), (2, 4, [1, 1])])
def test_shares_differ_by_one_at_most(seeds: int, processes: int, sizes: list[int]) -> None:
    found = shares(range(5, 5 + seeds), processes)
    assert [len(share) for share in found] == sizes
    assert [seed for share in found for seed in share] == list(range(5, 5 + seeds))


def test_the_digest_of_all_does_not_depend_on_their_order() -> None:
    _, out, _ = sim("--seeds", "2", "--scenario", "jobs", "--json")
    *each, total = rows(out)
    tally = Tally()
    for row in reversed(each):
        tally.add(row)
    assert tally.digest == total["digest"]
