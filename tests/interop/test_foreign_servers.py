"""Our client against foreign servers, and against our own, case by case."""

import pytest
import trio
from tests.interop.battery.dk_caller import open_caller
from tests.interop.battery.more_cases import CASES
from tests.interop.battery.peers import SERVER_EXEMPTIONS

CASE_TIMEOUT = 30  # seconds
PAIRS = [
    pytest.param(server, case, id=f"{server}-{case}")
    for server, exempt in SERVER_EXEMPTIONS.items()
    for case in CASES
    if case not in exempt
]
SECURE_CASES = ["empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "custom_metadata"]


@pytest.mark.parametrize(("server", "case"), PAIRS)
async def test_case(server, case, server_peer):
    target = server_peer.target
    with trio.fail_after(CASE_TIMEOUT):
        async with open_caller(target, server_sees_compression=server == "dk") as caller:
            await CASES[case](caller)
            assert not caller.channel.calls


@pytest.mark.parametrize("case", SECURE_CASES)
@pytest.mark.parametrize("server", SERVER_EXEMPTIONS)
async def test_tls(server, case, server_peer, bench):
    target = f"localhost:{server_peer.address['tls']}"
    with trio.fail_after(CASE_TIMEOUT):
        async with open_caller(target, roots=str(bench.roots)) as caller:
            await CASES[case](caller)


@pytest.mark.parametrize("case", ["empty_unary", "large_unary", "ping_pong"])
@pytest.mark.parametrize("server", SERVER_EXEMPTIONS)
async def test_unix_socket(server, case, server_peer):
    target = f"unix:{server_peer.address['unix']}"
    with trio.fail_after(CASE_TIMEOUT):
        async with open_caller(target) as caller:
            await CASES[case](caller)


def test_exemptions_name_cases():
    for exempt in SERVER_EXEMPTIONS.values():
        assert set(exempt) <= set(CASES)
