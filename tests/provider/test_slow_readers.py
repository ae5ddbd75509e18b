"""Clients that ask for much and read nothing."""

import pytest
import trio
from grpclib.const import Status
from tests.rpc.wire_client import WireClient

from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    FilesystemServiceStub,
    FileType,
    GetFilesRequest,
    UploadFileData,
    UploadFilesRequest,
)

from .kit import provided

GET_FILES = "/agentic_mesh_protocol.filesystem.v1.FilesystemService/GetFiles"
FILE = UploadFileData(context="missions:m", name="a", file_type=FileType.DOCUMENT, content=bytes(1_000_000))


async def test_a_reply_does_not_wait_for_ever(autojump_clock: trio.abc.Clock) -> None:
    """The client is there, and answers pings; it has no deadline."""
    async with provided(validate="off", send_timeout=30) as there, trio.open_nursery() as nursery:
        await FilesystemServiceStub(there.channel).upload_files(UploadFilesRequest(files=[FILE]))
        client = WireClient(await there.connect(), stream_window=1000)
        await client.flush()
        nursery.start_soon(client.read)
        call = await client.call(GET_FILES, GetFilesRequest(context="missions:m", include_content=True))
        begin = trio.current_time()
        while call.trailers is None and call.reset_code is None:
            await call.changed.wait()
        assert trio.current_time() - begin == pytest.approx(30)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
        assert there.provider.statistics().rpc.rpcs == 0
        await client.stream.aclose()
        nursery.cancel_scope.cancel()
