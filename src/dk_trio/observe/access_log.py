"""The access log: one line for each RPC that is served, with its code, its duration, who called, and for which job.

    2026-11-21 18:34:06.517 INFO dk_trio.access: /acme.Echo/Say OK in 1.2 ms from 10.0.0.7:41230  request=9f3a1c2b-1f

It stands outermost among the interceptors, so a call that one of them refuses is here as well; calls for which the
server has no method or no room come by `refused`. A line costs 15 µs at most in all threads together, of the 350 µs
that a StartModule takes: half of what a busy server logs is this. A `LogRecord` alone costs 10 µs, so where all that
listens are handlers of ours, none is made.

The request id is the caller's `x-request-id`, if it is one that a line can hold, else a short one that is unique. It is
bound for everything that is logged in the call, and a module sees it in its metadata, so it goes on to the modules that
are called next.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, cast

from grpclib.const import Status

from dk_trio.hooks import Job, JobHook
from dk_trio.log_context import CURRENT, bound, of_job
from dk_trio.rpc.interceptors import Observer

from ._format import ACCESS, Format
from ._part import Part
from .logs import LogHandler

if TYPE_CHECKING:
    from dk_trio import rpc
    from dk_trio.module import SessionIds

REQUEST_ID: Final = "x-request-id"
MAX_REQUEST_ID: Final = 100
MAX_PATH: Final = 200
"""Characters of a caller's choice in one line."""

_QUIET: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/agentic_mesh_protocol.task_manager.v1.TaskManagerService/GetSignals",
    }
)
"""What machines ask all day: logged at debug, unless it fails in a way that its caller did not choose."""

_EXPECTED: Final = frozenset({Status.OK, Status.CANCELLED, Status.DEADLINE_EXCEEDED})

_log = logging.getLogger(ACCESS)
_root = logging.getLogger()


class AccessLog(Part, Observer, JobHook):
    """Writes the access log. An observer of calls, and a hook of their jobs, whose ids it adds to the line.

    Args:
        failures: Only of calls that fail in a way that their caller did not choose; the others are told at debug.
    """

    def __init__(self, *, failures: bool = False) -> None:
        self._failures = failures
        self.interceptors = (self,)
        self.hooks = (self,)
        self._prefix = token_hex(4)
        self._numbers = count(1)

    def watch(self, call: rpc.CallInfo) -> _Line:
        """A call begins: from here on the log has its id."""
        line = _Line(call, self._request_id(call), quiet=self._quiet(call))
        # Not added to what is there: a connection within this process was opened by a task with ids of its own.
        # Nothing is reset at the end: each call has a context of its own.
        CURRENT.set({"request": line.request})
        _OPEN.set(line)
        return line

    def refused(self, call: rpc.CallInfo, status: Status) -> None:
        """A call that has found no handler."""
        _write(call, status, 0.0, self._request_id(call), None, quiet=self._quiet(call))

    def ended(self, job: Job) -> None:
        """The job of the call in this task has ended."""
        line = _OPEN.get()
        if line is not None:
            line.job = job.ids

    def _quiet(self, call: rpc.CallInfo) -> bool:
        return self._failures or call.path in _QUIET

    def _request_id(self, call: rpc.CallInfo) -> str:
        """What the caller has named the request, else a number behind a mark of this process."""
        given = call.metadata.get(REQUEST_ID)
        if given is None:
            made = call.metadata[REQUEST_ID] = f"{self._prefix}-{next(self._numbers):x}"
            return made
        if isinstance(given, str) and 0 < len(given) <= MAX_REQUEST_ID and given.isprintable():
            return given
        return f"{self._prefix}-{next(self._numbers):x}"


class _Line:
    """The line of one call."""

    __slots__ = ("_call", "_quiet", "job", "request")

    def __init__(self, call: rpc.CallInfo, request: str, *, quiet: bool) -> None:
        self._call = call
        self._quiet = quiet
        self.request = request
        self.job: SessionIds | None = None

    def ended(self, status: Status, seconds: float) -> None:
        """Write it."""
        trace = CURRENT.get().get("trace", "")
        _write(self._call, status, seconds, self.request, self.job, trace, quiet=self._quiet)


_OPEN: Final[ContextVar[_Line | None]] = ContextVar("dk_trio_access", default=None)
"""The line of the call that this task serves."""


def _write(
    call: rpc.CallInfo,
    status: Status,
    seconds: float,
    request: str,
    job: SessionIds | None,
    trace: str = "",
    *,
    quiet: bool,
) -> None:
    level = logging.DEBUG if quiet and status in _EXPECTED else logging.INFO
    if not _log.isEnabledFor(level):
        return
    path = call.path if len(call.path) <= MAX_PATH else f"{call.path[:MAX_PATH]}..."
    peer: Any = call.peer
    code = status._name_  # as .name, which takes 1 µs
    for handler in _root.handlers:
        if type(handler) is not LogHandler:
            _log_record(level, path, code, seconds * 1000, peer.name, job)
            return
    form: Format | None = None
    line = ""
    for handler in cast("list[LogHandler]", _root.handlers):
        if level >= handler.level:
            if handler.form is not form:
                form = handler.form
                line = form.access(level, path, code, seconds * 1000, peer.name, request, job, trace)
            handler.put(line)


def _log_record(level: int, path: str, code: str, milliseconds: float, peer: str, job: SessionIds | None) -> None:
    """For handlers of others."""
    extra = {"method": path, "code": code, "duration_ms": round(milliseconds, 3), "peer": peer}
    ids = {} if job is None else of_job(job.job_id, job.mission_id, job.setup_id)
    with bound(**ids):
        _log.log(level, "%s %s in %.1f ms from %s", path, code, milliseconds, peer, extra=extra)
