"""The provider as a server: its lifetime, its health, and a store that fails."""

import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.errors import ConfigurationError, ListenError, StorageServiceError
from dk_trio.extensions import ALL, HONOURS
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    FileStatus,
    FilesystemServiceStub,
    FileType,
    GetFileRequest,
    UploadFileData,
    UploadFilesRequest,
)
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import (
    DataType,
    ListRecordsRequest,
    ReadRecordRequest,
    StorageServiceStub,
    StoreRecordRequest,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
    HealthStub,
)
from dk_trio.provider import DrainReport, Provider, ProviderOptions
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.services.stores.work import Statement, Work

from .calls import keyed, told
from .kit import DAY, Provided, provided

SERVING = HealthCheckResponseServingStatus.SERVING
STORAGE = "agentic_mesh_protocol.storage.v1.StorageService"
LIST = ListRecordsRequest(context="missions:m", collection="c")


def store(record_id: str, size: int = 10) -> StoreRecordRequest:
    data = Struct.from_dict({"text": "x" * size})
    return StoreRecordRequest(data, "missions:m", "c", record_id, DataType.OUTPUT)


async def serving(peer: Provided, name: str) -> bool:
    response = await HealthStub(peer.channel).check(HealthCheckRequest(service=name))
    return response.status is SERVING


def pages(number: int) -> Work[None]:
    """The disk is full after so many pages, for all that SQLite knows."""
    yield Statement(f"PRAGMA max_page_count = {number}")


# --- health ----------------------------------------------------------------------------------------------------------


async def test_a_provider_that_is_open_is_ready(autojump_clock: Any) -> None:
    async with provided() as peer:
        for name in ("", "liveness", "readiness", STORAGE):
            assert await serving(peer, name), name
        assert peer.provider.statistics().ready
        assert "ready" in repr(peer.provider)


async def test_a_health_check_says_what_is_honoured(autojump_clock: Any) -> None:
    async with (
        provided() as peer,
        peer.channel.request(
            "/grpc.health.v1.Health/Check", Cardinality.UNARY_UNARY, HealthCheckRequest, HealthCheckResponse
        ) as stream,
    ):
        await stream.send_message(HealthCheckRequest(), end=True)
        await stream.recv_message()
        assert set(str(stream.initial_metadata[HONOURS]).split(",")) == ALL


async def test_a_store_that_cannot_be_written_is_not_ready_until_it_can(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = SqliteDatabase(None)
    healthy = database.check_health
    async with provided(database=database, health_interval=5.0) as peer:

        async def sick() -> None:
            raise StorageServiceError("The disk is full.", hint="Free some space.")

        monkeypatch.setattr(database, "check_health", sick)
        await trio.sleep(20)
        assert not await serving(peer, "readiness")
        assert not await serving(peer, STORAGE)
        assert await serving(peer, "liveness")
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
            "not ready: The disk is full. Free some space."
        ]
        monkeypatch.setattr(database, "check_health", healthy)
        await trio.sleep(6)
        assert await serving(peer, "readiness")


async def test_work_in_the_background_outlives_an_outage(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    database = SqliteDatabase(None)
    async with provided(database=database, now=trio.current_time, key_ttl=3600.0) as peer:
        stub = StorageServiceStub(peer.channel)
        await stub.store_record(store("r"), metadata=keyed("k"))
        write = database.write

        async def sick(work: Any) -> Any:
            raise StorageServiceError("The disk is full.")

        monkeypatch.setattr(database, "write", sick)
        await trio.sleep(7200)
        monkeypatch.setattr(database, "write", write)
        await trio.sleep(1200)
        with pytest.raises(GRPCError) as caught:  # the key was forgotten, so this is another request
            await stub.store_record(store("r"), metadata=keyed("k"))
        assert caught.value.status is Status.ALREADY_EXISTS


# --- a full disk -----------------------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_what_has_no_room_and_nothing_else(autojump_clock: Any) -> None:
    database = SqliteDatabase(None)
    async with provided(database=database) as peer:
        stub = StorageServiceStub(peer.channel)
        await stub.store_record(store("first"))
        await database.write(lambda: pages(1))
        with pytest.raises(GRPCError) as caught:
            await stub.store_record(store("large", 100_000), metadata=keyed("k"))
        assert told(caught.value)[:2] == (Status.RESOURCE_EXHAUSTED, "STORAGE_FAILED")
        assert "full" in str(caught.value.message)
        await stub.read_record(ReadRecordRequest("missions:m", "c", "first"))
        await database.write(lambda: pages(100_000))
        assert (await stub.store_record(store("large", 100_000), metadata=keyed("k"))).success
        assert len((await stub.list_records(LIST)).records) == 2


# --- the end ---------------------------------------------------------------------------------------------------------


def gated(gate: trio.Event, entered: list[str]) -> rpc.Interceptor:
    """Holds every call of the storage until the gate is open."""

    @asynccontextmanager
    async def hold(call: rpc.CallInfo) -> AsyncIterator[None]:
        if STORAGE in call.path:
            entered.append(call.path)
            await gate.wait()
        yield

    return hold


async def test_a_drain_lets_calls_end(autojump_clock: Any) -> None:
    gate, entered = trio.Event(), list[str]()
    async with provided(interceptors=[gated(gate, entered)]) as peer, trio.open_nursery() as nursery:
        replies: list[Any] = []

        async def call() -> None:
            replies.append(await StorageServiceStub(peer.channel).store_record(store("r")))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert entered

        async def open_later() -> None:
            await trio.sleep(5)
            assert not peer.provider.statistics().ready
            gate.set()

        nursery.start_soon(open_later)
        assert await peer.provider.drain(10) == DrainReport()
        assert replies[0].success


async def test_what_is_left_after_the_grace_is_cut_with_unavailable(autojump_clock: Any) -> None:
    gate, entered = trio.Event(), list[str]()
    async with provided(interceptors=[gated(gate, entered)]) as peer, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(GRPCError) as caught:
                await StorageServiceStub(peer.channel).store_record(store("r"))
            assert caught.value.status is Status.UNAVAILABLE

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        assert await peer.provider.drain(10) == DrainReport(cut=1)
        assert trio.current_time() - start < 12


async def test_a_call_that_does_not_end_is_told_of(autojump_clock: Any) -> None:
    gate = trio.Event()

    @asynccontextmanager
    async def stubborn(call: rpc.CallInfo) -> AsyncIterator[None]:
        if STORAGE in call.path:
            with trio.CancelScope(shield=True):  # a thread whose disk hangs
                await gate.wait()
        yield

    async with provided(interceptors=[stubborn]) as peer, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(GRPCError):
                await StorageServiceStub(peer.channel).store_record(store("r"))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert await peer.provider.drain(1) == DrainReport(cut=1, stuck=1)
        gate.set()


async def test_a_provider_that_is_not_open_serves_no_stream(autojump_clock: Any) -> None:
    with trio.fail_after(DAY):
        provider = Provider(SqliteDatabase(None))
        ours, theirs = trio.testing.memory_stream_pair()
        with pytest.raises(RuntimeError, match=r"async with provider\.opened"):
            await provider.serve_stream(theirs)
        assert await ours.receive_some() == b""
        assert "closed" in repr(provider)


# --- on disk, over sockets -------------------------------------------------------------------------------------------


async def test_what_was_told_is_there_after_a_restart(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    with trio.fail_after(30):
        provider = Provider(SqliteDatabase(tmp_path), directory=tmp_path)
        async with provider.running(port=0) as address, rpc.open_channel(address) as channel:
            await StorageServiceStub(channel).store_record(store("r"), metadata=keyed("k"))
            upload = UploadFileData("missions:m", "a.bin", FileType.OTHER, "x/y", content, status=FileStatus.ACTIVE)
            reply = await FilesystemServiceStub(channel).upload_files(UploadFilesRequest([upload]))
            file: Any = reply.results[0].file
        provider = Provider(SqliteDatabase(tmp_path), directory=tmp_path)
        async with provider.running(port=0) as address, rpc.open_channel(address) as channel:
            assert (await StorageServiceStub(channel).store_record(store("r"), metadata=keyed("k"))).success
            request = GetFileRequest("missions:m", file.file_id, include_content=True)
            kept: Any = (await FilesystemServiceStub(channel).get_file(request)).file
            assert kept.content == content
            assert len(list((tmp_path / "files").iterdir())) == 1


async def test_a_full_disk_of_contents_refuses_one_file_and_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, write = 300_000, os.write

    def full(file: int, data: Any) -> int:
        nonlocal room
        if len(data) > 1000:  # of a content
            if room < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            room -= len(data)
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    upload = UploadFileData("missions:m", "a.bin", FileType.OTHER, "x/y", b"x" * 500_000, status=FileStatus.ACTIVE)
    with trio.fail_after(30):
        provider = Provider(SqliteDatabase(tmp_path), directory=tmp_path)
        async with provider.running(port=0) as address, rpc.open_channel(address) as channel:
            stub = FilesystemServiceStub(channel)
            with pytest.raises(GRPCError) as caught:
                await stub.upload_files(UploadFilesRequest([upload]))
            assert told(caught.value)[:2] == (Status.RESOURCE_EXHAUSTED, "FILESYSTEM_FAILED")
            assert list((tmp_path / "files").iterdir()) == []
            room = 10_000_000
            assert (await stub.upload_files(UploadFilesRequest([upload]))).total_uploaded == 1


async def test_a_second_provider_on_the_same_files_is_refused(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with Provider(SqliteDatabase(tmp_path), directory=tmp_path).running(port=0) as address:
            with pytest.raises(ConfigurationError, match="in use by the process"):
                async with Provider(SqliteDatabase(tmp_path), directory=tmp_path).running(port=0):
                    pass
            with pytest.raises(ListenError):
                async with Provider(SqliteDatabase(None)).running(port=int(address.rpartition(":")[2])):
                    pass


async def test_a_signal_drains_and_ends(tmp_path: Path) -> None:
    with trio.fail_after(30):
        provider = Provider(SqliteDatabase(tmp_path), directory=tmp_path, options=ProviderOptions(validate="off"))
        addresses: list[str] = []

        def ready(address: str) -> None:
            addresses.append(address)
            signal.raise_signal(signal.SIGTERM)

        assert await provider.serve(port=0, on_ready=ready) == DrainReport()
        assert addresses
        assert provider.statistics().rpc.draining
