"""What holds for the repository as a whole: file sizes, and words in the documents that name real things."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GENERATED = re.compile(
    r"/pb/(agentic_mesh_protocol/|dk_trio/|google/|grpc/|message_pool\.py)|/docs/samples/gen/|/tests/_pb/"
)
LINES_MAX = 500  # above it a file usually holds two ideas

PYTHON_FILES = [
    path
    for folder in ("src", "tests", "bench", "docs", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not GENERATED.search(path.as_posix())
]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_file_is_small(path: Path) -> None:
    assert len(path.read_bytes().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", [p for p in PYTHON_FILES if p.is_relative_to(ROOT / "src")], ids=relative)
def test_module_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith('"""')


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_make_targets_in_documents_exist(path: Path) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", path.read_text(), re.MULTILINE))
    assert named <= make_targets()


def test_every_target_is_phony_and_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    explained = set(re.findall(r"^([a-z]+):.* ## ", makefile, re.MULTILINE))
    assert make_targets() == phony == explained


def test_constraints_pin_every_requirement_once() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = [canonical(line.split("==")[0]) for line in lines]
    assert len(pinned) == len(set(pinned))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    assert {canonical(re.match(r"[\w.-]+", line)[0]) for line in wanted} - {"dk-trio"} <= set(pinned)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    init = (ROOT / "src" / "dk_trio" / "__init__.py").read_text()
    assert f'__version__ = "{project["version"]}"' in init
