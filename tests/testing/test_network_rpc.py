"""What calls make of each fault of the network in memory: the right status, and nothing left at either end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import pytest
import trio
import trio.lowlevel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message as Reply
from tests.module.sample import Message, module_with
from tests.rpc.wire_client import TestService

from dk_trio import ModuleClient, ModuleServer, rpc
from dk_trio.settings import Settings
from dk_trio.testing.network import Conditions, Network

KEEPALIVE = {"keepalive_time": 30.0, "keepalive_timeout": 5.0}
BAD = Conditions(latency=0.05, jitter=0.2, slice_max=40, buffer=500, bandwidth=20_000)


@dataclass
class Seen:
    """What the two ends of a call made of it."""

    got: list[str] = field(default_factory=list)
    sent: int = 0
    ended: str = ""
    status: Status | None = None
    seconds: float = 0.0


@asynccontextmanager
async def nothing_left(network):
    with trio.fail_after(86400):
        yield
        await trio.lowlevel.checkpoint()
    assert network.statistics().streams == 0
    network.heal()
    assert not network._connections


async def watch(fault, *, conditions=None, timeout=None, seed=1, messages=20):
    """A call whose handler sends a message each second, and what is done to the network after 5.5 seconds."""
    network = Network(Random(seed))
    network.conditions("*", "*", conditions or Conditions())
    seen = Seen()

    async def count(call):
        try:
            await call.recv_message()
            for number in range(messages):
                await call.send_message(Reply(text=f"{number} " + "x" * 100))
                seen.sent += 1
                await trio.sleep(1)
            seen.ended = "whole"
        except trio.Cancelled:
            seen.ended = "cancelled"
            raise

    server = rpc.Server([TestService(server_stream=count)], options=rpc.ServerOptions(**KEEPALIVE))
    async with (
        nothing_left(network),
        network.listening("server") as listener,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(server.serve, [listener])

        async def strike():
            await trio.sleep(5.5)
            await fault(network)

        async with rpc.open_channel(
            "server",
            connect=lambda: network.connect("client", "server"),
            options=rpc.ChannelOptions(retry=None, **KEEPALIVE),
            random=Random(seed),
        ) as channel:
            nursery.start_soon(strike)
            begin = trio.current_time()
            call = channel.request("/test.Service/server_stream", Cardinality.UNARY_STREAM, Reply, Reply)
            try:
                async with call:
                    with trio.fail_after(timeout or 3600):
                        await call.send_message(Reply(), end=True)
                        async for message in call:
                            seen.got.append(message.text)
                        await call.recv_trailing_metadata()
                seen.status = Status.OK
            except GRPCError as error:
                seen.status = error.status
            except trio.TooSlowError:
                seen.status = Status.DEADLINE_EXCEEDED
            seen.seconds = trio.current_time() - begin
        await trio.sleep(120)
        statistics = server.statistics()
        assert (statistics.rpcs, statistics.connections) == (0, 0)
        nursery.cancel_scope.cancel()
    assert server.statistics().rpcs == 0
    return seen


def whole(seen, count=20):
    return [text.split()[0] for text in seen.got] == [str(number) for number in range(count)]


async def nothing(network):
    pass


async def short_blackhole(network):
    network.blackhole("client", "server")
    await trio.sleep(4)
    network.heal()


async def one_way(network):
    network.blackhole("client", "server", direction="from")
    await trio.sleep(4)
    network.heal()


async def worse(network):
    network.conditions("client", "server", BAD)


async def refuse(network):
    network.refuse("*")


@pytest.mark.parametrize("fault", [nothing, short_blackhole, one_way, worse, refuse])
@pytest.mark.parametrize("conditions", [Conditions(), BAD], ids=["good", "bad"])
async def test_what_a_connection_survives(fault, conditions, autojump_clock):
    seen = await watch(fault, conditions=conditions)
    assert (seen.status, seen.ended) == (Status.OK, "whole")
    assert whole(seen)


def cut(how):
    async def fault(network):
        network.cut("client", "server", how=how)

    return fault


def kill(name, how):
    async def fault(network):
        network.kill(name, how=how)

    return fault


async def blackhole(network):
    network.blackhole("*", "server")


@pytest.mark.parametrize(
    ("fault", "within"),
    [
        (cut("reset"), 6),
        (cut("fin"), 6),
        (kill("server", "reset"), 6),
        (kill("server", "fin"), 6),
        (kill("server", "vanish"), 45),
        (kill("client", "reset"), 6),
        (blackhole, 45),
    ],
    ids="cut cut-fin server-reset server-fin server-vanish client-reset blackhole".split(),
)
async def test_what_ends_a_call_with_unavailable(fault, within, autojump_clock):
    """At once where the connection says so, else when keepalive finds out; the handler is cancelled too."""
    seen = await watch(fault)
    assert (seen.status, seen.ended) == (Status.UNAVAILABLE, "cancelled" if within < 10 else seen.ended)
    assert seen.seconds < within
    assert whole(seen, 6)


async def test_a_deadline_ends_a_call_into_a_blackhole(autojump_clock):
    seen = await watch(blackhole, timeout=10)
    assert (seen.status, seen.seconds) == (Status.DEADLINE_EXCEEDED, 10)
    assert whole(seen, 6)


@pytest.mark.parametrize("seed", range(8))
async def test_corruption_ends_in_some_status(seed, autojump_clock):
    """Whatever a flipped bit has become, both ends come to an end and leave nothing."""

    async def corrupt(network):
        network.corrupt("client", "server", 1.0)

    seen = await watch(corrupt, seed=seed, messages=60)
    assert seen.status is not None
    assert [text.split()[0] for text in seen.got[:6]] == [str(number) for number in range(6)]


async def test_connecting_again_after_a_kill(autojump_clock):
    """The next call finds the server that came in its place."""
    network = Network(Random(1))

    async def answer(call):
        await call.send_message(await call.recv_message())

    async def ask(channel, **arguments):
        call = channel.request("/test.Service/unary", Cardinality.UNARY_UNARY, Reply, Reply, **arguments)
        return (await call.unary(Reply(text="hi"))).text

    async with (
        nothing_left(network),
        rpc.open_channel("server", connect=lambda: network.connect("client", "server"), random=Random(1)) as channel,
    ):
        for how in ("reset", "fin"):
            async with network.host("server", rpc.Server([TestService(unary=answer)]).serve_stream, how=how):
                assert await ask(channel, wait_for_ready=True, timeout=600) == "hi"
            with pytest.raises(GRPCError) as caught:
                await ask(channel)
            assert caught.value.status is Status.UNAVAILABLE


@pytest.mark.parametrize("fault", ["none", "cut", "client", "server"])
async def test_a_module_server_over_the_network(fault, autojump_clock):
    """A job whose connection or client is lost is cancelled and cleans up; bystanders end well."""
    network = Network(Random(1))
    network.conditions("*", "*", Conditions(latency=0.05, jitter=0.02))
    ends, statuses = [], {}

    async def handle(self, input_data, setup_data, context):
        for number in range(10):
            await context.send(Message(text=str(number)))
            await trio.sleep(1)
        ends.append("whole")

    async def cleanup(self):
        await trio.sleep(0.5)
        ends.append("cleaned up")

    settings = Settings()
    settings = replace(settings, services=replace(settings.services, data_dir=None))
    server = ModuleServer(module_with(handle, cleanup=cleanup), settings=settings)

    async def job(name):
        roots = []
        connect = partial(network.connect, name, "server")
        options = rpc.ChannelOptions(retry=None)
        async with ModuleClient.connect("server", connect=connect, options=options) as client:
            try:
                async with client.start({"text": "hi"}, protocol="message") as outputs:
                    async for output in outputs:
                        roots.append(output["root"])  # noqa: PERF401
                statuses[name] = Status.OK
            except GRPCError as error:
                statuses[name] = error.status
        numbers = [root["text"] for root in roots if root["protocol"] == "message"]
        assert numbers == [str(number) for number in range(len(numbers))]
        assert (len(numbers) == 10) is (statuses[name] is Status.OK)

    async with nothing_left(network), trio.open_nursery() as nursery:
        async with (
            network.listening("server") as listener,
            server.running(listeners=[listener], host="server", port=50055) as address,
        ):
            assert address == "server:50055"
            async with trio.open_nursery() as jobs:
                jobs.start_soon(job, "client")
                jobs.start_soon(job, "other")
                await trio.sleep(3.5)
                if fault == "cut":
                    network.cut("client", "*")
                elif fault == "client":
                    network.kill("client")
                elif fault == "server":
                    network.kill("server")
                await trio.sleep(1)
            statistics = server.statistics()
            assert (statistics.admission.running, statistics.rpc.rpcs) == (0, 0)
        nursery.cancel_scope.cancel()
    lost = {"none": [], "cut": ["client"], "client": ["client"], "server": ["client", "other"]}[fault]
    assert sorted(name for name in statuses if statuses[name] is Status.UNAVAILABLE) == lost
    assert sorted(name for name in statuses if statuses[name] is Status.OK) == sorted({"client", "other"} - {*lost})
    assert ends.count("cleaned up") == 2
    assert ends.count("whole") == 2 - len(lost)
