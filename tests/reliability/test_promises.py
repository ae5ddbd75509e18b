"""The table of promises is whole, and what carries them exists."""

import pytest
from tests.reliability import figures
from tests.reliability.promises import PROMISES, Promise


def test_there_are_ten() -> None:
    assert [promise.name for promise in PROMISES] == [f"P{number}" for number in range(1, 11)]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.name)
def test_what_carries_a_promise_is_there(promise: Promise) -> None:
    assert len(set(promise.proof)) == len(promise.proof)
    for proof in promise.proof:
        found = [*figures.files(proof)]
        assert found, proof
        for path in found:
            assert path.exists(), proof
            assert figures.functions(path), f"{path} has no tests"


def test_the_page_has_every_promise_and_every_battery() -> None:
    table = figures.promises()
    assert all(promise.text in table for promise in PROMISES)
    rows = figures.batteries()
    assert all(figures.words(name) in rows for name in figures.figures() if name not in {"mutants", "coverage"})


def test_every_deliberate_bug_was_caught() -> None:
    verdicts = figures.figures().get("mutants", {}).get("verdicts", [])
    assert all(verdict["battery"] for verdict in verdicts)
    assert "**nothing**" not in figures.mutants()
