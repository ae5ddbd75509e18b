"""One module without anything beside it: a stream, a cancel by the caller, a clean stop."""

from __future__ import annotations

import json
from typing import Any

import click

from ._processes import DemoError, Log, example, served

TEXT = "attack at dawn with everything that streams"
PAUSE_S = 0.1
CANCEL_AFTER = 2  # words of the second call


async def show() -> None:
    """Serve, call, cancel, stop.

    Raises:
        DemoError: Something did not happen.
    """
    from dk_trio.client import ModuleClient

    click.echo("One module.")
    async with (
        served("serve", str(example("text_transform.py")), "--local", "--port", "0") as server,
        ModuleClient.connect(server.address) as client,
    ):
        await _show_stream(client, server.address)
        await _show_cancel(client, server.log)
        click.echo("\nStop: SIGTERM to the server.")
        await server.stop("server")


async def _show_stream(client: Any, address: str) -> None:
    import trio

    click.echo(f"\nCall: {TEXT!r}, one word every {PAUSE_S:g} s.")
    click.echo(
        f"  (dk-trio call {address} --protocol transform --input '{json.dumps({'text': TEXT, 'pause_s': PAUSE_S})}')"
    )
    started = trio.current_time()
    times, protocols = [], []
    async with client.start({"text": TEXT, "pause_s": PAUSE_S}, protocol="transform") as outputs:
        async for output in outputs:
            times.append(trio.current_time() - started)
            protocols.append(output["root"]["protocol"])
            click.echo(f"  {times[-1] * 1000:7.1f} ms  {protocols[-1]:<17} {_short(output['root'])}".rstrip())
    words = len(TEXT.split())
    if protocols != ["module_start_info", *["word"] * words, "end_of_stream"]:
        raise DemoError(f"the stream should hold a start, {words} words and an end, but holds {protocols}")
    if times[1] > times[-1] / 2:
        raise DemoError("the outputs came in one piece at the end, not as a stream")


async def _show_cancel(client: Any, log: Log) -> None:
    click.echo(f"\nCancel: the same call, left after {CANCEL_AFTER} words.")
    words = 0
    async with client.start({"text": TEXT, "pause_s": PAUSE_S}, protocol="transform") as outputs:
        async for output in outputs:
            words += output["root"]["protocol"] == "word"
            click.echo(f"  {_short(output['root'])}")
            if words == CANCEL_AFTER:
                log.skip()
                break
    for wanted in ("handler cancelled", "cleanup ran"):
        click.echo(f"  server   | {await log.wait_for(wanted)}")


def _short(root: dict[str, Any]) -> str:
    return str(root.get("text") or root.get("job_id") or "")
