"""Generate the committed Python code from the ``.proto`` files: ``.venv/bin/python proto/generate.py [--check]``.

Two trees, each with a Python package of its own:

- ``proto/`` becomes ``src/dk_trio/pb/``: messages, services, stubs; ``descriptors.bin`` (what reflection answers
  with); ``_rules.py`` (the validation rules as a table).
- ``tests/proto/`` becomes ``tests/_pb/``: services that only tests and benchmarks need.

betterproto2's plugin writes the code. These things in it are then rewritten, and nothing else:

1. ``betterproto2.grpclib`` (imports asyncio) becomes ``dk_trio.pb._service``.
2. Messages derive from ``dk_trio.pb._message.Message``, which brings the compiled codec.
3. ``google.protobuf.Struct`` is the hand-written class of ``dk_trio.pb._struct``.
4. Imports that only rarely used methods need (``dateutil``) move into those methods.
5. Code outside of ``src/`` imports the well-known types from ``dk_trio.pb.google``.

Validation rules stand in comments, one line for each field that has any, in the form
``Rules: required; min_len=1; prefix="setups:"``. Values are JSON.

With ``--check`` nothing is written; the exit status says whether the committed files are what would be written.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DESCRIPTORS = "descriptors.bin"
RULES = "_rules.py"

Rule = tuple[str, object]

# (where the .proto files are, where the code goes, what is generated there)
TREES = (
    (ROOT / "proto", ROOT / "src/dk_trio/pb", ("agentic_mesh_protocol", "dk_trio", "google", "grpc")),
    (ROOT / "tests/proto", ROOT / "tests/_pb", ("dk_trio", "grpc")),
)


def main() -> int:
    """Generate both trees and put them in place, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit status 1 when something differs")
    options = parser.parse_args()
    stale = []
    for source, target, packages in TREES:
        with tempfile.TemporaryDirectory() as work:
            made = Path(work) / "out"
            made.mkdir()
            names = generate(source, made, packages)
            if options.check:
                stale += [target / name for name in names if differs(made / name, target / name)]
            else:
                install(made, target, names)
    for path in stale:
        print(f"out of date: {path.relative_to(ROOT)}", file=sys.stderr)
    return 1 if stale else 0


def generate(source: Path, made: Path, packages: tuple[str, ...]) -> list[str]:
    """Run the compiler for one tree and rewrite its output; returns the names to install."""
    protos = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    compile_protos(source, protos, made)
    for path in sorted(made.rglob("*.py")):
        path.write_text(rewrite(path.read_text(), packages))
    names = [*packages, "message_pool.py"]
    if source == ROOT / "proto":
        write_descriptors(source, protos, made / DESCRIPTORS)
        write_rules(descriptors_with_comments(source, protos, made.parent), made / RULES)
        names += [DESCRIPTORS, RULES]
    for entry in made.iterdir():
        if entry.name not in names:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return names


def compile_protos(source: Path, protos: list[str], out: Path) -> None:
    """Run protoc with betterproto2's plugin, in a directory without settings that could change the formatting."""
    plugin = BIN / "protoc-gen-python_betterproto2"
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [
        sys.executable, "-m", "grpc_tools.protoc", f"-I{source}", f"-I{ROOT / 'proto'}",
        f"--plugin=protoc-gen-python_betterproto2={plugin}",
        f"--python_betterproto2_out={out}",
        "--python_betterproto2_opt=server_generation=async",
        "--python_betterproto2_opt=client_generation=async",
        *protos,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=out.parent, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"protoc failed:\n{done.stderr}")


def write_descriptors(source: Path, protos: list[str], out: Path) -> None:
    """Write one FileDescriptorSet of the files and all that they import, without comments and positions."""
    command = [
        sys.executable, "-P", "-m", "grpc_tools.protoc", f"-I{source}", "--include_imports",
        f"--descriptor_set_out={out}",
        *protos,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"protoc failed:\n{done.stderr}")


def descriptors_with_comments(source: Path, protos: list[str], work: Path) -> descriptor_pb2.FileDescriptorSet:
    """Run protoc for descriptors that hold the comments."""
    out = work / "with_comments.bin"
    command = [
        sys.executable, "-P", "-m", "grpc_tools.protoc", f"-I{source}", "--include_source_info",
        f"--descriptor_set_out={out}", *protos,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def write_rules(descriptors: descriptor_pb2.FileDescriptorSet, target: Path) -> None:
    """Write the validation rules found in comments as a table."""
    lines = [
        '"""Validation rules by message and field. Made from the comments in proto/ by `make proto`. DO NOT EDIT!"""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any",
        "",
        "RULES: dict[str, dict[str, tuple[tuple[str, Any], ...]]] = {",
    ]
    for file in sorted(descriptors.file, key=lambda file: file.name):
        for message, rules in sorted(rules_of(file)):
            lines.append(f'    "{file.package}.{message}": {{')
            lines += [f'        "{field}": {tuple(parsed)!r},' for field, parsed in rules]
            lines.append("    },")
    code = "\n".join([*lines, "}", ""])
    formatted = subprocess.run(
        [BIN / "ruff", "format", "--isolated", "--line-length=120", "-"],
        input=code, capture_output=True, text=True, check=True,
    )  # fmt: skip
    target.write_text(formatted.stdout)


def rules_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, list[tuple[str, list[Rule]]]]]:
    """Each message of a file that has rules, with its fields in order; only top-level messages have any."""
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    for m, message in enumerate(file.message_type):
        found = []
        for f, field in enumerate(message.field):
            lines = map(str.strip, comments.get((4, m, 2, f), "").splitlines())
            found += [(field.name, list(parse_rules(line[6:]))) for line in lines if line.startswith("Rules:")]
        if found:
            yield message.name, found


def parse_rules(text: str) -> Iterator[Rule]:
    """Split ``required; min_len=1; prefix="setups:"`` into names and values; a name alone means true."""
    decoder = json.JSONDecoder()
    rest = text.strip()
    while rest:
        match = re.match(r"([a-z_.]+)(=?)", rest)
        if match is None:
            sys.exit(f"cannot read the rules {text!r}")
        rest = rest[match.end() :]
        value: object = True
        if match[2]:
            value, end = decoder.raw_decode(rest)
            rest = rest[end:]
        yield match[1], value
        rest = rest.removeprefix(";").lstrip()


def rewrite(code: str, packages: tuple[str, ...]) -> str:
    """Apply the changes of the module's docstring to one generated file."""
    if "google" not in packages:
        code = re.sub(r"^from \.+google import ", "from dk_trio.pb.google import ", code, flags=re.MULTILINE)
    code = code.replace(
        "from betterproto2 import grpclib as betterproto2_grpclib",
        "from dk_trio.pb import _service as betterproto2_grpclib",
    )
    code = code.replace(
        "from betterproto2.grpclib.grpclib_client import MetadataLike", "from dk_trio.pb._service import MetadataLike"
    )
    code = re.sub(
        r"^@dataclass\(eq=False, repr=False\)\nclass Struct\(betterproto2\.Message\):\n.*?^(?=default_message_pool)",
        "", code, flags=re.MULTILINE | re.DOTALL,
    )  # fmt: skip
    if "\nclass Value(" in code:
        code = code.replace(
            "from typing_extensions import Self\n",
            "from typing_extensions import Self\n\nfrom dk_trio.pb._struct import Struct\n",
            1,
        )
    code, moved = re.subn(r"^import dateutil\.parser\n", "", code, flags=re.MULTILINE)
    if moved:
        code = code.replace(
            "            dt = dateutil.parser", "            import dateutil.parser\n\n            dt = dateutil.parser"
        )
    if "(betterproto2.Message):" in code:
        code = code.replace("(betterproto2.Message):", "(dk_trio_message.Message):")
        code = code.replace(
            "import betterproto2\n", "import betterproto2\nfrom dk_trio.pb import _message as dk_trio_message\n", 1
        )
    return code


def install(made: Path, target: Path, names: list[str]) -> None:
    """Replace what was generated before, and leave the hand-written files beside it alone."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        there = target / name
        if there.is_dir():
            shutil.rmtree(there)
        if (made / name).is_dir():
            shutil.copytree(made / name, there)
        else:
            shutil.copyfile(made / name, there)


def differs(made: Path, there: Path) -> bool:
    """Whether a generated file or directory is not, byte by byte, what is in place."""
    if made.is_file():
        return not there.is_file() or not filecmp.cmp(made, there, shallow=False)
    if not there.is_dir():
        return True
    left = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    right = {path.relative_to(there) for path in there.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    return left != right or any(not filecmp.cmp(made / name, there / name, shallow=False) for name in left)


if __name__ == "__main__":
    sys.exit(main())
