"""No defect is without its test."""

import ast
from collections import defaultdict
from pathlib import Path

from tests.regressions import DEFECTS


def bearers() -> dict[int, list[str]]:
    """Names of the tests that bear a number."""
    found = defaultdict(list)
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
                continue
            for decorator in node.decorator_list:
                match decorator:
                    case ast.Call(func=ast.Name(id="defect"), args=[ast.Constant(value=int(number))]):
                        found[number].append(node.name)
    return found


def test_every_defect_has_a_test() -> None:
    found = bearers()
    assert sorted(found) == sorted(DEFECTS) == list(range(1, 29))
    assert all(name.startswith("test_") for names in found.values() for name in names)
