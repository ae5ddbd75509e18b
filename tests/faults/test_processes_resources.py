"""Descriptors, disk, memory and outputs that run out under a server: it says so, goes on, and is well again after."""

import shutil
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.cli.crowd import connected, connection_to
from tests.cli.processes import DK_TRIO, PATIENCE, Running, environment, peak_bytes, started
from tests.sizes import size

from dk_trio import ModuleClient, rpc
from dk_trio.cli._exits import Exit
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    StorageServiceStub,
    StoreRecordRequest,
)
from dk_trio.pb.google.protobuf import Struct

from .scripts import SCRIPTED, cpu_seconds, free_port, limited, ran, script, until

MEMORY = {"DIGITALKIN_DATA_DIR": ":memory:"}
MIB = 1024 * 1024


@asynccontextmanager
async def served_by(program: list[str], *arguments: str, **env: str) -> AsyncIterator[Running]:
    """`dk-trio serve` of the scripted module, by a program in front of it."""
    async with started("serve", SCRIPTED, "--port", "0", *arguments, program=program, **env) as server:
        server.address = (await server.wait_for("READY ", "stdout")).removeprefix("READY ")
        yield server


# --- descriptors -----------------------------------------------------------------------------------------------------


async def test_a_server_without_descriptors_serves_on_and_accepts_again(tmp_path: Path) -> None:
    env = {"DIGITALKIN_DATA_DIR": str(tmp_path), "DIGITALKIN_MAX_CONCURRENT_RPCS": "100"}
    async with (
        served_by(limited("-n", 48), **env) as server,
        connected(server.address) as client,
        AsyncExitStack() as strangers,
    ):
        assert (await ran(client, "say")).status is Status.OK
        for _ in range(60):  # the system takes those that the server cannot
            await strangers.enter_async_context(await connection_to(server.address))
        await server.wait_for("no connection can be accepted: Too many open files; raise ulimit -n")

        before = cpu_seconds(server.process.pid)
        served = await ran(client, "say", "sleep 2", "keep", "say")
        assert (served.status, served.numbers) == (Status.OK, [0, 1])
        assert cpu_seconds(server.process.pid) - before < 0.5  # it does not spin

        refused = await ran(client, "upload full.bin")
        assert refused.failure is not None
        assert "Too many open files" in refused.failure["message"]

        await strangers.aclose()
        await server.wait_for("connections are accepted again")
        async with connected(server.address) as newcomer:
            assert (await ran(newcomer, "upload room.bin", "say")).status is Status.OK
        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
        log = "\n".join(server.lines["stderr"])
        assert log.count("no connection can be accepted") == 1
    assert len(contents(tmp_path / "scripted")) == 1


def contents(directory: Path) -> set[str]:
    """Contents of files on the disk, each of which the database knows, and none that is not there."""
    with closing(sqlite3.connect(directory / "dk-trio.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        known = {name for (name,) in database.execute("SELECT name FROM file_contents")}
    assert {path.name for path in (directory / "files").iterdir()} == known
    return known


# --- disk ------------------------------------------------------------------------------------------------------------


class Disk:
    """A small one, mounted for one process; seen through what the system tells of that."""

    def __init__(self, process: trio.Process, path: Path) -> None:
        self.path = Path(f"/proc/{process.pid}/root{path}")

    def fill(self) -> None:
        with (
            pytest.raises(OSError, match="No space left"),
            open(self.path / "filler", "wb", buffering=0) as filler,  # noqa: PTH123
        ):
            while True:
                filler.write(b"x" * 4096)

    def free(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> list[str]:
    """A program in front of another: that one finds a disk of 16 MB at `tmp_path / "disk"`, which ends with it."""
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=16m none "$0" && exec "$@"'
    front = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path / "disk")]
    if not shutil.which("unshare") or subprocess.run([*front, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return [*front, *DK_TRIO]


async def test_a_full_disk_of_local_data_and_of_the_log(tmp_path: Path, disk: list[str]) -> None:
    path = tmp_path / "disk"
    env = {"DIGITALKIN_DATA_DIR": str(path), "DIGITALKIN_LOG_DIR": str(path), "DIGITALKIN_FILE_LOG_LEVEL": "info"}
    async with served_by(disk, **env) as server, connected(server.address) as client:
        assert (await ran(client, "keep", "upload before.bin")).status is Status.OK
        there = Disk(server.process, path)
        data = there.path / "scripted"
        there.fill()
        for steps, told in ((["upload no-room.bin"], "No space left on device"), (["keep"] * 50, "the disk is full")):
            failed = await ran(client, *steps)
            assert failed.failure is not None, failed
            assert told in failed.failure["message"]
        for _ in range(10):
            assert (await ran(client, "recurse")).status is Status.INTERNAL  # its traceback has no room in the log
        there.free()
        assert (await ran(client, "keep", "upload after.bin")).status is Status.OK
        assert len(list((data / "files").iterdir())) == 2  # nothing of what had no room
        log = there.path / "dk-trio.log"
        assert (await ran(client, "recurse")).status is Status.INTERNAL
        await until(lambda: "lines of the log were lost: No space left on device" in log.read_text())
        server.process.send_signal(signal.SIGTERM)
        shown = "\n".join(server.lines["stderr"])
        assert await server.wait() == 0
    assert "disk is full" in shown


async def test_a_provider_is_well_again_when_its_disk_has_room(tmp_path: Path, disk: list[str]) -> None:
    path = tmp_path / "disk"

    def record(number: int) -> StoreRecordRequest:
        data = Struct.from_dict({"text": "x" * 10_000})
        names = {"context": "missions:m", "collection": "c", "record_id": str(number)}
        return StoreRecordRequest(**names, data=data, data_type=DataType.OUTPUT)

    async with (
        started("provider", "--port", "0", "--data-dir", str(path), program=disk) as provider,
        rpc.open_channel((await provider.wait_for("READY ", "stdout")).removeprefix("READY ")) as channel,
    ):
        stub, there, kept = StorageServiceStub(channel, timeout=PATIENCE), Disk(provider.process, path), []
        await stub.store_record(record(0))
        there.fill()
        with pytest.raises(GRPCError, match="disk is full"):
            for number in range(1, 100):
                await stub.store_record(record(number))
                kept.append(number)
        await provider.wait_for("not ready: ")
        there.free()
        await provider.wait_for("ready again: ")
        await stub.store_record(record(1000))
        reply = await stub.list_records(ListRecordsRequest(context="missions:m", collection="c"))
        assert {int(row.record_id) for row in reply.records} == {0, *kept, 1000}
        provider.process.send_signal(signal.SIGTERM)
        assert await provider.wait() == Exit.OK


# --- outputs ---------------------------------------------------------------------------------------------------------


async def test_outputs_that_take_nothing_stop_no_server() -> None:
    port = free_port()
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123
        process = await trio.lowlevel.open_process(
            [*DK_TRIO, "serve", SCRIPTED, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            env=environment(**MEMORY, DIGITALKIN_ACCESS_LOG="true"),
        )
    with trio.fail_after(PATIENCE):
        try:
            options = rpc.ChannelOptions(wait_for_ready=True)
            async with ModuleClient.connect(f"127.0.0.1:{port}", options=options) as client:
                for steps in (["say"], ["recurse"], ["say"]):
                    caller = await ran(client, *steps)
                assert caller.status is Status.OK
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            process.kill()


# --- memory, threads -------------------------------------------------------------------------------------------------


async def test_what_authors_waste_is_their_own_jobs_failure() -> None:
    sends = size(20_000, 1_000_000)
    async with (
        served_by(limited("-v", 2 * 1024 * 1024), **MEMORY) as server,  # kB
        connected(server.address) as client,
        connected(server.address) as bystander,
    ):
        assert (await ran(bystander, "say 100 100")).status is Status.OK
        before = peak_bytes(server.process.pid)
        with trio.fail_after(10 * PATIENCE):
            async with client.start({"root": script(f"say {sends} 10")}) as outputs:
                numbers = [out["root"]["i"] async for out in outputs if out["root"]["protocol"] == "said"]
        assert numbers == [*range(sends)]
        assert peak_bytes(server.process.pid) - before < 16 * MIB
        for step, told in {
            "hog 4000000000": "MemoryError",
            "recurse": "RecursionError",
            "exit 3": "SystemExit: 3",
            f"say 1 {size(101, 200) * MIB}": "is over the limit of 104857600 bytes",
        }.items():
            failed = await ran(client, step)
            assert failed.status is Status.INTERNAL
            assert failed.failure is not None
            assert told in failed.failure["message"]
            assert (await ran(bystander, "say")).status is Status.OK
        assert (await ran(client, "spin", "say")).status is Status.OK
        server.process.send_signal(signal.SIGTERM)
        assert await server.wait() == Exit.STUCK
        assert "threads that a module has started and that do not end: Thread-" in server.lines["stderr"][-1]
