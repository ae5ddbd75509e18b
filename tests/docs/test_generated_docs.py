"""What the pages take from the code is there, and complete."""

import importlib.util
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from dk_trio.lifecycle import OUTCOMES, TRANSITIONS, Reason
from dk_trio.settings import all_variables

SCRIPT = Path(__file__).parents[2] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(generate: ModuleType) -> dict[str, str]:
    return generate.files()


def test_pages_include_every_generated_file(files: dict[str, str]) -> None:
    pages = "".join(page.read_text() for page in SCRIPT.parent.rglob("*.md"))
    assert set(re.findall(r'--8<-- "generated/([^"]+)"', pages)) == files.keys()


def test_help_and_settings_are_complete(files: dict[str, str]) -> None:
    settings = "".join(text for name, text in files.items() if name.startswith("settings-"))
    assert all(f"`{name}`" in settings for row in all_variables() for name in row.names)
    assert "--strict-setup" in files["serve.txt"]


def test_the_configuration_page_has_every_layer(files: dict[str, str]) -> None:
    page = (SCRIPT.parent / "configuration.md").read_text()
    assert set(re.findall(r'generated/(settings-\w+\.md)"', page)) == {n for n in files if n.startswith("settings-")}


def test_outcomes_are_complete(files: dict[str, str]) -> None:
    rows = files["outcomes.md"].splitlines()[2:]
    assert len(rows) == len(OUTCOMES) == len(Reason)
    for reason, row in zip(Reason, rows, strict=True):
        outcome = OUTCOMES[reason]
        assert f"`{reason.value}`" in row
        assert outcome.module_status.name in row
        assert outcome.error is None or outcome.error.status.name in row


def test_errors_that_a_caller_can_get(files: dict[str, str]) -> None:
    codes = re.findall(r"^\| `(\w+)` \|", files["errors.md"], re.MULTILINE)
    assert {"QUEUE_FULL", "JOB_TIMEOUT", "TASK_LEFT_BEHIND", "SETUP_NOT_FOUND", "SETUP_EXISTS"} <= set(codes)
    assert not {"INTERNAL_ERROR", "ADMISSION_REFUSED", "BAD_SETTING"} & set(codes)


def test_the_drawing_has_every_step(files: dict[str, str]) -> None:
    way, *rows = files["states.txt"].splitlines()
    states = way.split(" ──> ")
    # A column is that of the state whose name stands above it.
    above = "".join(name.ljust(len(name) + 5, "\0") for name in states)
    drawn = set(pairwise(states))
    for row in rows:
        line, _, target = row.rpartition("──> ")
        for column in (at for at, mark in enumerate(line) if mark in "├└┼┴"):
            start = above.rfind("\0", 0, column) + 1
            drawn.add((above[start : above.index("\0", column)], target))
    assert drawn == {(state.value, after.value) for state, to in TRANSITIONS.items() for after in to}


@pytest.mark.parametrize("package", ["", "provider.", "rpc.", "security.", "signals.", "wire."])
def test_reference_has_every_public_name(package: str) -> None:
    listed = (SCRIPT.parents[1] / "tests" / "public_names.txt").read_text().splitlines()
    public = {name for name in listed if re.fullmatch(rf"dk_trio\.{package}\w+", name)}
    page = (SCRIPT.parent / "reference" / f"{package.rstrip('.') or 'dk_trio'}.md").read_text()
    shown = set(re.findall(r"^::: (\S+)", page, re.MULTILINE))
    assert {name for name in shown if re.fullmatch(rf"dk_trio\.{package}\w+", name)} == public
