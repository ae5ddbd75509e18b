"""Who does not get in by TLS: refused, counted by why, and told once with the address. Over sockets, which have one."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
import trio.testing
import trustme
from grpclib.const import Status
from tests.rpc.wire_client import DAY, TestService, WireClient, echo

from dk_trio import rpc
from dk_trio.security import Security
from dk_trio.settings import SecuritySettings

from .kit import Files, ask, calling, context, expired, serving, status, until, write

Way = Callable[[Files], dict[str, object]]


def nobody(files: Files) -> dict[str, object]:
    return {"ssl_context": context(files.authority)}


def a_stranger(files: Files) -> dict[str, object]:
    return {"ssl_context": context(files.authority, trustme.CA().issue_cert("scheduler.mesh"))}


def too_late(files: Files) -> dict[str, object]:
    return {"ssl_context": context(files.authority, expired(files.authority, "scheduler.mesh"))}


def mistrusting(files: Files) -> dict[str, object]:
    return {"ssl_context": context(trustme.CA())}


def in_plaintext(files: Files) -> dict[str, object]:
    return {"ssl_context": None}


@pytest.mark.parametrize(
    ("way", "reason", "told_to_the_client"),
    [
        (nobody, "no_certificate", "CERTIFICATE_REQUIRED; show it a client certificate"),
        (a_stranger, "wrong_ca", "UNKNOWN_CA; show it a client certificate of an authority that it knows"),
        (too_late, "expired", "CERTIFICATE_EXPIRED; show it a client certificate that has not expired"),
        (mistrusting, "distrusted", "; name the authority that has signed it"),
        (in_plaintext, "plaintext", "the server closed the connection; does it want TLS?"),
    ],
)
async def test_a_client_that_mtls_refuses(
    files: Files, caplog: pytest.LogCaptureFixture, way: Way, reason: str, told_to_the_client: str
) -> None:
    caplog.set_level(logging.WARNING, "dk_trio.rpc.server")
    security = Security(files.settings(mutual=True))
    async with serving(security) as (server, address):
        for _ in range(2):
            async with calling(address, **way(files)) as channel:
                code, text = await status(channel)
            assert code is Status.UNAVAILABLE
            assert told_to_the_client in text
        async with calling(address, files.settings(mutual=True)) as channel:
            await ask(channel)
        await until(lambda: not server.statistics().connections)
        statistics = server.statistics()
    assert statistics.handshakes_failed == {reason: 2}
    assert statistics.rpcs_started == 1
    (record,) = caplog.records
    assert f"connection from 127.0.0.1 refused: {rpc.HANDSHAKE_FAILURES[reason]}" in record.getMessage()
    assert f"[{reason}]" in record.getMessage()


async def test_tls_to_a_plaintext_port(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Security(replace(files.settings(), tls_cert=None, tls_key=None))) as (server, address):
        async with calling(address, files.settings()) as channel:
            assert (await status(channel))[0] is Status.UNAVAILABLE
        await until(lambda: not server.statistics().connections)
    assert server.statistics().handshakes_failed == {"tls_to_plaintext": 1}
    assert "the client speaks TLS, and this port is plaintext" in caplog.text


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "PROTOCOL_ERROR: the client's preface is not that of HTTP/2"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 1, 4, 0, 0, 0, 0, 0, 0]), "FRAME_SIZE_ERROR: "),
    ],
)
async def test_a_stranger_does_not_fill_the_log_with_what_is_no_http2(
    caplog: pytest.LogCaptureFixture, said: bytes, told: str
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.rpc.server")
    async with serving(Security(SecuritySettings())) as (server, address):
        host, _, port = address.partition(":")
        for _ in range(5):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(said)
                while await stream.receive_some():
                    pass
        await until(lambda: not server.statistics().connections)
    (line,) = caplog.messages
    assert line.startswith(f"connection from 127.0.0.1 closed: {told}")


async def test_a_server_whose_name_is_not_in_its_certificate(files: Files) -> None:
    cert, key = write(files.folder / "other", files.authority.issue_cert("other.example"))
    async with serving(Security(replace(files.settings(), tls_cert=cert, tls_key=key))) as (server, address):
        async with calling(address, files.settings()) as channel:
            code, text = await status(channel)
        assert code is Status.UNAVAILABLE
        assert "IP address mismatch" in text
        await until(lambda: not server.statistics().connections)
    assert server.statistics().handshakes_failed == {"distrusted": 1}


async def test_a_drain_does_not_wait_for_a_handshake_that_never_ends(
    files: Files, autojump_clock: trio.testing.MockClock
) -> None:
    security = Security(files.settings())
    server = rpc.Server([TestService(unary=echo)], interceptors=security.among([]))
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, security.stream(theirs))
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
            await server.drain()
            assert trio.current_time() - begin < 2
    await ours.aclose()
    assert server.statistics().connections == 0


async def test_a_handshake_under_way_when_the_drain_begins_is_finished_and_told(
    files: Files, autojump_clock: trio.testing.MockClock
) -> None:
    security = Security(files.settings())
    server = rpc.Server([TestService(unary=echo)], interceptors=security.among([]))
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, security.stream(theirs))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(server.drain)
            await trio.testing.wait_all_tasks_blocked()
            made = context(files.authority)
            made.set_alpn_protocols(["h2"])
            client = WireClient(trio.SSLStream(ours, made, server_hostname="localhost", https_compatible=True))
            await client.read()
    assert len(client.goaways) == 2
