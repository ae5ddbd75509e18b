"""Exit codes: small numbers of our own, and 10 + the gRPC status for what a call ended with."""

from __future__ import annotations

import enum

from grpclib.const import Status

from dk_trio.errors import ConfigurationError, DkTrioError, ListenError, ModuleDefinitionError, ModuleLoadError

_STATUS_BASE = 10


class Exit(enum.IntEnum):
    """Why a command ended, when it was not a gRPC status."""

    OK = 0
    DEFECT = 1  # Python's own code for a traceback; also a failed demo
    USAGE = 2  # click's code
    CONFIGURATION = 3
    MODULE = 4
    LISTEN = 5
    STUCK = 6
    UNFIT = 7
    VIOLATED = 8
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
    BROKEN_PIPE = 141  # 128 + SIGPIPE


def exit_of_status(status: Status) -> int:
    """The exit code of a call that ended with this status; 0 for OK."""
    return _STATUS_BASE + status.value if status is not Status.OK else Exit.OK


def exit_of(error: DkTrioError) -> int:
    """The exit code of an error that ended a command."""
    if isinstance(error, (ModuleLoadError, ModuleDefinitionError)):
        return Exit.MODULE
    if isinstance(error, ListenError):
        return Exit.LISTEN
    if isinstance(error, ConfigurationError):
        return Exit.CONFIGURATION
    return exit_of_status(error.status)


_OWN = {
    Exit.OK: "done",
    Exit.DEFECT: "a defect of dk-trio, or a demo that failed",
    Exit.USAGE: "wrong arguments, or input that is not JSON",
    Exit.CONFIGURATION: "a setting, a setup file or a database cannot be used",
    Exit.MODULE: "the module cannot be loaded or is not complete",
    Exit.LISTEN: "the address cannot be listened on",
    Exit.STUCK: "code of a module went on although it was cancelled, and the process was ended around it",
    Exit.UNFIT: "doctor found something that keeps a server from working",
    Exit.VIOLATED: "a simulation broke a promise of dk-trio: a defect, and the seed that shows it",
}

_STATUSES = [(exit_of_status(status), status.name) for status in Status if status is not Status.OK]
_SIGNALS = [
    (Exit.INTERRUPTED.value, "interrupted by Ctrl-C"),
    (Exit.BROKEN_PIPE.value, "nobody reads the output any more"),
]


def _told(rows: list[tuple[int, str]]) -> list[str]:
    return [f"  {code:>3}  {meaning}" for code, meaning in rows]


_FIRST = ["Exit codes:", *_told([(code.value, meaning) for code, meaning in _OWN.items()])]

TABLE = "\n".join([*_FIRST, *_told(_STATUSES), *_told(_SIGNALS)])
"""Every exit code with its meaning."""

_UNAVAILABLE = exit_of_status(Status.UNAVAILABLE)
_CALL = f"   {_STATUS_BASE} + the gRPC status of a call, {_UNAVAILABLE} for UNAVAILABLE: `dk-trio --help` has them"

CODES = "\n".join([*_FIRST, _CALL, *_told(_SIGNALS)])
"""The same for the help of one command."""
