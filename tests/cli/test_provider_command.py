"""`dk-trio provider`: what starts it, what keeps it from starting, and what a stop does. In processes of its own."""

import inspect
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.cli._exits import Exit
from dk_trio.cli.provider import command
from dk_trio.cli.provider._where import database_of
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    StorageServiceStub,
    StoreRecordRequest,
)
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import (
    GetSignalsRequest,
    GetSignalsResponse,
    ListHeartbeatsRequest,
    TaskManagerServiceStub,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.provider import Provider
from dk_trio.services.stores._sqlite import Connections
from dk_trio.services.stores.work import Statement, Work
from dk_trio.settings import Settings

from .processes import DK_TRIO, PATIENCE, beside, here, provider_here, providing, started

FILE = "dk-trio.sqlite3"
RECORD = (
    '{"context": "missions:a", "collection": "c", "record_id": "%s", "data": {"text": "%s"}, "data_type": "OUTPUT"}'
)


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def record(number: int, *, size: int) -> StoreRecordRequest:
    data = Struct.from_dict({"text": "x" * size})
    names = {"context": "missions:a", "collection": "c", "record_id": str(number)}
    return StoreRecordRequest(**names, data=data, data_type=DataType.OUTPUT)


def refused(*arguments: str, code: int = Exit.CONFIGURATION, **env: str) -> str:
    """Run a provider that does not start; what it says, which is one paragraph behind the lines of its log."""
    late = threading.Timer(PATIENCE, os.kill, (os.getpid(), signal.SIGTERM))  # one that starts would not end
    late.start()
    try:
        done = here("provider", "--port", "0", *arguments, **env)
    finally:
        late.cancel()
    told = done.stderr.decode()
    assert done.returncode == code, told
    assert done.stdout == b""
    assert "Traceback" not in told
    return one_paragraph(told.splitlines())


def one_paragraph(lines: Sequence[str]) -> str:
    """The last line, behind those of the log."""
    *log, line = lines
    assert line.startswith("dk-trio: ")
    assert all("dk_trio." in each for each in log), log  # each names its logger
    return line


@contextmanager
def kept_by_a_provider() -> Iterator[Connections]:
    """The store of a provider that runs, as another process meets it; left as its end leaves it."""
    connections = Connections(Path("data", FILE), "--data-dir")
    connections.open({"records": ["CREATE TABLE records (id INTEGER)"]})
    try:
        yield connections
    finally:
        connections.close()


def one(sql: str) -> Work[None]:
    yield Statement(sql)


async def ask(address: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return await beside("provider", "ask", address, *words)


# --- start and stop --------------------------------------------------------------------------------------------------


def test_nothing_is_kept_in_memory(tmp_path: Path) -> None:
    for db, data_dir, configured in (
        (":memory:", None, tmp_path),
        (None, ":memory:", tmp_path),
        (None, None, None),
        ("sqlite", ":memory:", tmp_path),
    ):
        database, directory = database_of(db, data_dir, configured)
        assert (database.name, directory) == ("in memory", None)
    assert database_of(None, None, tmp_path)[0].name == str(tmp_path / "provider" / FILE)


async def test_it_is_ready_when_it_says_so_and_sigterm_ends_held_polls_and_cuts_nothing(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with (
            providing(DIGITALKIN_DATA_DIR="data") as provider,
            rpc.open_channel(provider.address) as channel,
            trio.open_nursery() as nursery,
        ):
            stub = TaskManagerServiceStub(channel, timeout=PATIENCE)
            replies = []

            async def poll() -> None:
                replies.append(await stub.get_signals(GetSignalsRequest(task_ids=["t"])))

            nursery.start_soon(poll)
            await trio.testing.wait_all_tasks_blocked()
            # On the same connection: the provider has begun the poll before it answers this.
            await stub.list_heartbeats(ListHeartbeatsRequest(task_ids=["t"]))
            assert not replies
            provider.process.send_signal(signal.SIGTERM)
            assert await provider.wait() == Exit.OK
    assert replies == [GetSignalsResponse()]
    assert provider.lines["stdout"] == [f"READY {provider.address}"]
    assert "stopped: 0 calls were cut" in provider.lines["stderr"][-1]
    assert (tmp_path / "data" / "provider" / FILE).exists()


async def test_a_second_signal_does_not_wait_for_the_grace() -> None:
    async with providing("--data-dir", "data", "--grace", "1000") as provider:
        host, _, port = provider.address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)):
            provider.process.send_signal(signal.SIGTERM)
            await provider.wait_for("draining")
            provider.process.send_signal(signal.SIGTERM)
            assert await provider.wait() == Exit.OK


# --- what keeps it from starting -------------------------------------------------------------------------------------


def test_the_port_is_that_which_servers_ask_for() -> None:
    (port,) = (option.default for option in command.params if option.name == "port")
    assert f"127.0.0.1:{port}" == Settings().services.provider
    assert inspect.signature(Provider.serve).parameters["port"].default == port


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = refused("--port", port, "--data-dir", "data", code=Exit.LISTEN)
    assert f"port {port} on 127.0.0.1 is in use" in told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://user:s3cret@host/name", "'mysql://...'"),
        ("data.sqlite3", "'data.sqlite3'"),
        ("postgresql:/host", ":/host"),
        ("host=here password=s3cret", "'host=...'"),
    ],
)
def test_a_database_that_nobody_knows(url: str, shown: str) -> None:
    told = refused("--db", url)
    assert shown in told
    assert "s3cret" not in told
    assert "postgresql://USER" in told


@pytest.mark.parametrize("option", ["--db", "--data-dir"])
@pytest.mark.parametrize("command", [(), ("backup", "copy")])
def test_an_empty_option_is_a_variable_that_is_not_set_and_no_default(option: str, command: tuple[str, ...]) -> None:
    done = here("provider", *command, option, "")
    assert done.returncode == Exit.CONFIGURATION
    assert f"dk-trio: {option} is empty. Give it a value, or leave it out for its default." in done.stderr.decode()
    assert not [*Path.cwd().iterdir()]


def test_a_url_that_postgresql_does_not_understand() -> None:
    pytest.importorskip("psycopg")
    assert "cannot be understood" in refused("--db", "postgresql://host:port/name", "--data-dir", "data")


def test_a_postgresql_server_that_does_not_answer() -> None:
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    told = refused("--db", f"postgresql://someone:s3cret@127.0.0.1:{port}/name", "--data-dir", "data")
    assert f"port {port} failed: Connection refused. Look at host and port of the URL" in told
    assert "s3cret" not in told


def test_a_schema_that_is_newer_than_the_program() -> None:
    with kept_by_a_provider():
        pass
    with closing(sqlite3.connect(Path("data", FILE))) as database:
        database.execute("UPDATE schemas SET version = 1000 WHERE name = 'records'")
        database.commit()
    told = refused("--data-dir", "data")
    assert "newer release" in told
    assert "'records'" in told
    assert "--data-dir" in told


def test_files_of_tls_and_tokens_that_cannot_be_used() -> None:
    told = refused("--db", ":memory:", "--tls-cert", "none.pem", "--tls-key", "none.key")
    assert "DIGITALKIN_TLS_CERT=none.pem (--tls-cert) cannot be used: there is no such file." in told
    told = refused("--db", ":memory:", "--tls-cert", "none.pem")
    assert "none.pem" in told
    assert "DIGITALKIN_TLS_KEY" in told
    told = refused("--db", ":memory:", "--auth-token-file", "none")
    assert "DIGITALKIN_AUTH_TOKENS_FILE=none (--auth-token-file) cannot be used: there is no such file." in told


async def test_tls_and_a_token_from_end_to_end() -> None:
    assert here("certs", "certs").returncode == Exit.OK
    Path("tokens").write_text(f"operator {'t' * 32}\n", encoding="ascii")
    Path("token").write_text("t" * 32, encoding="ascii")
    guarded = ("--tls-cert", "certs/server.pem", "--tls-key", "certs/server.key", "--auth-token-file", "tokens")
    with trio.fail_after(PATIENCE):
        async with providing("--db", ":memory:", *guarded) as provider:
            shown = ("--ca", "certs/ca.pem", "--token", "@token")
            done = await beside("provider", "ask", *shown, provider.address, "setup.ListSetups")
            assert done.returncode == Exit.OK, done.stderr
            done = await beside("provider", "ask", *shown[:2], provider.address, "setup.ListSetups")
            assert done.returncode == 10 + Status.UNAUTHENTICATED.value
            assert b"this server wants a bearer token" in done.stderr
            await provider.wait_for("calls from 127.0.0.1 are refused")


def test_a_second_provider_on_the_same_directory() -> None:
    with kept_by_a_provider():
        told = refused("--data-dir", "data")
    assert f"in use by the process {os.getpid()}" in told
    assert "--data-dir" in told


def test_a_directory_that_cannot_be_made() -> None:
    Path("file").touch()
    told = refused("--data-dir", "file/data")
    assert "file/data" in told
    assert "Not a directory" in told


async def test_a_directory_that_is_not_writable() -> None:
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root writes everywhere")
    Path("data").mkdir(mode=0o500)
    program = DK_TRIO
    if os.geteuid() == 0:
        Path("data").chmod(0o555)
        Path.cwd().chmod(0o755)
        program = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups", *DK_TRIO]
    async with started("provider", "--port", "0", "--data-dir", "data", program=program) as provider:
        code = await provider.wait()
    assert code == Exit.CONFIGURATION, provider.lines
    line = one_paragraph(provider.lines["stderr"])
    assert "Permission denied" in line or "cannot be written" in line


def test_a_file_that_is_no_database() -> None:
    Path("data").mkdir()
    Path("data", FILE).write_bytes(b"no database at all" * 1000)
    told = refused("--data-dir", "data")
    assert "it is no SQLite database" in told


def test_a_file_that_is_damaged() -> None:
    with kept_by_a_provider() as connections:
        connections.transact([partial(one, "CREATE TABLE large (data BLOB)")])
        connections.transact([partial(one, "INSERT INTO large VALUES (zeroblob(2000))") for _ in range(20)])
    path = Path("data", FILE)
    damaged = bytearray(path.read_bytes())
    for page in range(4096, len(damaged), 4096):  # all but the first, which says what the file is
        damaged[page : page + 100] = b"\xff" * 100
    path.write_bytes(damaged)
    told = refused("--data-dir", "data")
    assert "it is damaged" in told
    assert path.read_bytes() == damaged


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk() -> list[str]:
    """A program in front of another: that one finds a disk of 700 kB in the directory `data`, which ends with it."""
    Path("data").mkdir()
    mount = 'mount -t tmpfs -o size=700k none "$0" && exec "$@"'
    front = ["unshare", "--mount", "sh", "-c", mount, "data"]
    if not shutil.which("unshare") or subprocess.run([*front, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return [*front, *DK_TRIO]


async def test_a_full_disk_refuses_what_has_no_room_and_keeps_what_it_has(full_disk: list[str]) -> None:
    async with providing("--data-dir", "data", program=full_disk) as provider:
        kept = []
        async with rpc.open_channel(provider.address) as channel:
            stub = StorageServiceStub(channel, timeout=PATIENCE)
            with pytest.raises(GRPCError) as caught:
                for number in range(40):
                    await stub.store_record(record(number, size=40_000))
                    kept.append(str(number))
            reply = await stub.list_records(ListRecordsRequest(context="missions:a", collection="c"))
        assert kept
        assert "the disk is full" in caught.value.message
        assert "Free some space" in caught.value.message
        assert [row.record_id for row in reply.records] == kept
        provider.process.send_signal(signal.SIGTERM)
        assert await provider.wait() == Exit.OK


@pytest.mark.parametrize("used", [690_000, 1_000_000])
async def test_a_disk_that_is_full_at_the_start(full_disk: list[str], used: int) -> None:
    full_disk[4] = full_disk[4].replace(" && ", f' && head -c {used} /dev/zero > "$0"/zeros 2> /dev/null; ', 1)
    async with started("provider", "--port", "0", "--data-dir", "data", program=full_disk) as provider:
        assert await provider.wait() == Exit.CONFIGURATION, provider.lines
    line = one_paragraph(provider.lines["stderr"])
    assert "the disk is full" in line
    assert "Free some space, or set --data-dir to another directory" in line
    assert [path.name for path in Path("data").iterdir()] == []


# --- options ---------------------------------------------------------------------------------------------------------


def test_options_of_the_server_are_refused_before_a_subcommand() -> None:
    done = here("provider", "--data-dir", "data", "backup", "copy")
    assert done.returncode == Exit.USAGE
    assert b"--data-dir is an option of the server, and has no effect before backup" in done.stderr


async def test_strict_rules_refuse_what_breaks_them_and_name_the_field() -> None:
    async with provider_here(validate="strict") as address:
        done = await ask(address, "storage.ListRecords", '{"context": "mission-a", "collection": "c"}')
    assert done.returncode == 13
    assert b"INVALID_ARGUMENT" in done.stderr
    assert b"context" in done.stderr
