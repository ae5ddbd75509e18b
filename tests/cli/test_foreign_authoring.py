"""What authors build, seen by peers that are not ours and behave as the existing SDK does: grpcio on both sides."""

import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.exceptions import GRPCError
from jsonschema import Draft202012Validator

import dk_trio

from .processes import PATIENCE, Running, environment, serving, started
from .processes import dk_trio as dk_trio_command

pytest.importorskip("grpc", reason="grpcio is the peer")

HERE = Path(__file__).parent
CALLER = str(HERE / "grpcio_authoring.py")
TOOL = str(HERE / "grpcio_tool.py")
MODULE = f"{HERE / 'authored_module.py'}:Agent"
DESCRIPTORS = str(Path(dk_trio.__file__).parent / "pb" / "descriptors.bin")

YEAR = 3e7  # seconds

Call = tuple[str, dict[str, Any], list[tuple[str, str]]]
Told = list[dict[str, Any]]


async def told_to(server: Running, *calls: Call) -> list[Told]:
    """What grpcio was told in each call: its responses, then its status."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, CALLER, DESCRIPTORS, server.address],
            stdin=json.dumps(calls).encode(),
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


def ask(method: str, **request: Any) -> Call:
    return method, request, []


def start(protocol: str, *metadata: tuple[str, str], beside: dict[str, Any] | None = None, **root: Any) -> Call:
    data = {"root": {"protocol": protocol, **root}, **(beside or {})}
    return "StartModule", {"input": data, "setup_id": "setups:agent", "mission_id": "missions:m"}, [*metadata]


def configure(**form: Any) -> Call:
    version = {"id": "setup_versions:agent-1", "setup_id": "setups:agent", "version": "1"}
    return ask("ConfigSetupModule", setup_version=version, content=form, mission_id="missions:m")


def roots(told: Told, protocol: str) -> list[dict[str, Any]]:
    found = [line["output"]["root"] for line in told if "root" in line.get("output", {})]
    return [root for root in found if root["protocol"] == protocol]


def ended(told: Told, status: str = "OK") -> dict[str, Any]:
    assert told[-1]["status"] == status, told
    return told[-1]


@asynccontextmanager
async def tool() -> AsyncIterator[tuple[Running, str]]:
    """The other module, and its port."""
    async with started(TOOL, DESCRIPTORS, program=[sys.executable]) as running:
        yield running, str(json.loads(await running.wait_for("port", "stdout"))["port"])


def seen_by(peer: Running, key: str) -> Told:
    """What the other module has told of its calls."""
    return [line for line in map(json.loads, peer.lines["stdout"]) if key in line]


SCHEMAS = {
    "GetModuleInput": "input_schema",
    "GetModuleOutput": "output_schema",
    "GetModuleSetup": "setup_schema",
    "GetModuleSecret": "secret_schema",
    "GetConfigSetupModule": "config_setup_schema",
    "GetModuleCost": "cost_schema",
}


async def test_schemas_are_what_callers_of_the_existing_sdk_read() -> None:
    async with serving(MODULE) as server:
        told = await told_to(
            server,
            *(ask(method) for method in SCHEMAS),
            *(ask(method, llm_format=True) for method in SCHEMAS),
            ask("GetModuleSelectInput"),
        )
    for answered in told:
        ended(answered)
        assert answered[0]["success"]
    names = SCHEMAS.values()
    plain, llm = (
        {name: answered[0][name] for name, answered in zip(names, part, strict=True)} for part in (told[:6], told[6:12])
    )
    select = told[12][0]["select_input_schema"]

    price = {"name": "words", "type": "OTHER", "description": None, "unit": "word", "rate": 0.5}
    assert plain.pop("cost_schema") == {"words": price}
    assert llm.pop("cost_schema") == {"json_schema": {"costs": {"words": price}}, "ui_schema": {}}

    assert {name: set(document) for name, document in llm.items()} == {
        "input_schema": {"json_schema"},
        "output_schema": {"json_schema"},
        "setup_schema": {"json_schema"},
        "secret_schema": {"json_schema", "ui_schema"},
        "config_setup_schema": {"json_schema", "ui_schema"},
    }
    assert set(plain["config_setup_schema"]["properties"]) == {"model", "tools", "upload"}
    assert set(plain["setup_schema"]["properties"]) == {"model", "tools", "index", "resolved_tools"}
    assert llm["secret_schema"]["ui_schema"] == {"token": {"ui:widget": "password"}}
    look = llm["config_setup_schema"]["ui_schema"]
    assert look["tools"]["ui:widget"] == "toolSelect"
    assert look["ui:order"] == ["model", "tools", "upload", "*"]  # a Struct forgets the order of its keys
    assert plain["config_setup_schema"]["properties"]["model"]["enum"] == ["small", "large"]

    assert select["ui_schema"] == {name: {"ui:widget": "checkbox"} for name in ("ask", "use")}
    assert select["json_schema"]["properties"]["ask"] == {
        "type": "boolean", "title": "ask", "description": "Answers a question", "default": True
    }  # fmt: skip
    for schema in (*plain.values(), *(document["json_schema"] for document in llm.values()), select["json_schema"]):
        Draft202012Validator.check_schema(schema)


async def test_functions_of_a_tool_are_found_as_the_existing_sdk_finds_them() -> None:
    async with serving(MODULE) as server:
        [answered] = await told_to(server, ask("GetModuleInput", llm_format=True))
    ended(answered)
    schema = answered[0]["input_schema"]["json_schema"]
    functions = {
        definition["properties"]["protocol"]["const"]: definition
        for name, definition in schema["$defs"].items()
        if "const" in definition.get("properties", {}).get("protocol", {}) and not name.startswith("Healthcheck")
    }
    assert set(functions) == {"ask", "use"}
    assert functions["ask"]["description"] == "Asks a question."
    parameters = functions["ask"]["properties"]
    assert parameters["style"]["properties"]["words"]["maximum"] == 10
    assert "$ref" not in json.dumps(functions)
    assert "default" not in parameters["at_most"]  # JSON has no infinity, and grpcio's callers refuse the whole schema
    for definition in functions.values():
        Draft202012Validator.check_schema(definition)


async def test_health_checks_have_their_fields_where_callers_look() -> None:
    full = {"DIGITALKIN_MAX_CONCURRENT_TASKS": "1", "DIGITALKIN_BACKPRESSURE_STRATEGY": "reject"}
    checks = [f"healthcheck_{name}" for name in ("ping", "services", "status")]
    async with serving(MODULE, **full) as server, dk_trio.ModuleClient.connect(server.address) as client:
        with trio.fail_after(PATIENCE):
            async with client.start({"text": "wait"}, protocol="ask") as outputs:
                async for output in outputs:
                    if output["root"]["protocol"] == "text":
                        break
                refused, *answers = await told_to(server, start("ask", text="hi"), *map(start, checks))
    assert ended(refused, "RESOURCE_EXHAUSTED")["details"][0]["reason"] == "NO_FREE_SLOT"
    found = {}
    for check, answered in zip(checks, answers, strict=True):
        ended(answered)
        first, answer, last, _ = answered
        assert first["output"]["root"]["protocol"] == "module_start_info"
        assert last["output"]["root"]["protocol"] == "end_of_stream"
        output = answer["output"]
        root = output.pop("root")
        assert output.pop("annotations") == {"role": "system"}
        assert output == root
        assert root["protocol"] == check
        found[check] = root
    assert found["healthcheck_ping"]["status"] == "pong"
    assert found["healthcheck_services"]["overall_status"] == "healthy"
    assert {"storage", "cost", "registry"} <= {row["name"] for row in found["healthcheck_services"]["services"]}
    status = found["healthcheck_status"]
    assert (status["module_name"], status["module_status"], status["active_jobs"]) == ("agent", "RUNNING", 1)


async def test_a_setup_with_a_foreign_tool_outlives_the_server_that_configured_it(tmp_path: Path) -> None:
    selected = {"setupId": "setups:tool", "triggers": {"echo": True, "plain": True}}
    metadata = [("my-tag", "a"), ("my-bin", "00ff80"), ("my-tag", "b"), ("authorization", "Bearer secret")]
    async with tool() as (peer, port):
        async with serving(MODULE, TOOL_PORT=port) as server:
            [configured] = await told_to(server, configure(tools=[selected], upload="a.pdf"))
        ended(configured)
        content = configured[0]["setup_version"]["content"]
        assert set(content) == {"model", "tools", "index", "resolved_tools"}
        assert (content["tools"], content["index"]) == ([selected], "index of a.pdf")
        resolved = content["resolved_tools"]["setups:tool"]
        assert (resolved["tool_name"], resolved["module_id"]) == ("The Tool", "modules:tool")
        assert resolved["cost_config"]["calls"]["rate"] == 2
        functions = {function["name"]: function for function in resolved["tools"]}
        assert set(functions) == {"echo", "fail", "refuse", "plain", "silent", "wait"}
        assert functions["echo"]["description"] == "Does echo."
        assert functions["echo"]["parameters_schema"]["properties"]["options"]["properties"]["deep"]["maxLength"] == 10
        assert not seen_by(peer, "root")

        # Another process, from what the caller has kept.
        setups = tmp_path / "setups.json"
        setups.write_text(json.dumps({"setups:agent": {"content": content, "id": "setup_versions:agent-1"}}))
        async with serving(MODULE, "--setup", str(setups), TOOL_PORT=port) as server:
            [used] = await told_to(server, start("use", *metadata, function="echo", arguments={"n": 2}))
        ended(used)
        answers = [root["answer"] for root in roots(used, "tool_answer")]
        assert [answer["output"]["root"]["protocol"] for answer in answers] == ["module_start_info", *["echoed"] * 2]
        assert used[0]["output"]["root"]["setup_version_id"] == "setup_versions:agent-1"
        [seen] = seen_by(peer, "root")
    assert seen["root"] == {"protocol": "echo", "n": 2}
    assert seen["ids"] == ["setups:tool", "missions:m"]
    pairs = [tuple(pair) for pair in seen["metadata"]]
    assert [value for key, value in pairs if key == "my-tag"] == ["a", "b"]
    assert {("my-bin", "00ff80"), ("authorization", "Bearer secret")} <= set(pairs)
    assert dict(pairs)["user-agent"].startswith("grpc-python-dk-trio/")  # the caller's own speaks of its own call
    assert {answer["job_id"] for answer in answers} == {answers[0]["output"]["root"]["job_id"]}


async def test_each_way_a_job_of_the_existing_sdk_ends() -> None:
    selected = {"setupId": "setups:tool", "triggers": dict.fromkeys("fail refuse plain silent wait".split(), True)}
    async with tool() as (peer, port), serving(MODULE, TOOL_PORT=port) as server:
        configured, plain, failed, refused, silent, left = await told_to(
            server,
            configure(tools=[selected]),
            start("use", function="plain", arguments={"n": 1}),
            start("use", function="fail"),
            start("use", function="refuse"),
            start("use", function="silent", arguments={"n": 1}),
            start("use", function="wait", seconds=0.2),
        )
        ended(configured)
        for answered in (plain, silent):
            ended(answered)
            assert len(roots(answered, "tool_answer")) == 2
        assert "it broke" in ended(failed, "INTERNAL")["message"]
        assert "INVALID_ARGUMENT: [ModuleServicer.StartModule] no such input" in ended(refused, "INTERNAL")["message"]
        assert [detail["reason"] for answered in (failed, refused) for detail in answered[-1]["details"]] == [
            "MODULE_CALL_FAILED"
        ] * 2
        ended(left)
        assert roots(left, "tool_answer")[-1]["answer"] == {"left": True}
        await peer.wait_for('"ended": "wait"', "stdout")
        assert seen_by(peer, "ended")[-1] == {"ended": "wait", "active": False}
        assert min(seen["seconds"] for seen in seen_by(peer, "root")) > YEAR  # no deadline, in grpcio's words


async def test_a_failure_that_only_the_stream_tells_is_one_for_every_caller() -> None:
    async with tool() as (_, port), dk_trio.ModuleClient.connect(f"127.0.0.1:{port}") as client:
        with trio.fail_after(PATIENCE):
            async with client.start({}, protocol="fail") as outputs:
                assert (await anext(outputs))["root"]["protocol"] == "module_start_info"
                with pytest.raises(GRPCError, match="it broke"):
                    await anext(outputs)
                assert outputs.failure is not None
                assert outputs.failure["short_description"] == "Module execution failed"
        called = await dk_trio_command("call", f"127.0.0.1:{port}", "--protocol", "fail", "--input", "{}")
    assert called.returncode != 0
    assert b"it broke" in called.stderr


async def test_a_deadline_reaches_the_tool_of_a_tool() -> None:
    selected = {"setupId": "setups:tool", "triggers": {"wait": True}}
    async with tool() as (peer, port), serving(MODULE, TOOL_PORT=port) as server:
        async with dk_trio.ModuleClient.connect(server.address) as client:
            with trio.fail_after(PATIENCE):
                await client.config_setup({"tools": [selected]}, setup_id="setups:agent")
                root = {"function": "wait", "arguments": {}}
                async with client.start(root, protocol="use", setup_id="setups:agent", timeout=PATIENCE) as outputs:
                    await peer.wait_for('"waiting"', "stdout")
                    assert outputs.job_id == ""
        await peer.wait_for('"ended"', "stdout")  # its caller's caller has left
    [seen] = seen_by(peer, "root")
    assert PATIENCE / 2 < seen["seconds"] <= PATIENCE + 1


async def test_limits_numbers_and_metadata_of_a_caller() -> None:
    limits = [{"limit_type": "quantity", "name": "words", "max_value": 2}, {"limit_type": "amount", "max_value": 5}]
    unlimited = start("ask", ("my-bin", "00ff"), ("my-tag", "a"), ("my-tag", "b"), text="one two", größe=2)
    async with serving(MODULE) as server:
        told = await told_to(
            server,
            unlimited,
            start("ask", beside={"cost_limits": limits}, text="one two"),
            start("ask", beside={"cost_limits": limits}, text="one two three"),
            start("ask", beside={"cost_limits": [{"limit_type": "amount", "max_value": -1}]}, text="one"),
            start("ask", text="", größe=0, style={"words": 11.5}, largest=2**62),
            start("ask", text="x", größe="viel"),
        )
    metadata, within, beyond, bad_limit, bad_input, bad_name = told
    ended(metadata)
    text = roots(metadata, "text")[0]["text"]
    assert "'my-bin': ['00ff']" in text
    assert "'my-tag': ['a', 'b']" in text
    ended(within)
    failure = beyond[-2]
    assert "success" not in failure  # false is the default, which is not sent
    assert set(failure["output"]) == {"code", "message", "short_description"}
    # Not RESOURCE_EXHAUSTED, which existing callers repeat.
    assert violations(beyond, "FAILED_PRECONDITION") == ["input.cost_limits[0].max_value"]
    assert beyond[-1]["details"][0]["reason"] == "COST_LIMIT"
    assert violations(bad_limit) == ["input.cost_limits[0].max_value"]
    assert violations(bad_input) == ["input.root.text", "input.root.style.words", "input.root.größe"]
    assert violations(bad_name) == ["input.root.größe"]
    assert re.search(r"größe: input should be a valid integer.*'viel'", bad_name[-1]["message"])


def violations(told: Told, status: str = "INVALID_ARGUMENT") -> list[str]:
    details = ended(told, status)["details"]
    assert details[0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    [rows] = [detail["fieldViolations"] for detail in details if detail["@type"].endswith(".BadRequest")]
    assert all(row["description"] for row in rows)
    return [row["field"] for row in rows]
