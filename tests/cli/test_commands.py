"""`serve` and `call` as a user runs them: exit codes, what goes to stdout, and what one paragraph says."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from dk_trio import rpc
from dk_trio.cli import commands, main

from .processes import DK_TRIO, ECHO, PATIENCE, dk_trio, environment, outputs_of, serving, started


def paragraph(stderr: bytes) -> str:
    """What a command said, which must be one paragraph and no traceback."""
    text = stderr.decode()
    assert "Traceback" not in text
    return text


async def test_call_prints_one_output_a_line() -> None:
    async with serving(ECHO) as server:
        done = await dk_trio("call", server.address, "--protocol", "message", "--input", '{"text": "hé", "n": 3}')
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
        outputs = [output["root"] for output in outputs_of(done.stdout)]
        assert [root["protocol"] for root in outputs] == ["module_start_info", *["message"] * 3, "end_of_stream"]
        assert outputs[1:-1] == [{"protocol": "message", "text": "hé", "i": i} for i in range(3)]
        assert b'"i":0,' in done.stdout or b'"i":0}' in done.stdout  # whole, not 0.0
        assert server.lines["stdout"] == [f"READY {server.address}"]


async def test_outputs_are_printed_as_they_arrive() -> None:
    async with (
        serving(ECHO) as server,
        started("call", server.address, "--protocol", "message", "--input", '{"text": "first", "tail_s": 600}') as call,
    ):
        await call.wait_for('"first"', "stdout")
        call.process.send_signal(signal.SIGINT)
        assert await call.wait() == 130
        assert "".join(call.lines["stderr"]) == ""  # an empty line after the ^C of a terminal


async def test_ctrl_c_cancels_the_job_on_the_server(tmp_path: Path) -> None:
    events = tmp_path / "events"
    async with serving(ECHO, BENCH_EVENT_LOG=str(events)) as server:
        async with started(
            "call", server.address, "--protocol", "message", "--input", '{"n": 1, "tail_s": 600}'
        ) as call:
            first = json.loads(await call.wait_for("module_start_info", "stdout"))
            await call.wait_for('"i"', "stdout")
            call.process.send_signal(signal.SIGINT)
            assert await call.wait() == 130
        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
        time, event, job_id = events.read_text().split()
        assert float(time) > 0
        assert (event, job_id) == ("cancelled", first["root"]["job_id"])


async def test_the_forms_of_input(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text('{"root": {"protocol": "message", "text": "from a file"}}')
    async with serving(ECHO) as server:
        for arguments, stdin, text in [
            (["--input", f"@{path}"], b"", "from a file"),
            (["--input", "-", "--protocol", "message"], b'{"text": "piped"}', "piped"),
        ]:
            done = await dk_trio("call", server.address, *arguments, stdin=stdin)
            assert done.returncode == 0, done.stderr
            assert outputs_of(done.stdout)[1]["root"]["text"] == text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--input", '{"text": "x"}', "--protocol", "nope"], 13, "INVALID_ARGUMENT: Unknown protocol 'nope'"),
        (["--input", '{"n": "many"}', "--protocol", "message"], 13, "n: input should be a valid integer"),
        (["--input", '{"fail": "raise"}', "--protocol", "message"], 23, "INTERNAL: ValueError: asked to fail"),
        (["--input", '{"sleep_s": 600}', "--protocol", "message", "--timeout", "0.5"], 14, "DEADLINE_EXCEEDED"),
        (["--input", "{", "--protocol", "message"], 2, "is not JSON: line 1, column 2"),
        (["--input", '{"protocol": "a"}', "--protocol", "message"], 2, "the input says protocol 'a'"),
        (["--input", '{"text": "\\ud800"}'], 2, "the input cannot be sent: "),
        (["--input", "{}", "--timeout", "nan"], 2, "'nan' is no such time"),
        (["--input", "{}", "--metadata", "te=x"], 2, "metadata key 'te' is reserved"),
    ],
)
async def test_what_a_call_can_end_with(arguments: list[str], code: int, message: str) -> None:
    async with serving(ECHO) as server:
        done = await dk_trio("call", server.address, *arguments)
    assert done.returncode == code, done.stderr
    assert message in paragraph(done.stderr)


async def test_nobody_listens() -> None:
    listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    for listener in listeners:
        await listener.aclose()
    done = await dk_trio("call", f"127.0.0.1:{port}", "--input", "{}")
    assert done.returncode == 24
    text = paragraph(done.stderr)
    assert text.startswith(f"dk-trio: 127.0.0.1:{port}: UNAVAILABLE: ")
    assert f"127.0.0.1:{port}" in text


async def test_setups(tmp_path: Path) -> None:
    path = tmp_path / "setups.json"
    path.write_text('{"setups:loud": {"prefix": "HEY "}}')
    async with serving(ECHO, "--setup", str(path), "--strict-setup") as server:
        arguments = ["call", server.address, "--protocol", "message", "--input", '{"text": "you"}', "--setup-id"]
        done = await dk_trio(*arguments, "setups:loud")
        assert outputs_of(done.stdout)[1]["root"]["text"] == "HEY you"
        done = await dk_trio(*arguments, "setups:other")
        assert done.returncode == 15
        assert "Setup 'setups:other' not found (known: loud)" in paragraph(done.stderr)


async def test_sigterm_drains() -> None:
    async with (
        serving(ECHO) as server,
        started("call", server.address, "--protocol", "message", "--input", '{"n": 3, "gap_s": 0.3}') as call,
    ):
        await call.wait_for('"i":0', "stdout")
        server.process.send_signal(signal.SIGTERM)
        assert await call.wait() == 0
        assert "end_of_stream" in call.lines["stdout"][-1]
        assert await server.wait() == 0
        assert "SIGTERM: draining, 1 running and 0 waiting jobs get 10 s" in server.lines["stderr"][-2]
        assert server.lines["stderr"][-1].endswith("stopped: 1 jobs finished while draining, 0 were cut")


@pytest.mark.parametrize("second_signal", [True, False])
async def test_what_does_not_end_in_time_is_cut(second_signal: bool) -> None:
    grace = "600" if second_signal else "0.3"
    async with (
        serving(ECHO, "--grace", grace) as server,
        started("call", server.address, "--protocol", "message", "--input", '{"tail_s": 600}') as call,
    ):
        await call.wait_for('"i":0', "stdout")
        server.process.send_signal(signal.SIGINT)
        if second_signal:
            await server.wait_for("draining")
            server.process.send_signal(signal.SIGTERM)
        assert await call.wait() == 24
        assert "UNAVAILABLE" in call.lines["stderr"][-1]
        assert await server.wait() == 0
        assert server.lines["stderr"][-1].endswith("0 jobs finished while draining, 1 were cut")


@pytest.mark.parametrize(
    ("arguments", "env", "code", "message"),
    [
        (["none.py"], {}, 4, "none.py does not exist"),
        ([ECHO + ":Nobody"], {}, 4, "has no class 'Nobody'. It has EchoModule."),
        ([ECHO], {"SERVER_CHANNEL_PORT": "http"}, 3, "SERVER_CHANNEL_PORT='http' cannot be used"),
        ([ECHO, "--setup", "none.json"], {}, 3, "The setup file none.json cannot be read"),
        ([ECHO, "--host", "no.such.host.invalid"], {}, 5, "The host 'no.such.host.invalid' is not an address"),
        ([ECHO, "--port", "65536"], {}, 2, "--port"),
    ],
)
async def test_why_a_server_does_not_start(arguments: list[str], env: dict[str, str], code: int, message: str) -> None:
    done = await dk_trio("serve", *arguments, **env)
    assert done.returncode == code, done.stderr
    assert message in paragraph(done.stderr)
    assert done.stdout == b""


@pytest.fixture
def chatty(tmp_path: Path) -> str:
    path = tmp_path / "chatty.py"
    child = "import os, sys; os.write(1, b'raw\\n'); os.system('echo child'); print('imported')\n"
    path.write_text(child + Path(ECHO).read_text())
    return str(path)


async def test_what_a_module_prints_does_not_mix_with_the_ready_line(chatty: str) -> None:
    async with serving(chatty) as server:
        for text in ("raw", "child", "imported"):
            await server.wait_for(text)
        assert server.lines["stdout"] == [f"READY {server.address}"]


async def test_an_ipv6_address_in_brackets() -> None:
    async with serving(ECHO, "--host", "[::1]") as server:
        assert server.address.startswith("[::1]:")
        done = await dk_trio("call", server.address, "--input", "{}")
        assert done.returncode == 0, done.stderr


async def test_ctrl_c_in_the_midst_of_a_stream() -> None:
    # The interrupt is raised in whatever task runs then, and reaches the command inside the groups of nurseries.
    async with serving(ECHO) as server:
        arguments = ["call", server.address, "--protocol", "message", "--input", '{"n": 100000, "size": 100}']
        for _ in range(3):
            async with started(*arguments) as call:
                await call.wait_for('"i":100', "stdout")
                call.process.send_signal(signal.SIGINT)
                assert await call.wait() == 130
                assert "".join(call.lines["stderr"]) == ""


def test_ctrl_c_inside_of_nurseries(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise BaseExceptionGroup("nursery", [BaseExceptionGroup("inner", [KeyboardInterrupt()])])

    monkeypatch.setattr(commands, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 130


async def test_output_that_cannot_be_written() -> None:
    async with serving(ECHO) as server:
        with trio.fail_after(PATIENCE), open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123 - opens at once
            done = await trio.run_process(
                [*DK_TRIO, "call", server.address, "--input", "{}"],
                stdout=full,
                capture_stderr=True,
                check=False,
                env=environment(),
            )
        assert done.returncode == 1
        assert paragraph(done.stderr) == "dk-trio: the output cannot be written: No space left on device.\n"


async def test_a_server_whose_stdout_is_full_serves_on() -> None:
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123 - opens at once
        async with started("serve", ECHO, "--port", "0", stdout=full) as server:
            line = await server.wait_for("could not be written")
            address = line.partition("READY ")[2].partition(" ")[0]
            done = await dk_trio("call", address, "--input", "{}")
            assert done.returncode == 0, done.stderr
            server.process.send_signal(signal.SIGTERM)
            assert await server.wait() == 0


async def test_a_port_in_use() -> None:
    async with serving(ECHO) as server:
        port = server.address.rpartition(":")[2]
        done = await dk_trio("serve", ECHO, "--port", port)
        assert done.returncode == 5
        assert f"port {port} on 127.0.0.1 is in use" in paragraph(done.stderr)


async def test_the_address_of_the_environment(tmp_path: Path) -> None:
    env = {"SERVER_CHANNEL_HOST": "localhost", "SERVER_CHANNEL_PORT": "0", "SERVER_MAX_WORKERS": "4"}
    async with started("serve", ECHO, **env) as server:
        assert (await server.wait_for("READY", "stdout")).startswith("READY localhost:")
        await server.wait_for("SERVER_MAX_WORKERS is set but not used: ")


async def test_nobody_reads_the_output() -> None:
    async with serving(ECHO) as server:
        arguments = ["call", server.address, "--protocol", "message", "--input", '{"n": 100000, "size": 100}']
        with trio.fail_after(PATIENCE):
            call = await trio.lowlevel.open_process(
                [*DK_TRIO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
            )
            assert call.stdout is not None
            assert call.stderr is not None
            await call.stdout.receive_some()
            await call.stdout.aclose()  # what `| head -n 1` does
            assert await call.wait() == 141
            assert [chunk async for chunk in call.stderr] == []


@pytest.mark.parametrize("arguments", [[], ["serve"], ["call"], ["demo"]])
async def test_help(arguments: list[str]) -> None:
    done = await dk_trio(*arguments, "--help")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert text.startswith(f"Usage: dk-trio {' '.join(arguments)}".rstrip())
    assert max(map(len, text.splitlines())) <= 120
    if arguments != ["demo"]:
        assert "Examples:" in text
        assert ("13  INVALID_ARGUMENT" if not arguments else "24 for UNAVAILABLE: `dk-trio --help`") in text


async def test_version() -> None:
    done = await dk_trio("--version")
    assert done.stdout.startswith(b"dk-trio, version ")


async def test_an_unknown_command() -> None:
    done = await dk_trio("sreve")
    assert done.returncode == 2
    assert "No such command 'sreve'" in paragraph(done.stderr)
