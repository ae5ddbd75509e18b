"""What a piece of code has left behind: tasks of the run, file descriptors, threads."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final
from weakref import WeakSet

import trio

from dk_trio.frames import authors_frame, place

from .clock import tasks_below, threads_since

GRACE: Final = 1.0
"""Real seconds that threads get to end, which have nothing to do any more."""

_LOOK_AGAIN: Final = 0.005
_DESCRIPTORS: Final = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")


class LeakError(AssertionError):
    """Something was left behind; says what.

    Attributes:
        left: What, one text for each.
    """

    def __init__(self, left: list[str]) -> None:
        super().__init__(f"{len(left)} left behind:" + "".join(f"\n  {what}" for what in left))
        self.left = left


class LeakWatch(trio.abc.Instrument):
    """What there was when it was made, to be compared with what there is later.

    A run that has it among its `instruments` is watched, too: no task may be there when its main task has ended. Only
    system tasks can be; all others belong to a nursery.
    """

    def __init__(self) -> None:
        self._tasks = _tasks()
        self._descriptors = _descriptors()
        self._threads = WeakSet(threading.enumerate())
        self._survivors: list[str] = []

    def __repr__(self) -> str:
        return (
            f"<LeakWatch {len(self._tasks)} tasks, {len(self._descriptors)} descriptors, {len(self._threads)} threads>"
        )

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        if task is runner.main_task and runner.system_nursery is not None:
            self._survivors += [f"task {_told(each)}" for each in runner.system_nursery.child_tasks if each is not task]

    def left(self, *, grace: float = GRACE) -> list[str]:
        """What is there now and was not then: a text for each task, thread and file descriptor.

        Args:
            grace: Real seconds that threads get to end. They are waited for without a checkpoint.
        """
        left = [*self._survivors, *(f"task {_told(task)}" for task in _tasks() if task not in self._tasks)]
        left += _left_threads(self._threads, grace)
        new = _descriptors() - self._descriptors
        if new:
            gc.collect()  # what nobody holds is closed now and not at any time
            new &= _descriptors()
        return left + [f"file descriptor {number}: {target}" for number, target in sorted(new)]


@contextmanager
def assert_no_leaks(*, grace: float = GRACE) -> Iterator[None]:
    """Check that the block leaves nothing behind: no task, no file descriptor, no thread.

    It may be around code of any kind, and inside a run around async code; then tasks of the run count too. Threads that
    Trio keeps for its next use are not left behind. What the block raises goes before.

    Args:
        grace: Real seconds that threads get to end. They are waited for without a checkpoint.

    Raises:
        LeakError: Names each task with the place where it waits, the target of each descriptor, and each thread.
    """
    watch = LeakWatch()
    yield
    left = watch.left(grace=grace)
    if left:
        raise LeakError(left)


def _tasks() -> WeakSet[trio.lowlevel.Task]:
    """All tasks of the run; none outside of one."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return WeakSet()
    return WeakSet(() if root is None else tasks_below(root))


def _told(task: trio.lowlevel.Task) -> str:
    """Its name, and its innermost line outside of Trio, the author's if there is one."""
    frames = [each for each in task.iter_await_frames() if not _of_trio(each[0])]
    if not frames:
        return task.name
    return f"{task.name}, at {place(*(authors_frame(frames) or frames[-1]), source=True)}"


def _of_trio(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("trio.")


def _descriptors() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208  iterdir keeps a descriptor open while it is read
        with suppress(OSError):  # the one that the list was read with
            found.add((int(name), _target(name)))
    return found


def _target(name: str) -> str:
    """What a descriptor stands for; empty where the system does not say."""
    os.fstat(int(name))
    path = _DESCRIPTORS / name
    return str(path.readlink()) if path.is_symlink() else ""


def _left_threads(before: WeakSet[threading.Thread], grace: float) -> list[str]:
    until = time.monotonic() + grace
    while True:
        left = threads_since(before)
        if not left or time.monotonic() >= until:
            return [f"thread {thread.name}" for thread in left]
        time.sleep(_LOOK_AGAIN)
