"""A thread that writes lines to one output, so that whoever logs never waits for a disk or a pipe.

Theory of operation
-------------------
`put` appends a line to a buffer and returns. The thread sleeps until the first line of a batch wakes it, waits `LINGER`
for more, and writes what there is. So a busy server wakes it twenty times a second and not once a line: a thread that
is woken wants the interpreter's lock, and each time it gets that the event loop stands still.

`put` takes no lock: a line costs the event loop 1 µs in place of 3, and a finalizer that logs, when the collector runs
it inside of `put` or `flush`, cannot wait for itself. Therefore the thread is woken by a `SimpleQueue`, which allows
that, and not by an `Event`, which has a lock. Appending to a deque is one step of the interpreter. So is adding to a
number, in any interpreter there is now; in another one the bound on characters would be less exact.

The buffer is bounded in lines and characters. A line that does not fit is dropped and counted; the count is written as
soon as there is room for it. An output that fails (a full disk, a pipe nobody reads any more) loses its batch, counted
as well. Nothing of this is ever raised: a process must not end because it cannot tell of itself.

A child process that was made by `fork` has no threads but its own, and writes its lines at once.

`flush` and `close` wait for the thread, for a bounded time: an output that is stuck at the end is left to itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
import weakref
from collections import deque
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Final, Protocol, TypeVar

LINGER: Final = 0.05
"""Seconds that the first line of a batch waits for others."""

MAX_LINES: Final = 20_000
MAX_CHARACTERS: Final = 8 * 1024 * 1024
"""What the buffer holds; a batch that is being written may be as large again. A busy server logs that in seconds."""

FLUSH_TIMEOUT: Final = 2.0
"""Seconds that the end of a process waits for its last lines."""

FILE_BYTES: Final = 10 * 1024 * 1024
BACKUPS: Final = 5
"""The reference's rotation: when the file is full it becomes `.1`, and so on up to `.5`."""

_T = TypeVar("_T")
_PIECE: Final = 256 * 1024


class _Word(Enum):
    """What wakes the thread: lines, which may wait for others, or somebody who waits."""

    LINES = 1
    FLUSH = 2
    END = 3


class Output(Protocol):
    """Where lines go. Both methods may raise `OSError`; they are called in the writer's thread alone."""

    def write(self, text: str) -> None:
        """Write whole lines."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Writer:
    """Lines to one output, in a thread of its own.

    Args:
        output: Where they go.
        notice: Makes the line that tells how many were lost, and why.
        name: Of the thread.
    """

    def __init__(self, output: Output, *, notice: Callable[[int, str], str], name: str) -> None:
        self._output = output
        self._notice = notice
        self._lines: deque[str] = deque()
        self._characters = 0
        self._dropped = 0
        self._failed = 0
        self._trouble = ""
        self._awake = False
        self._wake: SimpleQueue[_Word] = SimpleQueue()
        self._flushes: deque[threading.Event] = deque()
        self._stuck = False
        self._forked = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        at_fork = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (after := at_fork()) and after())

    def __repr__(self) -> str:
        return f"<Writer {self._thread.name}, {len(self._lines)} lines wait, {self._dropped} dropped>"

    def put(self, line: str) -> None:
        """Write a line, which ends with a newline, soon. Never waits; from any thread."""
        lines = self._lines
        size = len(line)
        if len(lines) >= MAX_LINES or self._characters + size > MAX_CHARACTERS:
            self._dropped += 1
            return
        lines.append(line)
        self._characters += size
        if not self._awake:
            if self._forked:
                self._write(_all_of(lines))
                return
            self._awake = True
            self._wake.put(_Word.LINES)

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> bool:
        """Wait until everything was written or lost.

        Returns:
            False when that took longer than `timeout` seconds, or the thread has ended.
        """
        if not self._thread.is_alive():  # closed, or in a child process, which has no threads but its own
            return False
        done = threading.Event()
        self._flushes.append(done)
        self._wake.put(_Word.FLUSH)
        self._stuck = not done.wait(timeout)
        return not self._stuck

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Write what is left, for `timeout` seconds at most, and end the thread."""
        self._wake.put(_Word.END)
        self._thread.join(0 if self._stuck else timeout)  # a flush that was in vain has taken that time already

    def _after_fork(self) -> None:
        """In a child process. What waited is the parent's to write."""
        self._lines = deque()
        self._characters = self._dropped = self._failed = 0
        self._awake = False
        self._forked = True

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        word = _Word.LINES
        while word is not _Word.END:
            word = self._wake.get()
            if word is _Word.LINES:
                with contextlib.suppress(Empty):
                    word = self._wake.get(timeout=LINGER)
            self._awake = False  # a line that comes from here on wakes the thread again, whether it is taken now or not
            flushes = _all_of(self._flushes)
            lines = _all_of(self._lines)
            if lines or self._dropped:
                self._write(lines)
            for done in flushes:
                done.set()
        with contextlib.suppress(OSError):
            self._output.close()

    def _write(self, lines: list[str]) -> None:
        text = "".join(lines)
        self._characters -= len(text)
        dropped = self._dropped
        self._dropped -= dropped
        if self._failed:
            text = self._notice(self._failed, self._trouble) + text
        if dropped:
            text += self._notice(dropped, "they came faster than they could be written")
        try:
            self._output.write(text)
        except OSError as error:
            self._failed += len(lines) + dropped
            self._trouble = error.strerror or str(error)
        else:
            self._failed = 0


def _all_of(items: deque[_T]) -> list[_T]:
    return [items.popleft() for _ in range(len(items))]


class StreamOutput:
    """A stream, most often stderr: its file descriptor, or the object itself when it has none.

    A pipe is written to in pieces that are whole lines and that the kernel takes as one, so lines of processes that
    share it do not mix.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        try:
            stream.flush()
            self._fd: int | None = stream.fileno()
            self._piece = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(self._fd).st_mode) else _PIECE
        except (AttributeError, OSError, ValueError):
            self._fd = None

    def write(self, text: str) -> None:
        if self._fd is None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except ValueError as error:  # it was closed
                raise OSError(0, str(error)) from error
            return
        data = text.encode(errors="backslashreplace")
        start = 0
        while start < len(data):
            end = len(data)
            if end - start > self._piece:
                end = data.rfind(b"\n", start, start + self._piece) + 1 or start + self._piece
            start += _write_some(self._fd, data[start:end])

    def close(self) -> None:
        """Others write to it, too."""


def _write_some(fd: int, piece: bytes) -> int:
    while True:
        try:
            return os.write(fd, piece)
        except BlockingIOError:  # somebody who shares it has made it so
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


class FileOutput:
    """A file that is appended to and rotated: `NAME`, `NAME.1` and so on up to `BACKUPS`.

    Before a batch it is looked whether the name still means this file, so a file that others have rotated or removed
    is opened anew, and several processes may write to one.

    Raises:
        OSError: The file cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._torn = False
        """A write has failed, maybe half-way through a line."""
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._identity = self._identify(os.fstat(self._fd))

    def write(self, text: str) -> None:
        data = memoryview((b"\n" if self._torn else b"") + text.encode(errors="backslashreplace"))
        self._torn = False
        try:
            now = self._path.stat()
        except FileNotFoundError:
            now = None
        if now is None or self._identify(now) != self._identity:
            self._reopen()
            now = os.fstat(self._fd)
        if now.st_size and now.st_size + len(data) > FILE_BYTES:
            with contextlib.suppress(PermissionError):  # in a directory that may not be changed a file grows
                self._rotate()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self._torn = True
            raise

    def _rotate(self) -> None:
        for number in range(BACKUPS, 0, -1):
            older = self._path if number == 1 else self._backup(number - 1)
            with contextlib.suppress(FileNotFoundError):
                older.replace(self._backup(number))
        self._reopen()

    def _reopen(self) -> None:
        old = self._fd
        self._open()
        os.close(old)

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    @staticmethod
    def _identify(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino

    def close(self) -> None:
        os.close(self._fd)
