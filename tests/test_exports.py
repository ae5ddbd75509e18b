"""The public names are a list, and changing it is a decision: `tests/public_names.txt` says what users may import.

Whatever a public package shows without a leading underscore, its submodules aside, is public. Write the list anew with
`python tests/test_exports.py`, and read its diff.
"""

import __future__

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = (
    "dk_trio",
    "dk_trio.module",
    "dk_trio.provider",
    "dk_trio.rpc",
    "dk_trio.security",
    "dk_trio.services",
    "dk_trio.signals",
    "dk_trio.testing",
    "dk_trio.wire",
)
LIST = Path(__file__).with_name("public_names.txt")


def public_names(package: str) -> list[str]:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or [name for name in dir(module) if name[0] != "_"]
    return sorted(name for name in names if not isinstance(getattr(module, name), ModuleType | __future__._Feature))


def current() -> list[str]:
    return [f"{package}.{name}" for package in PACKAGES for name in public_names(package)]


def test_public_names_are_those_listed() -> None:
    listed = LIST.read_text().splitlines()
    now = current()
    assert sorted(set(now) - set(listed)) == [], "public, but not listed"
    assert sorted(set(listed) - set(now)) == [], "listed, but gone"
    assert listed == now


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    bare = []
    for name in public_names(package):
        value = getattr(module, name)
        if not inspect.isclass(value) and not inspect.isroutine(value):
            continue
        assert value.__module__.split(".")[0] == "dk_trio", f"{name} is another package's"
        if not inspect.getdoc(value):
            bare.append(name)
        if inspect.isclass(value):
            methods = [each for each, what in vars(value).items() if each[0] != "_" and inspect.isroutine(what)]
            bare += [f"{name}.{each}" for each in methods if not inspect.getdoc(getattr(value, each))]
    assert bare == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_tells_its_boundary(package: str) -> None:
    assert importlib.import_module(package).__doc__


if __name__ == "__main__":
    LIST.write_text("".join(f"{name}\n" for name in current()))
