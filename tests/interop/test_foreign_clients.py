"""Foreign clients against our server, case by case."""

import json

import pytest
from tests.interop.battery.more_cases import CASES
from tests.interop.battery.peers import CLIENT_EXEMPTIONS

PAIRS = [
    pytest.param(client, case, id=f"{client}-{case}")
    for client, exempt in CLIENT_EXEMPTIONS.items()
    for case in CASES
    if case not in exempt
]
SECURE_CASES = ["empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "custom_metadata"]


@pytest.mark.parametrize(("client", "case"), PAIRS)
def test_case(client, case, client_of, server_of):
    server = server_of("dk")
    client_of(client).run(case, server.target, server_sees_compression=True)


@pytest.mark.parametrize("case", SECURE_CASES)
@pytest.mark.parametrize("client", CLIENT_EXEMPTIONS)
def test_tls(client, case, client_of, server_of, bench):
    target = f"localhost:{server_of('dk').address['tls']}"
    client_of(client).run(case, target, tls=str(bench.roots))


@pytest.mark.parametrize("case", ["empty_unary", "large_unary", "ping_pong"])
@pytest.mark.parametrize("client", ["grpcio-sync", "grpcio-aio", "grpc-js"])  # ruby's takes a host and a port only
def test_unix_socket(client, case, client_of, server_of):
    client_of(client).run(case, f"unix:{server_of('dk').address['unix']}")


def test_every_case_exists_in_javascript(client_of):
    assert set(json.loads(client_of("grpc-js").output("--list"))) == set(CASES)


def test_exemptions_name_cases():
    for exempt in CLIENT_EXEMPTIONS.values():
        assert set(exempt) <= set(CASES)


@pytest.mark.parametrize("client", CLIENT_EXEMPTIONS)
def test_no_handler_is_left(client, client_of, server_of):
    """After cancels, deadlines and early ends, on a server that has seen them all from this client."""
    server = server_of("dk")
    for case in ("cancel_after_begin", "cancel_after_first_response", "timeout_on_sleeping_server"):
        client_of(client).run(case, server.target)
    client_of(client).run("empty_unary", server.target)
    server.write_line("settle")
    statistics = json.loads(server.read_line(10))
    assert statistics["handlers_started"] == statistics["handlers_ended"] > 0
