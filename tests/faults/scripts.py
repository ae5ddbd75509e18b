"""Callers of `scripted_module.py`, in this process and in processes of their own."""

import json
import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import trio
from tests.cli.crowd import Caller
from tests.cli.processes import DK_TRIO, PATIENCE, Running, started

from dk_trio import ModuleClient
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import Task

SCRIPTED = f"{Path(__file__).with_name('scripted_module.py')}:Scripted"
BARE = f"{Path(__file__).with_name('scripted_module.py')}:Bare"


def script(*steps: str) -> dict[str, Any]:
    return {"protocol": "script", "steps": [*steps]}


async def ran(client: ModuleClient, *steps: str) -> Caller:
    """Run one job to its end."""
    caller = Caller()
    with trio.fail_after(PATIENCE):
        await caller.call(client, script(*steps))
    return caller


@asynccontextmanager
async def called(address: str, *steps: str) -> AsyncIterator[Running]:
    """A caller in a process of its own, which has got its first output; it is killed at the end of the block."""
    async with started("call", address, "--input", json.dumps(script(*steps))) as caller:
        await caller.wait_for('"said"', "stdout")
        yield caller


def numbers_of(caller: Running) -> list[int]:
    """Of the outputs that it has printed."""
    roots = [json.loads(line)["root"] for line in caller.lines["stdout"]]
    return [int(root["i"]) for root in roots if root["protocol"] == "said"]


def free_port() -> int:
    """Free now, for a server that is to come back to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def limited(option: str, value: int) -> list[str]:
    """`dk-trio` under a limit of the shell's `ulimit`."""
    return ["sh", "-c", f'ulimit {option} {value} && exec "$@"', "sh", *DK_TRIO]


def cpu_seconds(pid: int) -> float:
    """That a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a condition of other processes
            await trio.sleep(0.02)


def signals_in(data: Path) -> dict[str, list[tuple[str, str]]]:
    """What a provider that has ended holds: action and reason of each signal, in their order, by job."""
    found: dict[str, list[tuple[str, str]]] = {}
    with closing(sqlite3.connect(data / "dk-trio.sqlite3")) as database:
        for (message,) in database.execute("SELECT message FROM signals ORDER BY place"):
            task = Task.parse(message)
            found.setdefault(task.task_id, []).append((task.action, task.cancellation_reason))
    return found
