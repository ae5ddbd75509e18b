"""What grpcio's server does to connections, met by our client; what its client makes of the limits of our server."""

import json
from contextlib import contextmanager

import pytest
import trio
from tests._pb.grpc import testing
from tests.interop.battery import peers
from tests.interop.battery.caller import Failure
from tests.interop.battery.cases import body_of, output_request
from tests.interop.battery.dk_caller import open_caller
from tests.interop.battery.dk_service import InteropService
from tests.interop.battery.process import OPTIONS_VARIABLE, ServerPeer

from dk_trio import rpc

TIMEOUT = 30


@pytest.fixture
def grpcio_server(bench):
    """Start a grpcio server with options of its own."""

    @contextmanager
    def start(**options):
        names = {name.replace("__", "."): value for name, value in options.items()}
        environment = {**bench.environment, OPTIONS_VARIABLE: json.dumps(names)}
        command = peers.server_command("grpcio-sync", bench)
        with ServerPeer(command, environment=environment, log=bench.folder / "grpcio-own.log") as server:
            yield server

    return start


async def ping(caller, call):
    await call.send(output_request(caller, 5))
    assert len(body_of(await call.receive())) == 5


async def test_server_stops_gracefully(grpcio_server):
    """The call in flight ends as if nothing had happened, a new one finds nobody."""
    with trio.fail_after(TIMEOUT), grpcio_server() as server:
        async with open_caller(server.target) as caller:
            async with caller.call("FullDuplexCall") as call:
                await ping(caller, call)
                server.write_line("stop 20")
                while True:  # until the GOAWAY has arrived, each ping may be answered before it
                    await ping(caller, call)
                    if caller.channel.statistics().state != "ready":
                        break
                with pytest.raises(Failure) as caught:
                    await caller.unary("EmptyCall", testing.Empty())
                assert caught.value.code == "UNAVAILABLE"
                for _ in range(3):
                    await ping(caller, call)
                await call.end()
                assert await call.receive() is None
            assert await trio.to_thread.run_sync(server.read_line, TIMEOUT) == "STOPPED"


async def test_connections_of_limited_age(grpcio_server):
    """GOAWAY every few hundred milliseconds in the middle of traffic: no call is lost.

    C-core closes its socket after the last GOAWAY even if requests of ours are still unread in it; TCP then resets the
    connection, and calls that had no answer yet are made again. Answers are small, so that none is cut in two.
    """
    request = testing.SimpleRequest(response_size=1_000, payload=testing.Payload(body=bytes(10_000)))
    with trio.fail_after(TIMEOUT), grpcio_server(grpc__max_connection_age_ms=300) as server:
        async with open_caller(server.target, retry=rpc.RetryPolicy()) as caller:

            async def keep_calling():
                while caller.channel.statistics().connects < 5:
                    assert len(body_of((await caller.unary("UnaryCall", request)).message)) == 1_000

            await caller.together([keep_calling() for _ in range(8)])
            statistics = caller.channel.statistics()
            assert statistics.failed == 0, statistics


async def test_server_allows_few_streams(grpcio_server):
    """Our channel holds calls back. C-core refuses some all the same, while it forgets old streams; those are repeated.

    (grpcio's own client fails here with UNAVAILABLE. Requests are small enough to be kept for repetition.)
    """
    request = testing.SimpleRequest(response_size=100_000, payload=testing.Payload(body=bytes(10_000)))
    with trio.fail_after(TIMEOUT), grpcio_server(grpc__max_concurrent_streams=3) as server:
        async with open_caller(server.target, retry=rpc.RetryPolicy()) as caller:
            replies = await caller.together([caller.unary("UnaryCall", request) for _ in range(100)])
            assert {len(body_of(reply.message)) for reply in replies} == {100_000}
            assert caller.channel.statistics().connects == 1


async def test_server_thinks_we_ping_too_much(grpcio_server):
    """It closes the connection with ENHANCE_YOUR_CALM; the next one is watched at longer intervals and lives."""
    pings = {"keepalive_time": 0.15, "min_ping_interval": 0.1, "keepalive_timeout": 0.1}
    options = {"grpc__http2__min_ping_interval_without_data_ms": 500, "grpc__http2__max_ping_strikes": 2}
    with trio.fail_after(TIMEOUT), grpcio_server(**options) as server:
        async with open_caller(server.target, **pings) as caller:

            async def silent_call(microseconds):
                async with caller.call("StreamingOutputCall") as call:
                    await call.send(output_request(caller, 1, interval_us=microseconds))
                    assert len(body_of(await call.receive())) == 1

            with pytest.raises(Failure) as caught:
                await silent_call(20_000_000)
            assert caught.value.code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
            attempts = 1
            while True:
                attempts += 1
                try:
                    await silent_call(1_500_000)
                except Failure:
                    continue
                break
            assert attempts <= 4, "each time the interval doubles"


@pytest.mark.parametrize("client", ["grpcio-sync", "grpcio-aio", "grpc-js"])
@pytest.mark.parametrize("case", ["concurrent_large_unary", "concurrent_streams", "late_reader", "message_of_20_mb"])
async def test_our_server_with_tight_limits(client, case, client_peer, nursery):
    """Few streams and the smallest windows of HTTP/2."""
    options = rpc.ServerOptions(max_streams_per_connection=3, stream_window_bytes=65_535)
    listeners = await rpc.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(rpc.Server([InteropService()], options=options).serve, listeners)
    target = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    with trio.fail_after(TIMEOUT):
        await trio.to_thread.run_sync(client_peer.run, case, target)
