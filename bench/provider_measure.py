"""The provider cases: durable writes over gRPC, beside the same writes without gRPC and the same bytes without writes.

What is asked of a provider: 60 % of what the store alone can do, or all that the transport alone can do, whichever is
lower. `OF_BOUND` is its rate as a share of that, round by round.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.cases import CPU_US, DRIVER_BUSY, OF_BOUND, P50_MS, P99_MS, PER_SECOND, PROVIDER, STORE_ALONE, TRANSPORT
from bench.contestants import CONTESTANTS
from bench.drivers import SLACK_S
from bench.measure import rotate
from bench.processes import BenchError, Process, children_cpu_seconds, cores, python, run_pinned
from bench.run import Bench
from bench.table import Measured, Sample, render

SHARE = 0.6
TITLES = {
    "store": "provider: durable StoreRecord",
    "store-keyed": "provider: durable StoreRecord with an idempotency key",
    "signals": "provider: durable SendSignals of one signal",
}
CASES = {
    f"provider-{kind}-{in_flight}": (kind, in_flight)
    for kind, numbers in {"store": (1, 16, 64), "store-keyed": (64,), "signals": (1, 16, 64)}.items()
    for in_flight in numbers
}


def serve_provider(directory: Path) -> list[str]:
    """The real thing, on a free port, with its defaults."""
    program = str(Path(sys.executable).with_name("dk-trio"))
    return [program, "provider", "--port", "0", "--data-dir", str(directory), "--grace", "0"]


def server_sample(process: Process, kind: str, *, in_flight: int, seconds: float) -> Sample:
    """What bench.tasks.durable says of a server."""
    argv = python("bench.tasks.durable", process.port, "--kind", kind, "--in-flight", in_flight, "--seconds", seconds)
    before, driver_before = process.cpu_seconds(), children_cpu_seconds()
    found = json.loads(run_pinned(argv, core=cores()[1], timeout=seconds + SLACK_S, env=process.env))
    found["cpu_s"] = process.cpu_seconds() - before
    return _sample(found) | {DRIVER_BUSY: (children_cpu_seconds() - driver_before) / found["seconds"]}


def floor_sample(directory: Path, env: dict[str, str], kind: str, *, in_flight: int, seconds: float) -> Sample:
    """What bench.tasks.floor says, on the core of the process under test."""
    args = ("--directory", directory, "--kind", kind, "--in-flight", in_flight, "--seconds", seconds)
    argv = python("bench.tasks.floor", *args)
    return _sample(json.loads(run_pinned(argv, core=cores()[0], timeout=seconds + SLACK_S, env=env)))


def _sample(found: dict[str, float]) -> Sample:
    if not found["calls"]:
        raise BenchError("no call ended")
    return {
        PER_SECOND: found["calls"] / found["seconds"],
        P50_MS: found["p50_ms"],
        P99_MS: found["p99_ms"],
        CPU_US: found["cpu_s"] / found["calls"] * 1e6,
    }


def add_shares(result: Measured) -> None:
    """`OF_BOUND` of every contestant, from the same round of the two that make the bound."""
    bounds = [
        min(SHARE * floor[PER_SECOND], transport[PER_SECOND])
        for floor, transport in zip(
            result.samples.get(STORE_ALONE, []), result.samples.get(TRANSPORT, []), strict=False
        )
    ]
    for samples in result.samples.values():
        for sample, bound in zip(samples, bounds, strict=False):
            sample[OF_BOUND] = sample[PER_SECOND] / bound


@contextmanager
def servers(bench: Bench) -> Iterator[dict[str, Process]]:
    """The provider, and a server that echoes."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Process(argv, core=cores()[0], env=bench.env))
            for name, argv in {
                PROVIDER: serve_provider(bench.directory / "provider"),
                TRANSPORT: CONTESTANTS[0].server(),
            }.items()
        }


def measure(bench: Bench) -> None:
    wanted = {key: case for key, case in CASES.items() if bench.wanted(key)}
    if not wanted:
        return
    seconds = bench.effort.seconds
    with servers(bench) as running:
        for key, (kind, in_flight) in wanted.items():
            floor = bench.directory / "floor"
            probes = {
                PROVIDER: partial(server_sample, running[PROVIDER], kind, in_flight=in_flight, seconds=seconds),
                STORE_ALONE: partial(floor_sample, floor, bench.env, kind, in_flight=in_flight, seconds=seconds),
                TRANSPORT: partial(server_sample, running[TRANSPORT], "echo", in_flight=in_flight, seconds=seconds),
            }
            result = Measured(key, f"{TITLES[kind]}, {in_flight} in flight", yardstick=STORE_ALONE)
            rotate(result, probes, rounds=bench.effort.task_rounds)
            add_shares(result)
            bench.results.append(result)
            print(render(result), end="\n\n", flush=True)
