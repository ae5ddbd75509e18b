"""`dk-trio serve`: put a module class on a port until a signal comes."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click

from ._exits import TABLE, Exit

if TYPE_CHECKING:
    from dk_trio.server import DrainReport
    from dk_trio.settings import Settings

COLLECT_EVERY: Final = (10_000, 20, 20)
"""`gc.set_threshold` of a server: a few MiB of garbage at most, for a quarter of the time in the collector."""

_LEVELS = ("debug", "info", "warning", "error")


@click.command(
    epilog=f"""\b
Examples:
  dk-trio serve mymodule.py
  dk-trio serve mymodule.py:MyModule --host 0.0.0.0 --port 50055
  dk-trio serve mypackage.modules:MyModule --setup setups.json --strict-setup
  dk-trio serve mymodule.py --provider 127.0.0.1:50051

The address may also come from SERVER_CHANNEL_HOST and SERVER_CHANNEL_PORT. When RPCs are accepted, one line
"READY HOST:PORT" goes to stdout; everything else, what the module prints too, goes to stderr. SIGTERM or Ctrl-C
drains: no new calls, running jobs get the grace to end, then they are cancelled and their callers get UNAVAILABLE; a
second signal cancels them at once.

\b
{TABLE}"""
)
@click.argument("target", metavar="PATH.py[:Class] | package.module:Class")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes any free one.  [default: 50055]"
)
@click.option(
    "--setup",
    "setup_file",
    type=click.Path(path_type=Path),
    help='Setups by id, as JSON: {"setups:a": {...}}. An entry is the content, or {"content": {...}, "version": ...}.',
)
@click.option(
    "--strict-setup", is_flag=True, help="An unknown setup id is NOT_FOUND, also when the module has a default setup."
)
@click.option(
    "--provider",
    metavar="HOST:PORT",
    help="Remote mode: services, signals, setups and the registry are at this services-provider (`dk-trio provider`).",
)
@click.option("--local", is_flag=True, help="Local mode, whatever SERVICE_MODE says.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds that running jobs get to end after the first signal.",
)
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
def command(
    *,
    target: str,
    host: str | None,
    port: int | None,
    setup_file: Path | None,
    strict_setup: bool,
    provider: str | None,
    local: bool,
    grace: float,
    log_level: str,
) -> None:
    """Serve a module class over gRPC.

    The class is the only one that derives from TrioModule in the file, or the one named after the colon.
    """
    import trio

    from dk_trio.server import ModuleServer
    from dk_trio.settings import Settings

    from ._load import load_module

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log = logging.getLogger("dk_trio.serve")
    settings = _moded(Settings.from_environment(), provider, local=local)
    for warning in settings.warnings:
        log.warning(warning)
    log.debug("settings:\n%s", settings.report())

    def ready(address: str) -> None:
        # No job runs while the collector does. What has been loaded stays, so it need not be looked through again; and
        # with thousands of jobs a pass for each 700 new objects, Python's default, finds next to nothing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_EVERY)
        tell_ready(stdout, address)

    def leave(report: DrainReport) -> None:
        # Trio waits for every task, as it must; these do not end, and whoever sent the signal wants the process gone.
        log.error("stopped around %d jobs that do not end: %s", report.stuck, _told(report))
        logging.shutdown()
        os._exit(Exit.STUCK)

    with stdout_apart() as stdout:
        server = ModuleServer(load_module(target), settings=settings, setup_file=setup_file, strict_setup=strict_setup)
        report = trio.run(
            functools.partial(
                server.serve,
                host=_host(host),
                port=port,
                grace=grace,
                on_ready=ready,
                on_stuck=leave,
            )
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # nothing is left to hasten: what is done is exit code 0
            signal.signal(number, signal.SIG_IGN)
    log.info("stopped: %s", _told(report))


def _moded(settings: Settings, provider: str | None, *, local: bool) -> Settings:
    """The settings with the mode that the options say, which go before the environment."""
    from dk_trio.settings import target

    if provider is not None and local:
        raise click.UsageError("--provider and --local contradict each other: the first means remote mode")
    services = settings.services
    if provider is not None:
        try:
            services = replace(services, mode="remote", provider=target(provider))
        except ValueError:
            raise click.BadParameter(f"{provider!r} is not HOST:PORT", param_hint="--provider") from None
    elif local:
        services = replace(services, mode="local")
    return replace(settings, services=services)


def _told(report: DrainReport) -> str:
    return f"{report.finished} jobs finished while draining, {report.cut} were cut"


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
        logging.getLogger("dk_trio.serve").warning("READY %s could not be written: %s", address, error.strerror)


def _host(text: str | None) -> str | None:
    # As in SERVER_CHANNEL_HOST, an IPv6 address may stand in brackets.
    return text[1:-1] if text is not None and text.startswith("[") and text.endswith("]") else text
