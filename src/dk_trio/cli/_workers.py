"""`dk-trio serve --workers N`: the command line of workers, and what their ends mean for the one that started them."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from ._exits import Exit
from ._output import write_error

if TYPE_CHECKING:
    from dk_trio.settings import Settings
    from dk_trio.workers import GroupReport, Post

_log = logging.getLogger("dk_trio.serve")

BEYOND_GRACE: Final = 30.0
"""Seconds more than the grace and the time of cleanups that a worker may take to end before it is killed. By itself it
gives up code that goes on 13 s after both (`dk_trio.draining`), and has its last signals to send."""


_STOPPED: Final = {
    Exit.OK: "",
    Exit.STUCK: " around jobs that do not end",
    Exit.DEFECT: ", but not all workers by themselves",
}


def serve_with_workers(
    context: click.Context, settings: Settings, *, host: str, port: int, grace: float, on_ready: Callable[[str], object]
) -> None:
    """Be the parent of `settings.server.workers` processes that run the same command. Ends it with its exit code.

    Raises:
        ListenError: The address cannot be listened on.
    """
    import trio

    from dk_trio.workers import WorkerStartError, run_workers

    count = settings.server.workers
    tasks = settings.tasks
    _log.info(
        "%d workers; limits are for each of them: %d slots and %d RPCs, so %d and %d together",
        count,
        tasks.max_concurrent_tasks,
        settings.server.max_concurrent_rpcs,
        count * tasks.max_concurrent_tasks,
        count * settings.server.max_concurrent_rpcs,
    )
    run = partial(
        run_workers,
        count,
        partial(_command, [*given(context)]),
        host=host,
        port=port,
        grace=grace,
        drain_within=grace + settings.lifecycle.cleanup_grace + BEYOND_GRACE,
        on_ready=on_ready,
    )
    try:
        report = trio.run(run)
    except WorkerStartError as error:
        write_error(error.text)
        context.exit(error.exit_code)
    for number in (signal.SIGTERM, signal.SIGINT):  # nothing is left to hasten: what is done is the exit code
        signal.signal(number, signal.SIG_IGN)
    code = exit_of_workers(report)
    told = f"{report.finished} jobs finished while draining, {report.cut} were cut"
    level = logging.INFO if code is Exit.OK else logging.ERROR
    _log.log(level, "stopped%s: %s", _STOPPED[code], told)
    if code is not Exit.OK:
        context.exit(code)


def exit_of_workers(report: GroupReport) -> Exit:
    """The worst of what workers have ended with."""
    if report.killed or Exit.STUCK in report.exit_codes:
        return Exit.STUCK
    return Exit.DEFECT if any(report.exit_codes) else Exit.OK


def with_own_log(settings: Settings, post: Post) -> Settings:
    """The settings of one worker: several processes cannot turn over one file of a log."""
    file = settings.observe.log_file
    if file is None:
        return settings  # the file below the directory has the worker's name already
    own = file.with_name(f"{file.stem}.worker-{post.number}{file.suffix}")
    return replace(settings, observe=replace(settings.observe, log_file=own))


def given(context: click.Context) -> list[str]:
    """The arguments of the command line, as they were given: what came from elsewhere comes from there again."""
    found: list[str] = []
    positional: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        values = value if isinstance(value, (list, tuple)) else [value]
        if not isinstance(parameter, click.Option):
            positional += map(str, values)
        elif parameter.is_flag:
            found.append((parameter.opts if value else parameter.secondary_opts)[-1])
        else:
            for one in values:
                found += [parameter.opts[-1], str(one)]
    return [*found, "--", *positional]


def _command(arguments: Sequence[str], post: Post) -> list[str]:
    # What `-m` puts before the path of imports is only there for a worker when it was there for us.
    isolated = [] if sys.path[:1] == [str(Path.cwd())] else ["-P"]
    return [sys.executable, *isolated, "-m", "dk_trio", "serve", "--worker", str(post), *arguments]


def post_of(text: str | None) -> Post | None:
    """The post that a parent has given to this process.

    Raises:
        click.BadParameter: It is none.
    """
    if text is None:
        return None
    from dk_trio.workers import Post

    try:
        return Post.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"only `dk-trio serve --workers` gives it: {error}", param_hint="--worker") from None
