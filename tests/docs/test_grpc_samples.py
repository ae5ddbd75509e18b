"""The samples of the gRPC page do what the page says.

Where the sample does not ask for a socket, client and server talk over memory on a virtual clock.
"""

import filecmp
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import call_all
import cleanup
import deadlines
import drain
import health_and_reflection
import interceptors
import metadata
import pytest
import retries
import serve_tcp
import statuses
import tls
import trio
import trio.testing
import trustme
import unix_socket
import virtual_time
from greeter import GreeterStub, HelloRequest
from greeter_service import Greeter
from grpclib import GRPCError, Status

from dk_trio import rpc
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponseServingStatus, HealthStub
from dk_trio.pb.grpc.reflection.v1 import ServerReflectionRequest, ServerReflectionStub

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"


@asynccontextmanager
async def over_memory(
    service: object, interceptors: Sequence[rpc.Interceptor] = (), server: rpc.Server | None = None
) -> AsyncIterator[rpc.Channel]:
    """A channel to a server of its own, without sockets."""
    server = server or rpc.Server([service])
    with trio.fail_after(86_400):
        async with trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect, interceptors=interceptors) as channel:
                yield channel
            nursery.cancel_scope.cancel()


def target(listeners: list[trio.SocketListener]) -> str:
    host, port = listeners[0].socket.getsockname()
    return f"{host}:{port}"


async def test_virtual_time(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(86_400):
        assert await virtual_time.count_greetings(59.5) == 60


async def test_call_all_against_serve_tcp(capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(serve_tcp.main, 0)
            await call_all.main(target(listeners))
            nursery.cancel_scope.cancel()
    out = capsys.readouterr().out.splitlines()
    assert out == ["Hello, Ada", "Hello, Ada", "Hello, Ada and Grace", "Hello, Ada", "Hello, Grace"]


async def test_deadlines(autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    async with over_memory(Greeter()) as channel:
        await deadlines.by_argument(GreeterStub(channel))
        assert capsys.readouterr().out.splitlines() == ["Hello, Ada"] * 3 + ["deadline exceeded"]
        await deadlines.by_scope(GreeterStub(channel))
        assert capsys.readouterr().out.splitlines() == ["Hello, Ada"] * 3 + ["moved on"]


async def test_cleanup(autojump_clock: trio.testing.MockClock) -> None:
    service = cleanup.Greeter()
    async with over_memory(service) as channel:
        with trio.move_on_after(1):
            await GreeterStub(channel).hello(HelloRequest(name="Ada"))
        assert service.busy == 1
        await trio.sleep(0.2)
        assert service.busy == 0


async def test_statuses(autojump_clock: trio.testing.MockClock) -> None:
    async with over_memory(statuses.Greeter()) as channel:
        assert await statuses.greet(GreeterStub(channel), "Ada") == "Hello, Ada"
        assert await statuses.greet(GreeterStub(channel), "") == "INVALID_ARGUMENT: name is empty"


async def test_metadata(autojump_clock: trio.testing.MockClock) -> None:
    seen = []

    @asynccontextmanager
    async def note(call: rpc.CallInfo) -> AsyncIterator[None]:
        seen.append((call.metadata["x-tenant"], call.metadata["x-trace-bin"]))
        yield

    async with over_memory(None, server=rpc.Server([Greeter()], interceptors=[note])) as channel:
        assert await metadata.greet(channel, "Ada") == ("Hello, Ada", {})
    assert seen == [("blue", b"\x00\x01")]


async def test_interceptors(autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    async with over_memory(None, server=interceptors.server) as channel:
        with pytest.raises(GRPCError) as caught:
            await GreeterStub(channel).hello(HelloRequest(name="Ada"))
        assert caught.value.status is Status.UNAUTHENTICATED
    async with over_memory(None, [interceptors.send_token], server=interceptors.server) as channel:
        reply = await GreeterStub(channel).hello(HelloRequest(name="Ada"))
        assert reply.text == "Hello, Ada"
    assert capsys.readouterr().out.splitlines() == ["server /greeter.v1.Greeter/Hello 0.000"] * 2


async def test_health_and_reflection() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(health_and_reflection.main, 0)
            async with rpc.open_channel(target(listeners)) as channel:
                health = HealthStub(channel)
                reply = await health.check(HealthCheckRequest(service=""))
                assert reply.status == HealthCheckResponseServingStatus.SERVING
                reply = await health.check(HealthCheckRequest(service="readiness"))
                assert reply.status == HealthCheckResponseServingStatus.NOT_SERVING

                requests = [
                    ServerReflectionRequest(list_services="*"),
                    ServerReflectionRequest(file_containing_symbol="greeter.v1.Greeter"),
                ]
                stub = ServerReflectionStub(channel)
                listed, described = [answer async for answer in stub.server_reflection_info(requests)]
                names = {service.name for service in listed.list_services_response.service}
                assert {"greeter.v1.Greeter", "grpc.health.v1.Health"} <= names
                assert len(described.file_descriptor_response.file_descriptor_proto) == 1
            nursery.cancel_scope.cancel()


async def test_retries_wait_for_the_server() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(serve_tcp.main, 0)
            assert await retries.greet(target(listeners)) == "Hello, Ada"
            nursery.cancel_scope.cancel()


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    pem = str(tmp_path / "server.pem")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(tls.serve, pem, pem, 0)
            host, port = listeners[0].transport_listener.socket.getsockname()
            assert await tls.greet(f"{host}:{port}", str(tmp_path / "authority.pem")) == "Hello, Ada"
            nursery.cancel_scope.cancel()


async def test_a_missing_client_certificate_is_unavailable(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    pem = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    context = rpc.server_tls_context(pem, pem, client_ca=tmp_path / "authority.pem")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            tcp = await rpc.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(rpc.Server([Greeter()]).serve, rpc.tls_listeners(tcp, context))
            with pytest.raises(GRPCError) as caught:
                await tls.greet(target(tcp), str(tmp_path / "authority.pem"))
            nursery.cancel_scope.cancel()
    assert caught.value.status is Status.UNAVAILABLE


async def test_unix_socket(tmp_path: Path) -> None:
    with trio.fail_after(10):
        assert await unix_socket.greet_over(tmp_path / "greeter.sock") == "Hello, Ada"


async def test_drain() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(drain.main, 0)
            async with rpc.open_channel(target(listeners)) as channel:
                reply = await GreeterStub(channel).hello(HelloRequest(name="Ada"))
                assert reply.text == "Hello, Ada"
            os.kill(os.getpid(), signal.SIGTERM)


def test_generated_code_is_current(tmp_path: Path) -> None:
    """`generate.sh` writes what is committed."""
    # pyproject.toml too, because the compiler formats with ruff, which takes its settings from there.
    for path in (SAMPLES / "greeter.proto", SAMPLES / "generate.sh", SAMPLES.parents[1] / "pyproject.toml"):
        shutil.copy(path, tmp_path)
    programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "generate.sh"], cwd=tmp_path, env={"PATH": programs}, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    names = [
        str(path.relative_to(tmp_path)) for path in (tmp_path / "gen").rglob("*") if path.suffix in {".py", ".bin"}
    ]
    assert len(names) == 5
    assert filecmp.cmpfiles(tmp_path, SAMPLES, names, shallow=False) == (names, [], [])
