"""What the pages take from the code: the commands' help and the table of settings, written when the site is built.

mkdocs calls `on_pre_build` (see `hooks` in mkdocs.yml); the pages include the files. They are not committed, so they
cannot be stale.
"""

from pathlib import Path

import click

from dk_trio.cli import commands
from dk_trio.settings import Variable, all_variables
from dk_trio.settings._layers import RPCS_PER_CPU

GENERATED = Path(__file__).parent / "generated"
WIDTH = 100  # characters; what a page shows without scrolling
DEFAULTS = {"DIGITALKIN_MAX_CONCURRENT_RPCS": f"{RPCS_PER_CPU} for each CPU"}  # those that depend on the machine


def help_of(name: str) -> str:
    """The help of one command, or of all for the empty name."""
    settings = {**commands.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    context = click.Context(commands, info_name="dk-trio", **settings)
    command: click.Command = commands
    if name:
        command = commands.get_command(context, name)
        context = click.Context(command, info_name=name, parent=context)
    return command.get_help(context).rstrip() + "\n"


def default_of(row: Variable) -> str:
    """The default, in words where it depends on the machine."""
    return DEFAULTS.get(row.name) or row.default_text()


def settings() -> str:
    lines = ["| variable | default | value | meaning |", "|---|---|---|---|"]
    for row in all_variables():
        names = " or ".join(f"`{name}`" for name in row.names)
        lines.append(f"| {names} | {default_of(row)} | {row.expects} | {row.about} |")
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Name -> content of every generated file."""
    out = {"settings.md": settings(), "dk-trio.txt": help_of("")}
    out |= {f"{name}.txt": help_of(name) for name in commands.list_commands(click.Context(commands))}
    return out


def on_pre_build(config: object) -> None:
    """A hook of mkdocs. Unchanged files are left alone, or `mkdocs serve` would build for ever."""
    GENERATED.mkdir(exist_ok=True)
    for name, content in files().items():
        path = GENERATED / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
