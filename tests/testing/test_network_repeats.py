"""A seed of the network in memory decides everything, for each connection by itself; and bytes stay what they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sizes import size
from tests.testing.network_transcript import transcript

from dk_trio.testing.clock import run
from dk_trio.testing.network import Conditions, Network

ROOT = Path(__file__).parents[2]


def test_a_seed_is_the_same_run_in_every_process():
    lines = transcript(7)
    assert lines == transcript(7)
    assert lines != transcript(8)
    words = {line.split()[1] for line in lines[:-1]}
    assert words == set("connect failed no got broken unsent end kill revive cut blackhole corrupt heal".split())
    for hash_seed in ("1",):
        done = subprocess.run(
            [sys.executable, "-m", "tests.testing.network_transcript", "7"],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert done.stdout.splitlines() == lines


async def test_what_happens_to_one_connection_changes_nothing_for_another(autojump_clock):
    async def arrivals(*, others):
        network = Network(Random(7))
        network.conditions("*", "*", Conditions(latency=0.01, jitter=0.1, slice_max=10))
        times = []

        async def chatter(name, destination):
            async with await network.connect(name, destination) as stream:
                for _ in range(20):
                    await stream.send_all(bytes(50))
                    await trio.sleep(0.01)

        async def swallow(stream):
            async for _ in stream:
                pass

        begin = trio.current_time()
        async with (
            network.listening("server") as listener,
            network.host("other", swallow),
            trio.open_nursery() as nursery,
        ):
            if others:
                nursery.start_soon(chatter, "a", "other")
                nursery.start_soon(chatter, "b", "other")
            async with await network.connect("a", "server") as stream, await listener.accept() as end:
                await stream.send_all(bytes(500))
                await stream.send_eof()
                async for piece in end:
                    times.append((round(trio.current_time() - begin, 9), len(piece)))  # noqa: PERF401
        return times

    with trio.fail_after(86400):
        alone = await arrivals(others=False)
        assert len(alone) > 40
        assert await arrivals(others=True) == alone


conditions = st.builds(
    Conditions,
    latency=st.sampled_from([0.0, 0.001, 0.1]),
    jitter=st.sampled_from([0.0, 0.01, 1.0]),
    bandwidth=st.sampled_from([float("inf"), 1000.0]),
    slice_max=st.sampled_from([None, 1, 7, 1000]),
    buffer=st.sampled_from([1, 100, 65536]),
)
moments = st.floats(0, 5).map(lambda at: round(at, 2))
faults = st.lists(
    st.tuples(
        moments,
        st.one_of(
            st.tuples(st.just("conditions"), conditions),
            st.tuples(st.just("blackhole"), st.sampled_from(["both", "to", "from"])),
            st.tuples(st.just("heal"), st.none()),
            st.tuples(st.just("corrupt"), st.sampled_from([0.1, 1.0])),
            st.tuples(st.just("cut"), st.sampled_from(["reset", "fin"])),
            st.tuples(st.just("kill"), st.sampled_from(["reset", "fin", "vanish"])),
        ),
    ),
    max_size=4,
)


@settings(max_examples=size(40, 3000), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    first=conditions,
    faults=faults,
    sizes=st.lists(st.sampled_from([0, 1, 10, 100, 300]), max_size=5),
    limits=st.lists(st.sampled_from([None, 1, 50, 65536]), min_size=1, max_size=3),
    patience=st.sampled_from([0.01, 1.0, 1e6]),
)
def test_bytes_arrive_in_order_and_once_whatever_happens(seed, first, faults, sizes, limits, patience):
    """All of them without a fault, the first of them with one; changed only where the stream says so."""
    data = Random(seed).randbytes(sum(sizes))
    got = bytearray()
    ended = []
    corrupted = []

    async def send(stream):
        start = 0
        try:
            for count in sizes:
                await stream.send_all(data[start : start + count])
                start += count
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass

    async def receive(stream):
        turn = 0
        while True:
            turn += 1
            with trio.move_on_after(patience):
                try:
                    chunk = await stream.receive_some(limits[turn % len(limits)])
                except trio.BrokenResourceError:
                    ended.append("broken")
                    break
                if not chunk:
                    ended.append("end")
                    break
                got.extend(chunk)
                continue
            await trio.sleep(0.1)
        corrupted.append(stream.corrupted)
        await stream.aclose()

    async def main():
        network = Network(Random(seed))
        network.conditions("*", "*", first)
        async with network.listening("server") as listener, trio.open_nursery() as nursery:
            client = await network.connect("client", "server")
            server = await listener.accept()
            begin = trio.current_time()
            nursery.start_soon(send, client)
            nursery.start_soon(receive, server)
            for at, (what, how) in sorted(faults, key=lambda fault: fault[0]):
                await trio.sleep_until(begin + at)
                if what == "conditions":
                    network.conditions("client", "server", how)
                elif what == "blackhole":
                    network.blackhole("client", "server", direction=how)
                elif what == "corrupt":
                    network.corrupt("client", "server", how)
                elif what == "cut":
                    network.cut("client", "server", how=how)
                elif what == "kill":
                    network.kill("client", how=how)
                else:
                    network.heal()
                assert network.statistics().buffered <= 2 * 65536
            network.heal()
            network.revive("client")
        await client.aclose()
        assert network.statistics().streams == 0
        assert not network._connections

    run(main, seed=seed)
    kinds = {what for _, (what, _) in faults}
    if not kinds & {"cut", "kill"}:
        assert (len(got), ended) == (len(data), ["end"])
    assert len(got) <= len(data)
    changed = [at for at, byte in enumerate(got) if data[at] != byte]
    assert not changed or corrupted == [True]
    assert all((got[at] ^ data[at]).bit_count() == 1 for at in changed)
