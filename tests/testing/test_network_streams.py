"""Streams of the network in memory behave as Trio says that streams do, and as sockets do where Trio says nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from dk_trio.testing.network import Conditions, Network

INSTANT = Conditions(latency=0.0)
FAR = Conditions(latency=0.05, jitter=0.02, slice_max=5000)


@asynccontextmanager
async def pair(conditions=None, *, seed=1):
    """A network with one connection: `(network, client's end, server's end)`."""
    network = Network(Random(seed))
    if conditions is not None:
        network.conditions("*", "*", conditions)
    async with (
        network.listening("server") as listener,
        await network.connect("client", "server") as client,
        await listener.accept() as server,
    ):
        yield network, client, server
    assert network.statistics().streams == 0


@pytest.mark.parametrize("conditions", [INSTANT, Conditions(), FAR], ids=["instant", "default", "far"])
async def test_trios_own_checks(conditions, autojump_clock):
    network = Network(Random(1))
    network.conditions("*", "*", conditions)

    async with network.listening("server") as listener:

        async def connected():
            return await network.connect("client", "server"), await listener.accept()

        async def clogged():
            client, server = await connected()
            for stream in (client, server):
                with trio.move_on_after(10):
                    while True:
                        await stream.send_all(bytes(10_000))
            return client, server

        with trio.fail_after(86400):
            await trio.testing.check_half_closeable_stream(connected, clogged)
    assert network.statistics().streams == 0
    assert not network._connections


async def received(stream):
    """All that still comes, and when the last of it came."""
    data, last = b"", trio.current_time()
    async for chunk in stream:
        data += chunk
        last = trio.current_time()
    return data, last


@pytest.mark.parametrize(
    ("conditions", "least", "most"),
    [
        (INSTANT, 0.0, 0.0),
        (Conditions(latency=0.25), 0.25, 0.25),
        (Conditions(latency=0.25, jitter=0.5), 0.25, 0.75),
        (Conditions(latency=0.25, bandwidth=1000), 0.75, 0.75),
    ],
    ids=["instant", "latency", "jitter", "bandwidth"],
)
async def test_bytes_take_their_time(conditions, least, most, autojump_clock):
    with trio.fail_after(86400):
        async with pair(conditions) as (_, client, server):
            times = []
            for _ in range(20 if conditions.jitter else 1):
                begin = trio.current_time()
                await client.send_all(bytes(500))
                assert trio.current_time() == begin  # there was room: it does not wait for the peer
                assert len(await server.receive_some()) == 500
                times.append(trio.current_time() - begin)
            assert least - 1e-9 <= min(times)
            assert max(times) <= most + 1e-9
            assert (len(set(times)) > 1) is bool(conditions.jitter)


async def test_connecting_takes_a_way_there_and_back(autojump_clock):
    with trio.fail_after(86400):
        async with pair(Conditions(latency=0.25)) as (_, client, server):
            assert trio.current_time() == 0.5
            assert (client.host, client.peer, client.number) == ("client", "server", 1)
            assert (server.host, server.peer, server.number) == ("server", "client", 1)
            assert repr(client) == "<NetworkStream client to server #1 open>"
        assert repr(client) == "<NetworkStream client to server #1 closed>"


async def test_conditions_may_differ_by_direction_and_by_pair_and_the_last_word_holds(autojump_clock):
    network = Network(Random(1))
    network.conditions("a", "c", Conditions(latency=100))
    network.conditions("*", "*", Conditions(latency=0))
    network.conditions("a", "*", Conditions(latency=1), direction="to")
    network.conditions("a", "*", Conditions(latency=2), direction="from")
    network.conditions("b", "c", Conditions(latency=4))

    async def took(a, b):
        begin = trio.current_time()
        await (await network.connect(a, b)).aclose()
        return trio.current_time() - begin

    with trio.fail_after(86400):
        async with network.host("c"), network.host("d"):
            assert await took("a", "c") == 3
            assert await took("b", "c") == 8
            assert await took("c", "d") == 0
            network.conditions("*", "d", Conditions(latency=5))
            assert await took("c", "d") == 10
            assert await took("a", "d") == 10


async def test_a_throttled_connection_gets_its_bandwidth(autojump_clock):
    size = 1_000_000
    with trio.fail_after(86400):
        async with pair(Conditions(latency=0.01, bandwidth=200_000)) as (_, client, server):
            begin = trio.current_time()
            async with trio.open_nursery() as nursery:

                async def send():
                    await client.send_all(bytes(size))
                    await client.send_eof()

                nursery.start_soon(send)
                data, last = await received(server)
            assert len(data) == size
            assert last - begin == pytest.approx(size / 200_000 + 0.01)


@pytest.mark.parametrize("slice_max", [None, 100])
async def test_a_reader_that_does_not_read_stops_the_sender(slice_max, autojump_clock):
    """What was sent and not read never exceeds the buffer; half of it has to be free before a sender goes on."""
    with trio.fail_after(86400):
        async with pair(Conditions(buffer=1000, slice_max=slice_max)) as (network, client, server):
            sent = []

            async def send():
                for number in range(10):
                    await client.send_all(bytes(400))
                    sent.append(number)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.sleep(3600)
                assert (len(sent), network.statistics().buffered) == (2, 1000)
                taken = 0
                while taken < 500:
                    assert len(sent) == 2
                    taken += len(await server.receive_some(min(100, 500 - taken)))
                await trio.sleep(1)
                assert (len(sent), network.statistics().buffered) == (3, 1000)
                while taken < 4000:
                    taken += len(await server.receive_some())
                    assert network.statistics().buffered <= 1000
            assert network.statistics().buffered == 0
            assert network.statistics().sent == 4000


async def test_what_has_arrived_is_read_at_once(autojump_clock):
    with trio.fail_after(86400):
        async with pair() as (_, client, server):
            for data in (b"one", b"two", b"three"):
                await client.send_all(data)
            await trio.sleep(1)
            assert await server.receive_some(5) == b"onetw"
            assert await server.receive_some(2) == b"ot"
            assert await server.receive_some() == b"hree"


async def test_slices_are_received_one_by_one(autojump_clock):
    with trio.fail_after(86400):
        async with pair(Conditions(slice_max=7)) as (_, client, server):
            await client.send_all(bytes(range(250)))
            await client.send_eof()
            await trio.sleep(1)
            pieces = [piece async for piece in server]
            assert b"".join(pieces) == bytes(range(250))
            assert {len(piece) for piece in pieces} == set(range(1, 8))


async def test_sending_more_than_bytes(autojump_clock):
    """Any buffer, whatever its items; and what is sent is what it was when it was sent."""
    with trio.fail_after(86400):
        async with pair() as (_, client, server):
            data = bytearray(b"abc")
            await client.send_all(data)
            data[:] = b"xyz"
            await client.send_all(memoryview(data).cast("b"))
            await trio.sleep(1)
            assert await server.receive_some() == b"abcxyz"


async def test_what_was_sent_before_closing_arrives(autojump_clock):
    """The end comes behind the data; then sending fails: the peer does not read any more."""
    with trio.fail_after(86400):
        async with pair(Conditions(latency=1, bandwidth=1000)) as (_, client, server):
            await client.send_all(bytes(5000))
            await trio.aclose_forcefully(client)
            await server.send_all(b"not known yet")
            data, last = await received(server)
            assert (len(data), last) == (5000, 2 + 5 + 1)
            with pytest.raises(trio.BrokenResourceError, match="server to client #1 cut"):
                await server.send_all(b"known")
            assert await server.receive_some() == b""


@pytest.mark.parametrize("what", ["close", "cut"])
async def test_a_closed_peer_is_known_after_the_latency_also_to_a_sender_that_waits(what, autojump_clock):
    with trio.fail_after(86400):
        async with pair(Conditions(latency=3)) as (network, client, server):

            async def send():
                with pytest.raises(trio.BrokenResourceError):
                    await server.send_all(bytes(10**6))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.sleep(10)
                begin = trio.current_time()
                if what == "cut":
                    network.cut("client", "server")
                else:
                    await client.aclose()
            assert trio.current_time() - begin == 3


async def test_nothing_is_kept_for_an_end_that_is_closed(autojump_clock):
    """A sender that does not know it yet gets its buffer full, and no memory is spent."""
    with trio.fail_after(86400):
        async with pair(Conditions(latency=3)) as (network, client, server):
            await server.send_all(bytes(1000))
            assert network.statistics().buffered == 1000
            await client.aclose()
            await server.send_all(bytes(2000))
            assert network.statistics().buffered == 0
            assert not client._incoming._flight
            with trio.move_on_after(2) as waiting:
                await server.send_all(bytes(10**6))
            assert waiting.cancelled_caught


async def test_half_closed(autojump_clock):
    with trio.fail_after(86400):
        async with pair() as (_, client, server):
            await client.send_all(b"question")
            await client.send_eof()
            with pytest.raises(trio.ClosedResourceError, match="send_eof"):
                await client.send_all(b"more")
            assert await received(server) == (b"question", pytest.approx(0.003))
            await server.send_all(b"answer")
            await server.aclose()
            assert (await received(client))[0] == b"answer"
            await client.send_eof()  # again, and also when the peer has gone


async def test_cancelling_a_receiver_loses_nothing(autojump_clock):
    """Cancelled at the very time when something arrives, and at others."""
    data = bytes(range(256)) * 10
    with trio.fail_after(86400):
        async with pair(Conditions(latency=0.5, jitter=0.01, slice_max=50)) as (_, client, server):
            await client.send_all(data)
            await client.send_eof()
            got, cancelled = b"", 0
            while True:
                with trio.move_on_at(server._incoming.arrives_at if cancelled % 2 else trio.current_time()) as scope:
                    chunk = await server.receive_some()
                    got += chunk
                    if not chunk:
                        break
                cancelled += scope.cancelled_caught
            assert got == data
            assert cancelled > 10


async def test_cancelling_a_sender_leaves_a_beginning_sent(autojump_clock):
    data = bytes(range(256)) * 1000
    with trio.fail_after(86400):
        async with pair() as (_, client, server):
            with trio.move_on_after(1) as scope:
                await client.send_all(data)
            assert scope.cancelled_caught
            await client.send_eof()
            got, _ = await received(server)
            assert len(got) == Conditions().buffer
            assert data.startswith(got)


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": -1.0},
        {"latency": float("nan")},
        {"jitter": float("inf")},
        {"bandwidth": 0},
        {"slice_max": 0},
        {"buffer": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_conditions_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Conditions(**wrong)
