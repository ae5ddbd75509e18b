"""The channel over real sockets: TCP, Unix sockets, TLS with and without client certificates; grpcio as the server."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
import trustme
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .channel_kit import ONCE, call, request
from .wire_client import TestService, echo

OPTIONS = rpc.ChannelOptions(retry=ONCE)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_context(authority: trustme.CA, *, alpn: bool = True, client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    if alpn:
        context.set_alpn_protocols(["h2"])
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


def client_context(authority: trustme.CA | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority is not None:
        authority.configure_trust(context)
    return context


async def serve(nursery: trio.Nursery, context: ssl.SSLContext | None = None) -> int:
    listeners = list(await rpc.open_tcp_listeners(0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    if context is not None:
        listeners = list(rpc.tls_listeners(listeners, context))
    await nursery.start(rpc.Server([TestService(unary=echo, bidi=echo)]).serve, listeners)
    return port


@pytest.mark.parametrize("target", ["127.0.0.1:{}", "localhost:{}", "dns:///localhost:{}"])
async def test_tcp(target):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await serve(nursery)
            async with rpc.open_channel(target.format(port), options=OPTIONS) as channel:
                async with request(channel, "unary", Cardinality.UNARY_UNARY) as stream:
                    await stream.send_message(Message(text="x"))
                    assert stream.peer.addr() == ("127.0.0.1", port)
                    assert (await stream.recv_message()).text == "x"
                data = bytes(3_000_000)
                assert (await call(channel, Message(data=data))).data == data
            nursery.cancel_scope.cancel()


async def test_unix_socket(tmp_path):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listener = await rpc.open_unix_listener(tmp_path / "s")
            await nursery.start(rpc.Server([TestService(unary=echo)]).serve, [listener])
            async with rpc.open_channel(f"unix:{tmp_path / 's'}", options=OPTIONS) as channel:
                assert (await call(channel, Message(text="x"))).text == "x"
            nursery.cancel_scope.cancel()


async def test_nobody_listens(unused_port):
    with trio.fail_after(10):
        async with rpc.open_channel(f"127.0.0.1:{unused_port}", options=OPTIONS) as channel:
            with pytest.raises(GRPCError) as caught:
                await call(channel)
    assert caught.value.status is Status.UNAVAILABLE
    assert f"127.0.0.1 port {unused_port}: Connection refused" in caught.value.message
    assert "check that the server runs" in caught.value.message


@pytest.fixture
def unused_port():
    """A port that was free a moment ago and is kept bound, not listening."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def test_tls(authority):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await serve(nursery, server_context(authority))
            async with (
                rpc.open_channel(
                    f"localhost:{port}", options=OPTIONS, ssl_context=client_context(authority)
                ) as channel,
                request(channel, "unary", Cardinality.UNARY_UNARY) as stream,
            ):
                await stream.send_message(Message(text="x"))
                assert ("DNS", "localhost") in stream.peer.cert()["subjectAltName"]
                assert (await stream.recv_message()).text == "x"
            nursery.cancel_scope.cancel()


async def tls_failure(server, client, target="localhost:{}", **options) -> str:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await serve(nursery, server)
            options = rpc.ChannelOptions(retry=ONCE, **options)
            async with rpc.open_channel(target.format(port), options=options, ssl_context=client) as channel:
                with pytest.raises(GRPCError) as caught:
                    await call(channel)
            nursery.cancel_scope.cancel()
    assert caught.value.status is Status.UNAVAILABLE
    return caught.value.message


async def test_tls_faults_are_told(authority):
    assert "CERTIFICATE_VERIFY_FAILED" in await tls_failure(server_context(authority), client_context(None))
    assert "Hostname mismatch" in await tls_failure(
        server_context(authority), client_context(authority), authority="other.example:1"
    )
    assert "does not speak HTTP/2 over TLS: it chose ALPN None" in await tls_failure(
        server_context(authority, alpn=False), client_context(authority)
    )
    plaintext = await tls_failure(None, client_context(authority))
    assert "no TLS connection to 'localhost:" in plaintext
    assert plaintext.endswith("; is this port plaintext?")


async def test_tls_with_client_certificates(authority):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await serve(nursery, server_context(authority, client=True))
            context = client_context(authority)
            authority.issue_cert("client").configure_cert(context)
            async with rpc.open_channel(f"localhost:{port}", options=OPTIONS, ssl_context=context) as channel:
                await call(channel)
            # With TLS 1.3 a missing certificate shows at the first read, after the client's handshake.
            async with rpc.open_channel(
                f"localhost:{port}", options=OPTIONS, ssl_context=client_context(authority)
            ) as channel:
                with pytest.raises(GRPCError) as caught:
                    await call(channel)
                assert caught.value.status is Status.UNAVAILABLE
            nursery.cancel_scope.cancel()


async def test_plain_text_to_a_tls_port(authority):
    message = await tls_failure(server_context(authority), None, connect_timeout=2.0)
    assert "the server" in message


async def test_a_grpcio_server():
    grpc = pytest.importorskip("grpc")

    def fail(request, context):
        context.set_trailing_metadata((("a", "b"), ("c-bin", b"\x00")))
        context.abort(grpc.StatusCode.NOT_FOUND, "gone ☺")

    handlers = grpc.method_handlers_generic_handler(
        "test.Service",
        {
            "unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "fail": grpc.unary_unary_rpc_method_handler(fail),
            "bidi": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
        },
    )
    server = grpc.server(ThreadPoolExecutor(4), handlers=(handlers,), compression=grpc.Compression.Gzip)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with trio.fail_after(20):
            async with rpc.open_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
                big = Message(data=bytes(1_000_000), text="x")
                for compression in ("identity", "gzip", "deflate"):
                    assert await call(channel, big, compression=compression, timeout=5) == big
                async with request(channel, "bidi", Cardinality.STREAM_STREAM) as stream:
                    await stream.send_request()
                    stream.feed([Message(n=n) for n in range(100)])
                    assert [reply.n async for reply in stream] == list(range(100))
                stream = request(channel, "fail", Cardinality.UNARY_UNARY)
                with pytest.raises(GRPCError) as caught:
                    async with stream:
                        await stream.send_message(Message())
                assert (caught.value.status, caught.value.message) == (Status.NOT_FOUND, "gone ☺")
                assert dict(stream.trailing_metadata) == {"a": "b", "c-bin": b"\x00"}
                async with trio.open_nursery() as nursery:
                    for n in range(200):
                        nursery.start_soon(call, channel, Message(n=n))
                assert channel.statistics().succeeded == 204
    finally:
        await trio.to_thread.run_sync(server.stop(None).wait)
