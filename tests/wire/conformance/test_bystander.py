"""Floods against `rpc.Server`: the connection that floods is closed, all others do not notice.

Everything happens in memory and in virtual time. A bystander has a connection of its own and calls between any two
bunches of the flood; its answers must come at once. Afterwards nothing of the flood is left: no call, no connection.
"""

import itertools

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Handler

from dk_trio import rpc

from .floods import FLOODS, Flood
from .raw import END_STREAM, GOAWAY, HEADERS, FrameReader, call, data, headers, message, request
from .server_peer import HANDSHAKE
from .test_floods import gzip_bomb

FRAMES = 1000
BUNCH = 50


class Octets(bytes):
    """A message that is its own encoding."""

    @classmethod
    def FromString(cls, data):
        return cls(data)

    def SerializeToString(self):
        return bytes(self)


class Echo:
    """The methods that the floods call."""

    def __init__(self):
        self.running = 0

    async def say(self, stream):
        async for octets in stream:
            await stream.send_message(octets)

    async def hold(self, stream):
        self.running += 1
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1

    def __mapping__(self):
        methods = {"Say": self.say, "Hold": self.hold}
        return {
            f"/test.Echo/{name}": Handler(method, Cardinality.STREAM_STREAM, Octets, Octets)
            for name, method in methods.items()
        }


class Client:
    """Raw frames over a stream in memory."""

    def __init__(self, stream):
        self.stream = stream
        self.reader = FrameReader()
        self.heard = []
        self.frames = []
        self.next_id = 1
        self.closed = False

    async def send(self, octets):
        try:
            await self.stream.send_all(octets)
        except trio.BrokenResourceError:
            self.closed = True

    async def listen(self):
        """Collect frames until the server closes the connection."""
        while octets := await self.stream.receive_some(1 << 20):
            self.heard += self.reader.feed(bytes(octets))
        self.closed = True

    async def read(self):
        """What has come since the last time, once nobody has anything left to do."""
        await trio.testing.wait_all_tasks_blocked()
        self.frames, self.heard = self.heard, []

    async def works(self):
        """One call, answered within this very instant."""
        began = trio.current_time()
        stream, self.next_id = self.next_id, self.next_id + 2
        await self.send(call(stream, b"still there?"))
        await self.read()
        mine = [one for one in self.frames if one.stream == stream]
        assert [one.kind for one in mine] == [HEADERS, 0, HEADERS], self.frames
        assert dict(mine[2].fields)["grpc-status"] == "0"
        assert trio.current_time() == began


class Bench:
    """A server, its bystander, and an attacker."""

    def __init__(self, nursery, **options):
        self.echo = Echo()
        self.server = rpc.Server([self.echo], options=rpc.ServerOptions(**options))
        self.nursery = nursery

    def client(self):
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.server.serve_stream, theirs)
        client = Client(ours)
        self.nursery.start_soon(client.listen)
        return client


async def attack(flood: Flood, *, ends: bool = True, **options) -> list[int]:
    """Flood a server until it closes the connection; returns the codes of GOAWAY frames that came."""
    codes = []
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            bench = Bench(nursery, **options)
            bystander, attacker = bench.client(), bench.client()
            await bystander.send(HANDSHAKE)
            await bystander.works()
            await attacker.send(HANDSHAKE + flood.opening)
            frames = itertools.islice(flood.frames(), FRAMES)
            while not attacker.closed and (bunch := b"".join(itertools.islice(frames, BUNCH))):
                await attacker.send(bunch)
                await attacker.read()
                codes += [one.code for one in attacker.frames if one.kind == GOAWAY]
                await bystander.works()
            await trio.sleep(5)  # what a connection that ends may still take to be cut
            await attacker.read()
            codes += [one.code for one in attacker.frames if one.kind == GOAWAY]
            assert attacker.closed == ends
            await bystander.works()
            assert bench.echo.running == 0
            assert bench.server.statistics().rpcs == 0
            assert bench.server.statistics().connections == 2 - ends
            nursery.cancel_scope.cancel()
    return codes


OVER_RPC = [flood for flood in FLOODS if not flood.options]


@pytest.mark.parametrize("flood", OVER_RPC, ids=[flood.name for flood in OVER_RPC])
async def test_flood(autojump_clock, flood):
    (code,) = await attack(flood)
    assert code in flood.codes


async def test_rapid_reset_with_few_calls_allowed(autojump_clock):
    """Calls that are refused for want of places were answered before they are reset: that is overload, not abuse."""
    assert await attack(FLOODS[0], ends=False, max_concurrent_rpcs=5) == []


async def test_gzip_bomb(autojump_clock):
    """The call gets RESOURCE_EXHAUSTED; its connection and all others go on."""
    bomb = message(gzip_bomb(50), 1)
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            bench = Bench(nursery, max_receive_message_bytes=1 << 20)
            bystander, attacker = bench.client(), bench.client()
            await bystander.send(HANDSHAKE)
            await attacker.send(HANDSHAKE + headers(1, request(("grpc-encoding", "gzip"))))
            attacker.next_id = 3
            for start in range(0, len(bomb), 16_384):
                await attacker.send(data(1, bomb[start : start + 16_384]))
                await bystander.works()
            await attacker.send(data(1, b"", END_STREAM))
            await attacker.read()
            trailers = [dict(one.fields) for one in attacker.frames if one.stream == 1 and one.kind == HEADERS]
            assert trailers[-1]["grpc-status"] == "8"
            await attacker.works()
            await bystander.works()
            nursery.cancel_scope.cancel()


async def test_three_thousand_calls_cancelled_after_more_than_a_second(autojump_clock):
    """Honest: long calls that are given up together."""
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            bench = Bench(nursery)
            client = bench.client()
            await client.send(HANDSHAKE)
            streams = range(1, 6_001, 2)
            held = request(path="/test.Echo/Hold")
            await client.send(b"".join(headers(stream, held) for stream in streams))
            await trio.testing.wait_all_tasks_blocked()
            assert bench.echo.running == len(streams)
            await trio.sleep(1.1)
            await client.send(b"".join(b"\0\0\4\3\0" + stream.to_bytes(4, "big") + b"\0\0\0\x08" for stream in streams))
            await client.read()
            assert bench.echo.running == 0
            client.next_id = 6_001
            await client.works()
            nursery.cancel_scope.cancel()
