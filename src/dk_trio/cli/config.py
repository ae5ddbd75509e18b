"""`dk-trio config`: every setting with its value, where that came from, and what it means."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._exits import CODES
from ._output import is_terminal, json_option, write_line
from ._settings import load_settings, settings_options

if TYPE_CHECKING:
    from dk_trio.settings import Settings, Source

_PREFIX = "DIGITALKIN_"


def _variables(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from dk_trio.settings import all_variables

    return [variable.name for variable in all_variables() if variable.name.startswith(incomplete.upper())]


@click.command(
    epilog=f"""\b
Examples:
  dk-trio config
  dk-trio config --diff-default
  dk-trio config --preset medium --env > .env
  dk-trio config DIGITALKIN_MAX_QUEUED_TASKS
  dk-trio config max_queued_tasks --json

Away from a terminal there is one line for each variable, with tabs between layer, variable, value, unit, source and
meaning. Warnings go to stderr. What cannot be used is told with all the rest that cannot, and the exit code is 3.
Values of secrets are never shown.

\b
{CODES}"""
)
@click.argument("name", required=False, metavar="[VARIABLE]", shell_complete=_variables)
@settings_options
@click.option("--diff-default", is_flag=True, help="Only values that are not the default.")
@click.option("--env", "as_env", is_flag=True, help="Print a file for --env-file; defaults stand in it as comments.")
@json_option
def command(
    *, name: str | None, env_file: Path | None, preset: str | None, diff_default: bool, as_env: bool, as_json: bool
) -> None:
    """Show every setting: its value, where that came from, and what it means."""
    if as_env and as_json:
        raise click.UsageError("--env and --json are two forms of the same: give one of them.")
    settings = load_settings(env_file=env_file, preset=preset)
    rows: Iterable[Source] = settings.sources
    if name is not None:
        row = _named(name, settings, as_json=as_json)
        if row is None:
            return
        rows = [row]
    if diff_default:
        rows = [row for row in rows if row.changed]
    notes = settings.notes()
    if as_json:
        for row in rows:
            write_line(_object(row, notes))
    elif as_env:
        _write_layers(rows, _env_line)
    elif name is not None:
        for row in rows:
            _write_one(row, notes)
    elif is_terminal():
        _write_layers(rows, lambda row: _two_lines(row, notes))
    else:
        for row in rows:
            click.echo("\t".join((row.layer, row.variable.name, *_value(row), row.origin, _meaning(row, notes))))
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)


def _named(name: str, settings: Settings, *, as_json: bool) -> Source | None:
    """The row of a variable; none when it is one of the existing SDK that means nothing here, which is told."""
    from dk_trio.settings import nearest, why_not_used

    word = name.upper()
    by_name = {known: row for row in settings.sources for known in row.variable.names}
    for candidate in (word, _PREFIX + word):
        if candidate in by_name:
            return by_name[candidate]
        if (why := why_not_used(candidate)) is not None:
            if as_json:
                write_line({"variable": candidate, "used": False, "note": why})
            else:
                click.echo(f"{candidate} is not used: {why}.")
            return None
    # Without what all names have in common, which would make any word resemble any name.
    bare = {known.removeprefix(_PREFIX): known for known in by_name}
    near = nearest(word.removeprefix(_PREFIX), bare, likeness=0.6)
    hint = f"Did you mean {bare[near]}?" if near else "`dk-trio config` lists them."
    raise click.BadParameter(f"{name!r} is not a known variable. {hint}", param_hint="VARIABLE")


def _value(row: Source) -> tuple[str, str]:
    """The value as it is written into the variable, and its unit."""
    return row.value, "" if _is_unset(row) else row.variable.unit


def _is_unset(row: Source) -> bool:
    return not row.changed and row.variable.default() is None


def _meaning(row: Source, notes: dict[str, str]) -> str:
    note = notes.get(row.variable.name)
    return f"{row.variable.about} ({note})" if note else row.variable.about


def _object(row: Source, notes: dict[str, str]) -> dict[str, Any]:
    value, unit = _value(row)
    return {
        "variable": row.variable.name,
        "aliases": list(row.variable.aliases),
        "layer": row.layer,
        "value": None if _is_unset(row) else value,
        "unit": unit or None,
        "source": row.origin,
        "changed": row.changed,
        "default": None if row.variable.default() is None else row.variable.default_text(),
        "expects": row.variable.expects,
        "meaning": row.variable.about,
        "note": notes.get(row.variable.name),
        "secret": row.variable.secret,
    }


def _write_layers(rows: Iterable[Source], show: Callable[[Source], str]) -> None:
    for number, (layer, members) in enumerate(groupby(rows, key=lambda row: row.layer)):
        click.echo(("\n" if number else "") + click.style(f"# {layer}", bold=True))
        for row in members:
            click.echo(show(row))


def _two_lines(row: Source, notes: dict[str, str]) -> str:
    value = click.style(
        " ".join(filter(None, _value(row))), fg="green" if row.changed else None, bold=row.changed or None
    )
    return f"{row.variable.name} = {value}  ({row.origin})\n    {click.style(_meaning(row, notes), dim=True)}"


def _write_one(row: Source, notes: dict[str, str]) -> None:
    value, unit = _value(row)
    lines = {
        "variable": " or ".join(row.variable.names),
        "value": f"{value} {unit}".rstrip(),
        "source": row.origin,
        "default": row.variable.default_text(),
        "takes": row.variable.expects,
        "layer": row.layer,
        "meaning": row.variable.about,
        "note": notes.get(row.variable.name, ""),
    }
    width = max(map(len, lines))
    for head, text in lines.items():
        if text:
            click.echo(f"{click.style(head.ljust(width), bold=True)}  {text}")


def _env_line(row: Source) -> str:
    """The variable as a line that docker compose, systemd and a shell read alike."""
    value = "" if _is_unset(row) else row.value
    if row.variable.secret:
        return f"# {row.variable.about}\n# {row.variable.name}=..."
    if value and not re.fullmatch(r"[\w.:/@%+,=~\[\]-]+", value, re.ASCII):
        value = shlex.quote(value)
    return f"{'' if row.changed else '# '}{row.variable.name}={value}"
