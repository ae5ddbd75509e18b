"""Peers of the interop tests: started when a test first asks for them, stopped when the session ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import trustme
from tests.interop.battery import peers
from tests.interop.battery.google_messages import DESCRIPTORS_VARIABLE
from tests.interop.battery.process import ClientPeer, ServerPeer
from tests.npm import Missing

PROTOC_TIMEOUT = 60  # seconds


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Descriptors, certificates and environment that all peers share."""
    pytest.importorskip("grpc", reason="grpcio is a peer and makes the descriptors of the others")
    folder = tmp_path_factory.mktemp("interop")
    descriptors = folder / "descriptors.bin"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{peers.PROTOS}", "--include_imports"]
    command += [f"--descriptor_set_out={descriptors}", "grpc/testing/test.proto"]
    subprocess.run(command, check=True, timeout=PROTOC_TIMEOUT)

    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    roots, certificate, key = folder / "roots.pem", folder / "certificate.pem", folder / "key.pem"
    authority.cert_pem.write_to_path(roots)
    certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(key)

    environment = {
        **os.environ,
        DESCRIPTORS_VARIABLE: str(descriptors),
        "PYTHONPATH": str(peers.ROOT),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots),  # the official Ruby client takes its roots from here
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }
    for proxy in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        environment.pop(proxy, None)
    return peers.Bench(folder=folder, roots=roots, certificate=certificate, key=key, environment=environment)


def command_or_skip(name: str, absent: dict[str, str], command: Callable[[], list[str]]) -> list[str]:
    """Return the command of a peer; skip the test when it is not installed, which is found out once."""
    if name not in absent:
        try:
            return command()
        except Missing as missing:
            absent[name] = str(missing)
    pytest.skip(absent[name])


@pytest.fixture(scope="session")
def server_of(bench):
    """Return the running server peer of a name; one that has died is started again."""
    running: dict[str, ServerPeer] = {}
    absent: dict[str, str] = {}

    def get(name: str) -> ServerPeer:
        if name not in running:
            command = command_or_skip(name, absent, lambda: peers.server_command(name, bench))
            running[name] = ServerPeer(command, environment=bench.environment, log=bench.folder / f"{name}-server.log")
        server = running[name]
        if not server.alive:
            server.stop()
            server.start()
        return server

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture(scope="session")
def client_of(bench):
    """Return the client peer of a name."""
    known: dict[str, ClientPeer] = {}
    absent: dict[str, str] = {}

    def get(name: str) -> ClientPeer:
        if name not in known:
            command = command_or_skip(name, absent, lambda: peers.client_command(name))
            known[name] = ClientPeer(command, environment=bench.environment, log=bench.folder / f"{name}-client.log")
        return known[name]

    yield get
    for client in known.values():
        client.stop()


# Async tests ask for their peers by these: a skip inside of a Trio run would lose its reason.


@pytest.fixture
def server_peer(server, server_of):
    """The server peer that the test's parameter `server` names."""
    return server_of(server)


@pytest.fixture
def client_peer(client, client_of):
    """The client peer that the test's parameter `client` names."""
    return client_of(client)


@pytest.fixture
def own_server(bench):
    """A dk server process of the test's own, to be drained or killed."""
    command = peers.server_command("dk", bench)
    with ServerPeer(command, environment=bench.environment, log=bench.folder / "own-server.log") as server:
        yield server
