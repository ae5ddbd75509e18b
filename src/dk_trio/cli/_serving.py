"""What `dk-trio serve` does once its options are read: compose a server, and run it, or say what it would be."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from ._exits import Exit, exit_of
from ._threads import leave_threads_behind

if TYPE_CHECKING:
    from trio import TaskStatus

    from dk_trio.observe import Observation, Observed
    from dk_trio.server import DrainReport, ModuleServer
    from dk_trio.settings import Settings
    from dk_trio.workers import Post
    from dk_trio.workers.link import WorkerLink

_log = logging.getLogger("dk_trio.serve")

COLLECT_EVERY: Final = (10_000, 20, 20)
"""`gc.set_threshold` of a server: a few MiB of garbage at most, for a quarter of the time in the collector."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be served.

    Attributes:
        settings: Of the process.
        targets: Files or dotted names, each with its class.
        setups: Files of setups; with several modules, `MODULE=FILE`.
        strict_setup: See `ModuleServer`.
        post: Where this process is one of several workers.
    """

    settings: Settings
    targets: Sequence[str]
    setups: Sequence[str] = ()
    strict_setup: bool = False
    post: Post | None = None

    def setup_files(self) -> Path | dict[str, Path] | None:
        """For `ModuleServer`."""
        if len(self.targets) == 1 and len(self.setups) <= 1:
            return Path(self.setups[0]) if self.setups else None
        files: dict[str, Path] = {}
        for text in self.setups:
            module_id, equals, path = text.partition("=")
            if not equals:
                raise click.BadParameter(
                    f"{text!r} does not say which module it is for; write MODULE=FILE.json.", param_hint="--setup"
                )
            files[module_id] = Path(path)
        return files

    def composed(self, observation: Observation | None = None) -> tuple[ModuleServer, dict[str, str]]:
        """The server, and the target of each module by its id.

        Raises:
            DkTrioError: Something cannot be loaded, or not be served as it is.
        """
        from dk_trio.server import ModuleServer

        from ._load import load_module

        for number, target in enumerate(self.targets):
            if target in self.targets[:number]:
                raise click.UsageError(f"{target} is named twice: one server serves a module once.")
        watched: dict[str, Any] = {}
        if observation is not None:
            watched = {
                "interceptors": observation.interceptors,
                "client_interceptors": observation.client_interceptors,
                "hooks": observation.hooks,
            }
        if self.post is not None:
            from dk_trio.workers.link import UnkeptPlatform

            watched["platform"] = UnkeptPlatform()
        server = ModuleServer(
            *(load_module(target) for target in self.targets),
            settings=self.settings,
            setup_file=self.setup_files(),
            strict_setup=self.strict_setup,
            **watched,
        )
        return server, dict(zip(server.modules, self.targets, strict=True))


def serve(wanted: Wanted, stdout: TextIO | None, *, reload: bool = False) -> None:
    """Serve until a signal comes.

    Raises:
        DkTrioError: Something cannot be loaded, or not be served as it is.
    """
    import trio

    from dk_trio.errors import DkTrioError
    from dk_trio.observe import Observation

    link = _link(wanted.post)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # before and after there are tasks to tell of it would end us
    try:
        with uncollected():
            observation = Observation(wanted.settings, worker=0 if wanted.post is None else wanted.post.number)
            server, targets = wanted.composed(observation)
            report = trio.run(_run, wanted, server, observation, targets if reload else None, link, stdout)
    except DkTrioError as error:
        if link is None:
            raise
        link.failed(error.text)  # and the parent tells it, once for all
        sys.exit(exit_of(error))
    for number in (signal.SIGTERM, signal.SIGINT):  # nothing is left to hasten: what is done is exit code 0
        signal.signal(number, signal.SIG_IGN)
    _log.info("stopped: %s", told(report))
    leave_threads_behind()


async def _run(
    wanted: Wanted,
    server: ModuleServer,
    observation: Observation,
    reloaded: Mapping[str, str] | None,
    link: WorkerLink | None,
    stdout: TextIO | None,
) -> DrainReport:
    import trio

    from dk_trio.boundary import unwrapped
    from dk_trio.observe import Observed

    grace = wanted.settings.server.grace
    worker = 0 if link is None else link.post.number

    def ready(address: str) -> None:
        collect_seldom()
        if link is not None:
            link.ready()
        else:
            tell_ready(stdout, address)

    def leave(report: DrainReport) -> None:
        # Trio waits for every task, as it must; these do not end, and whoever sent the signal wants the process gone.
        if link is not None:
            link.drained(finished=report.finished, cut=report.cut)
        _log.error("stopped around %d jobs that do not end: %s", report.stuck, told(report))
        logging.shutdown()
        os._exit(Exit.STUCK)

    async with unwrapped(), trio.open_nursery() as last, AsyncExitStack() as stack:
        stack.callback(last.cancel_scope.cancel)
        apart: dict[str, Any] = {}
        if link is not None:
            await stack.enter_async_context(server.platform.opened())
            await stack.enter_async_context(
                link.opened(rpcs=lambda: server.statistics().rpc.rpcs, answer=server.directory.answer)
            )
            server.directory.join(link.ask)
            apart = {
                "host": link.post.host,
                "port": link.post.port,
                "listeners": [link.listener],
                "signals": link.orders,
                "others_stay": link.others_stay,
                "instance": link.post.instance,
            }
        observed = Observed(modules=lambda: [server], worker=worker)
        if link is None or not link.post.beside:
            await stack.enter_async_context(observation.opened(observed))
        else:
            await stack.enter_async_context(_observed_when_alone(observation, observed, link))
        if reloaded is not None:
            await stack.enter_async_context(_reloading(server, reloaded))
        report = await server.serve(grace=grace, on_ready=ready, on_stuck=leave, **apart)
        if link is not None:
            link.drained(finished=report.finished, cut=report.cut)
        else:
            await last.start(leave_at_a_signal)
        return report
    raise AssertionError("unreachable")


@asynccontextmanager
async def _observed_when_alone(observation: Observation, observed: Observed, link: WorkerLink) -> AsyncIterator[None]:
    """Serve at once, and listen for metrics and the inspector when the predecessor has left their ports."""
    import trio

    from dk_trio.boundary import unwrapped
    from dk_trio.errors import DkTrioError

    async def look() -> None:
        await link.alone()
        try:
            async with observation.opened(observed):
                await trio.sleep_forever()
        except DkTrioError as error:
            _log.error("nothing looks at this worker: %s", error.text)

    async with unwrapped(), trio.open_nursery() as nursery:
        nursery.start_soon(look)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _reloading(server: ModuleServer, targets: Mapping[str, str]) -> AsyncIterator[None]:
    import trio

    from dk_trio.boundary import unwrapped

    from ._reload import Reloader

    reloader = Reloader(server, targets)
    _log.info("code is loaded anew when a Python file changes in %s", ", ".join(map(str, reloader.folders)))
    async with unwrapped(), trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run)
        yield
        nursery.cancel_scope.cancel()


def _link(post: Post | None) -> WorkerLink | None:
    if post is None:
        return None
    from dk_trio.workers.link import WorkerLink

    return WorkerLink(post)


# --- the process -----------------------------------------------------------------------------------------------------


def told(report: DrainReport) -> str:
    """A drain in words."""
    return f"{report.finished} jobs finished while draining, {report.cut} were cut"


async def leave_at_a_signal(*, task_status: TaskStatus[None]) -> None:
    """Everything is served. Whoever sends another signal does not wait for what was seen last to be written down."""
    import trio

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        number = await anext(signals)
        _log.warning("%s again: traces and profiles that wait to be written are left", signal.Signals(number).name)
        logging.shutdown()
        os._exit(Exit.OK)


def collect_seldom() -> None:
    """Tell the collector that it serves."""
    # No job runs while the collector does. What has been loaded stays, so it need not be looked through again; and with
    # thousands of jobs a pass for each 700 new objects, Python's default, finds next to nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)
    gc.enable()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """The collector rests while a server is loaded: what is imported stays, and its passes are an eighth of a start.

    Ends with `collect_seldom`, or with the block.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def stdout_apart() -> Iterator[TextIO | None]:
    """The real stdout, for the block alone: what a module and its child processes print goes to stderr."""
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            number, error_number = stdout.fileno(), sys.stderr.fileno()
        except (AttributeError, OSError):  # none at all, or a buffer in place of a file
            yield stdout
            return
        stdout.flush()
        apart = os.fdopen(os.dup(number), "w", encoding="utf-8")
        os.dup2(error_number, number)
        try:
            yield apart
        finally:
            os.dup2(apart.fileno(), number)
            with contextlib.suppress(OSError):  # tried again: what could not be written was told
                apart.close()


def tell_ready(stdout: TextIO | None, address: str) -> None:
    """Print the READY line. A server serves on when nobody reads that."""
    if stdout is None:
        return
    try:
        print(f"READY {address}", file=stdout, flush=True)
    except OSError as error:
        _log.warning("READY %s could not be written: %s", address, error.strerror)
