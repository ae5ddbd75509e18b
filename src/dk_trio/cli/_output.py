"""What a command prints: JSON objects on lines of their own, and tables for people."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from ._exits import Exit

_GAP: Final = "  "

# What json.dumps leaves as it is and a terminal obeys: DEL, C1, and the marks that change the direction of writing.
_OBEYED: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def write_line(output: dict[str, Any]) -> None:
    """One output as one line of UTF-8, at once. A reader that does not read holds the call, and so the module."""
    line = json_text(output, separators=(",", ":"))
    if sys.stdout is None:  # the process was started without one
        return
    sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def json_text(value: Any, **form: Any) -> str:
    """JSON in UTF-8 that a terminal shows, whoever has made the texts in it; `form` is for `json.dumps`."""
    text = json.dumps(with_integers(value), ensure_ascii=False, **form)
    return _OBEYED.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)


def harmless(text: str) -> str:
    """A text of another process, without what would move the cursor of a terminal, or give it commands."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode() for sign in text
    )


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


def write_error(text: str) -> None:
    """Say in one paragraph on stderr what went wrong, in the name of the program."""
    click.echo(harmless(f"dk-trio: {text}"), err=True)


def unwritten(error: OSError) -> int:
    """Tell why stdout takes no more; the exit code."""
    # Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # its reader went away, such as `| head`
        return Exit.BROKEN_PIPE
    write_error(f"the output cannot be written: {error.strerror}.")
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
