"""Whoever catches everything says why, or raises it again."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dk_trio"
GENERATED = {"agentic_mesh_protocol", "google", "grpc"}
BROAD = {"", "Exception", "BaseException", "ExceptionGroup", "BaseExceptionGroup"}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if not GENERATED & {*path.parts})


def caught(kind: ast.expr | None) -> set[str]:
    """Names of what an `except` catches; the empty one for a bare `except:`."""
    if kind is None:
        return {""}
    if isinstance(kind, ast.Tuple):
        return {name for element in kind.elts for name in caught(element)}
    return {ast.unparse(kind).rpartition(".")[2]}


def unexplained(source: str) -> Iterator[int]:
    """Lines where everything is caught without a word, and does not go on."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and caught(node.type) & BROAD:
            near = lines[node.lineno - 2 : node.body[0].lineno]
            goes_on = any(isinstance(each, ast.Raise) for each in ast.walk(node.body[-1]))
            if not goes_on and not any("boundary: " in line for line in near):
                yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_broad_except_is_a_boundary_or_raises_again(path: Path) -> None:
    assert list(unexplained(path.read_text())) == []


@pytest.mark.parametrize("kind", ["", " Exception", " BaseException as error", " (OSError, BaseExceptionGroup)"])
def test_what_is_swallowed_in_silence_is_found(kind: str) -> None:
    assert list(unexplained(f"try:\n    f()\nexcept{kind}:\n    pass\n")) == [3]
    assert list(unexplained(f"try:\n    f()\nexcept{kind}:  # boundary: a reason\n    pass\n")) == []
    assert list(unexplained(f"try:\n    f()\nexcept{kind}:\n    undo()\n    raise\n")) == []
    assert list(unexplained("try:\n    f()\nexcept OSError:\n    pass\n")) == []
