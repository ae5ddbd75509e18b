"""Files of certificates and tokens, and a small server behind them."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import trio
import trustme
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message
from tests.rpc.wire_client import TestService

from dk_trio import rpc
from dk_trio.security import ClientSecurity, Security
from dk_trio.settings import SecuritySettings

PATIENCE = 20
"""Seconds for what goes over a socket."""

GOOD = "kT9dQe0123456789abcdefghijklmnop"
OLD = "6nM3sVabcdefghijklmnop0123456789"


def write(path: Path, certificate: trustme.LeafCert) -> tuple[Path, Path]:
    """The files of a pair, beside each other."""
    chain, key = path.with_suffix(".pem"), path.with_suffix(".key")
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return chain, key


def expired(authority: trustme.CA, *names: str) -> trustme.LeafCert:
    now = datetime.now(UTC)
    return authority.issue_cert(*names, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))


@dataclass
class Files:
    """A directory with an authority, and what it has signed when it is asked for."""

    folder: Path
    authority: trustme.CA

    @cached_property
    def ca(self) -> Path:
        path = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(path)
        return path

    @cached_property
    def server(self) -> tuple[Path, Path]:
        return write(self.folder / "server", self.authority.issue_cert("localhost", "127.0.0.1"))

    @cached_property
    def client(self) -> tuple[Path, Path]:
        return write(self.folder / "client", self.authority.issue_cert("scheduler.mesh"))

    def tokens(self, text: str) -> Path:
        path = self.folder / "tokens"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def settings(self, *, mutual: bool = False, **more: Any) -> SecuritySettings:
        """Those of a server with TLS that is a client of its like."""
        cert, key = self.server
        given = SecuritySettings(tls_cert=cert, tls_key=key, client_ca=self.ca)
        if mutual:
            client_cert, client_key = self.client
            given = replace(given, tls_client_ca=self.ca, client_cert=client_cert, client_key=client_key)
        return replace(given, **more)


async def who(stream: Any) -> None:
    """Answers with what its handler sees of the caller."""
    await stream.recv_message()
    await stream.send_message(Message(text=str(stream.metadata.get("authorization"))))


async def held(stream: Any) -> None:
    """Answers when its client asks again."""
    while (message := await stream.recv_message()) is not None:
        await stream.send_message(message)


@asynccontextmanager
async def serving(
    security: Security, *interceptors: rpc.Interceptor, options: rpc.ServerOptions | None = None, **methods: Any
) -> AsyncIterator[tuple[rpc.Server, str]]:
    """A server on a free port of this machine, for the length of the block; it and its address."""
    health = rpc.Health()
    services: list[Any] = [TestService(**{"unary": who, "bidi": held, **methods}), health]
    server = rpc.Server(
        [*services, *rpc.reflection(services)],
        options=options or rpc.ServerOptions(max_connections_per_client=security.max_connections_per_client),
        interceptors=security.among(interceptors),
    )
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(server.serve, security.listeners(listeners))
            yield server, f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"  # type: ignore[attr-defined]
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def calling(address: str, settings: SecuritySettings | None = None, **more: Any) -> AsyncIterator[rpc.Channel]:
    """A channel as the settings say."""
    security = ClientSecurity(settings or SecuritySettings())
    arguments = {"ssl_context": security.tls, "interceptors": security.interceptors, **more}
    options = rpc.ChannelOptions(retry=rpc.RetryPolicy(max_attempts=1))
    async with rpc.open_channel(address, options=options, **arguments) as channel:
        yield channel


async def until(condition: Callable[[], object]) -> None:
    """Wait for what sockets, threads or other tasks bring about."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  nothing tells of it
            await trio.sleep(0.002)


async def ask(channel: rpc.Channel, method: str = "/test.Service/unary", **arguments: Any) -> str:
    """The answer to one call."""
    async with channel.request(method, Cardinality.UNARY_UNARY, Message, Message, **arguments) as stream:
        await stream.send_message(Message(), end=True)
        answer = await stream.recv_message()
    assert answer is not None
    return str(answer.text)


async def status(channel: rpc.Channel, **arguments: Any) -> tuple[Status, str]:
    """What one call that fails ends with."""
    try:
        answer = await ask(channel, **arguments)
    except GRPCError as error:
        return error.status, error.message or ""
    raise AssertionError(answer)


def context(authority: trustme.CA, identity: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """A client's, without files."""
    made = ssl.create_default_context()
    authority.configure_trust(made)
    if identity is not None:
        identity.configure_cert(made)
    return made
