"""The command line in processes of its own, over real sockets. Every wait is bounded."""

import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import trio

ROOT = Path(__file__).parents[2]
ECHO = str(ROOT / "bench" / "echo_module.py")
DK_TRIO = [sys.executable, "-m", "dk_trio"]

# A loaded machine needs seconds for an interpreter and its imports.
PATIENCE = 60.0


def environment(**extra: str) -> dict[str, str]:
    """Ours, without the variables that are under test. The log is as on a terminal, and tells of no calls."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("DIGITALKIN_", "SERVER_", "OTEL_", "RAILWAY_"))
    }
    return kept | {"DIGITALKIN_LOG_FORMAT": "text", "DIGITALKIN_ACCESS_LOG": "false"} | extra


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had so far, as the kernel counts it."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024


async def dk_trio(*arguments: str, stdin: bytes = b"", **env: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command to its end."""
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [*DK_TRIO, *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(**env),
        )


def here(*arguments: str, stdin: bytes = b"", **env: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command to its end in this process, which is a second faster: where the process is not the subject."""
    from unittest import mock

    from dk_trio.cli import main

    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in ("stdout", "stderr")}
    given = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    with (
        mock.patch.dict(os.environ, environment(**env), clear=True),
        mock.patch.multiple(sys, stdin=given, **streams),
    ):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = end.code
        for stream in streams.values():
            stream.flush()
    assert isinstance(code, int), code
    out, err = (stream.buffer.getvalue() for stream in streams.values())
    return subprocess.CompletedProcess(arguments, int(code), out, err)


async def beside(*arguments: str, stdin: bytes = b"", **env: str) -> "subprocess.CompletedProcess[bytes]":
    """`here`, in a thread, so that a server on this loop can answer it. For commands that take no signals."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(partial(here, *arguments, stdin=stdin, **env))


@asynccontextmanager
async def provider_here(**options: Any) -> AsyncIterator[str]:
    """A provider in memory on this loop, on a free port; its address."""
    from dk_trio.provider import Provider, ProviderOptions
    from dk_trio.services.stores.sqlite import SqliteDatabase

    async with Provider(SqliteDatabase(None), options=ProviderOptions(**options)).running(port=0) as address:
        yield address


def outputs_of(stdout: bytes) -> list[dict[str, Any]]:
    """The JSON objects that `call` printed."""
    return [json.loads(line) for line in stdout.splitlines()]


class Running:
    """A process whose output is read line by line as it comes."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self.ended = {"stdout": trio.Event(), "stderr": trio.Event()}
        self._changed = trio.Event()
        self.address = ""

    async def read(self, name: str) -> None:
        stream = getattr(self.process, name)
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            self.lines[name] += [line.decode() for line in lines]
            self._change()
        self.ended[name].set()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, text: str, name: str = "stderr") -> str:
        """The first line with this text."""
        with trio.fail_after(PATIENCE):
            while True:
                for line in self.lines[name]:
                    if text in line:
                        return line
                assert not self.ended[name].is_set(), f"ended without {text!r}: {self.lines}"
                await self._changed.wait()

    async def wait(self) -> int:
        """The exit code, once everything was read."""
        with trio.fail_after(PATIENCE):
            code = await self.process.wait()
            for event in self.ended.values():
                await event.wait()
        return code


@asynccontextmanager
async def started(
    *arguments: str,
    program: Sequence[str] = DK_TRIO,
    stdout: int | IO[bytes] = subprocess.PIPE,
    own_group: bool = False,
    **env: str,
) -> AsyncIterator[Running]:
    """A command that runs for the length of the block, and is killed at its end when it still does.

    `own_group` puts it in a process group of its own, as a shell does with what is typed at a terminal.
    """
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [*program, *arguments],
                stdin=b"",
                stdout=stdout,
                stderr=subprocess.PIPE,
                check=False,
                env=environment(**env),
                deliver_cancel=kill,
                start_new_session=own_group,
            )
        )
        running = Running(process)
        if process.stdout is not None:
            nursery.start_soon(running.read, "stdout")
        else:
            running.ended["stdout"].set()
        nursery.start_soon(running.read, "stderr")
        yield running
        nursery.cancel_scope.cancel()


async def kill(process: trio.Process) -> None:
    process.kill()


@asynccontextmanager
async def serving(*arguments: str, own_group: bool = False, **env: str) -> AsyncIterator[Running]:
    """`dk-trio serve` on a free port; `address` is what its READY line says."""
    async with started("serve", *arguments, "--port", "0", own_group=own_group, **env) as running:
        ready = await running.wait_for("READY ", "stdout")
        running.address = ready.removeprefix("READY ")
        yield running


@asynccontextmanager
async def providing(
    *arguments: str, port: int = 0, program: Sequence[str] = DK_TRIO, **env: str
) -> AsyncIterator[Running]:
    """`dk-trio provider`, on a free port unless one is given; `address` is what its READY line says."""
    async with started("provider", *arguments, "--port", str(port), program=program, **env) as running:
        ready = await running.wait_for("READY ", "stdout")
        running.address = ready.removeprefix("READY ")
        yield running
