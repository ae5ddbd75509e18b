"""What `serve` makes of its options: several modules, a check without serving, settings from flags."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tests.module.served import DAY

from dk_trio import ModuleServer, Settings
from dk_trio.cli._load import load_module
from dk_trio.extensions import MODULE_ID
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleRequest, StartModuleResponse
from dk_trio.pb.google.protobuf import Struct
from dk_trio.routing import START_MODULE

from .processes import ECHO, PATIENCE, beside, here, outputs_of, serving

MODULE = """
from typing import Literal
from dk_trio.module import DataModel, DataTrigger, SetupModel, TriggerHandler, TrioModule

class Message(DataTrigger):
    protocol: Literal["message"] = "message"
    text: str = ""

class Input(DataModel[Message]):
    pass

class Setup(SetupModel):
    prefix: str = ""

class Speaker(TrioModule[Input, DataModel[Message], Setup]):
    name = "NAME"
    metadata = {"module_id": "modules:NAME", "version": "1.5"}

@Speaker.register
class Handler(TriggerHandler):
    protocol = "message"

    async def handle(self, input_data, setup_data, context):
        await context.send(Message(text=setup_data.prefix + "NAME"))
"""


@pytest.fixture
def speakers(tmp_path: Path) -> Iterator[list[str]]:
    """Two files of modules, in folders of their own."""
    before, paths = [*sys.path], []
    for name in ("left", "right"):
        path = tmp_path / name / "speaker.py"
        path.parent.mkdir()
        path.write_text(MODULE.replace("NAME", name))
        paths.append(str(path))
    yield paths
    sys.path[:] = before
    for name, loaded in [*sys.modules.items()]:
        if str(getattr(loaded, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_says_what_would_be_served(speakers: list[str], tmp_path: Path) -> None:
    setups = tmp_path / "setups.json"
    setups.write_text('{"setups:loud": {"prefix": "!"}}')
    arguments = ["--check", "--setup", f"right={setups}", "--port", "7", "--host", "::1", "--workers", "3"]
    done = here("serve", *speakers, *arguments, DIGITALKIN_DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        f"left 1.5 (modules:left), Speaker in {speakers[0]}",
        "  protocols  message",
        "  setups     setups:left",
        f"right 1.5 (modules:right), Speaker in {speakers[1]}",
        "  protocols  message",
        "  setups     setups:loud, setups:right",
        "would listen on [::1]:7, plaintext, 3 workers",
        f"local mode, data in {tmp_path / 'left+right'}",
    ]
    assert not (tmp_path / "left+right").exists()


def test_check_in_json(speakers: list[str]) -> None:
    done = here("serve", speakers[0], "--check", "--json", "--provider", "127.0.0.1:1", "--host", "0.0.0.0")
    found = json.loads(done.stdout)
    (module,) = found.pop("modules")
    assert module == {
        "id": "modules:left",
        "name": "left",
        "version": "1.5",
        "target": speakers[0],
        "class": "Speaker",
        "file": speakers[0],
        "protocols": ["message"],
        "setups": [],
    }
    assert any("in plaintext" in warning for warning in found.pop("warnings"))
    assert found == {
        "address": "0.0.0.0:50055",
        "security": "plaintext",
        "workers": 1,
        "mode": "remote",
        "provider": "127.0.0.1:1",
        "data": None,
    }
    assert b"warning: listening on 0.0.0.0 in plaintext" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "code", "message"),
    [
        (["none.py"], {}, 4, "none.py does not exist"),
        (["none"], {}, 4, "'none' names no module class. Write PATH.py[:Class] or package.module:Class."),
        ([ECHO, ECHO], {}, 2, "echo_module.py is named twice: one server serves a module once."),
        ([ECHO, f"{ECHO}:EchoModule"], {}, 4, "have the same id, 'echo'."),
        ([ECHO.removesuffix(".py")], {}, 4, "echo_module does not exist."),
        ([ECHO, "--setup", "none.json"], {}, 3, "The setup file none.json cannot be read"),
        ([ECHO, "--setup", "a=1", "--setup", "b=2"], {}, 3, "The setup file 1 is for the module 'a', which is not"),
        ([ECHO, f"{ECHO}:EchoModule", "--setup", "one.json"], {}, 2, "'one.json' does not say which module it is for"),
        ([ECHO, "--tls-cert", "none.pem"], {}, 3, "DIGITALKIN_TLS_CERT=none.pem has no DIGITALKIN_TLS_KEY"),
        ([ECHO, "--tls-cert", "none.pem", "--tls-key", "none.key"], {}, 3, "none.pem"),
        ([ECHO], {"DIGITALKIN_WORKERS": "many"}, 3, "DIGITALKIN_WORKERS='many' cannot be used"),
        ([ECHO, "--provider", "x", "--local"], {}, 2, "--provider and --local contradict each other"),
        ([ECHO, "--env-file", "none.env"], {}, 3, "none.env"),
    ],
)
def test_what_a_check_finds(arguments: list[str], env: dict[str, str], code: int, message: str) -> None:
    done = here("serve", *arguments, "--check", **env)
    assert done.returncode == code, done.stderr
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "mode", "told"),
    [
        ([], {}, True),
        ([], {"SERVICE_MODE": "local"}, True),
        ([], {"SERVICE_MODE": "remote"}, False),
        (["--provider", "elsewhere:50051"], {}, False),
        (["--local"], {}, False),
    ],
    ids=str,
)
def test_a_provider_that_is_named_in_vain(arguments: list[str], mode: dict[str, str], told: bool) -> None:
    done = here("serve", ECHO, "--check", *arguments, DIGITALKIN_PROVIDER="mesh:50051", **mode)
    assert done.returncode == 0, done.stderr
    warned = b"DIGITALKIN_PROVIDER=mesh:50051 is not used: SERVICE_MODE is local." in done.stderr
    assert warned is told, done.stderr


def test_json_is_for_a_check() -> None:
    done = here("serve", ECHO, "--json")
    assert done.returncode == 2
    assert b"--json is for --check" in done.stderr


def test_options_stand_for_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []
    monkeypatch.setattr("dk_trio.cli._serving.serve", lambda wanted, *_, **__: given.append(wanted.settings))
    options = {
        "--host": ("SERVER_CHANNEL_HOST", "[::1]"),
        "--port": ("SERVER_CHANNEL_PORT", "7"),
        "--grace": ("DIGITALKIN_GRACE", "2.5"),
        "--metrics-port": ("DIGITALKIN_METRICS_PORT", "0"),
        "--inspector": ("DIGITALKIN_INSPECTOR", None),
        "--log-level": ("DIGITALKIN_LOG_LEVEL", "error"),
        "--log-format": ("DIGITALKIN_LOG_FORMAT", "json"),
        "--auth-token-file": ("DIGITALKIN_AUTH_TOKENS_FILE", "tokens"),
        "--provider": ("DIGITALKIN_PROVIDER", "127.0.0.1:1"),
        "--workers": ("DIGITALKIN_WORKERS", "1"),
    }
    arguments = [text for option, (_, value) in options.items() for text in (option, value) if text is not None]
    done = here("serve", ECHO, *arguments, SERVER_CHANNEL_PORT="9", DIGITALKIN_GRACE="77")
    assert done.returncode == 0, done.stderr
    (settings,) = given
    origins = {row.variable.name: row.origin for row in settings.sources}
    for option, (variable, _) in options.items():
        assert origins[variable] == f"flag {option}"
    assert origins["SERVICE_MODE"] == "flag --provider"
    assert (settings.server.host, settings.server.port, settings.server.grace) == ("::1", 7, 2.5)
    assert settings.observe.inspector


# --- several modules -------------------------------------------------------------------------------------------------


async def test_several_modules_over_a_port_and_one_is_edited(speakers: list[str]) -> None:
    async with serving(*speakers, "--reload") as server:

        async def said(module: str) -> str:
            arguments = ["call", server.address, "--module", module, "--protocol", "message", "--input", "{}"]
            done = await beside(*arguments)
            assert done.returncode == 0, done.stderr
            text: str = outputs_of(done.stdout)[1]["root"]["text"]
            return text

        assert [await said("left"), await said("modules:right")] == ["left", "right"]
        path = Path(speakers[1])
        path.write_text(path.read_text().replace('+ "right"', '+ "wrong"'))
        line = await server.wait_for(" reloaded in ")
        assert f"INFO dk_trio.reload: {path} reloaded in " in line
        assert [await said("left"), await said("right")] == ["left", "wrong"]


async def test_a_client_in_c_says_which_module_it_means(speakers: list[str]) -> None:
    import grpc

    request = StartModuleRequest(input=Struct.from_dict({"root": {"protocol": "message"}}), mission_id="missions:m")

    def call(address: str) -> list[str]:
        with grpc.insecure_channel(address) as channel:
            start = channel.unary_stream(
                START_MODULE, request_serializer=bytes, response_deserializer=StartModuleResponse.parse
            )
            replies = [*start(request, metadata=[(MODULE_ID, "right")], timeout=PATIENCE)]
        return [str(reply.output.to_dict()["root"].get("text")) for reply in replies if reply.output is not None]

    with trio.fail_after(DAY):
        async with ModuleServer(*map(load_module, speakers)).running(port=0) as address:
            assert (await trio.to_thread.run_sync(call, address))[1] == "right"


def test_files_of_one_name_are_two_modules(speakers: list[str]) -> None:
    left, right = map(load_module, speakers)
    assert {left.__module__, right.__module__} == {"speaker", "dk_trio_module_speaker"}
