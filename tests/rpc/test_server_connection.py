"""The connection around the calls: limits, keepalive, handshakes that never end, and what can be asked of a server."""

from __future__ import annotations

import gc

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message

from dk_trio import rpc

from .wire_client import DAY, Reset, TestService, WireClient, bare_preface, connected, echo, serving


async def patient(stream):
    await trio.sleep_forever()


# -- concurrent RPCs --------------------------------------------------------------------------------------------------


async def test_the_limit_explains_itself(autojump_clock):
    options = rpc.ServerOptions(max_concurrent_rpcs=2)
    async with serving(options, unary=patient) as (client, server):
        held = [await client.call("unary", Message()) for _ in range(2)]
        call = await client.call("unary", Message())
        assert await call.status() == (
            Status.RESOURCE_EXHAUSTED,
            "2 RPCs are in progress, which is the limit of this server (max_concurrent_rpcs)",
        )
        assert server.statistics() == rpc.ServerStatistics(1, 2, 2, 1, draining=False)
        for call in held:
            await call.reset_by_client()


async def test_the_limit_is_the_servers_not_the_connections(autojump_clock):
    server = rpc.Server([TestService(unary=patient)], options=rpc.ServerOptions(max_concurrent_rpcs=1))
    async with connected(server) as one, connected(server) as other:
        await one.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        call = await other.call("unary", Message())
        assert (await call.status())[0] is Status.RESOURCE_EXHAUSTED


async def end_by_answer(client, call):
    await call.status()


async def end_by_reset(client, call):
    await call.reset_by_client()


async def end_by_loss(client, call):
    await client.stream.aclose()


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("ok", end_by_answer),
        ("grpc error", end_by_answer),
        ("error", end_by_answer),
        ("cancel", end_by_answer),
        ("nothing", end_by_answer),
        ("sleep", end_by_reset),
        ("sleep", end_by_loss),
        ("deadline", end_by_answer),
    ],
)
async def test_the_count_goes_back_after_every_outcome(autojump_clock, text, end):
    async def handler(stream):
        asked = (await stream.recv_message()).text
        if asked == "grpc error":
            raise GRPCError(Status.ABORTED)
        if asked == "error":
            raise ValueError
        if asked == "cancel":
            await stream.cancel()
        elif asked in {"sleep", "deadline"}:
            await trio.sleep_forever()
        elif asked == "ok":
            await stream.send_message(Message())

    server = rpc.Server([TestService(unary=handler)], options=rpc.ServerOptions(max_concurrent_rpcs=1))
    for _ in range(3):
        async with connected(server) as client:
            call = await client.call("unary", Message(text=text), timeout=1 if text == "deadline" else None)
            await trio.testing.wait_all_tasks_blocked()
            try:
                await end(client, call)
            except Reset:
                assert text == "cancel"
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().rpcs == 0
    assert server.statistics().rpcs_started == 3


async def test_a_cancelled_handler_counts_until_it_has_cleaned_up(autojump_clock):
    """A client that resets and starts anew gets no more work out of a server than one that waits (CVE-2023-44487)."""

    async def handler(stream):
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(10, shield=True):
                await trio.sleep(5)

    async with serving(rpc.ServerOptions(max_concurrent_rpcs=3), unary=handler) as (client, server):
        for _ in range(3):
            call = await client.call("unary", Message())
            await trio.testing.wait_all_tasks_blocked()
            await call.reset_by_client()
        refused = await client.call("unary", Message())
        assert (await refused.status())[0] is Status.RESOURCE_EXHAUSTED
        await trio.sleep(6)
        assert server.statistics().rpcs == 0


async def test_streams_beyond_the_advertised_number_are_refused(autojump_clock):
    """REFUSED_STREAM, which tells a client that it may try again elsewhere at once."""
    async with serving(rpc.ServerOptions(max_streams_per_connection=2), unary=patient) as (client, server):
        assert client.wire.peer.max_concurrent_streams == 2
        for _ in range(2):
            await client.call("unary", Message())
        client.wire.peer.max_concurrent_streams = None
        call = await client.call("unary", Message())
        with pytest.raises(Reset, match="7"):
            await call.status()
        assert server.statistics().rpcs_started == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_concurrent_rpcs", 0),
        ("max_streams_per_connection", 0),
        ("max_receive_message_bytes", 0),
        ("max_send_message_bytes", -1),
        ("handshake_timeout", 0),
        ("keepalive_time", 0),
        ("keepalive_timeout", -1.5),
        ("stream_window_bytes", 255),
    ],
)
def test_options_that_make_no_sense(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        rpc.ServerOptions(**{field: value})


# -- keepalive --------------------------------------------------------------------------------------------------------


async def test_a_silent_client_that_answers_pings_stays(autojump_clock):
    options = rpc.ServerOptions(keepalive_time=60, keepalive_timeout=10)
    async with serving(options, unary=echo, unary_patient=patient) as (client, _):
        await client.call("unary_patient", Message())
        await trio.sleep(3600)
        assert not client.lost.is_set()
        assert await client.unary("unary") == Message()


@pytest.mark.parametrize("handshake_timeout", [5, 30, 300])
async def test_a_silent_client_that_does_not_answer_is_given_up(autojump_clock, handshake_timeout):
    cancelled = []

    async def handler(stream):
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    options = rpc.ServerOptions(handshake_timeout=handshake_timeout, keepalive_time=60, keepalive_timeout=10)
    async with serving(options, unary=handler) as (client, server):
        client.answer_pings = False
        await client.call("unary", Message())
        begin = trio.current_time()
        await client.lost.wait()
        assert cancelled == [pytest.approx(begin + 70)]
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0


async def test_traffic_makes_pings_unnecessary(autojump_clock):
    options = rpc.ServerOptions(handshake_timeout=5, keepalive_time=60, keepalive_timeout=10)
    async with serving(options, unary=echo) as (client, _):
        client.answer_pings = False
        for _ in range(100):
            await client.unary("unary")
            await trio.sleep(50)
            client.wire.take()  # the answers to pings: there are none
        assert not client.lost.is_set()


async def test_answers_alone_are_no_sign_of_life(autojump_clock):
    """A server that streams to a machine that has vanished sees no error for minutes; the ping finds out."""
    ticks = []

    async def handler(stream):
        while True:
            await trio.sleep(1)
            await stream.send_message(Message())
            ticks.append(trio.current_time())

    options = rpc.ServerOptions(handshake_timeout=5, keepalive_time=60, keepalive_timeout=10)
    async with serving(options, bidi=handler) as (client, _):
        client.answer_pings = False
        await client.call("bidi")
        await client.lost.wait()
        assert 60 <= len(ticks) <= 70


# -- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n", bare_preface()[:24], bare_preface()[:30]])
@pytest.mark.parametrize("keepalive_time", [3, 120])
async def test_a_client_that_never_finishes_its_preface(autojump_clock, said, keepalive_time):
    options = rpc.ServerOptions(handshake_timeout=20, keepalive_time=keepalive_time)
    server = rpc.Server([TestService(unary=echo)], options=options)
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(DAY):
        begin = trio.current_time()
        await ours.send_all(said)
        await server.serve_stream(theirs)
        assert trio.current_time() - begin == pytest.approx(20)
        assert server.statistics().connections == 0
        await ours.aclose()


async def test_a_client_that_speaks_another_protocol(autojump_clock):
    """It gets GOAWAY, whose text says what is probably wrong, and the end of the connection; nobody else notices."""
    server = rpc.Server([TestService(unary=echo)])
    async with connected(server) as bystander:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await server.serve_stream(theirs)
        answer = b"".join([bytes(part) async for part in ours])
        assert b"the client's preface is not that of HTTP/2 (a TLS or HTTP/1.1 client on this port?)" in answer
        assert await bystander.unary("unary") == Message()
        await ours.aclose()


async def test_bare_frames_are_enough(autojump_clock):
    """A client may send preface, settings and request in one write and close its side only after the answer."""
    async with serving(unary=echo) as (_, server):
        ours, theirs = trio.testing.memory_stream_pair()
        client = WireClient(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            call = await client.call("unary", Message(text="first bytes"))
            nursery.start_soon(client.read)
            assert (await call.answer()).text == "first bytes"
            await ours.aclose()


# -- what can be asked ------------------------------------------------------------------------------------------------


async def test_statistics_and_repr(autojump_clock):
    async with serving(unary=patient, bidi=echo) as (client, server):
        assert server.methods == ["/test.Service/bidi", "/test.Service/unary"]
        assert repr(server) == "<rpc.Server open, 1 connections, 0 RPCs>"
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics() == rpc.ServerStatistics(
            connections=1, rpcs=1, rpcs_started=1, rpcs_refused=0, draining=False
        )
        assert repr(server) == "<rpc.Server open, 1 connections, 1 RPCs>"
        (connection,) = server._connections
        assert repr(connection).startswith("<server connection, 1 RPCs, <ServerConnection open, 1 streams, ")
        await call.reset_by_client()


async def test_two_servers_share_nothing(autojump_clock):
    service = TestService(unary=patient)
    one = rpc.Server([service], options=rpc.ServerOptions(max_concurrent_rpcs=1))
    other = rpc.Server([service])
    async with connected(one) as client, connected(other) as other_client:
        await client.call("unary", Message())
        await other_client.call("unary", Message())
        await other_client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        assert one.statistics().rpcs == 1
        assert other.statistics().rpcs == 2
        await one.drain(grace=0)
        assert not other.draining
        assert other.statistics().rpcs == 2


async def test_a_served_connection_leaves_nothing_behind(autojump_clock):
    """Neither cycles that keep calls alive, nor tasks."""
    from dk_trio.rpc.server_call import ServerCall

    def calls() -> list[ServerCall]:
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, ServerCall)]

    before = (
        calls()
    )  # what other tests have left: an exception in a list of parameters keeps the frames it came through
    async with serving(unary=echo, bidi=echo) as (client, _):
        for _ in range(20):
            await client.unary("unary")
            call = await client.call("bidi", Message())
            await call.receive()
            await call.status()
        await trio.testing.wait_all_tasks_blocked()
        assert not [call for call in calls() if call not in before]
