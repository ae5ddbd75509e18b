"""`dk-trio new`: a project to start from, with tests that pass."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ._exits import Exit
from ._output import json_option, write_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

TEMPLATES: Final = {
    "tool": "functions that agents and other modules call",
    "agent": "calls the tools that its setup selects; storage and costs",
    "chat": "a conversation that is streamed and remembered; a form with fetched choices",
}
_COMMON: Final = "common"

# What stands in the templates, which are Python themselves, and so are linted and typed like the rest.
_FILE, _CLASS, _ID = "new_module", "NewModule", "new-module"
_RENAMED: Final = {"gitignore": ".gitignore", "project.toml": "pyproject.toml"}  # under these names they would act

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_LENGTH: Final = 40
_TAKEN: Final = frozenset({"click", "dk_trio", "grpclib", "pydantic", "pytest", "tests", "trio"})


@click.command(
    epilog="""\b
Examples:
  dk-trio new weather
  dk-trio new travel-agent --template agent
  dk-trio new small-talk --template chat --directory modules/talk

\b
Templates:
"""
    + "\n".join(f"  {name:<6} {about}" for name, about in TEMPLATES.items())
    + """

Each is a module in one file with tests that need neither a port nor time, and what packages, types and containers need.
"""
)
@click.argument("name")
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="tool", show_default=True)
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Made for the project; must not exist.  [default: NAME]"
)
@json_option
def command(*, name: str, template: str, directory: Path | None, as_json: bool) -> int:
    """Start a project: a module with its tests."""
    check_name(name)
    place = Path(name) if directory is None else directory
    made = write_project(name, template, place)
    module = f"{_identifier(name)}.py"
    if as_json:
        write_line({"directory": str(place), "module": module, "files": made})
        return Exit.OK
    click.echo(f"{place}: a module from the template {template!r}, {len(made)} files.")
    steps = [
        f"cd {shlex.quote(str(place))}",
        "pip install -e '.[dev]'",
        "pytest",
        f"dk-trio serve {module} --port 50055",
    ]
    click.echo("\n" + "".join(f"  {step}\n" for step in steps) + "\nREADME.md says more.")
    return Exit.OK


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a directory, a Python module and a class at once.

    Raises:
        click.BadParameter: Says what is wrong with it.
    """
    if not _NAME.fullmatch(name) or len(name) > _LENGTH:
        raise click.BadParameter(
            f"{name!r} cannot name a module: write at most {_LENGTH} lower-case letters and digits, a letter first, "
            "with - or _ between words, such as my-tool.",
            param_hint="NAME",
        )
    identifier = _identifier(name)
    if keyword.iskeyword(identifier) or keyword.issoftkeyword(identifier):
        raise click.BadParameter(f"{name!r} is a word of Python itself; write another.", param_hint="NAME")
    if identifier in _TAKEN or identifier in sys.stdlib_module_names:
        raise click.BadParameter(
            f"{name!r} would hide the Python module {identifier!r}; write another.", param_hint="NAME"
        )


def write_project(name: str, template: str, place: Path) -> list[str]:
    """Write the files of a template; their paths within the project.

    Args:
        name: A name that `check_name` takes.
        template: One of `TEMPLATES`.
        place: The directory, which is made.

    Raises:
        click.ClickException: It exists, or cannot be written.
    """
    root = files("dk_trio.cli") / "templates"
    contents = {path: text for part in (_COMMON, template) for path, text in _files(root / part)}
    try:
        place.mkdir(parents=True)
        for path, text in contents.items():
            target = place / _named(path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_named(text, name), encoding="utf-8")
    except FileExistsError:
        raise click.BadParameter(
            f"{place} exists, and nothing is overwritten; name another with --directory.", param_hint="NAME"
        ) from None
    except OSError as error:
        raise click.BadParameter(f"{error.filename} cannot be written: {error.strerror}.", param_hint="NAME") from None
    return sorted(_named(path, name) for path in contents)


def _files(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":  # of a clone whose tests were run where they stand
                yield from _files(entry, f"{above}{entry.name}/")
        else:
            yield above + _RENAMED.get(entry.name, entry.name), entry.read_text(encoding="utf-8")


def _named(text: str, name: str) -> str:
    identifier = _identifier(name)
    camel = "".join(word.capitalize() for word in identifier.split("_"))
    return text.replace(_FILE, identifier).replace(_CLASS, camel).replace(_ID, name)


def _identifier(name: str) -> str:
    return name.replace("-", "_")
