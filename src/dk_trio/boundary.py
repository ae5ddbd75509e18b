"""The boundary around an author's code: what it raises is that job's failure, explained, and nothing else's.

Three things a module can do must not reach beyond its job: raise (anything, SystemExit and a Rust panic too), raise
while it is being cancelled, and return with a nursery or a cancel scope left open. The first two are caught by
`authors_code`; against the third `apart` gives the code a task of its own, since Trio can only restore what is broken
there when the task ends.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FrameType, TracebackType
from typing import Final

import trio
from grpclib.exceptions import GRPCError

from dk_trio.errors import DkTrioError, ModuleFailedError, TaskLeftBehindError

_log = logging.getLogger("dk_trio.session")


class authors_code:  # noqa: N801  a context manager, used as a function
    """Turn whatever the author's code in the block raises into one `DkTrioError`.

    Logs the author's traceback and raises `kind` with the author's exception as its cause. A `DkTrioError` that the
    author raised stays what it is. SystemExit, GeneratorExit, a panic of a Rust extension, asyncio's CancelledError
    count, alone or out of a nursery: a module must not end the server. `trio.Cancelled` and KeyboardInterrupt pass.

    A class and not a generator: every job enters four.

    Args:
        kind: The error of this part of the author's code.
        job_id: For the log.
    """

    __slots__ = ("_job_id", "_kind")

    def __init__(self, kind: type[ModuleFailedError], job_id: str) -> None:
        self._kind = kind
        self._job_id = job_id

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        passing, own = split(error)
        if passing is not None:
            if own is not None:
                _log.error("job %s: failed while it was cancelled", self._job_id, exc_info=own)
                raise passing from None
            return
        cause = only_cause(error)
        if isinstance(cause, DkTrioError):
            if cause is not error:
                raise cause from cause.__cause__
            return
        _log.error("job %s: %s", self._job_id, self._kind.short_description, exc_info=error)
        raise (left_open() if _is_corruption(cause) else self._kind(explain_failure(error))) from cause


async def apart(
    body: Callable[[], Awaitable[None]], *, name: str, patience: float, goes_on: Callable[[list[str]], None]
) -> None:
    """Run `body` in a task of its own and wait for it. What it raises comes out as it is, not in a group.

    Args:
        body: The author's code.
        name: Of the task.
        patience: Seconds that cancelled code may take to end.
        goes_on: Called once with the places where the code is, see `places`, when it takes longer. It is waited for
            all the same.

    Raises:
        TaskLeftBehindError: The task ended with a nursery or a cancel scope still open.
    """
    ended = trio.Event()

    async def task() -> None:
        try:
            await body()
        finally:
            ended.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task, name=name)
            try:
                await ended.wait()
            except trio.Cancelled:
                with trio.move_on_after(patience, shield=True) as scope:
                    await ended.wait()
                if scope.cancelled_caught:
                    goes_on(places(nursery))
                raise
    except BaseExceptionGroup as group:
        raise from_nursery(group) from None


async def contained(body: Callable[[], Awaitable[None]], *, name: str) -> BaseException | None:
    """Run a piece of an author's code in a task of its own, and return what it has raised in place of raising it.

    Args:
        body: The author's code.
        name: Of the task, and for the log.

    Raises:
        trio.Cancelled: A surrounding scope was cancelled. What the code has made of that is in the log.
        KeyboardInterrupt: As ever.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body, name=name)
    except BaseException as error:  # noqa: BLE001  boundary: an author's code, whose failure is its own job's
        passing, own = split(error)
        if own is None:
            raise only_cause(error) from None
        cause = only_cause(own)
        if _is_corruption(cause):
            return left_open()
        if passing is not None:
            _log.error("%s failed while it was cancelled", name, exc_info=own)
            raise only_cause(passing) from None
        return cause
    return None


def from_nursery(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a nursery with one author's task has raised: Trio's complaint about that task explained, others as is."""
    passing, own = group.split(_passes)
    if own is None:
        assert passing is not None
        return only_cause(passing)
    cause = only_cause(own)
    return left_open() if _is_corruption(cause) else cause


def _is_corruption(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "stack corrupted" in str(error)


def left_open() -> TaskLeftBehindError:
    """The author's code has returned, and not all of its tasks have ended."""
    return TaskLeftBehindError(
        "The module returned with a nursery or a cancel scope still open, so tasks were left behind.",
        hint="Open nurseries and cancel scopes with `async with` and `with`, never by __aenter__ alone.",
    )


def explain_failure(error: BaseException) -> str:
    """What an author's exception says, for the caller: `ValueError: no such file`; of a group all that it holds."""
    try:
        return _explain(error)
    except Exception:  # noqa: BLE001  boundary: what an exception says of itself is an author's code
        return f"{type(error).__name__}, which raises when it is asked for its text"


def _explain(error: BaseException) -> str:
    error = only_cause(error)
    if isinstance(error, BaseExceptionGroup):
        parts = "; ".join(explain_failure(part) for part in error.exceptions)
        return f"{len(error.exceptions)} errors: {parts}"
    if isinstance(error, GRPCError):  # of a call that the module made; its own text is a tuple
        return f"{error.status.name}: {error.message}"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


SWALLOWS: Final = (
    "it catches trio.Cancelled, or BaseException, and does not raise it again, or it shields itself, or it waits for a "
    "thread"
)
"""Why code goes on although it was cancelled."""


def places(nursery: trio.Nursery) -> list[str]:
    """Where the author's code in a nursery waits: `FILE:LINE in FUNCTION` of each task that waits for no other.

    Told is the innermost frame that is neither Trio's nor ours, since those say the same of every module.
    """
    found = []
    for task in nursery.child_tasks:
        inner = [place for child in task.child_nurseries for place in places(child)]
        if not inner:
            frames = [(frame, line) for frame, line in task.iter_await_frames() if not _library(frame)]
            inner = [f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}" for frame, line in frames[-1:]]
        found += inner
    return found


def _library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in {"trio", "dk_trio"}


def split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What is not an author's failure and goes on (cancellation, Ctrl-C), apart from what is."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(_passes)
    return (error, None) if _passes(error) else (None, error)


def only_cause(error: BaseException) -> BaseException:
    """The one exception inside a group of one; other errors as they are."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _passes(error: BaseException) -> bool:
    return isinstance(error, (trio.Cancelled, KeyboardInterrupt))


@asynccontextmanager
async def unwrapped() -> AsyncIterator[None]:
    """Around a nursery that is ours and not the caller's: an exception of the caller's block goes on as it was.

        async with unwrapped(), trio.open_nursery() as nursery:
            yield

    Several exceptions at once stay a group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__
