"""The page on logs: its sample runs, and its fields are those of a line."""

import io
import json
import logging
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import logged
import trio
import trio.testing
from tests.module.served import outputs_of, served

from dk_trio import Settings
from dk_trio.observe import Observation
from dk_trio.observe._format import MAX_MESSAGE
from dk_trio.observe._writer import BACKUPS, FILE_BYTES, FLUSH_TIMEOUT, LINGER, MAX_CHARACTERS, MAX_LINES
from dk_trio.observe.access_log import MAX_REQUEST_ID
from dk_trio.observe.logs import logging_to
from dk_trio.redaction import SHORTEST

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def fields(title: str) -> set[str]:
    """Of a table: the names in the first column."""
    rows = re.findall(r"^\| (`[^|]*`) \|", section(title), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


async def lines_of_a_job() -> tuple[dict[str, Any], dict[str, Any]]:
    """What the sample's handler has logged, and the access log of its call."""
    stream = io.StringIO()
    settings = Settings()
    settings = replace(settings, observe=replace(settings.observe, log_format="json"))
    observation = Observation(settings)
    root = logging.getLogger()
    others, root.handlers = root.handlers, []
    try:
        with logging_to(settings, stream=stream, worker="0"):
            async with served(logged.Counter, interceptors=observation.interceptors, hooks=observation.hooks) as (
                _,
                client,
            ):
                await outputs_of(
                    client, {"text": "a\fbc"}, protocol="pages", setup_id="setups:s", mission_id="missions:m"
                )
    finally:
        root.handlers = others
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    [authors] = [line for line in lines if line["logger"] == "logged"]
    return authors, lines[-1]


async def test_the_fields_of_a_line_are_those_of_the_page(autojump_clock: object) -> None:
    authors, access = await lines_of_a_job()
    assert (authors["message"], authors["extra"]) == ("2 pages", {"longest": 2})
    assert authors.keys() | {"exception", "trace"} == fields("Fields")
    common = {"timestamp", "level", "logger", "message", "pid", "worker"}
    assert (access.keys() - common) | {"trace"} == fields("Access log")
    [example] = re.findall(r"```json\n(.*)\n```", PAGE)
    assert list(json.loads(example)) == [name for name in access if name != "worker"]
    assert {name: authors[name] for name in ("request", "job", "mission", "setup")} == {
        name: access[name] for name in ("request", "job", "mission", "setup")
    }


def test_the_numbers_of_the_page() -> None:
    assert f"above {MAX_MESSAGE} characters" in PAGE
    assert f"at most {MAX_REQUEST_ID} characters" in PAGE
    assert f"one of {SHORTEST} characters or more" in PAGE
    assert f"{FILE_BYTES >> 20} MiB, to `.1` and so on up to `.{BACKUPS}`" in PAGE
    assert f"{MAX_LINES:,} lines or {MAX_CHARACTERS >> 20} MiB wait" in PAGE
    assert f"for {FLUSH_TIMEOUT:g} s at most" in PAGE
    assert f"the last {LINGER * 1000:g} ms" in PAGE
    assert LINGER == 1 / 20  # "twenty times a second"


async def test_the_program_serves() -> None:
    with trio.fail_after(60), logging_to(Settings(), stream=io.StringIO()):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(logged.serve, Settings(), 0)
            await trio.testing.wait_all_tasks_blocked(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
