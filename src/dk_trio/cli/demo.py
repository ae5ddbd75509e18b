"""`dk-trio demo`: the main job from outside, with real processes and a real socket.

Serves an example on a free port, calls it, prints the stream with timings, cancels a second call, checks in the
server's log that the handler was cancelled and the cleanup ran, and stops the server with SIGTERM. Fails when any of
that fails.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._exits import Exit

if TYPE_CHECKING:
    import trio

TEXT = "attack at dawn with everything that streams"
PAUSE_S = 0.1
CANCEL_AFTER = 2  # words of the second call

# Seconds for the whole demo: a machine under load takes a few, and nobody watches longer.
DEADLINE = 60.0


class DemoError(click.ClickException):
    """Something that the demo shows did not happen."""

    exit_code = Exit.DEFECT


@click.command()
def command() -> None:
    """Serve an example, call it, show its stream and a cancel, and stop it."""
    import trio
    from grpclib.exceptions import GRPCError

    failures: list[str] = []
    try:
        trio.run(_demo, example())
    except* DemoError as group:
        failures += [error.message for error in _leaves(group)]
    except* GRPCError as group:
        failures += [f"a call ended with {error.status.name}: {error.message}" for error in _leaves(group)]
    if failures:
        raise DemoError("; ".join(failures))


def _leaves(error: BaseException) -> Iterator[Any]:
    """The exceptions in a group, which each nursery puts into one more."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def example() -> Path:
    """The example's file: in the package when it was installed, beside it in a clone.

    Raises:
        DemoError: There is none.
    """
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "_examples", here.parents[3] / "examples"):
        path = folder / "text_transform.py"
        if path.is_file():
            return path
    raise DemoError("the example text_transform.py is missing from this installation")


async def _demo(path: Path) -> None:
    import trio

    from dk_trio.client import ModuleClient

    with trio.move_on_after(DEADLINE) as scope:
        async with _served(path) as (server, address, log), ModuleClient.connect(address) as client:
            await _show_stream(client, address)
            await _show_cancel(client, log)
            click.echo("\nStop: SIGTERM to the server.")
            server.send_signal(signal.SIGTERM)
            code = await server.wait()
            await log.ended.wait()
            click.echo(f"  server | {log.lines[-1]}")
            if code != 0:
                raise DemoError(f"the server ended with exit code {code}")
        click.echo(f"  The server ended with exit code {code}. Everything worked.")
    if scope.cancelled_caught:
        raise DemoError(f"the demo did not end within {DEADLINE:g} s")


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


async def _show_cancel(client: Any, log: _Log) -> None:
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
        click.echo(f"  server | {await log.wait_for(wanted)}")


def _short(root: dict[str, Any]) -> str:
    return str(root.get("text") or root.get("job_id") or "")


class _Log:
    """The server's stderr, line by line."""

    def __init__(self) -> None:
        import trio

        self.lines: list[str] = []
        self.ended = trio.Event()
        self._seen = 0
        self._changed = trio.Event()

    async def read(self, stream: trio.abc.ReceiveStream) -> None:
        import trio

        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            self.lines += [line.decode(errors="replace") for line in lines]
            self._changed.set()
            self._changed = trio.Event()
        self.ended.set()
        self._changed.set()

    def skip(self) -> None:
        """Forget the lines so far: `wait_for` looks at those that follow."""
        self._seen = len(self.lines)

    async def wait_for(self, text: str) -> str:
        while True:
            while self._seen < len(self.lines):
                line = self.lines[self._seen]
                self._seen += 1
                if text in line:
                    return line
            if self.ended.is_set():
                raise DemoError(f"the server ended without logging {text!r}:\n" + "\n".join(self.lines))
            await self._changed.wait()


@asynccontextmanager
async def _served(path: Path) -> AsyncIterator[tuple[trio.Process, str, _Log]]:
    import trio

    arguments = [sys.executable, "-m", "dk_trio", "serve", str(path), "--port", "0"]
    click.echo(f"Serve: dk-trio serve {path.name} --port 0")
    log = _Log()
    async with trio.open_nursery() as nursery:
        # Leaving the block without a stop, by a failure or Ctrl-C, ends the process too: run_process owns it.
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
            )
        )
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(log.read, process.stderr)
        line = await _first_line(process.stdout)
        if not line.startswith("READY "):
            await log.ended.wait()
            raise DemoError("the server did not start:\n" + "\n".join(log.lines))
        click.echo(f"  {line}")
        try:
            yield process, line.removeprefix("READY "), log
        finally:
            nursery.cancel_scope.cancel()


async def _first_line(stream: trio.abc.ReceiveStream) -> str:
    received = b""
    async for chunk in stream:
        received += chunk
        if b"\n" in received:
            break
    return received.partition(b"\n")[0].decode(errors="replace")
