"""Files that change while a server runs. Looks are asked for by hand; the last test has them in the background."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trustme
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc
from dk_trio.errors import ConfigurationError
from dk_trio.rpc.peer import client_of
from dk_trio.security import Security
from dk_trio.security.reload import Reloaded

from .kit import Files, ask, calling, context, serving, until, write


def pair(folder: Path) -> tuple[Path, Path]:
    first, second = folder / "a", folder / "b"
    first.write_text("1")
    second.write_text("1")
    return first, second


def loaded(first: Path, second: Path) -> str:
    one, two = first.read_text(), second.read_text()
    if one != two:
        raise ConfigurationError(f"{one} and {two} do not fit together.")
    return one


def test_what_does_not_fit_together_keeps_what_was_loaded_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dk_trio.security")
    first, second = pair(tmp_path)
    kept = Reloaded("a thing", [first, second], lambda: loaded(first, second))
    assert not kept.look()
    first.write_text("2")  # the look falls between the two writes
    for _ in range(3):
        assert not kept.look()
        assert kept.current == "1"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "a thing stays as it was, what is in its files now is not taken: 2 and 1 do not fit together."
    )
    second.write_text("2")
    assert kept.look()
    assert kept.current == "2"
    assert (kept.reloads, kept.failures) == (1, 1)


def test_a_file_that_goes_while_it_is_loaded_ends_nothing_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair(tmp_path)
    gone = False

    def load() -> str:
        if gone:
            raise FileNotFoundError(2, "No such file or directory")  # as ssl says it, of a file that was just read
        return first.read_text()

    kept = Reloaded("a thing", [first, second], load)
    first.write_text("2")
    gone = True
    assert not kept.look()
    assert kept.current == "1"
    assert "a thing stays as it was" in caplog.text
    gone = False
    assert kept.look(), "it has the contents that were looked at before"
    assert (kept.current, kept.reloads, kept.failures) == ("2", 1, 1)


def test_a_file_that_is_gone_for_a_while_keeps_what_was_loaded(tmp_path: Path) -> None:
    first, second = pair(tmp_path)

    def load() -> str:
        if not first.exists():
            raise ConfigurationError("gone")
        return loaded(first, second)

    kept = Reloaded("a thing", [first, second], load)
    first.unlink()
    assert not kept.look()
    first.write_text("1")
    kept.look()
    assert kept.current == "1"


async def test_want_of_a_thread_does_not_end_who_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    first, second = pair(tmp_path)
    kept = Reloaded("a thing", [first, second], lambda: loaded(first, second))
    wanted = 2

    async def run_sync(look: Callable[[], bool], **_: object) -> bool:
        nonlocal wanted
        await trio.lowlevel.checkpoint()
        wanted -= 1
        if wanted >= 0:
            raise RuntimeError("can't start new thread")
        return look()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    first.write_text("2")
    second.write_text("2")
    with trio.move_on_after(35):
        await kept.watch(10)
    assert kept.current == "2"
    assert len(caplog.records) == 2
    assert "a thing were not looked at" in caplog.text


def test_a_secret_of_kubernetes_is_a_link_that_moves(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    link = tmp_path / "..data"
    link.symlink_to("old")
    file = tmp_path / "file"
    file.symlink_to(Path("..data", "file"))
    kept = Reloaded("a thing", [file], file.read_text)
    assert kept.current == "old"
    other = tmp_path / "..tmp"
    other.symlink_to("new")
    other.rename(link)
    assert kept.look()
    assert kept.current == "new"


async def issued_to(address: str, files: Files) -> set[str]:
    """Names in the certificate that a server shows now."""
    host, _, port = address.rpartition(":")
    made = context(files.authority)
    made.set_alpn_protocols(["h2"])
    tcp = await trio.open_tcp_stream(host, int(port))
    stream = trio.SSLStream(tcp, made, server_hostname="localhost", https_compatible=True)
    await stream.do_handshake()
    names = {name for _, name in (stream.getpeercert() or {})["subjectAltName"]}
    await stream.aclose()
    return names


async def test_the_next_connection_gets_the_new_certificate_while_an_old_call_goes_on(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """In the background, with the looks that a server takes by itself."""
    caplog.set_level(logging.INFO, "dk_trio.security")
    security = Security(files.settings(tls_reload_interval=0.1))
    async with security.opened(), serving(security) as (server, address):
        assert "renewed" not in await issued_to(address, files)
        async with (
            calling(address, files.settings()) as channel,
            channel.request("/test.Service/bidi", Cardinality.STREAM_STREAM, Message, Message) as call,
        ):
            await call.send_message(Message(text="before"))
            assert await call.recv_message() == Message(text="before")
            cert, key = files.server
            new_cert, new_key = write(files.folder / "new", files.authority.issue_cert("localhost", "renewed"))
            new_cert.replace(cert)
            await until(lambda: security.statistics().reload_failures)  # it has seen the half of the pair
            assert "renewed" not in await issued_to(address, files)
            new_key.replace(key)
            await until(lambda: security.statistics().reloads)
            assert "renewed" in await issued_to(address, files)
            await call.send_message(Message(text="after"), end=True)
            assert await call.recv_message() == Message(text="after")
            assert channel.statistics().connects == 1
        assert server.statistics().handshakes_failed == {}
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO"]
    assert "is not the key of the certificate" in caplog.text


async def test_the_next_connection_meets_the_new_authority_of_clients(files: Files) -> None:
    security = Security(files.settings(mutual=True))
    settings = files.settings(mutual=True)
    async with serving(security) as (server, address):
        async with calling(address, settings) as channel:
            await ask(channel)
            trustme.CA().cert_pem.write_to_path(files.folder / "stranger.pem")
            trusted = files.ca.read_bytes()
            files.ca.write_bytes((files.folder / "stranger.pem").read_bytes())
            assert security._tls is not None
            assert security._tls.look()
            await ask(channel)  # its connection goes on
        files.ca.write_bytes(trusted)
        async with calling(address, settings) as channel:
            with pytest.raises(GRPCError, match="UNKNOWN_CA"):
                await ask(channel)
    assert server.statistics().handshakes_failed == {"wrong_ca": 1}


async def test_a_client_shows_its_new_certificate_on_its_next_connection(files: Files) -> None:
    server_side = Security(files.settings(mutual=True))
    client = Security(files.settings(mutual=True)).client
    async with serving(server_side, unary=subject) as (_, address):
        async with rpc.open_channel(address, ssl_context=client.tls) as channel:
            assert await ask(channel) == "scheduler.mesh"
        write(files.folder / "client", files.authority.issue_cert("gateway.mesh"))
        assert client._files is not None
        assert client._files.look()
        async with rpc.open_channel(address, ssl_context=client.tls) as channel:
            assert await ask(channel) == "gateway.mesh"


async def subject(stream: rpc.ServerCall) -> None:
    await stream.recv_message()
    await stream.send_message(Message(text=client_of(stream.peer)))
