"""Imports inside the package point one way: down. The layers below are the architecture, in a form that can fail.

Every import counts, those inside functions and under TYPE_CHECKING too: a type is knowledge of a layer as a call is.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dk_trio"

# Lower first. A part may import parts of lower layers, and itself; parts of one layer know nothing of each other.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "addresses", "redaction", "buggify", "chance", "lazy"}),
    frozenset({"settings", "boundary", "extensions", "frames", "log_context"}),
    frozenset({"wire", "pb"}),
    frozenset({"rpc"}),
    frozenset({"client", "security"}),
    frozenset({"signals", "services", "admission", "lifecycle", "stalls"}),
    frozenset({"module"}),
    frozenset({"hooks", "config_setup", "setup_source", "job_signals"}),
    frozenset({"session"}),
    frozenset({"jobs", "registration"}),
    frozenset({"healthchecks", "listening", "provider_link", "refusals", "schemas", "siblings", "statuses"}),
    frozenset({"servicer", "server_statistics"}),
    frozenset({"draining", "hosting"}),
    frozenset({"routing"}),
    frozenset({"server", "provider"}),
    frozenset({"observe"}),
    frozenset({"workers"}),
    frozenset({"testing"}),
    frozenset({"cli"}),
    frozenset({"__init__", "__main__"}),  # the public names, and nothing else
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

# What a part may not import although the layers would allow it.
REFUSED: dict[str, frozenset[str]] = {
    "wire": frozenset({"settings"}),
    "rpc": frozenset({"settings"}),  # usable alone: options are arguments, the environment is not read
}

# A protocol without I/O has no use for these; with one of them it could not be fed bytes and a time alone.
NOT_SANS_IO = {
    "asyncio",
    "os",
    "random",
    "secrets",
    "select",
    "selectors",
    "socket",
    "ssl",
    "threading",
    "time",
    "trio",
}


TEMPLATES = PACKAGE / "cli" / "templates"  # an author's code, which imports the public names


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not path.is_relative_to(TEMPLATES)]


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports; `from a import b` gives `a.b`, since b may be a module."""
    package = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    assert part in RANK, f"{part} has no layer: say in LAYERS where it belongs"
    for module in imported_modules(path):
        names = module.split(".")
        if names[0] != "dk_trio" or len(names) == 1 or names[1] == "__version__":
            continue
        other = names[1] if names[1] in RANK else "__init__"  # `from dk_trio import X`
        if other == part:
            continue
        assert RANK[other] < RANK[part], f"{part} imports {module}, which is not below it"
        assert other not in REFUSED.get(part, ()), f"{part} imports {module}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_asyncio_is_not_imported(path: Path) -> None:
    assert "asyncio" not in {module.split(".")[0] for module in imported_modules(path)}


@pytest.mark.parametrize("path", sorted((PACKAGE / "wire").rglob("*.py")), ids=lambda path: path.name)
def test_wire_does_no_io(path: Path) -> None:
    assert not NOT_SANS_IO & {module.split(".")[0] for module in imported_modules(path)}
    calls = {node.func.id for node in ast.walk(ast.parse(path.read_bytes())) if is_named_call(node)}
    assert not {"open", "print", "input"} & calls


def is_named_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dk_trio.wire", ["asyncio", "trio", "ssl", "pydantic"]),
        ("dk_trio.pb", ["asyncio", "google.protobuf", "grpc"]),
        ("dk_trio.rpc", ["asyncio", "google.protobuf", "dk_trio.module", "dk_trio.settings"]),
        ("dk_trio.client", ["asyncio", "dk_trio.module"]),  # a caller does not pay for what a server needs
        # Nor does a server that starts pay for what its first job may need.
        ("dk_trio.server", ["asyncio", "ag_ui", "jsonschema", "sqlite3", "trio.testing"]),
        ("dk_trio.services.stores.database", ["sqlite3"]),
    ],
)
def test_what_an_import_does_not_load(module: str, absent: list[str]) -> None:
    """Transitively, in a fresh interpreter: a layer is usable without those above it and without another event loop."""
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
