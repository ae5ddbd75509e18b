"""What bad input gets of a module that is served in a process: a status that says what and why, and a line of the log.

The caller is grpcio, which takes the details out of the trailers as grpc_status does. All refusals are asked for of one
process, one after another, and after each the same process does a job.
"""

import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import dk_trio

from .processes import PATIENCE, Running, environment, serving, started

pytest.importorskip("grpc", reason="grpcio is the caller")

HERE = Path(__file__).parent
CALLER = str(HERE / "grpcio_authoring.py")
MODULE = f"{HERE / 'refusing_module.py'}:Refusing"
DESCRIPTORS = str(Path(dk_trio.__file__).parent / "pb" / "descriptors.bin")

MISSION = "missions:of these tests"
SECRET = "swordfish"  # what the log must not have
FORGED = "x\n2026-01-01 00:00:00,000 CRITICAL dk_trio.server: all is lost"
TOOL = {"setupId": "setups:tool", "triggers": {"say": True}}
GOOD = ("StartModule", {"root": {"protocol": "ask", "text": "hello"}}, "setups:plain")

Told = list[dict[str, Any]]
Call = tuple[str, dict[str, Any], str]


def request(call: Call) -> tuple[str, dict[str, Any], list[Any]]:
    method, content, setup_id = call
    if method == "StartModule":
        return method, {"input": content, "setup_id": setup_id, "mission_id": MISSION}, []
    if method == "ConfigSetupModule":
        version = {"id": "setup_versions:9", "setup_id": setup_id, "version": "9"}
        return method, {"setup_version": version, "content": content, "mission_id": MISSION}, []
    return method, content, []


async def told_to(server: Running, *calls: Call) -> list[Told]:
    """What the caller was told in each call: the responses, then the status."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, CALLER, DESCRIPTORS, server.address],
            stdin=json.dumps([request(call) for call in calls]).encode(),
            capture_stdout=True,
            env=environment(),
        )
    told: list[Told] = [[]]
    for line in map(json.loads, done.stdout.splitlines()):
        told[-1].append(line)
        if "status" in line and "details" in line:
            told.append([])
    assert not told.pop()
    return told


@asynccontextmanager
async def refusing(directory: Path) -> AsyncIterator[Running]:
    """The module, with a setup whose tool was found before its server went, and a tool that cannot be found now."""
    with socket.socket() as nobody:  # bound and not listening: whoever connects is refused
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        found = {
            "module_id": "modules:tool",
            "address": "127.0.0.1",
            "port": port,
            "setup_id": "setups:tool",
            "tool_name": "Tool",
            "tools": [{"name": "say", "description": "Says.", "parameters_schema": {"type": "object"}}],
        }
        setups = {
            "setups:plain": {},
            "setups:found": {"tools": [TOOL], "resolved_tools": {"setups:tool": found}},
            "setups:lost": {"tools": [TOOL]},
        }
        (directory / "setups.json").write_text(json.dumps(setups))
        async with serving(
            MODULE,
            *("--setup", str(directory / "setups.json"), "--strict-setup"),
            TOOL_PORT=str(port),
            DIGITALKIN_DATA_DIR=str(directory / "data"),
            DIGITALKIN_FETCH_TIMEOUT="0.2",
            DIGITALKIN_TOOL_RESOLVE_TIMEOUT="1",
        ) as server:
            yield server


def start(protocol: str, *, setup_id: str = "setups:plain", limits: Any = None, **root: Any) -> Call:
    limited = {} if limits is None else {"cost_limits": limits}
    return "StartModule", {"root": {"protocol": protocol, **root}, **limited}, setup_id


def configure(**form: Any) -> Call:
    return "ConfigSetupModule", form, "setups:configured"


REFUSED: dict[str, tuple[Call, str, str, list[tuple[str, str]]]] = {
    # call, status, reason, and of each violation its field and what its description has
    "a field": (
        start("ask", text="h", times=11),
        "INVALID_ARGUMENT",
        "INVALID_INPUT",
        [("input.root.text", "at least 2 characters.*'h'"), ("input.root.times", r"less than or equal to 10.*11")],
    ),
    "a field that is missing": (
        start("write"),
        "INVALID_ARGUMENT",
        "INVALID_INPUT",
        [("input.root.name", "required")],
    ),
    "no root": (("StartModule", {}, "setups:plain"), "INVALID_ARGUMENT", "INVALID_INPUT", [("input.root", "object")]),
    "an unknown protocol": (
        start("whisper"),
        "INVALID_ARGUMENT",
        "UNKNOWN_PROTOCOL",
        [("input.root.protocol", "one of: ask, write, keep, delegate.*'whisper'")],
    ),
    "an unknown setup": (
        start("ask", text="hello", setup_id="setups:gone"),
        "NOT_FOUND",
        "SETUP_NOT_FOUND",
        [("setup_id", "'setups:gone'")],
    ),
    "a setup whose id looks like a line of the log": (
        start("ask", text="hello", setup_id=FORGED),
        "NOT_FOUND",
        "SETUP_NOT_FOUND",
        [("setup_id", "must be the id of a setup")],
    ),
    "a form": (
        configure(words=0, word=7),
        "INVALID_ARGUMENT",
        "INVALID_SETUP",
        [("content.words", "greater than or equal to 1.*0"), ("content.word", "valid string.*7")],
    ),
    "a form as a whole": (
        configure(word="secret"),
        "INVALID_ARGUMENT",
        "INVALID_SETUP",
        [("content", "is no word for everybody")],
    ),
    "a form of no setup": (
        ("ConfigSetupModule", {}, ""),
        "INVALID_ARGUMENT",
        "INVALID_SETUP",
        [("setup_version.setup_id", "must not be empty")],
    ),
    "a cost above its limit": (
        start("ask", text="h" * 40, limits=[{"limit_type": "quantity", "name": "tokens", "max_value": 30}]),
        "FAILED_PRECONDITION",
        "COST_LIMIT",
        [(r"input.cost_limits[0].max_value", "at most 30.*40")],
    ),
    "a limit that is none": (
        start("ask", text="hello", limits=[{"limit_type": "amount", "max_value": -1}]),
        "INVALID_ARGUMENT",
        "INVALID_INPUT",
        [("input.cost_limits[0].max_value", "greater than or equal to 0.*-1")],
    ),
    "a path with ..": (
        start("write", name="../../etc/passwd"),
        "INVALID_ARGUMENT",
        "INVALID_FILE",
        [("files[0].name", r"'../../etc/passwd'.*two dots")],
    ),
    "a record": (
        start("keep", collection="numbers", number=SECRET),
        "INVALID_ARGUMENT",
        "INVALID_RECORD",
        [("numbers.number", f"valid integer.*'{SECRET}'")],
    ),
    "an unknown collection": (
        start("keep", collection="texts", number="1"),
        "INVALID_ARGUMENT",
        "INVALID_RECORD",
        [("collection", "one of numbers.*'texts'")],
    ),
    "a tool in a form whose server is down": (
        configure(tools=[TOOL]),
        "UNAVAILABLE",
        "TOOL_UNAVAILABLE",
        [("content.tools[0].setupId", "'setups:tool'.*refused")],
    ),
    "a tool of a job whose server is down": (
        start("delegate", setup_id="setups:lost"),
        "UNAVAILABLE",
        "TOOL_UNAVAILABLE",
        [("content.tools[0].setupId", "'setups:tool'.*refused")],
    ),
    "a tool that was found, and whose server is down": (
        start("delegate", setup_id="setups:found"),
        "UNAVAILABLE",
        "MODULE_CALL_FAILED",
        [("address", r"module that answers, not 127\.0\.0\.1:\d+: .*refused")],
    ),
}


async def test_every_refusal_names_field_value_and_rule_and_the_next_call_works(tmp_path: Path) -> None:
    calls = [part for call, *_ in REFUSED.values() for part in (call, GOOD)]
    async with refusing(tmp_path) as server:
        told = await told_to(server, *calls)
        log = server.lines["stderr"]
        assert len(told) == 2 * len(REFUSED)
        for (what, (call, status, reason, violations)), refused, next_one in zip(
            REFUSED.items(), told[::2], told[1::2], strict=True
        ):
            check_status(what, refused[-1], status, reason, violations)
            assert next_one[-1]["status"] == "OK", what
            job_id = refused[-1 - (call[0] == "StartModule")].get("job_id", "")
            await server.wait_for(line_of_log(call, job_id, reason))
    refusals = [line for line in log if "dk_trio.servicer" in line]
    assert len(refusals) == len(REFUSED), "one line for each"
    assert not any(SECRET in line for line in log), "the log has fields, and not what callers put into them"
    assert not any(line.startswith("2026-01-01") for line in log), "what a caller writes is no line of its own"
    [by_a_service] = [line for line in refusals if "INVALID_RECORD (collection)" in line]
    assert re.search(r"\(.*refusing_module\.py:\d+ in handle\)(  |$)", by_a_service), "the place in the author's code"


def check_status(what: str, told: dict[str, Any], status: str, reason: str, violations: list[tuple[str, str]]) -> None:
    assert told["status"] == status, (what, told)
    info, *others = told["details"]
    assert (info["reason"], info["domain"]) == (reason, "dk-trio"), what
    rows = [row for detail in others for row in detail.get("fieldViolations", [])]
    assert [row["field"] for row in rows] == [field for field, _ in violations], what
    for row, (_, description) in zip(rows, violations, strict=True):
        assert re.search(description, row["description"]), (what, row)


def line_of_log(call: Call, job_id: str, reason: str) -> str:
    """The first words of the line that an operator looks for."""
    method, _, setup_id = call
    return f"{f'job {job_id}' if job_id else method} of mission {MISSION!r}, setup {setup_id!r} failed: {reason}"


async def test_a_fetcher_that_hangs_is_told_in_the_form_and_in_the_log(tmp_path: Path) -> None:
    async with refusing(tmp_path) as server:
        [form, good] = await told_to(server, ("GetConfigSetupModule", {}, ""), GOOD)
        await server.wait_for("field language: the fetcher of enum failed")
    field = form[0]["config_setup_schema"]["properties"]["language"]
    assert field["x-dynamic-errors"] == {"enum": "TimeoutError: no answer within 0.2 s"}
    assert "enum" not in field
    assert [form[-1]["status"], good[-1]["status"]] == ["OK", "OK"]


async def test_a_second_run_in_the_same_directory_has_what_the_first_one_kept_and_one_beside_it_is_refused(
    tmp_path: Path,
) -> None:
    keep = start("keep", collection="numbers", number="1")
    async with refusing(tmp_path) as server:
        [first] = await told_to(server, keep)
        assert first[-1]["status"] == "OK"
        arguments = (MODULE, "--port", "0")
        async with started("serve", *arguments, TOOL_PORT="1", DIGITALKIN_DATA_DIR=str(tmp_path / "data")) as beside:
            assert await beside.wait() == 3
        assert re.search(r"in use by the process \d+.*DIGITALKIN_DATA_DIR", "\n".join(beside.lines["stderr"]))
        server.process.terminate()
        assert await server.wait() == 0
    async with refusing(tmp_path) as again:
        [told] = await told_to(again, keep)
        assert told[1]["output"]["root"]["records"] == 2


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DIGITALKIN_FETCH_TIMEOUT", "soon", "DIGITALKIN_FETCH_TIMEOUT='soon' .*number of seconds"),
        ("SERVICE_MODE", "far", "SERVICE_MODE='far' .*local or remote"),
        ("DIGITALKIN_TIMEZONE", "Mars/Base", "DIGITALKIN_TIMEZONE='Mars/Base' .*IANA"),
    ],
)
async def test_a_wrong_variable_ends_the_command_with_its_name_and_the_rule(
    variable: str, value: str, says: str
) -> None:
    async with started("serve", MODULE, TOOL_PORT="1", **{variable: value}) as server:
        assert await server.wait() == 3
    assert re.search(says, "\n".join(server.lines["stderr"]))
