"""Files of variables, one NAME=value a line, as docker compose and systemd have them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from dk_trio.errors import SettingError

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file, the last one of a name. Comments, quotes and `export` are understood; `${X}` is text.

    Raises:
        SettingError: The file cannot be read, or a line of it is not NAME=value. The line is not shown: it may hold a
            secret.
    """
    from dotenv.parser import parse_stream  # 0.02 s that only a process with a file needs

    values: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8") as stream:
            for binding in parse_stream(stream):
                text = binding.original.string
                if binding.error or binding.key is not None:
                    if binding.error or binding.value is None or not _NAME.fullmatch(binding.key or ""):
                        blank = text[: len(text) - len(text.lstrip())].count("\n")
                        raise SettingError(
                            f"{path}, line {binding.original.line + blank}: this is not NAME=value.",
                            hint="Correct the line, or put a # before it.",
                        )
                    values[binding.key or ""] = binding.value
    except OSError as error:
        raise SettingError(
            f"{path} cannot be read: {error.strerror}.", hint="Give --env-file a file of NAME=value lines."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingError(
            f"{path} is not UTF-8 text (byte {error.start}).", hint="Give --env-file a file of NAME=value lines."
        ) from error
    return values


def export_others(values: Mapping[str, str], *, read: frozenset[str]) -> None:
    """Put what is not a setting into the process's environment, where it is not set: a module's code reads it there."""
    for name, value in values.items():
        if name not in read:
            os.environ.setdefault(name, value)
