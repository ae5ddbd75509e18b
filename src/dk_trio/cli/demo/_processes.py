"""The processes of the demo, their logs, and what went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dk_trio.cli._exits import Exit

if TYPE_CHECKING:
    import trio


# Seconds for one step: a machine under load takes one or two, and nobody watches longer.
STEP: Final = 30.0

_OURS: Final = ("DIGITALKIN_", "OTEL_", "SERVER_", "SERVICE_MODE")


class DemoError(click.ClickException):
    """Something that the demo shows did not happen."""

    exit_code = Exit.DEFECT


@contextmanager
def step(what: str) -> Iterator[None]:
    """A part of the demo that ends within `STEP` seconds.

    Raises:
        DemoError: It did not.
    """
    import trio

    with trio.move_on_after(STEP) as scope:
        yield
    if scope.cancelled_caught:
        raise DemoError(f"this took longer than {STEP:g} s: {what}")


def example(name: str) -> Path:
    """An example's file: in the package when it was installed, beside it in a clone.

    Raises:
        DemoError: There is none.
    """
    here = Path(__file__).resolve()
    for folder in (here.parents[2] / "_examples", here.parents[4] / "examples"):
        path = folder / name
        if path.is_file():
            return path
    raise DemoError(f"the example {name} is missing from this installation")


class Log:
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
        """The first line with this text that was not looked at.

        Raises:
            DemoError: There is none, in time or at all.
        """
        with step(f"a log that says {text!r}"):
            return await self._wait_for(text)
        raise AssertionError  # `step` has raised

    async def _wait_for(self, text: str) -> str:
        while True:
            while self._seen < len(self.lines):
                line = self.lines[self._seen]
                self._seen += 1
                if text in line:
                    return line
            if self.ended.is_set():
                raise DemoError(f"the server ended without logging {text!r}:\n" + "\n".join(self.lines))
            await self._changed.wait()


class Served:
    """A process of ours that has said that it is ready.

    Attributes:
        address: `HOST:PORT`.
        log: What it writes to stderr.
    """

    def __init__(self, process: trio.Process, address: str, log: Log) -> None:
        self._process = process
        self.address = address
        self.log = log

    async def stop(self, name: str) -> None:
        """SIGTERM, and wait for the end.

        Raises:
            DemoError: It did not end well.
        """
        with step(f"the end of the {name} after SIGTERM"):
            self._process.send_signal(signal.SIGTERM)
            code = await self._process.wait()
            await self.log.ended.wait()
        click.echo(f"  {name:<8} | {self.log.lines[-1]}")
        if code != 0:
            raise DemoError(f"the {name} ended with exit code {code}")


@asynccontextmanager
async def served(*arguments: str) -> AsyncIterator[Served]:
    """`dk-trio` with these arguments, for the length of the block.

    Variables of the environment that are ours do not reach it: what the demo shows follows from its arguments.
    """
    import trio

    click.echo(f"  dk-trio {' '.join(Path(text).name if text.endswith('.py') else text for text in arguments)}")
    log = Log()
    async with trio.open_nursery() as nursery:
        # Leaving the block without a stop, by a failure or Ctrl-C, ends the process too: run_process owns it. At once,
        # since nothing of it is kept: a module that drains without its provider waits some seconds for it.
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                # Their log is read here by a person, as on a terminal of their own.
                [sys.executable, "-m", "dk_trio", *arguments, "--log-format", "text"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
                env={name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
                deliver_cancel=_kill,
            )
        )
        assert process.stdout is not None
        assert process.stderr is not None
        nursery.start_soon(log.read, process.stderr)
        with step("until READY is said"):
            line = await _first_line(process.stdout)
            if not line.startswith("READY "):
                await log.ended.wait()
        if not line.startswith("READY "):
            raise DemoError("the server did not start:\n" + "\n".join(log.lines))
        click.echo(f"    {line}")
        try:
            yield Served(process, line.removeprefix("READY "), log)
        finally:
            nursery.cancel_scope.cancel()


async def _kill(process: trio.Process) -> None:
    process.kill()


async def _first_line(stream: trio.abc.ReceiveStream) -> str:
    received = b""
    async for chunk in stream:
        received += chunk
        if b"\n" in received:
            break
    return received.partition(b"\n")[0].decode(errors="replace")
