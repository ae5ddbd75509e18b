"""Where connections come from: TCP, Unix sockets, and TLS on top of them. Here the sockets are the subject."""

from __future__ import annotations

import errno
import gc
import os
import re
import socket
import ssl
import stat
from contextlib import suppress

import pytest
import trio
import trio.testing
import trustme
from grpclib.const import Status
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .wire_client import DAY, TestService, WireClient, echo

SECONDS = 20
"""Within which any of these tests is done, on a machine that has other things to do."""


async def who(stream):
    """Answers with what the server knows of its client."""
    await stream.recv_message()
    subject = ""
    if (certificate := stream.peer.cert()) is not None:
        subject = str(certificate.get("subject", ""))
    await stream.send_message(Message(text=f"{stream.peer.addr()} {subject}"))


async def call_over(stream: trio.abc.Stream, method: str = "unary") -> Message:
    """One unary call on a connection of its own, which is closed afterwards."""
    async with trio.open_nursery() as nursery:
        client = WireClient(stream)
        nursery.start_soon(client.read)
        answer = await client.unary(method, Message(text="over"))
        await stream.aclose()
        return answer


# -- TCP --------------------------------------------------------------------------------------------------------------


async def test_tcp():
    server = rpc.Server([TestService(unary=who)])
    listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(server.serve, listeners) == list(listeners)
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            local = stream.socket.getsockname()
            assert (await call_over(stream)).text.strip() == str(local)
            await server.drain()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_port_in_use():
    (listener,) = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: another process listens") as caught:
        await rpc.open_tcp_listeners(port, host="127.0.0.1")
    assert caught.value.errno == errno.EADDRINUSE
    await listener.aclose()


async def test_host_that_is_not_ours():
    with pytest.raises(OSError, match=r"cannot listen on 203\.0\.113\.1:0: "):
        await rpc.open_tcp_listeners(0, host="203.0.113.1")


async def test_cancelled_server_lets_go_of_everything():
    """Handlers end, sockets are closed, the port is free at once."""
    ended = []

    async def patient(stream):
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    server = rpc.Server([TestService(unary=patient)])
    listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve, listeners)
                calls = []
                for _ in range(3):
                    client = WireClient(await trio.open_tcp_stream("127.0.0.1", port))
                    clients.start_soon(client.read)
                    calls.append(await client.call("unary", Message()))
                while server.statistics().rpcs < 3:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                nursery.cancel_scope.cancel()
            assert len(ended) == 3
            assert server.statistics().rpcs == server.statistics().connections == 0
            for call in calls:
                assert (await call.status())[0] is Status.UNAVAILABLE
                await call.client.stream.aclose()
        for listener in await rpc.open_tcp_listeners(port, host="127.0.0.1"):
            await listener.aclose()
    gc.collect()  # a socket that was not closed would be a ResourceWarning now, which is an error


# -- Unix sockets -----------------------------------------------------------------------------------------------------


async def test_unix_socket(tmp_path):
    path = tmp_path / "rpc.sock"
    server = rpc.Server([TestService(unary=echo)])
    listener = await rpc.open_unix_listener(path)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, [listener])
            stream = await trio.open_unix_socket(os.fspath(path))
            assert (await call_over(stream)).text == "over"
            nursery.cancel_scope.cancel()


async def test_stale_socket_file_is_replaced(tmp_path):
    path = tmp_path / "rpc.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(os.fspath(path))
    dead.close()
    listener = await rpc.open_unix_listener(path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rpc.Server([TestService(unary=echo)]).serve, [listener])
            assert (await call_over(await trio.open_unix_socket(os.fspath(path)))).text == "over"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("backlog", [16, 0])
async def test_socket_that_is_served_is_left_alone(tmp_path, backlog):
    """Also when its server is busy and its backlog is full."""
    path = tmp_path / "rpc.sock"
    first = await rpc.open_unix_listener(path, backlog=backlog)
    waiting = []
    if backlog == 0:
        for _ in range(3):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(os.fspath(path))
    with pytest.raises(OSError, match=re.escape(f"cannot listen on unix:{path}: Address already in use")):
        await rpc.open_unix_listener(path)
    assert path.is_socket()
    for each in waiting:
        each.close()
    await first.aclose()


async def test_other_files_are_not_replaced(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match=re.escape(f"cannot listen on unix:{path}: ")):
        await rpc.open_unix_listener(path)
    assert path.read_text() == "data"
    with pytest.raises(OSError, match="cannot listen on unix:"):
        await rpc.open_unix_listener(tmp_path / "absent" / "rpc.sock")


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    """Paths of certificate, key and CA."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("test.example")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "cert.pem", folder / "key.pem", folder / "ca.pem"


def client_context(authority, *, alpn=("h2",), identity=None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if identity is not None:
        identity.configure_cert(context)
    return context


def tls_pair(server_context, context):
    ours, theirs = trio.testing.memory_stream_pair()
    return (
        trio.SSLStream(ours, context, server_hostname="test.example", https_compatible=True),
        trio.SSLStream(theirs, server_context, server_side=True, https_compatible=True),
    )


async def test_tls_with_alpn_over_memory(autojump_clock, authority, files):
    certificate, key, _ = files
    ours, theirs = tls_pair(rpc.server_tls_context(certificate, key), client_context(authority))
    server = rpc.Server([TestService(unary=who, unary_echo=echo)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            client = WireClient(ours)
            nursery.start_soon(client.read)
            assert (await client.unary("unary")).text == "None "
            assert ours.selected_alpn_protocol() == "h2"
            data = bytes(500_000)
            assert (await client.unary("unary_echo", Message(data=data))).data == data
            await ours.aclose()


async def test_tls_drain_says_goodbye(autojump_clock, authority, files):
    certificate, key, _ = files
    ours, theirs = tls_pair(rpc.server_tls_context(certificate, key), client_context(authority))
    server = rpc.Server([TestService(unary=echo)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            client = WireClient(ours)
            nursery.start_soon(client.read)
            await client.unary("unary")
            begin = trio.current_time()
            await server.drain()
            assert trio.current_time() - begin < 5
            assert len(client.goaways) == 2
            await ours.aclose()


async def test_client_certificates(autojump_clock, authority, files):
    certificate, key, ca = files
    identity = authority.issue_cert("client.example")
    context = rpc.server_tls_context(certificate, key, client_ca=ca)
    ours, theirs = tls_pair(context, client_context(authority, identity=identity))
    server = rpc.Server([TestService(unary=who)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            client = WireClient(ours)
            nursery.start_soon(client.read)
            assert "organizationName" in (await client.unary("unary")).text
            await ours.aclose()


async def test_client_without_certificate_is_refused(autojump_clock, authority, files):
    certificate, key, ca = files
    context = rpc.server_tls_context(certificate, key, client_ca=ca)
    ours, theirs = tls_pair(context, client_context(authority))
    server = rpc.Server([TestService(unary=who)])
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            begin = trio.current_time()
            with suppress(trio.BrokenResourceError):
                assert not await ours.receive_some()  # not even settings; TLS 1.3 has let it finish its handshake
            assert trio.current_time() == begin
            await trio.aclose_forcefully(ours)
        assert server.statistics() == rpc.ServerStatistics(
            0, 0, 0, 0, draining=False, handshakes_failed={"no_certificate": 1}
        )


@pytest.mark.parametrize(
    ("said", "seconds", "reason", "level"),
    [
        (b"", 20, "timeout", "INFO"),
        (b"\x16\x03\x01\x02\x00\x01", 20, "timeout", "INFO"),
        (b"GET / HTTP/1.1\r\n\r\n" * 20, 0, "plaintext", "WARNING"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, "plaintext", "WARNING"),
    ],
)
async def test_tls_handshake_that_never_finishes(autojump_clock, files, caplog, said, seconds, reason, level):
    """Silence, a handshake cut short, and no TLS at all: gone within the handshake's time, counted, told once."""
    caplog.set_level("INFO")
    certificate, key, _ = files
    ours, theirs = trio.testing.memory_stream_pair()
    stream = trio.SSLStream(theirs, rpc.server_tls_context(certificate, key), server_side=True, https_compatible=True)
    server = rpc.Server([TestService(unary=echo)], options=rpc.ServerOptions(handshake_timeout=20))
    with trio.fail_after(DAY):
        begin = trio.current_time()
        if said:
            await ours.send_all(said)
        await server.serve_stream(stream)
        assert trio.current_time() - begin == pytest.approx(seconds)
        assert [record.levelname for record in caplog.records] == [level]
        assert server.statistics().connections == 0
        assert server.statistics().handshakes_failed == {reason: 1}
        await ours.aclose()


async def test_tls_over_loopback(authority, files):
    certificate, key, _ = files
    server = rpc.Server([TestService(unary=who)])
    plain = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    port = plain[0].socket.getsockname()[1]
    listeners = rpc.tls_listeners(plain, rpc.server_tls_context(certificate, key))
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listeners)
            tcp = await trio.open_tcp_stream("127.0.0.1", port)
            local = tcp.socket.getsockname()
            ours = trio.SSLStream(tcp, client_context(authority), server_hostname="test.example", https_compatible=True)
            assert (await call_over(ours)).text.strip() == str(local)
            # a client that speaks plain HTTP/2 to a TLS port disturbs nobody
            plain_client = await trio.open_tcp_stream("127.0.0.1", port)
            await WireClient(plain_client).flush()
            ours = trio.SSLStream(
                await trio.open_tcp_stream("127.0.0.1", port),
                client_context(authority),
                server_hostname="test.example",
                https_compatible=True,
            )
            assert (await call_over(ours)).text
            await plain_client.aclose()
            nursery.cancel_scope.cancel()


def test_certificate_files_that_cannot_be_used(files, tmp_path):
    certificate, key, _ = files
    with pytest.raises(FileNotFoundError):
        rpc.server_tls_context(tmp_path / "absent.pem", key)
    with pytest.raises(ssl.SSLError):
        rpc.server_tls_context(key, certificate)
