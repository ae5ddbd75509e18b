"""The line of the log about a call that was refused or a job that has failed."""

from __future__ import annotations

import logging
from traceback import walk_tb
from typing import Final

from dk_trio.errors import DkTrioError, ModuleFailedError

_log = logging.getLogger("dk_trio.servicer")

# Characters of a line of the log about an error, and about an id: both may hold what a caller has chosen.
_ERROR_LOGGED: Final = 500
_ID_LOGGED: Final = 100

# What else has frames between an author's line and the error that a service raised there.
_NOT_AUTHORS: Final = frozenset({"contextlib", "dk_trio", "tenacity", "trio"})


def log_refusal(what: str, error: DkTrioError, mission_id: str, setup_id: str) -> None:
    """One line, so that an operator finds the call that its caller complains of.

    Of what was refused it names the fields and not the values, which may be secrets of the caller.
    """
    fields = ", ".join(row.field for row in error.violations)
    said = f"{error.code} ({fields})" if fields else f"{error.code}: {error.text}"
    place = "" if isinstance(error, ModuleFailedError) else _raised_in(error)  # its traceback is there already
    _log.warning(
        "%s of mission %s, setup %s failed: %s%s",
        what,
        _line(repr(mission_id), _ID_LOGGED),
        _line(repr(setup_id), _ID_LOGGED),
        _line(said, _ERROR_LOGGED),
        place,
    )


def _raised_in(error: BaseException) -> str:
    """Where the author's code was when a service raised this; empty when it was not the author's code."""
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NOT_AUTHORS:
            place = f" ({frame.f_code.co_filename}:{line} in {frame.f_code.co_name})"
    return place


def _line(text: str, length: int) -> str:
    """A text that cannot look like another line of the log."""
    cut = text if len(text) <= length else f"{text[: length - 3]}..."
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cut)
