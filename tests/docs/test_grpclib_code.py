"""The gRPC page says that code of grpclib's own plugin runs as it is, with google.protobuf messages."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from dk_trio import rpc

PROTO = Path(__file__).parents[2] / "docs" / "samples" / "greeter.proto"


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, object]:
    """`grpclib_pb2` and `grpclib_grpc`, made from the samples' proto file; the name keeps them apart from `greeter`."""
    shutil.copy(PROTO, tmp_path / "grpclib_greeter.proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpclib_python_out=."]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run([*command, "grpclib_greeter.proto"], cwd=tmp_path, env=environment, timeout=60, check=True)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("grpclib_greeter_pb2"), importlib.import_module("grpclib_greeter_grpc")


async def test_grpclib_service_and_stub(
    generated: tuple[object, object], autojump_clock: trio.testing.MockClock
) -> None:
    messages, code = generated

    class Greeter(code.GreeterBase):
        async def Hello(self, stream):
            request = await stream.recv_message()
            await stream.send_message(messages.HelloReply(text=request.name))

        async def Repeat(self, stream):
            request = await stream.recv_message()
            for _ in range(3):
                await stream.send_message(messages.HelloReply(text=request.name))

        async def Together(self, stream):
            names = [request.name async for request in stream]
            await stream.send_message(messages.HelloReply(text=" ".join(names)))

        async def Each(self, stream):
            async for request in stream:
                await stream.send_message(messages.HelloReply(text=request.name))

    server = rpc.Server([Greeter()])
    with trio.fail_after(86_400):
        async with trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                stub = code.GreeterStub(channel)
                ada, grace = messages.HelloRequest(name="Ada"), messages.HelloRequest(name="Grace")
                assert (await stub.Hello(ada)).text == "Ada"
                assert [reply.text for reply in await stub.Repeat(ada)] == ["Ada"] * 3
                assert (await stub.Together([ada, grace])).text == "Ada Grace"
                assert [reply.text for reply in await stub.Each([ada, grace])] == ["Ada", "Grace"]
            nursery.cancel_scope.cancel()
