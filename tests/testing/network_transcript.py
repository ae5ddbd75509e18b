"""A busy network with faults, and all that happens in it, line by line; run with a seed it prints them.

A test compares what two processes make of the same seed.
"""

from __future__ import annotations

import sys
from random import Random

import trio

from dk_trio.testing.clock import run
from dk_trio.testing.network import Conditions, Network

CLIENTS = ("ann", "bob", "cid")
SERVERS = ("one", "two")


async def busy(seed: int, lines: list[str]) -> None:
    random = Random(seed)

    def note(what, **fields):
        lines.append(f"{trio.current_time()!r} {what} {fields}")

    network = Network(random, note=note)
    network.conditions("*", "*", Conditions(latency=0.01, jitter=0.05, slice_max=500, buffer=1000))
    network.conditions("bob", "*", Conditions(latency=0.1, jitter=0.02, bandwidth=5000))

    async def echo(stream):
        async for chunk in stream:
            await stream.send_all(chunk)

    async def talk(name, number):
        await trio.sleep(2 * number)
        try:
            stream = await network.connect(name, SERVERS[number % 2])
        except OSError as error:
            note("no", name=name, number=number, why=type(error).__name__)
            return
        async with stream, trio.open_nursery() as nursery:

            async def read():
                try:
                    async for chunk in stream:
                        note("got", name=name, number=number, chunk=hash_of(chunk))
                except trio.BrokenResourceError:
                    note("broken", name=name, number=number)

            nursery.start_soon(read)
            try:
                for size in (1, 10, 60):
                    await stream.send_all(bytes(range(100)) * size)
                await stream.send_eof()
            except trio.BrokenResourceError:
                note("unsent", name=name, number=number)

    async def host(name):
        while True:
            with trio.move_on_after(random.uniform(2, 10)):
                async with network.host(name, echo, how=random.choice(["reset", "fin", "vanish"])):
                    await trio.sleep_forever()
            await trio.sleep(random.uniform(0, 5))

    async def faults():
        while True:
            await trio.sleep(random.expovariate(1))
            match random.choice(["cut", "blackhole", "corrupt", "heal"]):
                case "cut":
                    network.cut(random.choice(CLIENTS), "*", how=random.choice(["reset", "fin"]))
                case "blackhole":
                    network.blackhole(random.choice(CLIENTS), "*", direction=random.choice(["both", "to", "from"]))
                case "corrupt":
                    network.corrupt("*", random.choice(SERVERS), random.random())
                case "heal":
                    network.heal()

    async with trio.open_nursery() as servers:
        for name in SERVERS:
            servers.start_soon(host, name)
        servers.start_soon(faults)
        with trio.move_on_after(600):
            async with trio.open_nursery() as nursery:
                for name in CLIENTS:
                    for number in range(12):
                        nursery.start_soon(talk, name, number)
        servers.cancel_scope.cancel()
    assert not network._connections
    lines.append(str(network.statistics()))


def hash_of(data: bytes) -> str:
    return f"{len(data)}/{sum(data)}"


def transcript(seed: int) -> list[str]:
    lines: list[str] = []
    run(busy, seed, lines, seed=seed)
    return lines


if __name__ == "__main__":
    print("\n".join(transcript(int(sys.argv[1]))))
