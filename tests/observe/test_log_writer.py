"""The threads that write the log: bounded, in batches, and no reason for anybody to wait or to fail."""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dk_trio.observe import _writer
from dk_trio.observe._writer import FileOutput, StreamOutput, Writer


class Gate:
    """An output that writes when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.texts: list[str] = []
        self.trouble: OSError | None = None

    def write(self, text: str) -> None:
        self.entered.set()
        assert self.open.wait(60)
        if self.trouble is not None:
            raise self.trouble
        self.texts.append(text)

    def close(self) -> None:
        pass


def notice(number: int, why: str) -> str:
    return f"{number} lost: {why}\n"


def stuck_writer(gate: Gate) -> Writer:
    """A writer whose thread waits for `gate`, with an empty buffer."""
    writer = Writer(gate, notice=notice, name="test")
    writer.put("first\n")
    assert gate.entered.wait(60)
    return writer


@pytest.mark.parametrize("limit", ["MAX_LINES", "MAX_CHARACTERS"])
def test_what_does_not_fit_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(_writer, limit, 3 if limit == "MAX_LINES" else 3 * len("line 1\n"))
    gate = Gate()
    writer = stuck_writer(gate)
    for number in range(10):
        writer.put(f"line {number}\n")  # nobody waits here
    assert repr(writer) == "<Writer test, 3 lines wait, 7 dropped>"
    gate.open.set()
    assert writer.flush(60)
    writer.put("last\n")
    writer.close(60)
    assert "".join(gate.texts).splitlines() == [
        "first",
        "line 0",
        "line 1",
        "line 2",
        "7 lost: they came faster than they could be written",
        "last",
    ]


def test_an_output_that_is_stuck_holds_up_the_end_for_a_bounded_time() -> None:
    gate = Gate()
    writer = stuck_writer(gate)
    writer.put("never\n")
    assert not writer.flush(0.01)
    writer.close(3600)  # the flush has waited
    gate.open.set()


def test_lines_that_an_output_has_lost_are_counted_and_told_later() -> None:
    gate = Gate()
    gate.open.set()
    gate.trouble = OSError(28, "No space left on device")
    writer = Writer(gate, notice=notice, name="test")
    writer.put("one\n")
    writer.put("two\n")
    assert writer.flush(60)
    writer.put("three\n")
    assert writer.flush(60)
    gate.trouble = None
    writer.put("four\n")
    writer.close(60)
    assert gate.texts == ["3 lost: No space left on device\nfour\n"]


def test_lines_of_many_threads_are_all_written() -> None:
    gate = Gate()
    gate.open.set()
    writer = Writer(gate, notice=notice, name="test")

    def put(name: int) -> None:
        for number in range(500):
            writer.put(f"{name} {number}\n")

    threads = [threading.Thread(target=put, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close(60)
    lines = "".join(gate.texts).splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in range(8) for number in range(500))
    assert len(gate.texts) < 400  # a batch, not a line, wakes the thread


def test_a_pipe_gets_whole_lines_that_the_kernel_takes_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    sizes = []

    def some(fd: int, piece: bytes) -> int:
        sizes.append(len(piece))
        assert piece.endswith(b"\n")
        return os.write(fd, piece)

    monkeypatch.setattr(_writer, "_write_some", some)
    text = "".join(f"{number} {'x' * (number % 900)}\n" for number in range(100))
    with open(write, "w", encoding="utf-8") as stream, open(read, "rb") as other:  # noqa: PTH123
        StreamOutput(stream).write(text)
        stream.close()
        assert other.read() == text.encode()
    assert max(sizes) <= 4096
    assert len(sizes) < 20


def test_a_pipe_that_somebody_has_made_nonblocking_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    text = "x" * 99 + "\n"
    with open(write, "w", encoding="utf-8") as stream, open(read, "rb") as other:  # noqa: PTH123
        writer = Writer(StreamOutput(stream), notice=notice, name="test")
        for _ in range(2000):  # more than a pipe holds
            writer.put(text)
        got = other.read(2000 * len(text))
        writer.close(60)
    assert got == text.encode() * 2000


def test_the_file_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_writer, "FILE_BYTES", 100)
    path = tmp_path / "a.log"
    output = FileOutput(path)
    for number in range(9):
        output.write(f"{number}" * 59 + "\n")
    output.close()
    names = ["a.log", *(f"a.log.{number}" for number in range(1, 6))]
    assert sorted(each.name for each in tmp_path.iterdir()) == names
    assert [(tmp_path / name).read_text()[0] for name in names] == ["8", "7", "6", "5", "4", "3"]


def test_a_file_that_others_have_moved_or_removed_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    output, other = FileOutput(path), FileOutput(path)
    output.write("one\n")
    path.rename(tmp_path / "moved")
    other.write("two\n")
    output.write("three\n")
    assert path.read_text() == "two\nthree\n"
    path.unlink()
    output.write("four\n")
    assert path.read_text() == "four\n"
    for each in (output, other):
        each.close()


def test_a_line_that_was_torn_by_a_full_disk_does_not_tear_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = FileOutput(tmp_path / "a.log")
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        if real(fd, bytes(data)[:3]) and len(data) > 3:
            raise OSError(28, "No space left on device")
        return len(data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        output.write("torn line\n")
    monkeypatch.setattr(os, "write", real)
    output.write("whole line\n")
    output.close()
    assert (tmp_path / "a.log").read_text() == "tor\nwhole line\n"


def test_a_finalizer_that_logs_at_any_step_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector runs finalizers between any two steps; here one runs at each of them in turn."""
    monkeypatch.setattr(_writer, "LINGER", 0)
    steps = 0
    written: list[str] = []

    def use(at: int) -> None:
        nonlocal steps
        gate = Gate()
        gate.open.set()
        writer = Writer(gate, notice=notice, name="test")
        steps = 0

        def step(*_: object) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                writer.put("of a finalizer\n")
            return step

        sys.settrace(step)
        try:
            writer.put("a line\n")
            writer.flush(60)
            writer.flush(60)
            writer.close(60)
        finally:
            sys.settrace(None)
        written.append("".join(gate.texts))

    use(0)
    for at in range(1, steps + 1):
        thread = threading.Thread(target=use, args=(at,), daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), f"stuck at step {at}"
    assert all(sorted(text.splitlines()) == ["a line", "of a finalizer"] for text in written[1 : steps // 2])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_writes_its_own_lines_and_not_those_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = Writer(FileOutput(path), notice=notice, name="test")
    writer.put("of the parent\n")
    pid = os.fork()
    if not pid:
        try:
            writer.put("of the child\n")
            writer.flush()
            writer.put("of the child, too\n")
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    writer.put("of the parent, too\n")
    writer.close(60)
    assert sorted(path.read_text().splitlines()) == [
        "of the child",
        "of the child, too",
        "of the parent",
        "of the parent, too",
    ]
