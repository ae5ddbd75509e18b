"""A profile of each job: pyinstrument, viztracer or yappi around the author's code, one file for each job.

    DIGITALKIN_PROFILER=pyinstrument dk-trio serve module.py    # profiles/<job id>_<UTC time>.html

What each sees of a job among others that run at the same time:

- pyinstrument samples every millisecond and follows the context that a job's tasks inherit, so each job has a profile
  of its own, and the time that it waits is in it. Its tree is in the log as well.
- yappi counts every call. It is told the task in which a call is made, since it would count waiting as running
  otherwise, and the job, by which its numbers are taken apart.
- viztracer writes a timeline of everything that the thread does, other jobs too. There is one in a process, so while it
  traces one job others are not traced, and the log says so.

A profile is rendered and written in a thread, one after the other. A job never fails because its profile does.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import trio

from dk_trio.boundary import unwrapped
from dk_trio.errors import ConfigurationError, MissingPackageError
from dk_trio.hooks import Job, JobHook

from ._part import Observed, Part

if TYPE_CHECKING:
    from dk_trio.settings import ObserveSettings

_log = logging.getLogger("dk_trio.profiler")

MAX_WAITING: Final = 16
"""Profiles that wait to be written; each may be tens of MiB. One more is lost, and the log says so."""

WRITE_GRACE: Final = 10.0
"""Seconds that a server which ends goes on writing profiles."""

MAX_TAGS: Final = 1000
"""Jobs whose numbers yappi keeps: it forgets them when none of them runs any more, and takes no others before."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")

Write = Callable[[Path], str]
"""Writes a profile, and returns what of it belongs into the log."""


class Busy(Exception):
    """The job cannot be profiled now; the text says why."""


class Profiler(Protocol):
    """One of the three, loaded."""

    suffix: str

    def start(self) -> Callable[[], Write]:
        """Profile what follows in this task and in those that it starts.

        Returns:
            What ends that.

        Raises:
            Busy: Not this time.
        """
        ...


class Profilers(Part, JobHook):
    """Profiles each job.

    Args:
        settings: Which profiler, which must not be "none", and where its files go.

    Raises:
        MissingPackageError: It is not installed.
        ConfigurationError: The directory cannot be used.
    """

    def __init__(self, settings: ObserveSettings) -> None:
        self.hooks = (self,)
        self._name = settings.profiler
        self._directory = settings.profile_output_dir
        self._profiler = _loaded(self._name)
        _prepare(self._directory)
        self._finished, self._profiles = trio.open_memory_channel[tuple[str, Path, Write]](MAX_WAITING)

    @contextmanager
    def around(self, job: Job) -> Iterator[None]:
        """Profile the author's code of one job."""
        stop = self._started(job.ids.job_id)
        try:
            yield
        finally:
            if stop is not None:
                self._stopped(job.ids.job_id, stop)

    def _started(self, job_id: str) -> Callable[[], Write] | None:
        try:
            return self._profiler.start()
        except Busy as why:
            _log.warning("job %s is not profiled: %s", job_id, why)
        except Exception:  # noqa: BLE001  boundary: a profiler that fails is no failure of the job
            _log.exception("job %s is not profiled: %s does not start", job_id, self._name)
        return None

    def _stopped(self, job_id: str, stop: Callable[[], Write]) -> None:
        name = f"{_UNSAFE.sub('-', job_id)}_{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.{self._profiler.suffix}"
        try:
            self._finished.send_nowait((job_id, self._directory / name, stop()))
        except trio.WouldBlock:
            _log.warning("the profile of job %s is lost: %d others wait to be written", job_id, MAX_WAITING)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            _log.warning("the profile of job %s is lost: the server has ended", job_id)
        except Exception:  # noqa: BLE001  boundary: a profiler that fails is no failure of the job
            _log.exception("the profile of job %s is lost", job_id)

    @asynccontextmanager
    async def opened(self, observed: Observed) -> AsyncIterator[None]:
        """Write profiles for the length of the block; at its end those that wait, for `WRITE_GRACE` seconds at most."""
        async with unwrapped(), trio.open_nursery() as nursery:
            scope = await nursery.start(self._write_all)
            try:
                yield
            finally:
                self._finished.close()
                scope.deadline = trio.current_time() + WRITE_GRACE

    async def _write_all(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope(shield=True) as scope, self._profiles:  # `opened` gives it a deadline
            task_status.started(scope)
            async for job_id, path, write in self._profiles:
                try:
                    text = await trio.to_thread.run_sync(write, path, abandon_on_cancel=True)
                except Exception:  # noqa: BLE001  boundary: a full disk, or a profiler's defect, costs this one profile
                    _log.exception("the profile of job %s could not be written to %s", job_id, path)
                else:
                    _log.info("job %s: profile %s%s", job_id, path, text)


def _loaded(name: str) -> Profiler:
    kinds: dict[str, Callable[[], Profiler]] = {
        "pyinstrument": _Pyinstrument,
        "viztracer": _Viztracer,
        "yappi": _Yappi,
    }
    try:
        return kinds[name]()
    except ImportError as error:
        raise MissingPackageError(
            f"DIGITALKIN_PROFILER={name} needs the package {name}, which cannot be imported: {error}.",
            hint="Install the extra: pip install 'dk-trio[profiling]'.",
        ) from error


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise ConfigurationError(
            f"DIGITALKIN_PROFILE_OUTPUT_DIR={directory} cannot be used: {error.strerror}.",
            hint="Name a directory that the server may write to.",
        ) from error


class _Pyinstrument:
    suffix = "html"

    def __init__(self) -> None:
        from pyinstrument import Profiler

        self._make = Profiler

    def start(self) -> Callable[[], Write]:
        profiler = self._make(async_mode="enabled")
        try:
            profiler.start()
        except RuntimeError as error:  # of the job that has opened this job's connection, within this process
            raise Busy("it was called by a job of this process that is profiled") from error

        def stop() -> Write:
            profiler.stop()
            return write

        def write(path: Path) -> str:
            path.write_text(profiler.output_html(), encoding="utf-8")
            return "\n" + profiler.output_text(unicode=True, color=False)

        return stop


class _Viztracer:
    suffix = "json"

    def __init__(self) -> None:
        from viztracer import VizTracer

        self._make = VizTracer
        self._busy = False

    def start(self) -> Callable[[], Write]:
        if self._busy:
            raise Busy("viztracer traces another one, or writes it down")
        tracer = self._make(verbose=0)
        tracer.start()
        self._busy = True

        def stop() -> Write:
            try:
                tracer.stop()
            except BaseException:
                self._busy = False
                raise
            return write

        def write(path: Path) -> str:
            try:
                tracer.save(output_file=str(path))
            finally:
                try:
                    tracer.terminate()
                finally:
                    self._busy = False
            return ""

        return stop


class _Yappi:
    suffix = "pstats"

    def __init__(self) -> None:
        import yappi

        self._yappi = yappi
        self._tags = count(1)
        self._running = 0
        self._kept = 0

    def start(self) -> Callable[[], Write]:
        yappi = self._yappi
        if self._kept >= MAX_TAGS:
            raise Busy(f"yappi has the numbers of {MAX_TAGS} jobs, and forgets them when none of these runs any more")
        if not self._running:
            yappi.clear_stats()
            yappi.set_clock_type("wall")
            yappi.set_context_id_callback(_task_id)
            yappi.set_tag_callback(lambda: _TAG.get())  # noqa: PLW0108  the bound method gives yappi wrong tags
            yappi.start(builtins=False, profile_threads=True)
        self._running += 1
        self._kept += 1
        tag = next(self._tags)
        _TAG.set(tag)

        def stop() -> Write:
            try:
                stats = yappi.get_func_stats(tag=tag)
            finally:
                self._running -= 1
                if not self._running:
                    yappi.stop()
                    yappi.clear_stats()
                    self._kept = 0

            def write(path: Path) -> str:
                stats.save(str(path), type="pstat")
                return ""

            return write

        return stop


_TAG: Final[ContextVar[int]] = ContextVar("dk_trio_profile", default=0)
"""Number of the job that this task works for."""


def _task_id() -> int:
    try:
        return id(trio.lowlevel.current_task())
    except RuntimeError:  # between two tasks, or in a thread
        return 0
