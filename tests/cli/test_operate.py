"""`jobs`, `stop`, `schema` and `call` against a server of this process: TLS, tokens, several modules."""

import errno
import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
import trustme
from tests.module.served import served as in_memory

from dk_trio import DataTrigger, ModuleClient, ModuleServer, Settings, ToolModule
from dk_trio.cli._exits import Exit
from dk_trio.cli._output import write_table
from dk_trio.cli.jobs import show_jobs
from dk_trio.settings import SecuritySettings

from .processes import PATIENCE, ROOT, beside, here, outputs_of

NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE = 15, 26, 24
ONCE = {"DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS": "1"}
TOKEN = "kT9dQeW3uZ5rY8pL"


class Wait(DataTrigger):
    """Wait for ever."""

    protocol: Literal["wait"] = "wait"


class Said(DataTrigger):
    protocol: Literal["said"] = "said"
    text: str


@ToolModule.from_function(name="waiter", metadata={"module_id": "modules:waiter"})
async def waiter(wait: Wait) -> Said:
    """Waits."""
    await trio.sleep_forever()
    raise AssertionError


class Say(DataTrigger):
    """Say something."""

    protocol: Literal["say"] = "say"
    text: str = "hello"


@ToolModule.from_function(name="sayer", metadata={"module_id": "modules:sayer"})
async def sayer(say: Say) -> Said:
    """Says it."""
    return Said(text=say.text)


@asynccontextmanager
async def served(*modules: Any, **security: Any) -> AsyncIterator[str]:
    """The address of a server that keeps nothing."""
    settings = Settings(security=SecuritySettings(**security))
    settings = replace(settings, services=replace(settings.services, data_dir=None))
    with trio.fail_after(PATIENCE):
        async with ModuleServer(*modules, settings=settings).running(port=0) as address:
            yield address


@asynccontextmanager
async def waiting(address: str, jobs: int) -> AsyncIterator[list[str]]:
    """Ids of so many jobs that wait, as long as nobody stops them."""
    ids: list[str] = []

    async def wait(client: ModuleClient, *, task_status: trio.TaskStatus[str]) -> None:
        async with client.start({}, protocol="wait") as outputs:
            await anext(outputs)
            task_status.started(outputs.job_id)
            with pytest.raises(Exception, match=r"StopModule|stop"):
                [_ async for _ in outputs]

    async with ModuleClient.connect(address) as client, trio.open_nursery() as nursery:
        for _ in range(jobs):
            ids.append(await nursery.start(wait, client))  # noqa: PERF401  one after the other: they are listed so
        yield ids
        nursery.cancel_scope.cancel()


# -- jobs and stop ----------------------------------------------------------------------------------------------------


async def test_jobs_are_listed_and_stopped() -> None:
    async with served(waiter) as address, waiting(address, 3) as ids:
        done = await beside("jobs", address)
        assert done.stdout.decode().splitlines() == [f"{job}\tprocessing" for job in ids]

        done = await beside("stop", address, ids[0])
        assert done.returncode == Exit.OK, done.stderr
        assert done.stdout.decode() == f"stopped {ids[0]}\n"

        done = await beside("stop", address, ids[0], "jobs:none", ids[1], "--json")
        assert done.returncode == NOT_FOUND  # one is gone and one never was; the last was stopped all the same
        gone, never, stopped = outputs_of(done.stdout)
        assert (gone["status"], never["status"]) == ("NOT_FOUND", "NOT_FOUND")
        assert stopped == {"job_id": ids[1], "stopped": True}

        done = await beside("stop", address, "jobs:none")
        assert (done.returncode, done.stdout) == (NOT_FOUND, b"")
        assert b"jobs:none: " in done.stderr

        done = await beside("stop", address, "--all")
        assert done.returncode == Exit.USAGE
        assert b"nobody answers here: add --yes" in done.stderr

        done = await beside("jobs", address, "--running", "--json")
        assert outputs_of(done.stdout) == [{"job_id": ids[2], "status": "processing"}]
        done = await beside("jobs", address, "--json")
        assert {line["job_id"]: line["status"] for line in outputs_of(done.stdout)}[ids[0]] == "stopped"


async def test_jobs_are_watched(autojump_clock: object, capsys: pytest.CaptureFixture[str]) -> None:
    async with in_memory(waiter) as (_, client), trio.open_nursery() as nursery:
        watch = partial(show_jobs, client.channel, running=False, every=5, as_json=True, timeout=1)
        nursery.start_soon(watch)
        await trio.sleep(12)
        async with client.start({}, protocol="wait") as outputs:
            await anext(outputs)
            await trio.sleep(12)
        await trio.sleep(12)
        nursery.cancel_scope.cancel()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["processing", "canceled"]  # and nothing in between
    assert {line["job_id"] for line in lines} == {outputs.job_id}


@pytest.mark.parametrize(
    ("answer", "options", "stops"), [(b"n\n", [], False), (b"y\n", [], True), (b"", ["--yes"], True)]
)
async def test_all_jobs_are_stopped_after_a_question(answer: bytes, options: list[str], stops: bool) -> None:
    async with served(waiter) as address, waiting(address, 2) as ids:
        done = await beside("stop", address, "--all", *options, stdin=answer)
        assert done.returncode == Exit.OK, done.stderr
        assert done.stdout.decode().splitlines() == ([f"stopped {job}" for job in ids] if stops else [])
        assert (b"Stop 2 jobs of" in done.stderr) is (not options)
        running = await beside("jobs", address, "--running")
        assert (running.stdout == b"") is stops


async def test_all_of_no_jobs_is_not_asked_for() -> None:
    async with served(waiter) as address:
        done = await beside("stop", address, "--all")
    assert (done.returncode, done.stdout, done.stderr) == (
        Exit.OK,
        b"",
        f"No job waits or runs at {address}.\n".encode(),
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stop", "127.0.0.1:1"], b"Name the jobs, or say --all"),
        (["stop", "127.0.0.1:1", "--all", "id"], b"--all stops every job, so it takes no ids"),
        (["jobs", "127.0.0.1"], b"has no port; write HOST:PORT"),
        (["stop", "127.0.0.1", "id"], b"has no port; write HOST:PORT"),
        (["schema", "127.0.0.1:0"], b"is not a port from 1 to 65535"),
        (["schema", "x.py", "inputs"], b"is not one of"),
        (["jobs", "127.0.0.1:1", "--cert", "a.pem"], b"--cert and --key belong together"),
        (["jobs", "127.0.0.1:1", "--plaintext", "--ca", "a.pem"], b"--plaintext contradicts --ca"),
        (["jobs", "127.0.0.1:1", "--token", "a b"], b"a token is printable ASCII without spaces"),
        (["jobs", "127.0.0.1:1", "--token", "@none"], b"none cannot be read: No such file"),
    ],
)
def test_arguments_that_cannot_be(arguments: list[str], told: bytes) -> None:
    done = here(*arguments)
    assert done.returncode == Exit.USAGE
    assert told in done.stderr


@pytest.mark.parametrize("command", [["jobs"], ["stop", "--all"], ["schema"]])
def test_nobody_answers(command: list[str]) -> None:
    name, *options = command
    done = here(name, "127.0.0.1:1", *options, **ONCE)
    assert done.returncode == UNAVAILABLE
    assert done.stderr.startswith(b"dk-trio: 127.0.0.1:1: UNAVAILABLE: cannot connect")
    assert done.stdout == b""


def test_a_table_has_columns_on_a_terminal_and_tabs_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("a", "processing"), ("longer", "failed")]
    write_table(("JOB", "STATUS"), rows)
    assert capsys.readouterr().out == "a\tprocessing\nlonger\tfailed\n"
    monkeypatch.setattr("dk_trio.cli._output.is_terminal", lambda: True)
    write_table(("JOB", "STATUS"), rows)
    assert capsys.readouterr().out == "JOB     STATUS\na       processing\nlonger  failed\n"


def test_a_reader_who_leaves_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, "as the system raises it, and click looks for it")

    monkeypatch.setattr("click.echo", leave)
    monkeypatch.setattr("dk_trio.cli._output.unwritten", lambda _: Exit.BROKEN_PIPE)
    assert here("completion", "zsh").returncode == Exit.BROKEN_PIPE


@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}])
async def test_colours_are_for_terminals_of_people_who_want_them(
    monkeypatch: pytest.MonkeyPatch, no_color: dict[str, str]
) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(io, "TextIOWrapper", Terminal)
    async with served(waiter) as address, waiting(address, 1):
        done = await beside("jobs", address, **no_color)
    assert done.stdout.startswith(b"JOB" if no_color else b"\x1b[1mJOB")
    assert (b"\x1b[" in done.stdout) is not bool(no_color)


# -- schemas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--llm"]])
async def test_schemas_of_a_server_are_those_of_its_code(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    target = f"{ROOT / 'examples' / 'dynamic_setup.py'}"
    local = await beside("schema", target, *options)
    assert local.returncode == Exit.OK, local.stderr
    module = sys.modules.pop("dynamic_setup").Writer
    async with served(module) as address:
        remote = await beside("schema", address, *options)
        one = await beside("schema", address, "config-setup", *options)
    documents = json.loads(local.stdout)
    assert documents == json.loads(remote.stdout)
    assert documents.keys() == {"input", "output", "setup", "config-setup", "cost", "select"}  # and no secret
    assert json.loads(one.stdout) == documents["config-setup"]
    assert "medium" in one.stdout.decode()  # from a fetcher


async def test_a_format_that_a_module_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    async with served(sayer) as address:
        remote = await beside("schema", address, "secret")
    assert remote.returncode == Exit.MODULE
    assert remote.stderr.decode() == f"dk-trio: {address} names no secret format, so there is no schema of it.\n"


def test_code_that_cannot_be_loaded() -> None:
    done = here("schema", "none.py")
    assert done.returncode == Exit.MODULE
    assert b"none.py does not exist" in done.stderr


# -- the way to a server ----------------------------------------------------------------------------------------------


async def test_tls_certificates_and_a_token(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca, other, cert, key = (tmp_path / name for name in ("ca.pem", "other.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    trustme.CA().cert_pem.write_to_path(other)
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    call = ["--protocol", "say", "--input", "{}"]
    trusted = ["--ca", str(ca), "--cert", str(cert), "--key", str(key)]
    async with served(sayer, tls_cert=cert, tls_key=key, tls_client_ca=ca, auth_token=TOKEN) as address:
        for token in (TOKEN, f"@{tmp_path / 'token'}"):
            done = await beside("call", address, *call, "--json", *trusted, "--token", token)
            assert done.returncode == Exit.OK, done.stderr
            assert outputs_of(done.stdout)[1]["root"]["text"] == "hello"
        environment = {
            "DIGITALKIN_CLIENT_CA": str(ca),
            "DIGITALKIN_CLIENT_CERT": str(cert),
            "DIGITALKIN_CLIENT_KEY": str(key),
            "DIGITALKIN_CLIENT_TOKEN": TOKEN,
            **ONCE,
        }
        assert (await beside("jobs", address, **environment)).returncode == Exit.OK
        assert (await beside("jobs", address, "--token", "wrong", **environment)).returncode == UNAUTHENTICATED
        assert (await beside("jobs", address, "--ca", str(other), **environment)).returncode == UNAVAILABLE
        assert (await beside("jobs", address, "--plaintext", **environment)).returncode == UNAVAILABLE
        assert (await beside("jobs", address, "--ca", str(tmp_path / "none"))).returncode == Exit.CONFIGURATION


async def test_which_of_several_modules() -> None:
    async with served(sayer, waiter) as address:
        inputs = {
            name: (await beside("schema", address, "input", "--module", f"modules:{name}")).stdout
            for name in ("sayer", "waiter")
        }
        assert b'"const": "say"' in inputs["sayer"]
        assert b'"const": "wait"' in inputs["waiter"]
        done = await beside("call", address, "--module", "sayer", "--protocol", "say", "--input", "{}")
        assert done.returncode == Exit.OK, done.stderr


def test_a_token_does_not_leave_the_machine_in_plaintext() -> None:
    done = here("jobs", "192.0.2.1:1", "--token", TOKEN)
    assert done.returncode == Exit.CONFIGURATION
    assert b"would go to 192.0.2.1:1 in plaintext" in done.stderr
    assert TOKEN.encode() not in done.stderr
