"""What `docs/reliability.md` shows: made of the tests themselves, and of the figures of the last `make soak`."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.mutants.mutants import MUTANTS

from .promises import PROMISES

TESTS = Path(__file__).parents[1]
FIGURES = TESTS.parent / "docs" / "figures"
"""Where `tests.sizes.record` has put them: a JSON file of each battery."""


@cache
def functions(path: Path) -> frozenset[str]:
    """Names of the tests of a file; a state machine of hypothesis is one."""
    tree = ast.parse(path.read_bytes())
    defined = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assigned = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return frozenset(name for name in defined if name.startswith("test_")) | {n for n in assigned if n[:4] == "Test"}


def files(proof: str) -> Iterator[Path]:
    """The files with tests that a promise names."""
    path = TESTS / proof
    yield from sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


def promises() -> str:
    """The promises, and what carries them."""
    rows = ["| | promise | carried by | tests |", "|---|---|---|---|"]
    for promise in PROMISES:
        number = sum(len(functions(path)) for proof in promise.proof for path in files(proof))
        proof = " ".join(f"`{name}`" for name in promise.proof)
        rows.append(f"| {promise.name} | **{promise.title}.** {promise.text} | {proof} | {number} |")
    return "\n".join(rows) + "\n"


def figures() -> dict[str, Mapping[str, Any]]:
    """What each battery has noted, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FIGURES.glob("*.json"))}


def batteries() -> str:
    """One row for each battery: what it did when it last ran at its night size."""
    rows = ["| battery | what it did |", "|---|---|"]
    for name, noted in figures().items():
        if name not in {"mutants", "coverage"}:
            told = ", ".join(f"{words(key)}: {value_of(value)}" for key, value in noted.items())
            rows.append(f"| {words(name)} | {told} |")
    return "\n".join(rows) + "\n"


def mutants() -> str:
    """The deliberate bugs, what caught each, and after how long."""
    what = {mutant.name: mutant.breaks for mutant in MUTANTS}
    rows = ["| deliberate bug | users would meet | promise | caught by | after |", "|---|---|---|---|---|"]
    for verdict in figures().get("mutants", {}).get("verdicts", []):
        shown = f": `{verdict['shown']}`" if verdict["shown"] else ""
        caught = f"{verdict['battery']}{shown}" if verdict["battery"] else "**nothing**"
        name, promise = verdict["name"], verdict["promise"]
        rows.append(f"| {name} | {what.get(name, '')} | {promise} | {caught} | {verdict['seconds']:.0f} s |")
    return "\n".join(rows) + "\n"


def coverage() -> str:
    """A sentence on the branches that tests take."""
    noted = figures().get("coverage")
    if noted is None:
        return "Not measured yet.\n"
    return (
        f"{noted['branches_taken']} of {noted['branches']} branches of `src/` are taken by tests, "
        f"{noted['branch_percent']:.1f} %, and {noted['lines_run']} of {noted['lines']} statements, "
        f"{noted['line_percent']:.1f} %; generated code is left out.\n"
    )


def words(name: str) -> str:
    """A key as people write it."""
    return name.replace("_", " ").replace("-", " ")


def value_of(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, Mapping):
        return "; ".join(f"{words(str(key))} {value_of(one)}" for key, one in value.items())
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
