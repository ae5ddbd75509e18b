"""Foreign clients against foreign servers: when a case fails here, the case or a peer is wrong, not our code."""

import pytest
from tests.interop.battery.more_cases import CASES
from tests.interop.battery.peers import CLIENT_EXEMPTIONS, SERVER_EXEMPTIONS

PADDED = "grpcio sends the spaces as they are, nghttp2 in node drops such a field"
PROBES = "the server does not check compression, which the official client insists on"
PAIRS = {
    ("grpcio-sync", "grpcio-aio"): {},
    ("grpcio-aio", "grpc-js"): {},
    ("grpc-js", "grpcio-sync"): {"padded_status_message": PADDED},
    ("ruby", "grpcio-aio"): {"client_compressed_unary": PROBES, "client_compressed_streaming": PROBES},
    ("grpcio-sync", "ruby"): {},
}


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_pair(client, server, client_of, server_of):
    exempt = {**CLIENT_EXEMPTIONS[client], **SERVER_EXEMPTIONS[server], **PAIRS[client, server]}
    for case in CASES:
        if case not in exempt:
            client_of(client).run(case, server_of(server).target)
