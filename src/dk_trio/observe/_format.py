"""The two forms of a line: JSON for whoever collects logs, text for whoever reads them at a terminal.

In both forms a record is one line, in text followed by its traceback. What a caller may have chosen cannot look like a
line of its own: JSON escapes by itself; in text what follows a line break is indented behind a bar, and all other
control characters are escaped, so that nothing can move the cursor.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii as quoted
from math import isfinite
from traceback import TracebackException
from typing import TYPE_CHECKING, Any, Final, Protocol

from dk_trio.log_context import CURRENT, MAX_ID, of_job
from dk_trio.redaction import MASK, SECRET_NAME

if TYPE_CHECKING:
    from dk_trio.module import SessionIds

ACCESS: Final = "dk_trio.access"
"""Name of the logger of the access log."""

MAX_MESSAGE: Final = 8 * 1024
MAX_EXCEPTION: Final = 32 * 1024
"""Characters of a message and of a traceback; a longer one is cut, and says so."""

_MAX_MIDDLES: Final = 1000
_MAX_ITEMS: Final = 100
_MAX_DEPTH: Final = 4

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_LEVELS: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_COLORS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

# What a terminal takes for a command, or what a reader takes for an end of line: C0, DEL, C1, separators, and the marks
# that change the direction of writing.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_WORD: Final = re.compile(r"[\w.:-]+", re.ASCII)
_MARGIN: Final = "\n    | "

Redact = Callable[[str], str]


class Format(Protocol):
    """Makes lines."""

    def record(self, record: logging.LogRecord) -> str:
        """A record of `logging`."""
        ...

    def access(
        self,
        level: int,
        path: str,
        code: str,
        milliseconds: float,
        peer: str,
        request: str,
        job: SessionIds | None,
        trace: str = "",
    ) -> str:
        """A line of the access log. Half of what a server logs is this, so no record is made for it."""
        ...


class _Clock:
    """The time as text; the part that stays for a second is made once a second."""

    def __init__(self, form: str, convert: Callable[[float], time.struct_time], end: str) -> None:
        self._form = form
        self._convert = convert
        self._ends = [f".{number:03}{end}" for number in range(1000)]
        self._now: tuple[int, str] = (-1, "")

    def __call__(self, now: float) -> str:
        milliseconds = int(now * 1000)
        second, text = self._now
        rest = milliseconds - second * 1000
        if not 0 <= rest < 1000:
            second, rest = divmod(milliseconds, 1000)
            text = time.strftime(self._form, self._convert(second))
            self._now = (second, text)
        return text + self._ends[rest]


class JsonFormat:
    """One JSON object a line, ASCII, in UTC.

    Args:
        redact: Masks secrets in a text.
        worker: Which of several processes this is; in every line, whatever its task works for.
    """

    def __init__(self, redact: Redact, *, worker: str = "") -> None:
        self._redact = redact
        self._worker = {"worker": worker} if worker else {}
        self.clock = _Clock("%Y-%m-%dT%H:%M:%S", time.gmtime, "Z")
        self.middles: dict[tuple[str, str], str] = {}
        self._pid = os.getpid()

    def record(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "timestamp": self.clock(record.created),
            "level": level_of(record.levelno),
            "logger": record.name,
            "message": self._redact(message_of(record)),
            "pid": record.process,
            **self._worker,
            "module": record.module,
            "location": f"{record.pathname}:{record.lineno}:{record.funcName}",
            **CURRENT.get(),
        }
        trace = exception_of(record)
        if trace:
            fields["exception"] = self._redact(trace)
        extra = extra_of(record, self._redact)
        if extra:
            fields["extra"] = extra
        return json.dumps(fields, default=str) + "\n"

    def access(
        self,
        level: int,
        path: str,
        code: str,
        milliseconds: float,
        peer: str,
        request: str,
        job: SessionIds | None,
        trace: str = "",
    ) -> str:
        middle = self.middles.get((path, code))
        if middle is None:
            middle = self._middle(path, code)
        ids = f', "trace": "{trace}"' if trace else ""
        if job is not None:
            mission, setup = quoted(job.mission_id[:MAX_ID]), quoted(job.setup_id[:MAX_ID])
            ids += f', "job": "{job.job_id}", "mission": {mission}, "setup": {setup}'
        return (
            f'{{"timestamp": "{self.clock(time.time())}", "level": "{_LEVELS[level]}"{middle}{milliseconds:.3f}, '
            f'"peer": "{peer}", "request": {quoted(request)}{ids}}}\n'
        )

    def _middle(self, path: str, code: str) -> str:
        """What lines of one method and code have in common."""
        if len(self.middles) >= _MAX_MIDDLES:  # callers have chosen the names of methods that there are not
            self.middles.clear()
        method = path.rpartition("/")[2]
        worker = "".join(f', "worker": {quoted(number)}' for number in self._worker.values())
        middle = self.middles[path, code] = (
            f', "logger": "{ACCESS}", "message": {quoted(f"{method} {code}")}, "pid": {self._pid}{worker}, '
            f'"method": {quoted(path)}, "code": "{code}", "duration_ms": '
        )
        return middle


class TextFormat:
    """Time, level, logger and message on one line, ids behind it, a traceback below it. Local time.

    Args:
        redact: Masks secrets in a text.
        color: Whether levels have colours.
        worker: Which of several processes this is; in every line, whatever its task works for.
    """

    def __init__(self, redact: Redact, *, color: bool, worker: str = "") -> None:
        self._redact = redact
        self.clock = _Clock("%Y-%m-%d %H:%M:%S", time.localtime, "")
        self._color = color
        self._worker = {"worker": worker} if worker else {}

    def record(self, record: logging.LogRecord) -> str:
        line = self._line(
            record.created, level_of(record.levelno), record.name, self._redact(message_of(record)), CURRENT.get()
        )
        extra = extra_of(record, self._redact)
        if extra:
            line += "  " + _plain(" ".join(f"{name}={json.dumps(value)}" for name, value in extra.items()))
        trace = exception_of(record)
        if trace:
            line += "\n" + self._dim(_MARGIN.removeprefix("\n") + _plain(self._redact(trace)))
        return line + "\n"

    def access(
        self,
        level: int,
        path: str,
        code: str,
        milliseconds: float,
        peer: str,
        request: str,
        job: SessionIds | None,
        trace: str = "",
    ) -> str:
        ids = {"request": request}
        if trace:
            ids["trace"] = trace
        if job is not None:
            ids |= of_job(job.job_id, job.mission_id, job.setup_id)
        text = f"{path} {code} in {milliseconds:.1f} ms from {peer}"
        return self._line(time.time(), _LEVELS[level], ACCESS, text, ids) + "\n"

    def _line(self, now: float, level: str, logger: str, message: str, ids: Mapping[str, str]) -> str:
        word = level.upper()
        if self._color:
            word = f"\x1b[{_COLORS[level]}m{word}\x1b[0m"
        line = f"{self.clock(now)} {word} {_plain(logger)}: {_plain(message)}"
        if ids or self._worker:
            told = {**self._worker, **ids}
            shown = (f"{name}={value if _WORD.fullmatch(value) else quoted(value)}" for name, value in told.items())
            line += "  " + self._dim(" ".join(shown))
        return line

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._color else text


def level_of(number: int) -> str:
    """The name of a level, and of one in between the name below it."""
    return _LEVELS.get(number) or ("critical" if number > logging.ERROR else _LEVELS.get(number // 10 * 10, "debug"))


def message_of(record: logging.LogRecord) -> str:
    """The message with its arguments; when these do not fit, what there is of it."""
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001  boundary: what is logged is anybody's code, down to its __str__
        message = f"{record.msg!s} (its arguments cannot be written: {type(error).__name__})"
    return _cut(message, MAX_MESSAGE)


def exception_of(record: logging.LogRecord) -> str:
    """The traceback, and the stack if one was asked for; empty when there is neither."""
    texts = []
    if record.exc_info and record.exc_info[1] is not None:
        try:
            texts.append("".join(TracebackException(*record.exc_info, compact=True).format()))
        except Exception as error:  # noqa: BLE001  boundary: what an exception says of itself is its author's code
            texts.append(f"{type(record.exc_info[1]).__name__}, which cannot be written: {type(error).__name__}")
    elif record.exc_text:  # of a record that came from another process
        texts.append(record.exc_text)
    if record.stack_info:
        texts.append(record.stack_info)
    return _cut("\n".join(text.rstrip("\n") for text in texts), MAX_EXCEPTION)


def extra_of(record: logging.LogRecord, redact: Redact) -> dict[str, Any]:
    """What was logged beside the message, as JSON values; secrets are masked by their names."""
    given = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    if not given:
        return given
    shown: dict[str, Any] = _jsonable(given, redact, _MAX_DEPTH)
    return shown


def _jsonable(value: Any, redact: Redact, depth: int) -> Any:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    if depth and isinstance(value, Mapping):
        return {
            str(name): MASK if SECRET_NAME.fullmatch(str(name)) else _jsonable(item, redact, depth - 1)
            for name, item in list(value.items())[:_MAX_ITEMS]
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item, redact, depth - 1) for item in list(value)[:_MAX_ITEMS]]
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:  # noqa: BLE001  boundary: a repr is anybody's code
        text = f"{type(value).__name__}, whose repr raises {type(error).__name__}"
    return redact(_cut(text, MAX_MESSAGE))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more characters)"


def _plain(text: str) -> str:
    """A text that a terminal shows as it is, in which no line can look like one of the log."""
    if text.isprintable() and text.isascii():
        return text
    text = _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text.replace("\n", _MARGIN)
