"""All tasks of the loop, each below the nursery that it cannot outlive: where it waits, and for how long.

    surveyor = Surveyor()
    survey = await surveyor.survey()  # in slices, so that others run between them
    for line in lines(survey): ...

Trio does not keep how long a task has waited, and an Instrument that did would cost 20 % of every step of every task.
But each task counts its steps, and a survey keeps these counts: a task whose count is the same as in an earlier survey
has waited at least since then, and at the same place. So a time is a lower bound, and as precise as surveys are close:
one second while somebody looks, nothing at all in the first one.

A server may have tens of thousands of tasks, most of them alike: tasks of one nursery with the same name, the same
place and the same tasks below them are told as one, with their number and the longest of their waits.
"""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import trio
from trio.lowlevel import Task

import dk_trio
from dk_trio.frames import authors_frame, place
from dk_trio.log_context import CURRENT

SLICE: Final = 100
"""Tasks that are looked at in one go: up to 4 ms."""

ALIKE: Final = 3
"""As many tasks of one nursery are told one by one, although they are alike."""

NODES_MAX: Final = 2000
"""Tasks or groups of them that are told at all; what is beyond is only counted. 0.5 MB of JSON."""

DEPTH_MAX: Final = 100
"""Nurseries within nurseries that are told; an author's code may have as many as it likes."""

_ID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-f]{6,}|\b\d+\b")
_INSTALLED: Final = re.compile(rf"^.*/(?:site|dist)-packages/|^{re.escape(str(Path(dk_trio.__file__).parents[1]))}/")
_PRIVATE: Final = re.compile(r"^.*<locals>\.|^(dk_trio|trio)\.(_\w+\.)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNode:
    """A task, or several that are alike.

    Attributes:
        name: Of the task; where there are several, with `*` for ids and numbers.
        count: How many there are.
        job: The job that it works for; empty when there is none, and where there are several.
        waits: What it has called that waits, such as `Event.wait`; empty when it was about to run.
        at: Its innermost line outside of Trio.
        author: Its innermost line of an author's code; empty when there is none.
        seconds: It has waited for at least so long; of several, the longest. None when that is not known yet.
        nurseries: The nurseries that it has open, outermost first, each with its tasks.
        more: Tasks below it that are not told, because there are too many.
    """

    name: str
    count: int
    job: str
    waits: str
    at: str
    author: str
    seconds: float | None
    nurseries: tuple[tuple[TaskNode, ...], ...]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The tasks of a loop at one time.

    Attributes:
        total: How many there are.
        root: The first of them; the others are below it.
        precision: Seconds since the survey before; what a task's `seconds` may lack. None in the first survey.
    """

    total: int
    root: TaskNode
    precision: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class Surveyor:
    """Looks at the tasks of the loop that it is made on, again and again. It keeps no task alive."""

    def __init__(self) -> None:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        self._root = root
        self._clock = trio.lowlevel.current_clock()
        self._here = ""
        with contextlib.suppress(OSError):  # the working directory may be gone
            self._here = f"{Path.cwd()}/"
        self._marks: weakref.WeakKeyDictionary[Task, _Mark] = weakref.WeakKeyDictionary()
        self._last: float | None = None

    def forget(self) -> None:
        """Nobody looks any more: the next survey is a first one."""
        self._marks.clear()
        self._last = None

    async def survey(self) -> Survey:
        """Look at all tasks. Others run meanwhile, so it is not quite one moment that is told."""
        steps = self._survey()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                survey: Survey = end.value
                return survey
            await trio.lowlevel.checkpoint()

    def survey_now(self) -> Survey:
        """Look at all tasks in one go, which takes up to 40 µs for each. Also from a thread, while the loop is blocked.

        Raises:
            RuntimeError: The loop is not blocked, and has disturbed it.
        """
        steps = self._survey()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                survey: Survey = end.value
                return survey

    def _survey(self) -> Generator[None, None, Survey]:
        root, now = self._root, self._clock.current_time()
        last, self._last = self._last, now
        tasks = [root]
        for task in tasks:  # it grows meanwhile: breadth first
            tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        seen: dict[Task, _Seen] = {}
        for number, task in enumerate(tasks):
            if number % SLICE == SLICE - 1:
                yield
            seen[task] = _Seen(task, *self._wait(task, now))
        budget = _Budget(NODES_MAX)
        for number, task in enumerate(reversed(tasks)):  # those below first
            if number % SLICE == SLICE - 1:
                yield
            seen[task].gather(seen)
        yield
        return Survey(
            total=len(tasks),
            root=seen[root].node(budget),
            precision=None if last is None else now - last,
        )

    def _wait(self, task: Task, now: float) -> tuple[_Wait, float | None]:
        """Where a task waits, and for how long at least."""
        steps = getattr(task, "_schedule_points", -1)  # what trio.testing's assert_checkpoints reads
        before = self._marks.get(task)
        if before is not None and before.steps == steps >= 0:
            return before.wait, now - before.since
        wait = _Wait.of(task, self._here)
        self._marks[task] = _Mark(steps, now, wait)
        return wait, None if before is None or steps < 0 else 0.0


def lines(survey: Survey) -> Iterator[str]:
    """The tree as text, one task a line."""
    yield f"{survey.total} tasks"
    yield from _lines(survey.root, "")


def _lines(node: TaskNode, indent: str) -> Iterator[str]:
    where = " at ".join(filter(None, [node.waits, node.author or node.at]))
    words = [
        f"{node.count} x {node.name}" if node.count > 1 else node.name,
        f"[job {node.job}]" if node.job and node.job not in node.name else "",
        f"- {where}" if where else "",
        f"(for at least {node.seconds:.0f} s)" if node.seconds is not None and node.seconds >= 1 else "",
    ]
    yield indent + " ".join(filter(None, words))
    for number, nursery in enumerate(node.nurseries):
        below = f"{indent}  "
        if len(node.nurseries) > 1:
            yield f"{below}nursery {number + 1}"
            below += "  "
        for child in nursery:
            yield from _lines(child, below)
    if node.more:
        yield f"{indent}  ... {node.more} more"


class _Budget:
    def __init__(self, left: int) -> None:
        self.left = left


class _Wait(NamedTuple):
    """What a task has called that waits, its innermost line outside of Trio, and that of an author."""

    call: str = ""
    at: str = ""
    author: str = ""

    @classmethod
    def of(cls, task: Task, here: str) -> _Wait:
        frames: list[tuple[FrameType, int]] = []
        with contextlib.suppress(TypeError):  # it awaits something that Trio does not know: the frames up to there
            frames.extend(task.iter_await_frames())
        if not frames:
            return cls()
        inner = len(frames) - 1
        while inner > 0 and str(frames[inner][0].f_globals.get("__name__")).partition(".")[0] in {"trio", "outcome"}:
            inner -= 1
        called = frames[inner + 1][0].f_code.co_qualname if inner + 1 < len(frames) else ""
        author = authors_frame(frames)
        at = _below(here, place(*frames[inner]))
        return cls(_CALLS.get(called, called), at, "" if author is None else _below(here, place(*author)))


_CALLS: Final = {
    "Nursery._nested_child_finished": "the end of its nursery",
    "NurseryManager.__aexit__": "the end of its nursery",
}


def _below(here: str, told: str) -> str:
    """A place in an installed package, or in this one, from that package on; one in `here` from there on."""
    return _INSTALLED.sub("", told).removeprefix(here)


class _Mark(NamedTuple):
    steps: int
    since: float
    wait: _Wait


class _Seen:
    """What was seen of one task, and of those below it."""

    __slots__ = ("job", "key", "name", "nurseries", "seconds", "task", "total", "wait")

    def __init__(self, task: Task, wait: _Wait, seconds: float | None) -> None:
        self.task = task
        self.wait = wait
        self.seconds = seconds
        self.name = _PRIVATE.sub("", task.name)
        context = task.context.get(CURRENT)
        self.job = context.get("job", "") if context else ""
        self.nurseries: list[list[list[_Seen]]] = []
        self.total = 0
        self.key = 0

    def gather(self, seen: dict[Task, _Seen]) -> None:
        """Put those below it into groups of the same key. Those that came meanwhile are left out."""
        for nursery in self.task.child_nurseries:
            groups: dict[int, list[_Seen]] = {}
            for child in nursery.child_tasks:
                below = seen.get(child)
                if below is not None:
                    groups.setdefault(below.key, []).append(below)
                    self.total += 1 + below.total
            if groups:
                self.nurseries.append(sorted(groups.values(), key=lambda group: (len(group), group[0].name)))
        shape = tuple(frozenset((group[0].key, len(group)) for group in groups) for groups in self.nurseries)
        self.key = hash((_ID.sub("", self.name), self.wait, shape))

    def node(self, budget: _Budget, depth: int = 0, *, one_of: int = 1, alike: bool = False) -> TaskNode:
        """As it is told. Of several that are alike it stands for the others, without what is its own."""
        budget.left -= 1
        alike = alike or one_of > 1
        told = 0
        nurseries = []
        for groups in self.nurseries:
            nodes = []
            for group in groups:
                longest = sorted(group, key=lambda each: -(each.seconds or 0.0))
                number = 1 if len(group) <= ALIKE else len(group)
                for head in longest if number == 1 else longest[:1]:
                    if budget.left > 0 and depth < DEPTH_MAX:
                        nodes.append(head.node(budget, depth + 1, one_of=number, alike=alike))
                        told += number * (1 + head.total)
            nurseries.append(tuple(nodes))
        return TaskNode(
            name=_ID.sub("*", self.name) if alike else self.name,
            count=one_of,
            job="" if alike else self.job,
            waits=self.wait.call,
            at=self.wait.at,
            author=self.wait.author,
            seconds=self.seconds,
            nurseries=tuple(nurseries),
            more=max(0, self.total - told),
        )
