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
}

TABLE = "\n".join(
    [
        "Exit codes:",
        *(f"  {code.value:>3}  {meaning}" for code, meaning in _OWN.items()),
        *(f"  {exit_of_status(status):>3}  {status.name}" for status in Status if status is not Status.OK),
        f"  {Exit.INTERRUPTED.value:>3}  interrupted by Ctrl-C",
        f"  {Exit.BROKEN_PIPE.value:>3}  nobody reads the output any more",
    ]
)
