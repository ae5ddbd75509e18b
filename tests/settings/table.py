"""The page of variables: every variable with the test that shows its effect. Made of the settings themselves."""

from collections.abc import Iterable, Iterator
from dataclasses import fields

from tests.settings.effects import EFFECTS
from tests.settings.seed_table import ROWS

from dk_trio.settings import LAYERS, Variable
from dk_trio.settings._variable import variable_of

HEAD = "| variable | type | default | layer | purpose | effect shown by |\n|---|---|---|---|---|---|\n"
DEFAULTS = {
    "DIGITALKIN_MAX_CONCURRENT_RPCS": "cpu×200",
    "DIGITALKIN_THREAD_POOL_WORKERS": "min(4, cpu)",
    "DIGITALKIN_MODULE_ID": "metadata",
}
"""Those that depend on the machine or the module."""

_ROWS = [(name, variable_of(spec)) for name, layer in LAYERS.items() for spec in fields(layer)]
LAYER_OF = {row.name: layer for layer, row in _ROWS}
BY_NAME = {name: row for _, row in _ROWS for name in row.names}


def type_of(row: Variable) -> str:
    """The type of a variable's text, in the words of the guide."""
    if "followed by an s" in row.expects:
        return "str"
    for words, kind in {
        "a whole number": "int",
        "a port number": "int",
        "a number": "float",
        "true or": "bool",
    }.items():
        if words in row.expects:
            return kind
    return "str"


def default_of(row: Variable) -> str:
    """The default with its unit."""
    if row.name in DEFAULTS:
        return DEFAULTS[row.name]
    value = row.default_text()
    return value if value == "none" else f"{value} {row.unit}".rstrip()


def _line(name: str) -> str:
    row = BY_NAME[name]
    others = [other for other in row.names if other != name]
    also = f" Also {' and '.join(f'`{other}`' for other in others)}." if others else ""
    shown = EFFECTS.get(row.name, "")
    cells = (f"`{name}`", type_of(row), default_of(row), LAYER_OF[row.name], row.about + also, f"`{shown}`")
    return f"| {' | '.join(cells)} |\n"


def _table(names: Iterable[str]) -> str:
    return HEAD + "".join(map(_line, names))


def guide_table() -> str:
    """The rows of the tuning guide's reference table, in its order."""
    return _table(row.variable for row in ROWS)


def other_names() -> Iterator[str]:
    """Variables that are not in the guide's table, in the order of the layers."""
    known = {BY_NAME[row.variable].name for row in ROWS}
    yield from (name for name in LAYER_OF if name not in known)


def other_table() -> str:
    """All other variables."""
    return _table(other_names())
