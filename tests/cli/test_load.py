"""From a target on the command line to a module class; errors show the author's line."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dk_trio.cli._load import load_module
from dk_trio.errors import ModuleLoadError

MODULE = """
from typing import Literal
from dk_trio import DataModel, DataTrigger, TriggerHandler, TrioModule

class Message(DataTrigger):
    protocol: Literal["message"] = "message"

class {name}(TrioModule[DataModel[Message]]):
    async def run(self, input_data, setup_data):
        pass
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def refused(target: str) -> str:
    with pytest.raises(ModuleLoadError) as caught:
        load_module(target)
    return caught.value.text


def test_the_only_class_of_a_file() -> None:
    assert load_module(write("one.py", MODULE.format(name="One"))).__name__ == "One"


def test_a_class_by_name() -> None:
    write("two.py", MODULE.format(name="First") + MODULE.format(name="Second"))
    assert load_module("two.py:Second").__name__ == "Second"


def test_a_class_in_a_package() -> None:
    write("pack/__init__.py", "")
    write("pack/modules.py", MODULE.format(name="Packed"))
    assert load_module("pack.modules:Packed").__name__ == "Packed"


def test_the_derived_class_is_meant() -> None:
    write("derived.py", MODULE.format(name="Base") + "\nclass Derived(Base):\n    pass\n")
    assert load_module("derived.py").__name__ == "Derived"


def test_modules_beside_the_file_can_be_imported() -> None:
    write("sub/neighbour.py", "NAME = 'x'")
    write("sub/uses.py", "import neighbour\n" + MODULE.format(name="Uses"))
    assert load_module("sub/uses.py").__name__ == "Uses"


def test_a_file_named_like_a_library_does_not_replace_it() -> None:
    import trio

    assert load_module(write("trio.py", MODULE.format(name="Named"))).__name__ == "Named"
    assert sys.modules["trio"] is trio


def test_an_import_that_fails_shows_the_authors_line() -> None:
    text = refused(write("broken.py", "import os\n\nimport surely_not_installed_here\n"))
    assert "broken.py cannot be imported: ModuleNotFoundError" in text
    assert 'broken.py, line 3: "import surely_not_installed_here"' in text
    assert "_load.py" not in text


def test_code_that_fails_shows_the_authors_line_and_not_the_library_s() -> None:
    text = refused(write("broken.py", "import json\n\ndata = json.loads('{')\n"))
    assert "JSONDecodeError" in text
    assert 'broken.py, line 3: "data = json.loads' in text


def test_a_syntax_error_shows_its_line() -> None:
    text = refused(write("broken.py", "x = 1\ndef f(:\n    pass\n"))
    assert "SyntaxError" in text
    assert 'line 2: "def f(:"' in text


def test_a_file_that_exits() -> None:
    assert "SystemExit: 3" in refused(write("broken.py", "raise SystemExit(3)"))


def test_an_incomplete_module_is_refused_at_its_line() -> None:
    text = refused(
        write("broken.py", MODULE.format(name="One") + "\n@One.register\nclass H(TriggerHandler):\n    pass\n")
    )
    assert "H has no protocol" in text
    assert 'broken.py, line 12: "@One.register"' in text


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("none.py", "none.py does not exist"),
        ("./folder", "folder is not a file"),
        ("one", "'one' names no module class"),
        (":One", "':One' names no module class"),
        ("nobody.home:One", "There is no Python module 'nobody'"),
        ("empty.py", "empty.py holds no module class. Derive a class from dk_trio.TrioModule"),
        ("imports.py", "holds no module class. It imports One; to serve that, write imports.py:One"),
        ("two.py", "two.py holds 2 module classes: First, Second. Say which: two.py:"),
        ("one.py:Other", "one.py has no class 'Other'. It has One."),
        ("one.py:Message", "it is not a module class"),
    ],
)
def test_what_cannot_be_found(target: str, message: str) -> None:
    Path("folder").mkdir()
    write("empty.py", "")
    write("one.py", MODULE.format(name="One"))
    write("imports.py", "from one import One\n")
    write("two.py", MODULE.format(name="First") + MODULE.format(name="Second"))
    assert message in refused(target)


def test_a_package_that_fails_inside() -> None:
    write("pack2/__init__.py", "")
    write("pack2/broken.py", "import surely_not_installed_here\n")
    text = refused("pack2.broken:One")
    assert "pack2.broken cannot be imported: ModuleNotFoundError" in text
    assert 'line 1: "import surely_not_installed_here"' in text
