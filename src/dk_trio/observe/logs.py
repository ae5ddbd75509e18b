"""Where the log goes: to stderr, as JSON or as text, and to a rotating file, each written by a thread of its own.

    with logging_to(settings):
        trio.run(...)

Loggers are those of the standard library, so what modules and libraries log comes out in the same form, with the ids
of the job that it is about (`dk_trio.log_context`). The form of a line is in `_format`, the threads are in `_writer`.

The levels: stderr has what is at least `DIGITALKIN_LOG_LEVEL`. The file has what is at least
`DIGITALKIN_FILE_LOG_LEVEL` of dk-trio's own loggers, and of others what stderr has: at `debug` HTTP and model clients
write down whole requests.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import IO, TYPE_CHECKING, Final

from dk_trio.errors import DkTrioError
from dk_trio.redaction import redactor

from ._format import Format, JsonFormat, TextFormat
from ._writer import FileOutput, StreamOutput, Writer

if TYPE_CHECKING:
    from dk_trio.settings import ObserveSettings, Settings

_OURS: Final = "dk_trio"
_log = logging.getLogger("dk_trio.logs")


class LogHandler(logging.Handler):
    """Formats what is logged and hands it to a writer. Never waits, never raises.

    Args:
        writer: Writes the lines.
        form: Makes them.
        level: The least level that is written.
    """

    def __init__(self, writer: Writer, form: Format, level: int) -> None:
        super().__init__(level)
        self.form = form
        self.put = writer.put
        self._writer = writer

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record. Without the lock of other handlers, whose work takes turns: this one's does not need to."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            line = self.form.record(record)
        except Exception as error:  # noqa: BLE001  boundary: what is logged is anybody's objects; it must not end who logs
            told = (record.name, record.lineno, type(error).__name__)
            line = self.form.record(_made("a record of %s, line %s, cannot be written: %s", *told))
        self.put(line)

    def flush(self) -> None:
        """Wait until everything was written, for `FLUSH_TIMEOUT` at most."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is left, within the same time, and end the thread."""
        self._writer.close()
        super().close()


@contextmanager
def logging_to(
    settings: Settings,
    *,
    stream: IO[str] | None = None,
    service: str = "dk-trio",
    color: bool | None = None,
    worker: str = "",
) -> Iterator[None]:
    """Log as the settings say for the length of the block; at its end everything is written, within 2 s.

    Whatever ends the block by an exception is in the file, too. `logging.shutdown()` flushes as well, for those who
    leave by `os._exit`.

    Args:
        settings: `observe` says what is logged where; the values of secrets are masked wherever they appear.
        stream: In place of stderr.
        service: Name of the file below the log directory, without `.log`.
        color: Whether text has colours; None: on a terminal.
        worker: Which of several processes this is, for every line.
    """
    observe = settings.observe
    stream = sys.stderr if stream is None else stream
    redact = redactor(_secrets(settings))
    json = JsonFormat(redact, worker=worker)  # one for both: a line of the access log is made once
    level = logging.getLevelName(observe.log_level.upper())
    file_level = logging.getLevelName(observe.file_log_level.upper())
    with ExitStack() as stack:
        if stream is not None:  # a process may be started without one
            terminal = _is_terminal(stream)
            text = observe.log_format == "text" or (observe.log_format == "auto" and terminal)
            colored = terminal if color is None else color
            form: Format = TextFormat(redact, color=colored, worker=worker) if text else json
            stack.enter_context(_added(LogHandler(_writer(StreamOutput(stream), form, "log"), form, level)))
        file, trouble = _file(observe, service)
        if file is not None:
            in_file = stack.enter_context(_added(LogHandler(_writer(file, json, "log file"), json, file_level)))
        stack.enter_context(_at_level(logging.getLogger(), level))
        stack.enter_context(_at_level(logging.getLogger(_OURS), min(level, file_level) if file else level))
        if trouble:
            _log.log(*trouble)
        try:
            yield
        except Exception as error:  # boundary: the whole program; what ends it is written and goes on
            if file is not None:  # stderr hears of it from the command line
                text_of = error.text if isinstance(error, DkTrioError) else "ended by an unexpected error"
                in_file.emit(_made(text_of, error=None if isinstance(error, DkTrioError) else error))
            raise


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def _secrets(settings: Settings) -> Iterator[str]:
    """The values of the variables that are secrets."""
    for layer in vars(settings).values():
        if is_dataclass(layer):
            for spec in fields(layer):
                value = getattr(layer, spec.name)
                if value and spec.metadata["variable"].secret:
                    yield value


def _file(observe: ObserveSettings, service: str) -> tuple[FileOutput | None, tuple[int, str] | None]:
    """The file of the log, and why there is none.

    The default directory is that of an image which has its program in /app: outside of one nobody misses it, and
    nothing is made there.
    """
    path = observe.log_file or observe.log_dir / f"{service}.log"
    chosen = observe.log_file is not None or observe.log_dir != type(observe)().log_dir
    try:
        path.parent.mkdir(parents=chosen, exist_ok=True)
        return FileOutput(path), None
    except OSError as error:
        setting = "DIGITALKIN_LOG_FILE" if observe.log_file is not None else "DIGITALKIN_LOG_DIR"
        why = f"{setting}={observe.log_file or observe.log_dir}: {error.strerror}"
        level = logging.DEBUG if isinstance(error, FileNotFoundError) else logging.INFO  # no image at all, or a bad one
        return None, (logging.WARNING if chosen else level, f"the log goes to no file ({why})")


def _writer(output: StreamOutput | FileOutput, form: Format, name: str) -> Writer:
    def notice(number: int, why: str) -> str:
        return form.record(_made("%d lines of the log were lost: %s", number, why))

    return Writer(output, notice=notice, name=name)


def _made(message: str, *args: object, error: Exception | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("dk_trio.logs", logging.ERROR, __file__, 0, message, args, info)


@contextmanager
def _added(handler: LogHandler) -> Iterator[LogHandler]:
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        handler.flush()
        handler.close()


@contextmanager
def _at_level(logger: logging.Logger, level: int) -> Iterator[None]:
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
