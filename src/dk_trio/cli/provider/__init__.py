"""`dk-trio provider`: serve what the modules of a mesh share; its subcommands fill, ask and copy that."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from dk_trio.cli._exits import CODES, Exit
from dk_trio.cli._security import Flags, security_options
from dk_trio.cli._serving import collect_seldom, leave_at_a_signal, tell_ready, uncollected
from dk_trio.cli._settings import load_settings, log_flags, log_options, settings_options

from ._where import SETTING, data_dir_option, database_of, db_option
from .ask import command as ask
from .backup import command as backup
from .setups import get_setup, put_setup

if TYPE_CHECKING:
    from pathlib import Path

    from dk_trio.provider import DrainReport
    from dk_trio.settings import Settings


@click.group(
    invoke_without_command=True,
    epilog=f"""\b
Examples:
  dk-trio provider
  dk-trio provider --host 0.0.0.0 --data-dir /var/lib/dk-trio
  dk-trio provider --db postgresql://user@host/database --data-dir /srv/contents
  dk-trio provider --host 0.0.0.0 --tls-cert certs/server.pem --tls-key certs/server.key --auth-token-file tokens
  dk-trio provider put-setup '{{"name": "quotes", "module_id": "modules:m", "content": {{}}}}'
  dk-trio provider backup /backups/today

When RPCs are accepted, one line "READY HOST:PORT" goes to stdout; everything else goes to stderr. What a caller was
told is on disk, so the process may be killed at any time. SIGTERM or Ctrl-C drains: no new calls, polls end, running
calls get the grace; a second signal cancels them at once.

\b
{CODES}""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=50051,
    show_default=True,
    help="Port to listen on; 0 takes any free one.",
)
@db_option
@data_dir_option
@click.option(
    "--validate",
    type=click.Choice(["strict", "warn", "off"]),
    default="warn",
    show_default=True,
    help="What becomes of requests that break rules of the contract: refused, logged once and served, not looked at. "
    "Clients of the existing SDK break several.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    help="Seconds that running calls get to end after the first signal.  [DIGITALKIN_GRACE, default: 10]",
)
@security_options
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve Prometheus metrics on this port.  [DIGITALKIN_METRICS_PORT]",
)
@log_options
@settings_options
@click.pass_context
def command(
    context: click.Context,
    *,
    host: str,
    port: int,
    db: str | None,
    data_dir: str | None,
    validate: str,
    grace: float | None,
    security: Flags,
    metrics_port: int | None,
    log_level: str | None,
    log_format: str | None,
    env_file: Path | None,
    preset: str | None,
) -> None:
    """Serve what modules share: setups, registry, signals, records, files, costs and profiles."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return

    from dk_trio.observe.logs import logging_to

    own = (
        ("--grace", "DIGITALKIN_GRACE", grace),
        ("--metrics-port", "DIGITALKIN_METRICS_PORT", metrics_port),
        *log_flags(log_level, log_format),
    )
    settings = load_settings(env_file=env_file, preset=preset, flags=[*own, *security], serving=False, export=True)
    with logging_to(settings, service="provider", color=context.color), uncollected():
        _serve(settings, host=host, port=port, db=db, data_dir=data_dir, validate=validate)


def _serve(settings: Settings, *, host: str, port: int, db: str | None, data_dir: str | None, validate: str) -> None:
    import trio

    from dk_trio.boundary import unwrapped
    from dk_trio.errors import DatabaseError, StorageServiceError
    from dk_trio.observe import Observation, Observed
    from dk_trio.provider import Provider, ProviderOptions
    from dk_trio.security import Security

    log = logging.getLogger("dk_trio.provider")
    for warning in settings.warnings:
        log.warning(warning)
    database, directory = database_of(db, data_dir, settings.services.data_dir)
    guard = Security(settings.security)
    observation = Observation(settings, failures=True)  # a mesh makes thousands of small calls a second
    options = ProviderOptions(
        validate=validate,  # type: ignore[arg-type]  # click has checked it
        stall_threshold=settings.observe.stall_threshold,
        setting=SETTING,
    )
    provider = Provider(
        database, directory=directory, options=options, interceptors=observation.interceptors, security=guard
    )
    grace = settings.server.grace

    def ready(address: str) -> None:
        collect_seldom()
        log.info("serving from %s, contents of files in %s", database.name, directory or "memory")
        tell_ready(sys.stdout, address)

    def leave(report: DrainReport) -> None:
        # What was acknowledged is durable; these calls wait for a disk or a database that does not answer.
        log.error("stopped around %d calls that do not end", report.stuck)
        logging.shutdown()
        os._exit(Exit.STUCK)

    async def serve() -> DrainReport:
        address = host.removeprefix("[").removesuffix("]")
        async with unwrapped(), trio.open_nursery() as last:
            async with guard.opened(), observation.opened(Observed(provider=provider)):
                report = await provider.serve(host=address, port=port, grace=grace, on_ready=ready, on_stuck=leave)
                await last.start(leave_at_a_signal)
            last.cancel_scope.cancel()
        return report

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # before and after there are tasks to tell of it would end us
    try:
        report = trio.run(serve)
    except StorageServiceError as error:  # of the start: afterwards it is a caller who is told
        raise DatabaseError(error.message, hint=error.hint) from error
    for number in (signal.SIGTERM, signal.SIGINT):  # nothing is left to hasten: what is done is exit code 0
        signal.signal(number, signal.SIG_IGN)
    log.info("stopped: %d calls were cut", report.cut)


def _refuse_options(context: click.Context) -> None:
    """Options before a subcommand are those of a server, and would have no effect."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option} is an option of the server, and has no effect before {context.invoked_subcommand}."
                f" Write options after the subcommand, see `dk-trio provider {context.invoked_subcommand} --help`."
            )


for subcommand in (ask, put_setup, get_setup, backup):
    command.add_command(subcommand)
