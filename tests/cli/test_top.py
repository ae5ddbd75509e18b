"""`dk-trio top`: what it prints, and what it says when there is nothing to look at. In a terminal: tests/observe."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
from rich.console import Console
from tests.cli.processes import beside, here

from dk_trio import Settings
from dk_trio.cli._top_screen import duration, printable, screen
from dk_trio.observe import Observed
from dk_trio.observe.inspector import Inspector
from dk_trio.observe.web import serve_app

JOB = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@asynccontextmanager
async def inspector(token: str | None = None) -> AsyncIterator[str]:
    """An inspector of a process that serves nothing; its address."""
    settings = replace(Settings().observe, inspector_port=0, inspector_token=token)
    part = Inspector(settings)
    async with part.opened(Observed()):
        yield part.address


def snapshot(jobs: int = 1, **changes: Any) -> dict[str, Any]:
    session = {
        "job": JOB,
        "module": "importer",
        "protocol": "import",
        "state": "running",
        "age": 12.5,
        "waited": 0.0123,
        "ran": 12.4,
        "mission": "missions:" + "m" * 200,
        "setup": "setups:\x1b[31mred",
        "outputs": 3,
    }
    leaf = {"name": "leaf", "count": 70, "job": "", "waits": "Event.wait", "at": "a.py:1 in f", "author": ""}
    leaf |= {"seconds": 61.0, "nurseries": [], "more": 2}
    root = {**leaf, "name": "<init>", "count": 1, "seconds": None, "nurseries": [[leaf] * 100], "more": 0}
    stall = {
        "at": 90.0,
        "duration": 1.5,
        "task": "job",
        "ids": {"job": JOB},
        "where": "m.py:3 in g: sleep(1)",
        "stack": [],
    }
    server = {
        "modules": {"m": "importer"},
        "admission": {
            "slots": 4,
            "running": 4,
            "queue": 8,
            "queued": 2,
            "rejected_by_gate": 1,
            "rejected_by_slot": 0,
        },
        "rpc": {"rpcs": 5, "connections": 2},
        "channels": {"channels": 3, "in_use": 1},
        "provider": {
            "target": "127.0.0.1:50051",
            "registration": {"registered": True, "trouble": ""},
            "signals": {"outbound": {"delivered": 7, "batches": 2, "pending": 1}},
        },
        "sessions": [session] * jobs,
    }
    return {
        "at": 100.0,
        "process": {"pid": 1, "worker": 0, "version": "0"},
        "actions": True,
        "loop": {"recent": 1.5, "stalls": 1, "last_stalls": [stall]},
        "servers": [server],
        "provider": None,
        "ended": [{"ago": 3.0, "job": JOB, "reason": "stop_module", "ran": 1.0, "outputs": 2, "error": "e" * 300}],
        "tasks": {"total": 71, "root": root},
        **changes,
    }


def shown(told: dict[str, Any], width: int = 150, **options: Any) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(screen(told, width=width, **options))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_everything_is_on_the_screen() -> None:
    lines = shown(snapshot())
    text = "\n".join(lines)
    assert lines[0] == "importer  worker 0  pid 1  dk-trio 0"
    assert "running 4/4   waiting 2/8   refused 1   RPCs 5   connections 2   loop lag 1.5 s   stalls 1" in text
    assert "channels 3 (1 in use)   signals 7 in 2 batches, 1 wait   provider 127.0.0.1:50051 registered" in text
    assert f"{JOB}  importer  running  12 s   12 ms  import          3  missions:mmm" in text
    assert "  70 x leaf  ≥61 s  Event.wait at a.py:1 in f" in text
    assert f"1.5 s  10 s ago  m.py:3 in g: sleep(1)  job {JOB}" in text
    assert "stop module" in text


@pytest.mark.parametrize("width", [80, 100, 150, 300])
@pytest.mark.parametrize("height", [20, 24, 50])
def test_it_fits_into_its_terminal(width: int, height: int) -> None:
    lines = shown(snapshot(jobs=30), width, height=height, chosen=29)
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 24)
    assert any(line.startswith(f"{JOB}  ") for line in lines)
    assert "running" in "".join(lines)


def test_a_callers_words_are_no_orders_to_the_terminal() -> None:
    assert printable({"a": ["x\x1b[2Jy", 3]}) == {"a": ["x\ufffd[2Jy", 3]}
    assert "\x1b" not in "".join(shown(snapshot()))
    assert "setups:\ufffd[31mred" in "".join(shown(snapshot(), 200))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0001, "0.1 ms"),
        (0.05, "50 ms"),
        (3.44, "3.4 s"),
        (119, "119 s"),
        (600, "10 min"),
        (9000, "2.5 h"),
    ],
)
def test_times_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


async def test_the_snapshot_is_printed_as_json_and_as_text() -> None:
    async with inspector() as address:
        told = await beside("top", "--json", f"http://{address}")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["tasks"]["root"]["name"] == "<init>"
        text = await beside("top", DIGITALKIN_INSPECTOR_PORT=address.rpartition(":")[2])
        assert text.returncode == 0, text.stderr
        assert "<init>  " in text.stdout.decode()


async def test_a_token_is_sent() -> None:
    async with inspector("s3cret") as address:
        refused = await beside("top", "--json", address)
        assert refused.returncode == 26
        assert b"asks for its token (DIGITALKIN_INSPECTOR_TOKEN)" in refused.stderr
        assert (await beside("top", "--json", address, "--token", "s3cret")).returncode == 0
        assert (await beside("top", "--json", address, DIGITALKIN_INSPECTOR_TOKEN="s3cret")).returncode == 0


def test_where_nothing_listens_it_says_how_to_switch_it_on() -> None:
    done = here("top", "http://127.0.0.1:1")
    assert done.returncode == 24
    assert done.stderr.startswith(b"dk-trio: No inspector answers at http://127.0.0.1:1: Connection refused.")
    assert b"DIGITALKIN_INSPECTOR=true" in done.stderr


async def test_what_answers_may_be_something_else() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"[]"})

    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_app, app, host="127.0.0.1", port=0))
        done = await beside("top", address)
        nursery.cancel_scope.cancel()
    assert done.returncode == 24
    assert f"What answers at http://{address} is no inspector." in done.stderr.decode()


async def test_what_answers_may_be_out_of_order() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_app, app, host="127.0.0.1", port=0))
        done = await beside("top", address)
        nursery.cancel_scope.cancel()
    assert done.returncode == 24
    assert f"http://{address} answers 503." in done.stderr.decode()


@pytest.mark.parametrize("url", ["http://", "ftp://host:1", "http://host:port"])
def test_an_address_that_is_none(url: str) -> None:
    done = here("top", url)
    assert done.returncode == 2
    assert b"is not http://HOST:PORT" in done.stderr
