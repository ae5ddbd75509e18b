"""`dk-trio jobs`: what a module server runs, and what has become of its last jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from ._connect import Connection, address_argument, check_address, connection_options, talk, timeout_option
from ._exits import CODES
from ._output import harmless, is_terminal, json_option, write_line, write_table
from ._seconds import Seconds

if TYPE_CHECKING:
    from dk_trio import rpc

ENDED: Final = ("success", "failed", "stopped", "canceled", "expired")
_COLOURS: Final = {"starting": "cyan", "processing": "green", "failed": "red", "expired": "yellow"}


@click.command(
    epilog=f"""\b
Examples:
  dk-trio jobs 127.0.0.1:50055
  dk-trio jobs 127.0.0.1:50055 --running --json | jq -r .job_id
  dk-trio jobs 127.0.0.1:50055 --watch 2

Jobs that wait or run come first, oldest first, then the last that have ended. A job is `starting` while it waits for
its slot and initializes, then `processing`; at last {", ".join(f"`{name}`" for name in ENDED)}. Elsewhere than on a
terminal a line is the id, a tab, and the status.

\b
{CODES}"""
)
@address_argument
@click.option("--running", is_flag=True, help="Only those that wait or run.")
@click.option(
    "--watch",
    metavar="SECONDS",
    type=Seconds(0.1, 3600),
    help="Ask again after so many seconds, until Ctrl-C; with --json, print only what has changed.",
)
@json_option
@timeout_option
@connection_options
def command(
    *, address: str, running: bool, watch: float | None, as_json: bool, timeout: float, connection: Connection
) -> int:
    """List the jobs of a module server."""
    check_address(address)

    async def work(channel: rpc.Channel) -> None:
        await show_jobs(channel, running=running, every=watch, as_json=as_json, timeout=timeout)

    return talk(address, connection, work)


async def show_jobs(channel: rpc.Channel, *, running: bool, every: float | None, as_json: bool, timeout: float) -> None:
    """Print the jobs of a server.

    Args:
        channel: To the server.
        running: Leave out those that have ended.
        every: Print them again after so many seconds, until cancelled; None: once.
        as_json: Print JSON, and of a job only what is new.
        timeout: Seconds for each answer.
    """
    import trio

    before: Mapping[str, str] = {}
    while True:
        jobs = await jobs_of(channel, running=running, timeout=timeout)
        if as_json:
            for job_id, status in jobs.items():
                if before.get(job_id) != status:
                    write_line({"job_id": job_id, "status": status})
        else:
            if every is not None and is_terminal():
                click.clear()
            _show(jobs)
        if every is None:
            return
        before = jobs
        await trio.sleep(every)


async def jobs_of(channel: rpc.Channel, *, running: bool, timeout: float) -> dict[str, str]:
    """Status by job id, as people write it: `processing`.

    Args:
        channel: To a module server.
        running: Leave out those that have ended.
        timeout: Seconds for the answer.
    """
    from dk_trio.client import ModuleClient

    jobs = await ModuleClient(channel).jobs(timeout=timeout)
    named = {job_id: (status.name or str(status.value)).lower() for job_id, status in jobs.items()}
    return {job_id: status for job_id, status in named.items() if not running or status not in ENDED}


def _show(jobs: Mapping[str, str]) -> None:
    if not jobs and is_terminal():
        click.echo("No jobs.")
        return
    rows = [(harmless(job_id), click.style(status, fg=_COLOURS.get(status))) for job_id, status in jobs.items()]
    write_table(("JOB", "STATUS"), rows)
