"""Pages beside the server: what no peer and no defect of a page may do to it."""

import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from dk_trio.observe import web
from dk_trio.observe.web import serve_app

PATIENCE = 60  # seconds


async def pages(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/defect":
        raise LookupError("a defect of the page")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def served_pages() -> AsyncIterator[int]:
    """A port of loopback."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(partial(serve_app, pages, host="127.0.0.1", port=0, setting="X"))
            yield int(address.rpartition(":")[2])
            nursery.cancel_scope.cancel()


async def get(port: int, path: str, more: str = "Connection: close\r\n") -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())
        return b"".join([part async for part in stream])


async def test_a_defect_of_a_page_is_one_answer_and_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with served_pages() as port:
        assert (await get(port, "/defect")).startswith(b"HTTP/1.1 500 ")
        assert (await get(port, "/")).endswith(b"hello\r\n0\r\n\r\n")
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["dk_trio.web.http"]
    assert "LookupError: a defect of the page" in caplog.text


async def test_what_is_not_http_ends_its_connection_alone() -> None:
    async with served_pages() as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
            assert not b"".join([part async for part in stream]).startswith(b"HTTP/1.1 2")
        upgrade = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        assert (await get(port, "/", upgrade)).startswith(b"HTTP/1.1 403 ")
        assert (await get(port, "/")).endswith(b"hello\r\n0\r\n\r\n")


async def test_a_reader_that_reads_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SEND_TIMEOUT", 0.05)
    monkeypatch.setattr(web, "GRACE", 0.01)
    async with served_pages() as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream.receive_some(1)
    await stream.aclose()


async def test_connections_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 2)
    async with served_pages() as port:
        kept = []
        for _ in range(2):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            kept.append(stream)
        try:
            refused = await get(port, "/")
        except trio.BrokenResourceError:
            refused = b""
        assert refused == b""
        for stream in kept:
            await stream.aclose()


@pytest.mark.parametrize(("number", "told"), [(errno.EMFILE, "raise ulimit -n"), (errno.EIO, "served no more")])
async def test_what_the_system_has_no_room_for_ends_nothing_and_is_told_once(
    number: int, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0
    accept = trio.SocketListener.accept

    async def refused(listener: trio.SocketListener) -> trio.SocketStream:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(number, os.strerror(number))
        return await accept(listener)

    monkeypatch.setattr("dk_trio.rpc.accepting.PAUSE", 0)
    monkeypatch.setattr(trio.SocketListener, "accept", refused)
    async with served_pages() as port:
        if number == errno.EMFILE:
            assert (await get(port, "/")).endswith(b"hello\r\n0\r\n\r\n")
        else:
            await trio.testing.wait_all_tasks_blocked()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert told in record.getMessage()
