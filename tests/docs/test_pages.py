"""The pages show files, never text of their own, and every file has a test."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SAMPLES = sorted((DOCS / "samples").glob("*.py"))
PAGES = sorted(DOCS.rglob("*.md"))
README = ROOT / "README.md"


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_on_a_page_is_a_file(page: Path) -> None:
    for block in re.findall(r"^```python.*?\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        assert re.fullmatch(r'(--8<-- "[\w./:-]+"\n)+', block), f"not an included file: {block}"


@pytest.mark.parametrize("sample", SAMPLES, ids=name)
def test_sample_is_shown(sample: Path) -> None:
    assert any(f'"{sample.name}' in page.read_text() for page in PAGES)


@pytest.mark.parametrize("sample", SAMPLES, ids=name)
def test_sample_has_a_test(sample: Path) -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert re.search(rf"\b{sample.stem}\b", tests)


def test_python_in_the_readme_is_a_file() -> None:
    text = README.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^<!-- (\S+\.py) -->\n```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(named)
    for path, block in named:
        assert block == (ROOT / path).read_text(), f"README differs from {path}"
