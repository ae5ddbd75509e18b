"""What the pages take from the code is there, and complete."""

import importlib.util
import re
from pathlib import Path

import pytest

from dk_trio.settings import all_variables

SCRIPT = Path(__file__).parents[2] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("docs_generate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.files()


def test_pages_include_every_generated_file(files: dict[str, str]) -> None:
    pages = "".join(page.read_text() for page in SCRIPT.parent.rglob("*.md"))
    assert set(re.findall(r'--8<-- "generated/([^"]+)"', pages)) == files.keys()


def test_help_and_settings_are_complete(files: dict[str, str]) -> None:
    assert all(f"`{name}`" in files["settings.md"] for row in all_variables() for name in row.names)
    assert "--strict-setup" in files["serve.txt"]


@pytest.mark.parametrize("package", ["rpc", "wire"])
def test_reference_has_every_public_name(package: str) -> None:
    listed = (SCRIPT.parents[1] / "tests" / "public_names.txt").read_text().splitlines()
    public = {name for name in listed if name.startswith(f"dk_trio.{package}.")}
    page = (SCRIPT.parent / "reference" / f"{package}.md").read_text()
    assert set(re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)) == public
