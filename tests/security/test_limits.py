"""What one client may have at the same time, by the name in its certificate, its token or its address."""

from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from hypothesis import given
from hypothesis import strategies as st
from tests._pb.dk_trio.test.v1 import Message
from tests.rpc.wire_client import WireClient

from dk_trio import rpc
from dk_trio.rpc.client_limit import ClientLimit
from dk_trio.security import Security
from dk_trio.settings import SecuritySettings
from dk_trio.wire import ErrorCode

from .kit import GOOD, OLD, Files, ask, calling, serving, status, until, write

CLIENTS = ("a", "b", "")


@given(
    limit=st.integers(1, 3),
    holds=st.lists(
        st.tuples(st.sampled_from(CLIENTS), st.integers(0, 20), st.sampled_from(["ends", "fails", "is cancelled"])),
        max_size=20,
    ),
)
def test_nothing_of_a_client_is_left_however_it_ends(limit: int, holds: list[tuple[str, int, str]]) -> None:
    """Any number of clients at once, each for its own time: never more than the limit, and in the end nothing."""
    counter = ClientLimit(limit)
    open_now = dict.fromkeys(CLIENTS, 0)
    refused = 0

    async def hold(client: str, seconds: int, end: str) -> None:
        nonlocal refused
        with trio.CancelScope() as scope:
            try:
                with counter.one(client) as room:
                    if not room:
                        assert open_now[client] == limit
                        refused += 1
                        return
                    open_now[client] += 1
                    try:
                        assert not client or open_now[client] <= limit
                        await trio.sleep(seconds)
                        if end == "is cancelled":
                            scope.cancel()
                            await trio.sleep(1)
                        if end == "fails":
                            raise KeyError(client)
                    finally:
                        open_now[client] -= 1
            except KeyError:
                return

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for each in holds:
                nursery.start_soon(hold, *each)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert counter.refused == refused
    assert counter.clients == 0


async def test_one_call_more_of_a_client_is_refused_and_another_client_is_not(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    path = files.tokens(f"first {GOOD}\nsecond {OLD}\n")
    security = Security(SecuritySettings(auth_tokens_file=path, max_rpcs_per_client=2))
    first, second = SecuritySettings(client_token=GOOD), SecuritySettings(client_token=OLD)
    async with serving(security) as (_, address), calling(address, first) as channel, calling(address, second) as other:
        request = partial(channel.request, "/test.Service/bidi", Cardinality.STREAM_STREAM, Message, Message)
        async with request() as one, request() as two:
            for call in (one, two):
                await call.send_message(Message(text="here"))
                await call.recv_message()
            for _ in range(2):
                code, text = await status(channel)
                assert code is Status.RESOURCE_EXHAUSTED
                assert text == (
                    "2 calls of token first are in progress, which is the limit of one client "
                    "(DIGITALKIN_MAX_RPCS_PER_CLIENT)"
                )
            await ask(other)
            await one.cancel()
            await until(lambda: security.gate._limit._open["token first"] == 1)
            await ask(channel)
            await two.cancel()
    assert security.statistics().calls_refused == {"rpcs_per_client": 2}
    assert security.gate._limit.clients == 0
    assert caplog.text.count("which is the limit of one client") == 1


async def test_one_connection_more_of_an_address_is_told_to_be_calm(caplog: pytest.LogCaptureFixture) -> None:
    security = Security(SecuritySettings(max_connections_per_client=2))
    async with serving(security) as (server, address):
        port = int(address.rpartition(":")[2])
        async with calling(address) as one, calling(address) as two:
            await ask(one)
            await ask(two)
            async with trio.open_nursery() as nursery:
                client = WireClient(await trio.open_tcp_stream("127.0.0.1", port))
                nursery.start_soon(client.read)
                await until(lambda: client.goaways)
                ((last, code, debug),) = client.goaways
                assert (last, code) == (0, ErrorCode.ENHANCE_YOUR_CALM)
                assert debug == b"127.0.0.1 has 2 connections, which is the limit (max_connections_per_client)"
                await client.stream.aclose()
            async with calling(address) as third:
                code, _ = await status(third)
                assert code is Status.UNAVAILABLE
            await ask(one)
        await until(lambda: not server.statistics().connections)
        async with calling(address) as fourth:
            await ask(fourth)
    assert server.statistics().connections_refused == 2
    assert server.client_limit.clients == 0
    assert caplog.text.count("connection refused") == 1


async def test_behind_one_address_certificates_tell_clients_apart(files: Files) -> None:
    security = Security(files.settings(mutual=True, max_connections_per_client=1))
    cert, key = write(files.folder / "gateway", files.authority.issue_cert("gateway.mesh"))
    gateway = replace(files.settings(mutual=True), client_cert=cert, client_key=key)
    async with (
        serving(security) as (server, address),
        calling(address, files.settings(mutual=True)) as one,
        calling(address, gateway) as two,
        calling(address, gateway) as three,
    ):
        await ask(one)
        await ask(two)
        assert (await status(three))[0] is Status.UNAVAILABLE
    assert server.statistics().connections_refused == 1


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_connections_per_client is 0, it must be at least 1"):
        rpc.ServerOptions(max_connections_per_client=0)
