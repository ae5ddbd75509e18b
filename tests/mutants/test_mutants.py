"""The mutants fit the code as it is: each replaces one piece of text, and what comes out is Python."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from tests.mutants.mutant import PROMISES, Mutant
from tests.mutants.mutants import MUTANTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    text = (ROOT / "src/dk_trio" / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    ast.parse(text.replace(mutant.old, mutant.new))
    assert mutant.old != mutant.new
    for battery in mutant.batteries:
        assert (ROOT / battery).exists(), battery


def test_every_promise_has_its_mutants() -> None:
    assert {mutant.promise for mutant in MUTANTS} == set(PROMISES)
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
