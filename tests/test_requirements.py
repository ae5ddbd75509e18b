"""What is imported is declared, and what is declared is imported: pyproject.toml against the imports of each folder."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
GENERATED = re.compile(
    r"/pb/(agentic_mesh_protocol/|dk_trio/|google/|grpc/|message_pool\.py)|/docs/samples/gen/|/tests/_pb/"
)

OTLP = "opentelemetry-exporter-otlp-proto-http"
OF_THE_REPOSITORY = {"bench", "dev", "docs", "fuzz", "proto", "test"}

# Needed without an import: programs that are run, plugins, and data; and what need not be installed.
PROGRAMS = {
    "atheris",
    "coverage",
    "grpcio-tools",
    "betterproto2-compiler",
    "mkdocs",
    "mkdocs-material",
    "mkdocstrings",
    "mypy",
    "pre-commit",
    "pytest-trio",
    "pytest-xdist",
    "ruff",
    "tzdata",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(*extras: str) -> set[str]:
    """Names of the core requirements and those of the extras, extras of extras included."""
    names = set()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    for line in lines:
        name, nested = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", line).groups()
        names |= required(*nested.split(",")) if name == PROJECT["name"] else {canonical(name)}
    return names


@cache
def imported(folder: str) -> dict[str, Path]:
    """Distributions that the hand-written files of a folder import, each with one file that does."""
    providers = packages_distributions()
    found: dict[str, Path] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        if GENERATED.search(path.as_posix()) or "/cli/templates/" in path.as_posix():
            continue
        for module in modules_of(path):
            top, _, rest = module.partition(".")
            if top in sys.stdlib_module_names or top == "dk_trio":
                continue
            if top == "google":  # a namespace that several distributions share
                names = {"protobuf"} if rest.startswith("protobuf") else {module}
            elif top == "opentelemetry":  # so do these
                part = rest.partition(".")[0]
                names = {{"sdk": "opentelemetry-sdk", "exporter": OTLP}.get(part, "opentelemetry-api")}
            else:
                names = {canonical(name) for name in providers.get(top, [])}
            for name in names:
                found.setdefault(name, path)
    return found


def modules_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src", sorted(EXTRAS.keys() - OF_THE_REPOSITORY)),
        ("examples", []),
        ("bench", ["bench"]),
        ("tests", ["test", "bench", "fuzz"]),
        ("docs/samples", ["otel", "testing"]),
    ],
)
def test_imports_are_declared(folder: str, extras: list[str]) -> None:
    declared = required(*extras)
    undeclared = {name: path for name, path in imported(folder).items() if name not in declared}
    assert not undeclared


def test_core_requirements_are_used() -> None:
    assert not required() - imported("src").keys() - PROGRAMS


def test_extras_are_used() -> None:
    used = imported("bench").keys() | imported("tests").keys() | imported("src").keys() | imported("proto").keys()
    unused = required(*EXTRAS) - required() - used - PROGRAMS
    assert not unused
