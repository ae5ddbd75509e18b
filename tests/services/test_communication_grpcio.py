"""Calls of a module whose server is grpcio's and behaves as the existing SDK does. Real sockets, real time."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import dk_trio
from dk_trio.errors import ModuleCallError
from dk_trio.services.channels import ChannelCache
from dk_trio.services.remote.communication import GrpcCommunication

pytest.importorskip("grpc", reason="grpcio is the peer")

SCRIPT = Path(__file__).with_name("grpcio_module.py")
DESCRIPTORS = Path(dk_trio.__file__).parent / "pb" / "descriptors.bin"


class Lines:
    """The lines that a process prints."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self) -> str:
        while b"\n" not in self._rest:
            data = await self._stream.receive_some()
            assert data, "the process has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def grpcio_module() -> AsyncIterator[tuple[GrpcCommunication, int, Lines]]:
    with trio.fail_after(30):
        async with ChannelCache().opened() as channels:
            process = await trio.lowlevel.open_process(
                [sys.executable, str(SCRIPT), str(DESCRIPTORS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            try:
                assert process.stdout is not None
                lines = Lines(process.stdout)
                yield GrpcCommunication("m", "s", "v", channels=channels), int(await lines.next()), lines
            finally:
                process.terminate()
                with trio.move_on_after(10, shield=True):
                    await process.wait()
                for pipe in (process.stdin, process.stdout):
                    assert pipe is not None
                    await pipe.aclose()


async def test_calls_of_a_module_of_other_make() -> None:
    async with grpcio_module() as (communication, port, lines):

        def call(protocol: str, **arguments: Any) -> Any:
            return communication.call_module("127.0.0.1", port, {"protocol": protocol}, "s", "m", **arguments)

        # Metadata and deadline arrive.
        metadata = [("my-tag", "a"), ("my-bin", b"\x00\xff"), ("my-tag", "b")]
        answers = [answer async for answer in call("echo", metadata=metadata, timeout=25)]
        assert [answer["output"]["root"]["protocol"] for answer in answers] == ["module_start_info", "echo"]
        told = answers[1]["output"]["root"]
        assert sorted(told["metadata"]) == [["my-bin", "00ff"], ["my-tag", "a"], ["my-tag", "b"]]
        assert 20 < told["seconds"] <= 25.5
        assert {answer["job_id"] for answer in answers} == {"j1"}

        # A failure that only the stream tells is one; a server that never sends its status is not waited for.
        with pytest.raises(ModuleCallError, match="it broke"):
            async for _ in call("fail"):
                pass
        with trio.fail_after(10):
            assert len([answer async for answer in call("silent")]) == 2

        # Leaving tells the other server.
        async with aclosing(call("wait")) as waiting:
            await anext(waiting)
        with trio.fail_after(10):
            assert [await lines.next() for _ in range(4)] == ["echo", "fail", "silent", "wait"]

        # What it does not implement is empty.
        schemas = await communication.get_module_schemas("127.0.0.1", port, llm_format=True)
        assert schemas == {"input": {"llm": True}, "output": {}, "setup": {}, "secret": {}, "cost": {}}
