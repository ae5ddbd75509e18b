"""One sample of one contestant in one case, and the rotation that makes the samples comparable."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping

from bench.cases import CPU_US, DRIVER_BUSY, HELD_STREAMS, HOLD_BODY, KIB_EACH, PER_SECOND, ServerCase
from bench.drivers import SLACK_S, drive
from bench.payloads import HOLD
from bench.processes import BenchError, Process, children_cpu_seconds, cores, python, run_pinned
from bench.table import Measured, Sample

SETTLE_S = 0.2  # for a server to finish what the driver's last bytes started

Probe = Callable[[], Sample]


def rotate(result: Measured, probes: Mapping[str, Probe], *, rounds: int) -> Measured:
    """Run every probe `rounds` times, back to back, each round starting with another one. A failed one drops out."""
    names = list(probes)
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            if name in result.failures:
                continue
            try:
                result.samples.setdefault(name, []).append(probes[name]())
            except BenchError as error:
                result.failures[name] = str(error)
                result.samples.pop(name, None)
    result.samples = {name: result.samples[name] for name in names if name in result.samples}
    return result


def server_sample(process: Process, case: ServerCase, *, seconds: float) -> Sample:
    """Units per second and server CPU per unit, as h2load sees them."""
    before, driver_before = process.cpu_seconds(), children_cpu_seconds()
    load = drive(process.port, case.call, seconds=seconds, core=cores()[1])
    cpu, driver_cpu = process.cpu_seconds() - before, children_cpu_seconds() - driver_before
    units: float = load.calls
    if case.messages > 1:
        units = load.data / case.reply_bytes  # messages of calls cut off at the end count too
    elif case.reply_bytes and load.data < load.calls * case.reply_bytes:
        raise BenchError(f"{case.key}: {load.calls} calls brought {load.data} bytes, fewer than their replies have")
    if not units or not load.data:
        raise BenchError(f"{case.key}: {load.calls} calls and {load.data} bytes in {load.seconds} s")
    return {PER_SECOND: units / load.seconds, CPU_US: cpu / units * 1e6, DRIVER_BUSY: driver_cpu / load.seconds}


def client_sample(argv: list[str], env: dict[str, str], *, seconds: float) -> Sample:
    """Units per second and CPU per unit of a client program, which is pinned to the driver's core."""
    found = json.loads(run_pinned(argv, core=cores()[1], timeout=seconds + SLACK_S, env=env))
    if not found["units"]:
        raise BenchError(f"no call finished: {' '.join(argv)}")
    return {PER_SECOND: found["units"] / found["seconds"], CPU_US: found["cpu_s"] / found["units"] * 1e6}


def memory_sample(argv: list[str], env: dict[str, str]) -> Sample:
    """Growth of a fresh server from its first open stream to its last, divided by their number."""
    server_core, driver_core = cores()
    with tempfile.NamedTemporaryFile(prefix="dk-bench-") as body, Process(argv, core=server_core, env=env) as server:
        body.write(HOLD_BODY)
        body.flush()
        raw = python("bench.raw_driver", server.port, HOLD, "--body", body.name, "--hold", HELD_STREAMS)
        with Process(raw, core=driver_core, env=env, announces="OPEN ") as holder:
            time.sleep(SETTLE_S)
            before = server.rss_bytes()
            holder.go_on()
            time.sleep(SETTLE_S)
            return {KIB_EACH: (server.rss_bytes() - before) / (HELD_STREAMS - 1) / 1024}
