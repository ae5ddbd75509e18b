"""grpcio's client against our server where a case is not enough: health, reflection, keepalive, compression, drain."""

import pytest
from tests.interop.battery.process import ServerPeer

PINGS = {
    "grpc.keepalive_time_ms": 100,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
}
DRAIN_GRACE = 20  # seconds; more than the call in flight needs


@pytest.fixture
def client(client_of):
    return client_of("grpcio-sync")


@pytest.mark.parametrize("feature", ["health_check", "reflection_v1", "reflection_v1alpha"])
def test_feature(feature, client, server_of):
    client.run(feature, server_of("dk").target)


def test_health_watch(client, own_server):
    client.begin("health_watch", own_server.target)
    assert client.next_note() == "serving"
    own_server.write_line("health readiness 0")
    assert client.next_note() == "not serving"
    own_server.write_line("health readiness 1")
    client.finish()


def test_keepalive_is_not_punished(client, server_of):
    client.run("keepalive", server_of("dk").target, options=PINGS)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_by_default(encoding, client, server_of):
    client.run("compressed_by_default", server_of("dk").target, compression=encoding)


@pytest.mark.parametrize("case", ["large_unary", "client_streaming", "server_streaming", "ping_pong"])
@pytest.mark.parametrize("name", ["grpcio-sync", "grpcio-aio"])
def test_case_with_gzip_channel(name, case, client_of, server_of):
    client_of(name).run(case, server_of("dk").target, compression="gzip")


def test_drain(client, own_server):
    client.begin("drain", own_server.target)
    assert client.next_note() == "in flight"
    own_server.write_line(f"drain {DRAIN_GRACE}")
    client.finish()
    assert own_server.read_line(DRAIN_GRACE) == "DRAINED"


def test_drain_to_another_server(client, own_server, bench):
    other = ServerPeer(own_server.command, environment=bench.environment, log=bench.folder / "other-server.log")
    with other:
        client.begin("drain_to_other", f"ipv4:{own_server.target},{other.target}")
        assert client.next_note() == "in flight"
        own_server.write_line(f"drain {DRAIN_GRACE}")
        client.finish()
        assert own_server.read_line(DRAIN_GRACE) == "DRAINED"
