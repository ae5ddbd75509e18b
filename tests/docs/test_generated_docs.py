"""What the pages take from the code is what the code says now."""

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("docs_generate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.files()


def test_generated_files_are_current(files: dict[str, str]) -> None:
    folder = SCRIPT.with_name("generated")
    stale = [name for name, content in files.items() if (folder / name).read_text() != content]
    assert not stale, "run .venv/bin/python docs/generate.py"
    assert {path.name for path in folder.iterdir()} == files.keys()


@pytest.mark.parametrize("package", ["rpc", "wire"])
def test_reference_has_every_public_name(package: str) -> None:
    listed = (SCRIPT.parents[1] / "tests" / "public_names.txt").read_text().splitlines()
    public = {name for name in listed if name.startswith(f"dk_trio.{package}.")}
    page = (SCRIPT.parent / "reference" / f"{package}.md").read_text()
    assert set(re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)) == public
