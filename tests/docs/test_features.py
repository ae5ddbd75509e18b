"""The page of features misses no row, and the tests that it names exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "features.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
IN_DETAIL = {*range(1, 65), *range(89, 94), *range(96, 141), *range(142, 149), *range(153, 158), 160, 161}
LAST = 161


@cache
def names_in(path: str) -> set[str]:
    return {
        node.name
        for node in ast.parse((TESTS / path).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_row_is_there_once() -> None:
    elsewhere = [
        number
        for cells in re.findall(r"^\| (\d[\d, -]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", cells)
        for number in range(int(first), int(last or first) + 1)
    ]
    numbers = [int(number) for number, _, _ in ROWS]
    assert set(numbers) == IN_DETAIL
    assert sorted(numbers + elsewhere) == [*range(1, LAST + 1)]


@pytest.mark.parametrize(("capability", "reason"), [row[1:] for row in ROWS], ids=[f"row {row[0]}" for row in ROWS])
def test_a_row_has_a_test_that_exists_or_a_reason(capability: str, reason: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", reason)
    assert len(named) == reason.count("::")
    assert named or re.match(r"not there: \w+", reason)
    for path, test in named:
        assert test in names_in(path)
