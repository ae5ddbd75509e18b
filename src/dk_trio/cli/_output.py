"""What a command prints: JSON objects on lines of their own, and tables for people."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from ._exits import Exit

_GAP: Final = "  "

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def write_line(output: dict[str, Any]) -> None:
    """One output as one line of UTF-8, at once. A reader that does not read holds the call, and so the module."""
    line = json.dumps(with_integers(output), ensure_ascii=False, separators=(",", ":"))
    if sys.stdout is None:  # the process was started without one
        return
    sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def with_integers(value: Any) -> Any:
    """Numbers as protobuf's JSON mapping prints them: the doubles of a Struct that are whole become whole numbers."""
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        # "NaN", "Infinity", "-Infinity" there: JSON has no such numbers.
        return value if math.isfinite(value) else json.dumps(value)
    if isinstance(value, dict):
        return {key: with_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_integers(item) for item in value]
    return value


def unwritten(error: OSError) -> int:
    """Tell why stdout takes no more; the exit code."""
    # Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # its reader went away, such as `| head`
        return Exit.BROKEN_PIPE
    click.echo(f"dk-trio: the output cannot be written: {error.strerror}.", err=True)
    return Exit.DEFECT


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout is not None and sys.stdout.isatty()


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under their heads in columns on a terminal; elsewhere without heads, with a tab between the cells."""
    if not is_terminal():
        for row in rows:
            click.echo("\t".join(row))
        return
    lines = [head, *rows]
    widths = [max(len(click.unstyle(line[column])) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(line, widths, strict=True)]
        text = _GAP.join(cells).rstrip()
        click.echo(click.style(text, bold=True) if line is head else text)
