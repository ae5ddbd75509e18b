"""Each fault of the network in memory does what its description says, to those whom it names."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from dk_trio.testing.network import Conditions, Network

LATENCY = Conditions(latency=1.0)


async def echo(stream):
    async for chunk in stream:
        await stream.send_all(chunk)


@asynccontextmanager
async def three(conditions=LATENCY, note=None):
    """A network with streams from `a` and from `b` to `server`: `(network, a's, b's, the server's ends)`."""
    network = Network(Random(1), note=note)
    network.conditions("*", "*", conditions)
    with trio.fail_after(86400):
        async with (
            network.listening("server") as listener,
            await network.connect("a", "server") as a,
            await network.connect("b", "server") as b,
            await listener.accept() as to_a,
            await listener.accept() as to_b,
        ):
            yield network, a, b, (to_a, to_b)
        assert network.statistics().streams == 0
        network.heal()
        assert not network._connections


async def carries(stream, other):
    """Whether a byte gets from one end to the other within a minute."""
    await stream.send_all(b"!")
    with trio.move_on_after(60):
        return await other.receive_some() == b"!"
    return False


async def rest(stream):
    """What can still be read, and what comes then."""
    data = b""
    try:
        async for chunk in stream:
            data += chunk
    except trio.BrokenResourceError:
        return data, "reset"
    return data, "end"


@pytest.mark.parametrize("how", ["reset", "fin"])
@pytest.mark.parametrize(
    ("names", "struck"),
    [(("a", "server"), "a"), (("server", "a"), "a"), (("*", "b"), "b"), (("server", "*"), "ab"), (("a", "b"), "")],
    ids="-".join,
)
async def test_cut(how, names, struck, autojump_clock):
    """Both ends hear of it after the latency. What was read by the system stays; a reset takes what is under way."""
    async with three() as (network, *clients, servers):
        for client in clients:
            await client.send_all(b"early ")
        await trio.sleep(1)
        for client in clients:
            await client.send_all(b"late")
        assert network.cut(*names, how=how) == len(struck)
        begin = trio.current_time()
        for name, client, server in zip("ab", clients, servers, strict=True):
            if name not in struck:
                assert await carries(server, client)
                continue
            assert await rest(server) == ((b"early ", "reset") if how == "reset" else (b"early late", "end"))
            assert await rest(client) == (b"", "reset" if how == "reset" else "end")
            assert trio.current_time() - begin == 1
            for end in (client, server):
                assert end.broken
                with pytest.raises(trio.BrokenResourceError):
                    await end.send_all(b"x")


@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_what_is_sent_into_a_cut_connection_is_lost(how, autojump_clock):
    """Those who do not know of the cut yet may send, and it arrives nowhere."""
    async with three() as (network, a, _, (to_a, _)):
        network.cut("a", "server", how=how)
        await a.send_all(b"lost")
        await trio.sleep(10)
        assert await rest(to_a) == (b"", "reset" if how == "reset" else "end")


async def test_bytes_stay_in_order_when_the_way_gets_shorter(autojump_clock):
    async with three() as (network, a, _, (to_a, _)):
        network.blackhole("a", "server")
        await a.send_all(b"first ")
        await trio.sleep(10)
        network.heal()
        network.conditions("*", "*", Conditions(latency=0))
        await a.send_all(b"second")
        times = [at for at, _ in a._outgoing._flight]
        assert times == sorted(times)
        begin = trio.current_time()
        assert await to_a.receive_some() == b"first second"
        assert trio.current_time() == begin + 1


async def test_a_reset_overtakes_what_is_throttled(autojump_clock):
    async with three(Conditions(latency=1.0, bandwidth=10)) as (network, a, _, (to_a, _)):
        await a.send_all(bytes(1000))
        begin = trio.current_time()
        network.cut("a", "*")
        assert await rest(to_a) == (b"", "reset")
        assert trio.current_time() - begin == 1


@pytest.mark.parametrize(
    ("direction", "there", "back"), [("both", False, False), ("to", False, True), ("from", True, False)]
)
async def test_blackhole(direction, there, back, autojump_clock):
    """Nothing arrives the one way, or both ways, while it lasts, and all of it in order when it has ended."""
    async with three() as (network, a, b, (to_a, to_b)):
        await a.send_all(b"under way ")
        await to_a.send_all(b"under way ")
        network.blackhole("a", "server", direction=direction)
        await trio.sleep(10)
        for sender, receiver, open_ in ((a, to_a, there), (to_a, a, back)):
            await sender.send_all(b"later")
            with trio.move_on_after(3600) as waiting:
                assert await receiver.receive_some(10) == b"under way "
                assert await receiver.receive_some() == b"later"
            assert waiting.cancelled_caught is not open_
        assert await carries(b, to_b)
        assert await carries(to_b, b)
        healed = trio.current_time()
        network.heal("a", "*")
        for receiver, open_ in ((to_a, there), (a, back)):
            if not open_:
                assert await receiver.receive_some() == b"under way later"
                assert trio.current_time() == healed + 1
        assert await carries(a, to_a)
        assert await carries(to_a, a)


@pytest.mark.parametrize("what", ["close", "cut"])
async def test_ends_are_held_in_a_blackhole_as_bytes_are(what, autojump_clock):
    async with three() as (network, a, _, (to_a, _)):
        network.blackhole("*", "*")
        if what == "close":
            await a.aclose()
        else:
            network.cut("a", "server")
        with trio.move_on_after(3600) as waiting:
            await to_a.send_all(bytes(10**6))  # the buffer takes some of it, and nobody the rest
        assert waiting.cancelled_caught
        assert not to_a.broken
        healed = trio.current_time()
        network.heal()
        with pytest.raises(trio.BrokenResourceError):
            await to_a.send_all(bytes(10**6))
        assert trio.current_time() == healed + 1


async def test_connecting_waits_for_the_end_of_a_blackhole_and_gives_up(autojump_clock):
    async with three() as (network, *_):
        network.blackhole("a", "server")
        begin = trio.current_time()
        with pytest.raises(TimeoutError, match=r"timed out: a to server"):
            await network.connect("a", "server")
        assert trio.current_time() - begin == 127
        async with trio.open_nursery() as nursery:

            async def connect():
                async with await network.connect("a", "server"):
                    assert trio.current_time() == healed + 2

            nursery.start_soon(connect)
            await trio.sleep(50)
            healed = trio.current_time()
            network.heal()


@pytest.mark.parametrize("direction", ["both", "to", "from"])
async def test_corrupt(direction, autojump_clock):
    """One bit of a segment is another, and both ends know that something is; before and afterwards all is well."""
    async with three() as (network, a, b, (to_a, to_b)):
        network.corrupt("a", "*", 1.0, direction=direction)
        for sender, receiver, broken in ((a, to_a, direction != "from"), (to_a, a, direction != "to")):
            await sender.send_all(bytes(1000))
            await trio.sleep(1)
            got = await receiver.receive_some()
            assert len(got) == 1000
            assert int.from_bytes(got).bit_count() == broken
        assert a.corrupted
        assert to_a.corrupted
        assert await carries(b, to_b)
        assert not b.corrupted
        assert not to_b.corrupted
        network.heal()
        assert await carries(a, to_a)
        assert network.statistics().corrupted == (2 if direction == "both" else 1)


async def test_corruption_hits_its_share_of_the_segments(autojump_clock):
    async with three() as (network, a, _, (to_a, _)):
        network.corrupt("a", "server", 0.25)
        for _ in range(400):
            await a.send_all(b"x")
            await to_a.receive_some()
        assert 70 < network.statistics().corrupted < 130
        with pytest.raises(ValueError, match="between 0 and 1"):
            network.corrupt("a", "server", 1.5)


@pytest.mark.parametrize("name", ["server", "*"])
async def test_refuse(name, autojump_clock):
    async with three() as (network, a, _, (to_a, _)):
        network.refuse(name)
        begin = trio.current_time()
        with pytest.raises(ConnectionRefusedError, match="a to server") as caught:
            await network.connect("a", "server")
        assert caught.value.errno == errno.ECONNREFUSED
        assert trio.current_time() - begin == 2
        assert await carries(a, to_a)
        network.accept(name)
        async with await network.connect("a", "server"):
            pass
        assert (network.statistics().opened, network.statistics().failed) == (3, 1)


async def test_nobody_listens(autojump_clock):
    network = Network(Random(1))
    with trio.fail_after(86400):
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await network.connect("a", "server")
            async with network.host("server", echo), await network.connect("a", "server") as stream:
                assert await carries(stream, stream)


async def test_too_many_wait_to_be_accepted(autojump_clock):
    network = Network(Random(1))
    with trio.fail_after(86400):
        async with network.listening("server"):
            streams = [await network.connect("a", "server") for _ in range(128)]
            with pytest.raises(ConnectionRefusedError):
                await network.connect("a", "server")
        for stream in streams:
            assert await rest(stream) == (b"", "reset")  # they were never accepted
            await stream.aclose()
        assert network.statistics().streams == 0


@pytest.mark.parametrize(
    ("how", "peer_hears"), [("reset", (b"early ", "reset")), ("fin", (b"early late", "end")), ("vanish", None)]
)
async def test_the_death_of_a_host(how, peer_hears, autojump_clock):
    """What its peers see; it neither sends nor connects any more, and is not there for others."""
    async with three() as (network, a, b, (to_a, to_b)):
        await to_a.send_all(b"early ")
        await a.send_all(b"for nobody")
        await trio.sleep(1)
        await to_a.send_all(b"late")
        network.kill("server", how=how)
        begin = trio.current_time()
        for task in (to_a.send_all(b"x"), to_a.receive_some(), to_b.send_eof()):
            with pytest.raises(trio.BrokenResourceError, match="its host is down"):
                await task
        with pytest.raises(OSError, match="server is down"):
            await network.connect("server", "a")
        with pytest.raises(TimeoutError if how == "vanish" else ConnectionRefusedError):
            await network.connect("a", "server")
        if peer_hears:
            assert await rest(a) == peer_hears
            assert (await rest(b))[1] == peer_hears[1]
            return
        with trio.move_on_after(3600):
            assert await a.receive_some() == b"early "
            await a.send_all(bytes(10**6))
        assert trio.current_time() - begin > 3600
        async with network.listening("server") as listener:  # it is up again, and knows nothing of those connections
            begin = trio.current_time()
            assert await rest(a) == (b"", "reset")
            assert await rest(b) == (b"", "reset")
            assert trio.current_time() - begin == 1
            async with await network.connect("a", "server") as again, await listener.accept() as to_again:
                assert await carries(again, to_again)


@pytest.mark.parametrize("how", ["reset", "fin", "vanish"])
async def test_leaving_a_host_is_its_death(how, autojump_clock):
    """Its tasks are cancelled, and what they still do reaches nobody."""
    network = Network(Random(1))
    cleaned = []

    async def serve(stream):
        try:
            await stream.receive_some()
        finally:
            with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"last words")
            cleaned.append(stream)

    with trio.fail_after(86400):
        async with network.host("server", serve, how=how):
            stream = await network.connect("a", "server")
        assert len(cleaned) == 1
        network.revive("server")
        assert await rest(stream) == (b"", "end" if how == "fin" else "reset")
        await stream.aclose()
        assert network.statistics().streams == 0


async def test_the_dead_are_not_killed_again(autojump_clock):
    """Who has vanished says nothing at the end of its block; its streams stay their owner's until they are closed."""
    async with three() as (network, a, *_):
        network.kill("server", how="vanish")
        network.kill("server", how="fin")
        with trio.move_on_after(3600) as waiting:
            await a.receive_some()
        assert waiting.cancelled_caught
        assert network.statistics().streams == 4


async def test_a_client_host_dies_too(autojump_clock):
    network = Network(Random(1))
    ends = []

    async def serve(stream):
        ends.append(await rest(stream))

    with trio.fail_after(86400):
        async with network.host("server", serve):
            async with network.host("a"):
                stream = await network.connect("a", "server")
                await stream.send_all(b"hello")
                await trio.sleep(1)
            await trio.sleep(1)
            assert ends == [(b"hello", "reset")]
            await stream.aclose()


async def test_one_host_of_a_name(autojump_clock):
    """One at a time, and the end of one that was killed does not touch the next."""
    network = Network(Random(1))
    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery:

            async def first(task_status):
                async with network.host("server", echo):
                    with pytest.raises(OSError, match="listens already"):
                        await network.listening("server").__aenter__()
                    task_status.started()
                    await trio.sleep(10)

            await nursery.start(first)
            network.kill("server")
            async with network.host("server", echo):
                await trio.sleep(20)
                async with await network.connect("a", "server") as stream:
                    assert await carries(stream, stream)


async def test_what_a_handler_raises_ends_its_host_unless_it_is_the_end_of_its_connection(autojump_clock):
    network = Network(Random(1))

    async def serve(stream):
        if await stream.receive_some() == b"raise":
            raise trio.BrokenResourceError("of something else")
        while True:
            await stream.send_all(bytes(1000))

    with trio.fail_after(86400):
        with pytest.RaisesGroup(pytest.RaisesExc(trio.BrokenResourceError, match="else"), flatten_subgroups=True):
            async with network.host("server", serve):
                async with await network.connect("a", "server") as stream:
                    await stream.send_all(b"send")
                await trio.sleep(10)
                async with await network.connect("a", "server") as stream:
                    await stream.send_all(b"raise")
                    await trio.sleep_forever()


async def test_a_listener_that_is_closed(autojump_clock):
    async with three() as (network, a, _, (to_a, _)):
        async with network.listening("other") as listener, trio.open_nursery() as nursery:

            async def accept():
                with pytest.raises(trio.ClosedResourceError):
                    await listener.accept()

            nursery.start_soon(accept)
            await trio.sleep(1)
            await listener.aclose()
            await listener.aclose()
            with pytest.raises(ConnectionRefusedError):
                await network.connect("a", "other")
        assert await carries(a, to_a)
        assert repr(listener) == "<NetworkListener other>"


@pytest.mark.parametrize("after", [0.5, 1.5])
async def test_leaving_a_connection_while_it_is_made(after, autojump_clock):
    """Before it has reached the server, or when the server has it already, which hears of it."""
    async with three() as (network, *_), network.listening("other") as listener:
        with trio.move_on_after(after):
            await network.connect("a", "other")
        with trio.move_on_after(10) as waiting:
            async with await listener.accept() as stream:
                assert await rest(stream) == (b"", "reset")
        assert waiting.cancelled_caught is (after == 0.5)
        assert network.statistics().failed == 1
    assert not network._connections


@pytest.mark.parametrize("after", [0.5, 1.5])
async def test_a_connection_that_is_cut_while_it_is_made(after, autojump_clock):
    async with three() as (network, *_), network.listening("other"), trio.open_nursery() as nursery:

        async def cut():
            await trio.sleep(after)
            network.cut("a", "other")

        nursery.start_soon(cut)
        with pytest.raises(ConnectionResetError, match="a to other"):
            await network.connect("a", "other")
    assert not network._connections


async def test_what_is_noted(autojump_clock):
    noted = []

    def note(what, **fields):
        noted.append((trio.current_time(), what, fields))

    network = Network(Random(1), note=note)
    with trio.fail_after(86400):
        async with network.host("server", echo):
            async with await network.connect("a", "server") as stream:
                assert await carries(stream, stream)
                network.blackhole("*", "server", direction="to")
                network.heal()
            await trio.sleep(1)
            network.refuse("server")
            with pytest.raises(ConnectionRefusedError):
                await network.connect("b", "server")
            network.cut("*", "*", how="fin")
            network.corrupt("b", "*", 0.5)
    names = {"source": "a", "destination": "server", "number": 1}
    assert [(what, fields) for _, what, fields in noted] == [
        ("connect", names),
        ("blackhole", {"a": "*", "b": "server", "direction": "to"}),
        ("heal", {"a": "*", "b": "*"}),
        ("end", {**names, "sent": 1, "received": 1}),
        ("refuse", {"b": "server"}),
        ("failed", {"source": "b", "destination": "server", "number": 1}),
        ("cut", {"a": "*", "b": "*", "how": "fin", "connections": 0}),
        ("corrupt", {"a": "b", "b": "*", "share": 0.5, "direction": "both"}),
        ("kill", {"host": "server", "how": "reset"}),
    ]
    assert noted[0][0] == 0.001


async def test_dial_is_for_targets(autojump_clock):
    network = Network(Random(1))
    dial = network.dial("a")
    with trio.fail_after(86400):
        async with network.host("server", echo):
            assert repr(network) == "<Network of ['server'], 0 connections>"
            for target in ("server", "server:50051"):
                async with await dial(target) as stream:
                    assert await carries(stream, stream)
                    assert stream in network.streams()
