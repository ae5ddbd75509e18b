"""Public names of a package whose modules are loaded when somebody asks for the name, and not before.

    _HOMES: Final = {"Provider": "_server", "ProviderOptions": "_options"}
    __getattr__, __dir__ = lazily(__name__, _HOMES)

Who imports one name does not load the modules of all others: a command line starts in a fraction of the time. Type
checkers are told the same names under `TYPE_CHECKING`. Source: PEP 562.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package.

    Args:
        package: Its `__name__`.
        homes: For each public name the module that defines it: relative to the package, or absolute with `dk_trio.`.
    """
    names = vars(sys.modules[package])

    def load(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(home if home.startswith("dk_trio.") else f"{package}.{home}"), name)
        names[name] = value  # the next use is a plain attribute
        return value

    def listed() -> list[str]:
        return sorted({*names, *homes})

    return load, listed
