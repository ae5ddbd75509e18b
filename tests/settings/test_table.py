"""The page of variables holds the tuning guide's reference table, row by row, and names tests that exist."""

import ast
from functools import cache
from pathlib import Path

import pytest
from tests.settings import table
from tests.settings.effects import EFFECTS
from tests.settings.seed_table import ROWS, Row

from dk_trio.settings import Settings, all_variables

ROOT = Path(__file__).parents[2]

# The guide's layers, and ours.
LAYERS = {
    "Server": {"server"},
    "Task Mgr": {"tasks"},
    "Lifecycle": {"lifecycle"},
    "Signal I/O": {"signals"},
    "App retry": {"query"},
    "Tool init": {"services"},
    "Job Mgr": {"lifecycle"},
    "Channel retry": {"channel"},
    "Channel opts": {"channel"},
    "Module": {"module", "services", "lifecycle", "observe"},
    "Debug": {"observe"},
}


def lines() -> list[list[str]]:
    """The cells of the page's table, as a reader of the page has them."""
    rows = table.guide_table().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize(("number", "row"), list(enumerate(ROWS)), ids=lambda value: getattr(value, "variable", ""))
def test_a_row_of_the_guide_is_a_row_of_the_page(number: int, row: Row) -> None:
    name, kind, default, layer, purpose, shown = lines()[number]
    assert (name, kind) == (f"`{row.variable}`", row.type)
    assert same_default(default, row.default), (default, row.default)
    assert layer in LAYERS[row.layer]
    assert purpose
    assert "::" in shown


def test_there_are_no_other_rows() -> None:
    assert len(lines()) == len(ROWS) == 43


def same_default(ours: str, theirs: str) -> bool:
    """Whether they are one value: the guide writes `5.0s` and `100ms` where the page has `5 s` and `100 ms`."""

    def plain(text: str) -> str:
        number = text.removesuffix("ms").removesuffix("s").strip()
        try:
            return f"{float(number):g}"
        except ValueError:
            return text.removeprefix("./")

    return plain(ours) == plain(theirs)


def test_defaults_that_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, threads in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
        server = Settings.from_environment({}).server
        assert (server.max_concurrent_rpcs, server.thread_pool_workers) == (cpus * 200, threads)


def test_every_other_variable_is_on_the_page_once() -> None:
    guide = {table.BY_NAME[row.variable].name for row in ROWS}
    assert guide | set(table.other_names()) == {row.name for row in all_variables()}
    assert len(list(table.other_names())) == len(all_variables()) - len(ROWS)


def test_every_variable_has_a_test_of_its_effect() -> None:
    assert EFFECTS.keys() == {row.name for row in all_variables()}


@cache
def named_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_bytes())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


@pytest.mark.parametrize("shown", sorted(set(EFFECTS.values())))
def test_a_test_that_is_named_exists(shown: str) -> None:
    path, _, name = shown.partition("::")
    assert name in named_in(path)
