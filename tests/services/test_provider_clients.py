"""Who a server's services call: what is shared, how it is connected, and what each variable does."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests._pb.dk_trio.test.v1 import Message
from tests.rpc.channel_kit import Network
from tests.services.query_kit import DAY, ROUTE, ScriptedProvider, read, status_of, write

from dk_trio import rpc
from dk_trio.rpc import resolver
from dk_trio.services.channels import ChannelCache
from dk_trio.services.client_config import parse_client_config
from dk_trio.services.provider_clients import ProviderClients, provider_options
from dk_trio.settings import ChannelSettings, Settings

DEFAULTS = provider_options(ChannelSettings())


@asynccontextmanager
async def clients_of(*script: Any, environ: dict[str, str] | None = None, connect: Any = None) -> AsyncIterator[Any]:
    """Clients with settings from these variables, and the provider that they call."""
    settings = Settings.from_environment(environ or {})
    provider = ScriptedProvider(list(script))
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery, ChannelCache().opened() as channels:
            provider.nursery = nursery
            clients = ProviderClients(
                channels,
                target="provider:1",
                channel_settings=settings.channel,
                query_settings=settings.query,
                connect=connect or provider.connect,
            )
            async with clients.opened():
                yield clients, provider, channels
            assert channels.statistics().leases == 0
            nursery.cancel_scope.cancel()


# -- lifetimes --------------------------------------------------------------------------------------------------------


async def test_all_users_share_one_connection_that_the_first_query_makes(autojump_clock: trio.abc.Clock) -> None:
    async with clients_of() as (clients, provider, channels):
        query = clients.query()
        assert clients.query() is query
        assert channels.statistics().opened == 0
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(write, clients.query(), str(number))
        assert provider.connects == 1
        assert channels.statistics().leases == channels.statistics().opened == 1
        await trio.sleep(10_000)
        await read(query)
        assert provider.connects == 1
        assert clients.statistics()["provider:1"].queries == 51
        assert "provider:1" in repr(clients)


async def test_channels_are_given_back_at_the_end(autojump_clock: trio.abc.Clock) -> None:
    provider = ScriptedProvider()
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery, ChannelCache().opened() as channels:
            provider.nursery = nursery
            clients = ProviderClients(channels, target="provider:1", connect=provider.connect)
            for _ in range(7):
                async with clients.opened():
                    await read(clients.query())
                    assert channels.statistics().leases == 1
                assert channels.statistics().leases == 0
            assert channels.statistics().opened == 1
            with pytest.raises(RuntimeError, match="not open"):
                clients.query()
            nursery.cancel_scope.cancel()


async def test_equal_configurations_share_and_any_difference_does_not(autojump_clock: trio.abc.Clock) -> None:
    base = {"host": "other", "port": 5}
    differences: list[dict[str, Any]] = [
        {"host": "third"},
        {"port": 6},
        {"compression": "gzip"},
        {"retry_policy": {"max_attempts": 2}},
        {"channel_options": [("grpc.keepalive_time_ms", 1000)]},
        {"security": "secure", "credentials": {}},
        {"security": "insecure"},  # in so many words: also where the process speaks TLS to others
    ]
    async with clients_of() as (clients, _, _):
        first = clients.query(base)
        assert clients.query(dict(base)) is first
        assert clients.query(SimpleNamespace(**base)) is first
        assert clients.query({**base, "compression": "none", "mode": "async"}) is first
        others = [clients.query({**base, **difference}) for difference in differences]
        assert len({*others, first}) == 1 + len(differences)
        assert clients.query({"host": "provider", "port": 1}) is clients.query()


# -- connections ------------------------------------------------------------------------------------------------------


async def test_secure_is_never_plain_text(tmp_path: Path) -> None:
    """Over real sockets: a client with credentials reaches a TLS server, with its certificate, and no other."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server_certificate = authority.issue_cert("127.0.0.1")
    client_certificate = authority.issue_cert("client.test")
    for name, pem in (
        ("ca.pem", authority.cert_pem),
        ("client.pem", client_certificate.cert_chain_pems[0]),
        ("key.pem", client_certificate.private_key_pem),
    ):
        pem.write_to_path(tmp_path / name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_certificate.configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    provider = ScriptedProvider()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, ChannelCache().opened() as channels:
            provider.nursery = nursery
            listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
            plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, provider.server.serve_stream, [*listeners, *plain])
            base = {"host": "127.0.0.1", "security": "secure", "retry_policy": {"max_attempts": 1}}
            good = {
                "root_cert_path": str(tmp_path / "ca.pem"),
                "client_key_path": str(tmp_path / "key.pem"),
                "client_cert_path": str(tmp_path / "client.pem"),
            }
            port = listeners[0].transport_listener.socket.getsockname()[1]
            plain_port = plain[0].socket.getsockname()[1]
            async with ProviderClients(channels, target="provider:1").opened() as clients:
                await read(clients.query({**base, "port": port, "credentials": good}))
                made = len(provider.calls)
                for wrong in (
                    {**base, "port": port, "credentials": {"root_cert_path": good["root_cert_path"]}},
                    {**base, "port": port, "credentials": {}},
                    {**base, "port": plain_port, "credentials": good},
                ):
                    with trio.move_on_after(5):
                        assert await status_of(read(clients.query(wrong), timeout=2)) is not Status.OK
                assert len(provider.calls) == made
            nursery.cancel_scope.cancel()


async def test_credentials_that_are_replaced_count_from_the_next_connection_on(tmp_path: Path) -> None:
    """Over real sockets: the provider gets a certificate of another authority, and the client's file names that one."""
    trustme = pytest.importorskip("trustme")
    file = tmp_path / "ca.pem"
    context = None

    def replace_authority() -> None:
        nonlocal context
        authority = trustme.CA()
        authority.cert_pem.write_to_path(file)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        context.set_alpn_protocols(["h2"])

    provider = ScriptedProvider()
    streams: list[trio.abc.Stream] = []

    async def serve(stream: trio.SocketStream) -> None:
        streams.append(stream)
        assert context is not None
        await provider.server.serve_stream(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    replace_authority()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, ChannelCache().opened() as channels:
            provider.nursery = nursery
            channels.reload_interval = 0.02
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            config = {
                "host": "127.0.0.1",
                "port": listeners[0].socket.getsockname()[1],
                "security": "secure",
                "credentials": {"root_cert_path": str(file)},
                "channel_options": {"grpc.initial_reconnect_backoff_ms": 20, "grpc.min_reconnect_backoff_ms": 10},
            }
            async with ProviderClients(channels, target="provider:1").opened() as clients:
                query = clients.query(config)
                await read(query)
                replace_authority()
                await trio.aclose_forcefully(streams.pop())
                await read(query)
                assert clients.query(config) is query
            nursery.cancel_scope.cancel()


async def test_requests_are_compressed_only_where_that_is_asked_for(autojump_clock: trio.abc.Clock) -> None:
    seen: list[str | None] = []

    class Noting(ScriptedProvider):
        async def _serve(self, stream: rpc.ServerCall) -> None:
            seen.append(dict(stream.head.fields).get("grpc-encoding") or stream.head.encoding)
            await super()._serve(stream)

    for compression in (None, "gzip", "deflate"):
        provider = Noting()
        options = parse_client_config({"host": "h", "compression": compression}, defaults=DEFAULTS).options
        with trio.fail_after(DAY):
            async with trio.open_nursery() as nursery:
                provider.nursery = nursery
                async with rpc.open_channel("h:1", options=options, connect=provider.connect) as channel:
                    call: Any = channel.request(ROUTE, rpc.channel.Cardinality.UNARY_UNARY, Message, Message)
                    await call.unary(Message(text="x" * 1000))
                nursery.cancel_scope.cancel()
    assert seen == ["identity", "gzip", "deflate"]


# -- each variable of layers A and B, and of the channel --------------------------------------------------------------


async def gaps(environ: dict[str, str], status: Status, **arguments: Any) -> list[float]:
    """Seconds between the calls that a provider sees which fails all of them."""
    async with clients_of(status, environ=environ) as (clients, provider, _):
        await status_of(read(clients.query(), **arguments))
        times = provider.calls
        return [later - earlier for earlier, later in pairwise(times)]


async def test_retry_max_attempts(autojump_clock: trio.abc.Clock) -> None:
    for attempts in (2, 5, 8):
        environ = {"DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS": str(attempts)}
        assert len(await gaps(environ, Status.UNAVAILABLE)) == attempts - 1


async def test_retry_initial_backoff_and_multiplier(autojump_clock: trio.abc.Clock) -> None:
    environ = {"DIGITALKIN_GRPC_RETRY_INITIAL_BACKOFF": "0.5s", "DIGITALKIN_GRPC_RETRY_BACKOFF_MULTIPLIER": "3"}
    assert await gaps(environ, Status.UNAVAILABLE) == pytest.approx([0.5, 1.5, 4.5, 10], rel=0.21)


async def test_retry_max_backoff(autojump_clock: trio.abc.Clock) -> None:
    environ = {"DIGITALKIN_GRPC_RETRY_MAX_BACKOFF": "0.3s"}
    assert await gaps(environ, Status.UNAVAILABLE) == pytest.approx([0.1, 0.2, 0.3, 0.3], rel=0.21)


async def test_query_max_retries_and_backoff_base(autojump_clock: trio.abc.Clock) -> None:
    environ = {"DIGITALKIN_GRPC_QUERY_MAX_RETRIES": "4", "DIGITALKIN_GRPC_QUERY_BACKOFF_BASE_MS": "200"}
    assert await gaps(environ, Status.INTERNAL) == pytest.approx([0.2, 0.4, 0.8, 1.6], rel=0.21)
    assert await gaps({"DIGITALKIN_GRPC_QUERY_MAX_RETRIES": "0"}, Status.INTERNAL) == []


async def test_query_timeout(autojump_clock: trio.abc.Clock) -> None:
    async with clients_of("hang", environ={"DIGITALKIN_GRPC_QUERY_TIMEOUT": "7"}) as (clients, _, _):
        assert await status_of(read(clients.query())) is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == 7


async def reconnects(environ: dict[str, str]) -> list[float]:
    """Seconds between attempts to connect to a provider that is down."""
    times: list[float] = []

    async def refuse() -> trio.abc.Stream:
        times.append(trio.current_time())
        raise OSError("down")

    async with clients_of(environ=environ, connect=refuse) as (clients, _, _):
        await status_of(read(clients.query()))
        await trio.sleep(100)
    return [later - earlier for earlier, later in pairwise(times)]


async def test_initial_and_max_reconnect(autojump_clock: trio.abc.Clock) -> None:
    environ = {"DIGITALKIN_GRPC_INITIAL_RECONNECT_MS": "2000", "DIGITALKIN_GRPC_MAX_RECONNECT_MS": "4000"}
    delays = await reconnects(environ)
    assert delays[:4] == pytest.approx([2, 3.2, 4, 4], rel=0.21)
    assert max(delays) < 4.9


async def test_min_reconnect(autojump_clock: trio.abc.Clock) -> None:
    environ = {
        "DIGITALKIN_GRPC_INITIAL_RECONNECT_MS": "10",
        "DIGITALKIN_GRPC_MAX_RECONNECT_MS": "4000",
        "DIGITALKIN_GRPC_MIN_RECONNECT_MS": "3000",
    }
    assert min(await reconnects(environ)) == pytest.approx(3)
    assert min(await reconnects({**environ, "DIGITALKIN_GRPC_MIN_RECONNECT_MS": "100"})) < 0.2


async def test_dns_resolution(autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[float] = []

    async def lookup(*_: Any, **__: Any) -> list[Any]:
        lookups.append(trio.current_time())
        return [(2, 1, 6, "", ("192.0.2.1", 1))]

    async def nobody(*_: Any) -> tuple[None, list[str]]:
        return None, ["refused"]

    monkeypatch.setattr(trio.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(resolver, "_race", nobody)
    for interval in (500, 5000):
        lookups.clear()
        reconnect = {f"DIGITALKIN_GRPC_{name}_RECONNECT_MS": "100" for name in ("INITIAL", "MIN", "MAX")}
        environ = {"DIGITALKIN_GRPC_DNS_RESOLUTION_MS": str(interval), **reconnect}
        async with clients_of(environ=environ) as (clients, _, _):
            await status_of(read(clients.query({"host": "name.test"})))
            await trio.sleep(60)
        between = [later - earlier for earlier, later in pairwise(lookups)]
        assert interval / 1000 <= min(between) <= max(between) < interval / 1000 + 0.2


async def test_an_instance_that_hangs_does_not_keep_the_others_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real sockets: of two addresses the first accepts connections and serves none, as a stopped process does."""
    async with trio.open_nursery() as nursery:
        provider = ScriptedProvider()
        with trio.fail_after(30):
            (stopped,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = stopped.socket.getsockname()[1]
            (serving,) = await trio.open_tcp_listeners(port, host="127.0.0.2")

            async def lookup(host: str, port: int, **_: Any) -> list[Any]:
                await trio.lowlevel.checkpoint()
                kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
                return [(*kind, ("127.0.0.1", port)), (*kind, ("127.0.0.2", port))]

            monkeypatch.setattr(trio.socket, "getaddrinfo", lookup)
            nursery.start_soon(trio.serve_listeners, provider.server.serve_stream, [serving])
            reconnect = rpc.BackoffPolicy(initial=0.05, minimum=0.01)
            options = replace(DEFAULTS, connect_timeout=0.2, reconnect=reconnect)
            async with rpc.open_channel(f"provider:{port}", options=options) as channel:
                await channel.ready()
                assert channel.statistics().connect_failures == 1
            await stopped.aclose()
        nursery.cancel_scope.cancel()


async def silence(environ: dict[str, str]) -> float:
    """Seconds until a provider that has fallen silent counts as lost."""
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            network = Network(nursery)
            async with clients_of(environ=environ, connect=network.connect) as (clients, _, _):
                ended: list[float] = []

                async def caller() -> None:
                    await status_of(read(clients.query(), timeout=1000))
                    ended.append(trio.current_time())

                nursery.start_soon(caller)
                server = await network.accept()
                await server.next_call()
                await trio.testing.wait_all_tasks_blocked()
                server.deaf = True
                since = trio.current_time()
                await server.closed.wait()
                lost = trio.current_time() - since
                nursery.cancel_scope.cancel()
    return lost


async def test_keepalive_time_and_timeout(autojump_clock: trio.abc.Clock) -> None:
    environ = {"DIGITALKIN_GRPC_QUERY_TIMEOUT": "1000"}
    assert await silence(environ) == pytest.approx(80)
    assert await silence({**environ, "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS": "40000"}) == pytest.approx(60)
    assert await silence({**environ, "DIGITALKIN_GRPC_KEEPALIVE_TIMEOUT_MS": "5000"}) == pytest.approx(65)


async def test_min_ping_interval(autojump_clock: trio.abc.Clock) -> None:
    environ = {"DIGITALKIN_GRPC_QUERY_TIMEOUT": "1000", "DIGITALKIN_GRPC_KEEPALIVE_TIME_MS": "1000"}
    assert await silence(environ) == pytest.approx(50)
    assert await silence({**environ, "DIGITALKIN_GRPC_MIN_PING_INTERVAL_MS": "15000"}) == pytest.approx(35)
