"""The log: what a line has and what it never has, levels, the file, and that nobody waits for whoever reads it."""

import io
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dk_trio import Settings
from dk_trio.errors import SetupFileError
from dk_trio.log_context import bound
from dk_trio.observe._format import MAX_MESSAGE, JsonFormat, TextFormat
from dk_trio.observe.logs import LogHandler, logging_to
from dk_trio.redaction import redactor

_log = logging.getLogger("author.module")

TOKEN = "hunter2-hunter2"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def settings_of(**observe: Any) -> Settings:
    settings = Settings()
    wanted: dict[str, Any] = {"log_dir": Path("/proc/nowhere"), "log_format": "json", **observe}
    return replace(
        settings,
        observe=replace(settings.observe, **wanted),
        security=replace(settings.security, auth_token=TOKEN),
    )


@contextmanager
def logged(stream: io.StringIO | None = None, *, worker: str = "", **observe: Any) -> Iterator[list[str]]:
    """Log to a stream for the length of the block; then its lines are in the list."""
    stream = stream or io.StringIO()
    lines: list[str] = []
    root = logging.getLogger()
    others, root.handlers = root.handlers, []  # which raise in tests, for what cannot be written
    try:
        with logging_to(settings_of(**observe), stream=stream, worker=worker):
            yield lines
    finally:
        root.handlers = others
    lines += [line for line in stream.getvalue().splitlines() if "the log goes to no file" not in line]


def records(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def in_file(path: Path) -> list[dict[str, Any]]:
    return records(path.read_text(encoding="ascii").splitlines())


# --- lines -----------------------------------------------------------------------------------------------------------


def test_a_line_of_json_says_what_where_when_and_for_which_job() -> None:
    with logged() as lines, bound(job="j", mission="m", setup="s", request="r"):
        _log.warning("%d of %s", 3, "four", extra={"color": "blue", "sizes": [1, 2.5, None, True]})
    [record] = records(lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("timestamp"))
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+:test_a_line_of_json\w+", record.pop("location"))
    assert record == {
        "level": "warning",
        "logger": "author.module",
        "message": "3 of four",
        "pid": os.getpid(),
        "module": "test_logs",
        "job": "j",
        "mission": "m",
        "setup": "s",
        "request": "r",
        "extra": {"color": "blue", "sizes": [1, 2.5, None, True]},
    }


@pytest.mark.parametrize("form", ["json", "text"])
def test_every_line_says_which_worker_wrote_it(form: str) -> None:
    """Also those of calls, whose context is their own, and of threads, which have none."""
    with logged(worker="3", log_format=form) as lines:
        thread = threading.Thread(target=_log.warning, args=["from a thread"])
        thread.start()
        thread.join()
        [handler] = logging.getLogger().handlers
        assert isinstance(handler, LogHandler)
        handler.put(handler.form.access(logging.INFO, "/s/M", "OK", 1.0, "peer", "r", None))
    assert len(lines) == 2
    assert all(('"worker": "3"' if form == "json" else " worker=3") in line for line in lines)


def fail() -> None:
    raise ValueError(f"no such thing\n2026-11-21 INFO forged: {TOKEN}")


def test_an_exception_is_in_its_line() -> None:
    with logged() as lines:
        try:
            fail()
        except ValueError:
            _log.exception("it failed")
    [record] = records(lines)
    assert record["message"] == "it failed"
    assert record["exception"].startswith("Traceback (most recent call last):\n")
    assert record["exception"].endswith("ValueError: no such thing\n2026-11-21 INFO forged: ***")


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_what_cannot_be_written_is_told_and_raises_nothing() -> None:
    with logged() as lines:
        _log.info("%d %d", 1)
        _log.info("%s", Unspeakable())
        _log.info("odd", extra={"a": Unspeakable(), "b": float("nan"), "c": {1: {2: {3: {4: {5: 6}}}}}, "d": "\ud800"})
        try:
            raise ExceptionGroup("many", [ValueError(Unspeakable())])
        except ExceptionGroup:
            _log.exception("group")
        _log.info("x" * 50_000)
    first, second, odd, group, long = records(lines)
    assert first["message"] == "%d %d (its arguments cannot be written: TypeError)"
    assert second["message"] == "%s (its arguments cannot be written: RuntimeError)"
    assert odd["extra"]["a"] == "Unspeakable, whose repr raises RuntimeError"
    assert odd["extra"]["b"] == "nan"
    assert odd["extra"]["d"] == "\ud800"
    assert "ExceptionGroup: many" in group["exception"]
    assert long["message"] == "x" * MAX_MESSAGE + f"... ({50_000 - MAX_MESSAGE} more characters)"


def test_levels_in_between_and_above_have_a_name() -> None:
    with logged(log_level="debug") as lines:
        for level in (5, 10, 15, 25, 50, 60):
            _log.log(level, "x")
    assert [record["level"] for record in records(lines)] == ["debug", "debug", "info", "critical", "critical"]


@pytest.mark.parametrize(
    "text", ["a\n2026-11-21 18:00:00.000 ERROR dk_trio: forged", "\r\x1b[2K\x1b[1Agone", "\u2028\u202e\u061c"]
)
def test_no_line_of_text_can_be_forged(text: str) -> None:
    with logged(log_format="text") as lines, bound(mission=text):
        _log.info("said %s", text, extra={"more": text})
        try:
            raise ValueError(text)
        except ValueError:
            _log.exception("failed")
    ours = [line for line in lines if not line.startswith("    | ")]
    assert len(ours) == 2
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (INFO|ERROR) author\.module: ", line) for line in ours)
    assert "\x1b" not in "".join(lines)
    assert not {"\u202e", "\u061c"} & {*"".join(lines)}


def test_text_has_ids_and_extra_behind_it() -> None:
    with logged(log_format="text") as lines, bound(job="j-1", mission="missions:a b"):
        _log.info("hello", extra={"n": 1, "password": "x"})
    assert lines[0][24:] == 'INFO author.module: hello  job=j-1 mission="missions:a b"  n=1 password="***"'


@pytest.mark.parametrize("color", [None, False])
def test_auto_is_colored_text_on_a_terminal_and_json_elsewhere(color: bool | None) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with logging_to(settings_of(log_format="auto"), stream=stream, color=color):
            _log.error("hello")
    assert (" \x1b[31mERROR\x1b[0m author" in terminal.getvalue()) is (color is None)
    assert ("\x1b" in terminal.getvalue()) is (color is None)
    assert records(pipe.getvalue().splitlines())[-1]["message"] == "hello"


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"the token {TOKEN} is wrong", "the token *** is wrong"),
        ("postgresql://mesh:pass@db/x", "postgresql://mesh:***@db/x"),
        ("GET /x?api_key=abc&page=2", "GET /x?api_key=***&page=2"),
        ("connect(password='abc', port=1)", "connect(password='***', port=1)"),
        ("authorization: Bearer abcdef.ghi", "authorization: Bearer ***"),
        ("Authorization: abc", "Authorization: ***"),
        ('{"client_secret": "a\\"b", "x": "y"}', '{"client_secret": "***", "x": "y"}'),
        ("[(b'x-api-key', b'abc')]", "[(b'x-api-key', b'***')]"),
        ("token expired; secret sauce", "token expired; secret sauce"),
        ("https://host/path?page=1", "https://host/path?page=1"),
        ("token=***", "token=***"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    with logged() as lines:
        _log.info(text)
        try:
            raise ValueError(text)
        except ValueError:
            _log.exception("failed", extra={"said": text})
    first, second = records(lines)
    assert first["message"] == shown
    assert f"ValueError: {shown}" in second["exception"]
    assert second["extra"] == {"said": shown}


def test_extra_is_masked_by_its_names() -> None:
    with logged() as lines:
        _log.info("x", extra={"Authorization": "a", "deep": [{"x-api-key": "b", "user": "c"}], "tokens": 3})
    assert records(lines)[0]["extra"] == {
        "Authorization": "***",
        "deep": [{"x-api-key": "***", "user": "c"}],
        "tokens": 3,
    }


# --- levels and outputs ----------------------------------------------------------------------------------------------


def test_the_file_has_more_than_stderr_of_our_loggers_alone(tmp_path: Path) -> None:
    ours = logging.getLogger("dk_trio.part")
    with logged(log_dir=tmp_path, log_level="warning", file_log_level="debug") as lines:
        for log in (ours, _log):
            log.debug("debug")
            log.info("info")
            log.warning("warning")
    assert [record["message"] for record in records(lines)] == ["warning", "warning"]
    assert [(record["logger"], record["level"]) for record in in_file(tmp_path / "dk-trio.log")] == [
        ("dk_trio.part", "debug"),
        ("dk_trio.part", "info"),
        ("dk_trio.part", "warning"),
        ("author.module", "warning"),
    ]
    assert (tmp_path / "dk-trio.log").stat().st_mode & 0o777 == 0o640


def test_the_level_of_stderr_holds_for_everybody() -> None:
    with logged(log_level="debug") as lines:
        _log.debug("debug")
        logging.getLogger("dk_trio.part").debug("debug")
    assert len(lines) == 2


def test_what_was_set_up_is_undone() -> None:
    root, ours = logging.getLogger(), logging.getLogger("dk_trio")
    before = (root.level, ours.level, [*root.handlers], threading.active_count())
    with logging_to(settings_of(log_level="debug"), stream=io.StringIO()):
        assert (root.level, ours.level) != before[:2]
    assert (root.level, ours.level, root.handlers, threading.active_count()) == before


def test_no_file_is_one_line_and_louder_for_whoever_has_asked_for_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stream = io.StringIO()
    with logging_to(settings_of(log_dir=tmp_path / "file" / "logs"), stream=stream):
        pass
    [record] = records(stream.getvalue().splitlines())
    assert record["level"] == "warning"
    assert record["message"] == (
        f"the log goes to no file (DIGITALKIN_LOG_DIR={tmp_path / 'file' / 'logs'}: Not a directory)"
    )
    default = Settings()
    if default.observe.log_dir.parent.exists():
        pytest.skip("this is an image with its program in /app")
    for level, count in [("info", 0), ("debug", 1)]:
        stream = io.StringIO()
        with logging_to(
            replace(default, observe=replace(default.observe, log_format="json", log_level=level)), stream=stream
        ):
            pass
        assert len(records(stream.getvalue().splitlines())) == count
    assert not default.observe.log_dir.parent.exists()


def test_a_directory_that_was_asked_for_is_made(tmp_path: Path) -> None:
    with logging_to(settings_of(log_dir=tmp_path / "a" / "b"), stream=io.StringIO(), service="provider"):
        _log.info("x")
    assert [record["message"] for record in in_file(tmp_path / "a" / "b" / "provider.log")] == ["x"]


def test_a_file_that_was_named_goes_before_the_directory(tmp_path: Path) -> None:
    with logged(log_dir=tmp_path / "a", log_file=tmp_path / "b.txt"):
        _log.info("x")
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(SetupFileError("The file is odd."), "The file is odd."), (ValueError("x"), "ended by an unexpected error")],
)
def test_what_ends_the_process_is_in_the_file(tmp_path: Path, error: Exception, told: str) -> None:
    stream = io.StringIO()
    with pytest.raises(type(error)), logging_to(settings_of(log_dir=tmp_path), stream=stream):
        raise error
    [record] = in_file(tmp_path / "dk-trio.log")
    assert record["message"] == told
    assert ("ValueError: x" in record.get("exception", "")) is isinstance(error, ValueError)
    assert not stream.getvalue()


def test_logging_shutdown_writes_what_there_is(tmp_path: Path) -> None:
    """As before `os._exit`."""
    with logging_to(settings_of(log_dir=tmp_path), stream=io.StringIO()):
        _log.info("last words")
        for handler in logging.getLogger().handlers:
            handler.flush()
        assert [record["message"] for record in in_file(tmp_path / "dk-trio.log")] == ["last words"]


def test_a_stderr_that_is_closed_or_missing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    with logging_to(settings_of(log_dir=tmp_path), stream=closed):
        _log.info("one")
    monkeypatch.setattr("sys.stderr", None)
    with logging_to(settings_of(log_dir=tmp_path)):
        _log.info("two")
    assert [record["message"] for record in in_file(tmp_path / "dk-trio.log")] == ["one", "two"]


def test_seconds_follow_each_other_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    form = JsonFormat(redactor())
    times = [1.0005, 1.9994, 2.0, 59.9999, 60.0, 3661.25, 2.5]
    assert [form.clock(time)[11:] for time in times] == [
        "00:00:01.000Z",
        "00:00:01.999Z",
        "00:00:02.000Z",
        "00:00:59.999Z",
        "00:01:00.000Z",
        "01:01:01.250Z",
        "00:00:02.500Z",
    ]
    assert TextFormat(redactor(), color=False).clock(1.0005).endswith(".000")
