"""Files of triggers are found inside of the packages that an author names, and nowhere else; none fails silently."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dk_trio.errors import DiscoveryError, DiscoverySecurityError, ModuleDefinitionError
from dk_trio.module import ModuleDefinition
from dk_trio.module._discovery import ModuleDiscoverer

MODULE = """
from typing import Literal
from dk_trio import DataTrigger, TriggerHandler, TrioModule
from dk_trio.module._discovery import ModuleDiscoverer

class Own(TrioModule):
    triggers_discoverer = ModuleDiscoverer({packages!r})
"""

TRIGGER = """
from typing import Literal
from dk_trio import DataTrigger, TriggerHandler
from own.module import Own

class Input(DataTrigger):
    protocol: Literal["{name}"] = "{name}"

@Own.register
class On(TriggerHandler[Input]):
    protocol = "{name}"

    async def handle(self, input_data, setup_data, context):
        yield input_data
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: str, text: str = "") -> Path:
    file = Path(path).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def package(**triggers: str) -> Any:
    """The module class of package `own`, with these files in `own/triggers`."""
    write("own/__init__.py")
    write("own/module.py", MODULE.format(packages=["own.triggers"]))
    write("own/triggers/__init__.py")
    for name, text in triggers.items():
        write(f"own/triggers/{name}.py", text)
    import own.module  # type: ignore[import-not-found]

    return own.module.Own


def refused(module: Any) -> str:
    with pytest.raises(DiscoveryError) as caught:
        ModuleDefinition.of(module)
    return caught.value.text


def test_files_register_their_handlers() -> None:
    module = package(a_trigger=TRIGGER.format(name="a"), b_trigger=TRIGGER.format(name="b"), other="raise RuntimeError")
    write("own/triggers/deep/c_trigger.py", TRIGGER.format(name="c"))
    assert ModuleDefinition.of(module).protocols == ("a", "b", "c")


def test_the_result_names_every_file() -> None:
    module = package(a_trigger=TRIGGER.format(name="a"), b_trigger="1 / 0")
    assert module.triggers_discoverer.discover_modules() == {
        "own.triggers.a_trigger": True,
        "own.triggers.b_trigger": False,
    }


def test_discovery_twice_changes_nothing() -> None:
    module = package(a_trigger=TRIGGER.format(name="a"))
    module.discover()
    triggers = module.triggers()
    module.discover()
    assert module.triggers() == triggers
    assert ModuleDefinition.of(module).triggers == triggers


def test_files_that_were_imported_before_count() -> None:
    module = package(a_trigger=TRIGGER.format(name="a"))
    import own.triggers.a_trigger  # type: ignore[import-not-found]  # noqa: F401

    assert ModuleDefinition.of(module).protocols == ("a",)


def test_tests_are_no_triggers() -> None:
    fails = "raise RuntimeError"
    module = package(
        a_trigger=TRIGGER.format(name="a"), test_b_trigger=fails, latest_trigger=TRIGGER.format(name="latest")
    )
    write("own/triggers/deep_test/c_trigger.py", fails)
    write("own/triggers/__pycache__/d_trigger.py", fails)
    assert ModuleDefinition.of(module).protocols == ("a", "latest")


# --- failures --------------------------------------------------------------------------------------------------------


def test_every_file_that_fails_is_named_with_its_cause_and_line() -> None:
    module = package(
        a_trigger=TRIGGER.format(name="a"),
        b_trigger="import json\n\njson.loads('{')\n",
        c_trigger="def broken(:\n",
        d_trigger="import no_such_module\n",
        e_trigger="raise SystemExit(3)\n",
    )
    text = refused(module)
    folder = Path("own/triggers").absolute()
    assert "Of the triggers of Own, 4 files cannot be used" in text
    assert f"own.triggers.b_trigger: {folder}/b_trigger.py:3: JSONDecodeError: " in text
    assert f"own.triggers.c_trigger: {folder}/c_trigger.py:1: SyntaxError: " in text
    assert f"own.triggers.d_trigger: {folder}/d_trigger.py:1: ModuleNotFoundError: " in text
    assert f"own.triggers.e_trigger: {folder}/e_trigger.py:1: SystemExit: 3" in text
    assert "a_trigger" not in text


def test_a_wrong_handler_in_a_file_is_named_with_both_places() -> None:
    again = "from own.triggers.a_trigger import Input\n" + TRIGGER.format(name="a").replace(
        "class Input", "class Other"
    )
    text = refused(package(a_trigger=TRIGGER.format(name="a"), b_trigger=again))
    folder = Path("own/triggers").absolute()
    assert f"b_trigger.py:10: Own has two handlers for protocol 'a' and input type Input: On ({folder}/a_" in text
    assert f"and On ({folder}/b_trigger.py:10)" in text


def test_two_files_with_the_same_input() -> None:
    module = package(a_trigger=TRIGGER.format(name="a"), b_trigger=TRIGGER.format(name="a"))
    with pytest.raises(ModuleDefinitionError) as caught:
        ModuleDefinition.of(module)
    folder = Path("own/triggers").absolute()
    assert f"No input can reach On ({folder}/b_trigger.py:9): Input has the same fields as Input" in caught.value.text
    assert f"goes to On ({folder}/a_trigger.py:9)" in caught.value.text


def test_a_file_that_registers_nothing() -> None:
    text = refused(package(a_trigger=TRIGGER.format(name="a"), b_trigger="from own.module import Own\n"))
    assert "b_trigger.py: it registers no handler: decorate one with @YourModule.register" in text


def test_packages_that_cannot_be_imported_or_are_none() -> None:
    write("broken/__init__.py", "x = 1\nx.y\n")
    write("single.py")
    found = ModuleDiscoverer(["no_such_package", "broken", "single"]).explain()
    assert found["no_such_package"] == "no_such_package: ModuleNotFoundError: No module named 'no_such_package'"
    assert f"{Path('broken/__init__.py').absolute()}:2: AttributeError" in str(found["broken"])
    assert "not a package" in str(found["single"])


def test_a_package_without_triggers_leaves_the_module_without_any() -> None:
    with pytest.raises(ModuleDefinitionError, match="has no triggers"):
        ModuleDefinition.of(package())


def test_a_module_whose_file_was_imported_twice() -> None:
    from dk_trio.cli._load import load_module

    package(a_trigger=TRIGGER.format(name="a"))
    served = load_module("own/module.py")
    with pytest.raises(ModuleDefinitionError) as caught:
        ModuleDefinition.of(served)
    assert re.search(r"imported twice, as \w+ and as own.module", caught.value.hint)
    assert "serve own.module:Own" in caught.value.hint


# --- safety ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packages", [[], (), "own.triggers"])
def test_no_packages(packages: Any) -> None:
    with pytest.raises(DiscoveryError, match="packages="):
        ModuleDiscoverer(packages)


@pytest.mark.parametrize("package", ["..own", "own/triggers", "own\\triggers", "own\0", "own..x", "", "own.1x", 3])
def test_packages_that_could_reach_outside(package: Any) -> None:
    with pytest.raises(DiscoverySecurityError, match="is not the dotted name"):
        ModuleDiscoverer([package])


@pytest.mark.parametrize("pattern", ["*", "*.pyc", "../*.py", "**/*.py", "x/*.py", "x\\*.py", "*\0.py", "..py"])
def test_patterns_that_could_reach_outside(pattern: str) -> None:
    with pytest.raises(DiscoverySecurityError, match="file pattern"):
        ModuleDiscoverer(["own"], file_pattern=pattern)


def test_links_that_leave_the_package_are_refused() -> None:
    write("outside/x_trigger.py", "raise KeyboardInterrupt")
    module = package(a_trigger=TRIGGER.format(name="a"))
    Path("own/triggers/b_trigger.py").symlink_to(Path("outside/x_trigger.py").absolute())
    Path("own/triggers/linked").symlink_to(Path("outside").absolute())
    Path("own/triggers/loop").symlink_to(Path("own").absolute())
    text = refused(module)
    assert text.count("outside of its package") == 2
    assert "b_trigger.py: it is a link to" in text
    assert "linked: it is a link to" in text


def test_a_dead_link_and_what_is_no_file() -> None:
    module = package(a_trigger=TRIGGER.format(name="a"))
    Path("own/triggers/b_trigger.py").symlink_to(Path("own/triggers/gone.py").absolute())
    Path("own/triggers/c_trigger.py").mkdir()
    os.mkfifo("own/triggers/d_trigger.py")
    text = refused(module)
    assert "b_trigger.py: it cannot be read: No such file" in text
    assert "c_trigger.py: it is not a regular file" in text
    assert "d_trigger.py: it is not a regular file" in text


def test_a_file_that_is_too_large() -> None:
    write("big/__init__.py")
    write("big/x_trigger.py", "#" * 1024 * 1024)
    assert ModuleDiscoverer(["big"]).discover_modules() == {"big.x_trigger": True}
    write("big/y_trigger.py", "#" * (1024 * 1024 + 1))
    found = ModuleDiscoverer(["big"]).explain()["big.y_trigger"]
    assert "it has 1048577 bytes, more than max_file_size=1048576" in str(found)
    assert "max_file_size=3" in str(ModuleDiscoverer(["big"], max_file_size=3).explain()["big.x_trigger"])


def test_a_name_that_python_cannot_import() -> None:
    found = package(**{"my-own_trigger": TRIGGER.format(name="a")})
    assert "'my-own_trigger' is not a name that can be imported" in refused(found)


def test_a_package_that_hides_a_file() -> None:
    module = package(a_trigger=TRIGGER.format(name="a"))
    write("own/triggers/a_trigger/__init__.py", TRIGGER.format(name="b"))
    assert "own.triggers.a_trigger is another file already" in refused(module)


def test_another_pattern() -> None:
    write("other/__init__.py")
    write("other/on_x.py")
    write("other/x_trigger.py", "raise RuntimeError")
    assert ModuleDiscoverer(["other"], "on_*.py").discover_modules() == {"other.on_x": True}
