"""`dk-trio serve`: put module classes on a port until a signal comes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._exits import CODES
from ._output import json_option
from ._security import Flags, security_options
from ._serving import Wanted
from ._serving import stdout_apart as stdout_apart
from ._serving import tell_ready as tell_ready
from ._settings import load_settings, log_flags, log_options, settings_options
from .completion import files

if TYPE_CHECKING:
    from dk_trio.settings import Settings


@click.command(
    epilog=f"""\b
Examples:
  dk-trio serve mymodule.py
  dk-trio serve mymodule.py:MyModule --host 0.0.0.0 --port 50055
  dk-trio serve mypackage.modules:MyModule --setup setups.json --strict-setup
  dk-trio serve mymodule.py --provider 127.0.0.1:50051
  dk-trio serve mymodule.py --reload
  dk-trio serve search.py write.py --setup search=searches.json
  dk-trio serve mymodule.py --workers 4 --preset large
  dk-trio serve mymodule.py --check

Several modules share one port; `dk-trio call --module ID` calls one of them. Options go before the environment, that
before --env-file, and that before --preset; `dk-trio config` shows what comes out. When RPCs are accepted, one line
"READY HOST:PORT" goes to stdout; everything else, what the module prints too, goes to stderr. SIGTERM or Ctrl-C
drains: no new calls, running jobs get the grace to end, then they are cancelled and their callers get UNAVAILABLE; a
second signal cancels them at once.

\b
{CODES}"""
)
@click.argument(
    "targets",
    nargs=-1,
    required=True,
    metavar="PATH.py[:Class] | package.module:Class ...",
    shell_complete=files,
)
@click.option("--host", help="Address to listen on.  [SERVER_CHANNEL_HOST, default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any free one.  [SERVER_CHANNEL_PORT, default: 50055]",
)
@click.option(
    "--setup",
    "setups",
    multiple=True,
    metavar="[MODULE=]FILE.json",
    shell_complete=files,
    help='Setups by id, as JSON: {"setups:a": {...}}. An entry is the content, or {"content": {...}, "version": ...}. '
    "With several modules, the file of each by its id.",
)
@click.option(
    "--strict-setup", is_flag=True, help="An unknown setup id is NOT_FOUND, also when the module has a default setup."
)
@click.option(
    "--provider",
    metavar="HOST:PORT",
    help="Remote mode: services, signals, setups and the registry are at this services-provider (`dk-trio provider`).  "
    "[DIGITALKIN_PROVIDER]",
)
@click.option("--local", is_flag=True, help="Local mode, whatever SERVICE_MODE says.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    help="Seconds that running jobs get to end after the first signal.  [DIGITALKIN_GRACE, default: 10]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes that share the port and its callers.  [DIGITALKIN_WORKERS, default: 1]",
)
@click.option("--worker", hidden=True, help="What --workers tells the processes that it starts.")
@click.option("--reload", is_flag=True, help="Load a module's code anew when one of its files changes.")
@click.option("--check", is_flag=True, help="Load and check everything, say what would be served, and end.")
@json_option
@security_options
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve Prometheus metrics on this port.  [DIGITALKIN_METRICS_PORT]",
)
@click.option(
    "--inspector/--no-inspector",
    default=None,
    help="Serve the page that shows tasks and jobs.  [DIGITALKIN_INSPECTOR]",
)
@log_options
@settings_options
@click.pass_context
def command(
    context: click.Context,
    *,
    targets: tuple[str, ...],
    host: str | None,
    port: int | None,
    setups: tuple[str, ...],
    strict_setup: bool,
    provider: str | None,
    local: bool,
    grace: float | None,
    workers: int | None,
    worker: str | None,
    reload: bool,
    check: bool,
    as_json: bool,
    security: Flags,
    metrics_port: int | None,
    inspector: bool | None,
    log_level: str | None,
    log_format: str | None,
    env_file: Path | None,
    preset: str | None,
) -> None:
    """Serve module classes over gRPC.

    The class is the only one that derives from TrioModule in the file, or the one named after the colon.
    """
    if as_json and not check:
        raise click.UsageError("--json is for --check: a server's log is JSON with --log-format json.")
    flags: Flags = (
        ("--host", "SERVER_CHANNEL_HOST", host),
        ("--port", "SERVER_CHANNEL_PORT", port),
        *_mode(provider, local=local),
        ("--grace", "DIGITALKIN_GRACE", grace),
        ("--workers", "DIGITALKIN_WORKERS", workers),
        *security,
        ("--metrics-port", "DIGITALKIN_METRICS_PORT", metrics_port),
        ("--inspector" if inspector else "--no-inspector", "DIGITALKIN_INSPECTOR", inspector),
        *log_flags(log_level, log_format),
    )
    settings = load_settings(env_file=env_file, preset=preset, flags=flags, export=True)
    if not local:
        settings = replace(settings, warnings=(*settings.warnings, *_provider_unused(settings)))
    if reload and settings.server.workers > 1:
        raise click.UsageError(
            f"--reload loads code in one process, and there would be {settings.server.workers}: add --workers 1."
        )
    if check:
        _check(Wanted(settings=settings, targets=targets, setups=setups, strict_setup=strict_setup), as_json=as_json)
        return

    from dk_trio.observe.logs import logging_to

    from ._workers import post_of, serve_with_workers, with_own_log

    post = post_of(worker)
    service = "dk-trio" if post is None else f"worker-{post.number}"
    if post is not None:
        settings = with_own_log(settings, post)
    number = "" if post is None else str(post.number)
    with logging_to(settings, service=service, color=context.color, worker=number):
        log = logging.getLogger("dk_trio.serve")
        if post is None:  # which tells for its workers, too
            for warning in settings.warnings:
                log.warning(warning)
        log.debug("settings:\n%s", settings.report())
        if post is None and settings.server.workers > 1:
            serve_with_workers(
                context,
                settings,
                host=settings.server.host,
                port=settings.server.port,
                grace=settings.server.grace,
                on_ready=lambda address: tell_ready(sys.stdout, address),
            )
            return
        from ._serving import serve

        wanted = Wanted(settings=settings, targets=targets, setups=setups, strict_setup=strict_setup, post=post)
        with stdout_apart() as stdout:
            serve(wanted, stdout, reload=reload)


def _mode(provider: str | None, *, local: bool) -> Flags:
    """What the options say of the mode."""
    from dk_trio.settings import target

    if provider is None:
        return [("--local", "SERVICE_MODE", "local" if local else None)]
    if local:
        raise click.UsageError("--provider and --local contradict each other: the first means remote mode")
    try:
        target(provider)
    except ValueError:
        raise click.BadParameter(f"{provider!r} is not HOST:PORT", param_hint="--provider") from None
    return [("--provider", "SERVICE_MODE", "remote"), ("--provider", "DIGITALKIN_PROVIDER", provider)]


def _provider_unused(settings: Settings) -> Iterator[str]:
    """An operator who names a provider believes in it, and would look there for what is kept here."""
    services = settings.services
    if services.mode == "local":
        for source in settings.sources:
            if source.variable.name == "DIGITALKIN_PROVIDER" and source.given:
                yield (
                    f"DIGITALKIN_PROVIDER={services.provider} is not used: SERVICE_MODE is local. Set "
                    "SERVICE_MODE=remote, or start with --provider; --local says that local mode is meant."
                )


def _check(wanted: Wanted, *, as_json: bool) -> None:
    from ._check import found, show

    with stdout_apart():
        server, targets = wanted.composed()
    what = found(server, targets, wanted.settings)
    show(what, as_json=as_json)
    for warning in what["warnings"]:
        click.echo(f"warning: {warning}", err=True)
