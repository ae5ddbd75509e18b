"""`dk-trio stop`: cancel jobs of a module server by their ids."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ._connect import Connection, address_argument, check_address, connection_options, talk, timeout_option, told
from ._exits import CODES, Exit, exit_of_status
from ._output import json_option, write_error, write_line

if TYPE_CHECKING:
    from dk_trio import rpc


@click.command(
    epilog=f"""\b
Examples:
  dk-trio stop 127.0.0.1:50055 4f7c9d2e-7a51-4f0b-9c0e-6a1f5a0f6f11
  dk-trio stop 127.0.0.1:50055 --all
  dk-trio jobs 127.0.0.1:50055 --running | cut -f 1 | xargs dk-trio stop 127.0.0.1:50055

A job that waits for its slot is stopped, too. The server answers before the cleanup of the job has ended. A job that is
not there does not keep the others from being stopped; the exit code is that of the first which could not be.

\b
{CODES}"""
)
@address_argument
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--all", "everything", is_flag=True, help="All jobs that wait or run, after a question.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@timeout_option
@connection_options
def command(
    *,
    address: str,
    job_ids: tuple[str, ...],
    everything: bool,
    yes: bool,
    as_json: bool,
    timeout: float,
    connection: Connection,
) -> int:
    """Stop jobs of a module server."""
    check_address(address)
    if everything and job_ids:
        raise click.UsageError("--all stops every job, so it takes no ids.")
    if not everything and not job_ids:
        raise click.UsageError("Name the jobs, or say --all. `dk-trio jobs` lists them.")

    async def work(channel: rpc.Channel) -> int:
        from .jobs import jobs_of

        if not everything:
            return await _stop(channel, job_ids, as_json=as_json, timeout=timeout)
        jobs = await jobs_of(channel, running=True, timeout=timeout)
        if not jobs:
            click.echo(f"No job waits or runs at {address}.", err=True)
            return Exit.OK
        if not yes and not _agreed(f"Stop {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'} of {address}?"):
            return Exit.OK
        return await _stop(channel, tuple(jobs), as_json=as_json, timeout=timeout)

    return talk(address, connection, work)


def _agreed(question: str) -> bool:
    """Ask a person. That blocks the loop, which has nothing else to do."""
    if sys.stdin is not None:  # None when the process was started without one
        try:
            return click.confirm(question, err=True)
        except click.Abort:
            if sys.stdin.isatty():  # Ctrl-C or Ctrl-D
                raise
            click.echo(err=True)
    raise click.UsageError("--all asks before it stops anything, and nobody answers here: add --yes.")


async def _stop(channel: rpc.Channel, job_ids: tuple[str, ...], *, as_json: bool, timeout: float) -> int:
    """Stop them one after the other, each told at once; the exit code."""
    from grpclib.exceptions import GRPCError

    from dk_trio.client import ModuleClient

    client = ModuleClient(channel)
    code: int = Exit.OK
    for job_id in job_ids:
        line: dict[str, object] = {"job_id": job_id, "stopped": True}
        try:
            await client.stop(job_id, timeout=timeout)
        except GRPCError as error:
            code = code or exit_of_status(error.status)
            line |= {"stopped": False, "status": error.status.name, "message": error.message or ""}
            if not as_json:
                write_error(f"{job_id}: {told(error)}")
        if as_json:
            write_line(line)
        elif line["stopped"]:
            click.echo(f"stopped {job_id}")
    return code
