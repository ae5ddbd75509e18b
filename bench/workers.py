"""What a second worker brings: one worker and more of `dk-trio serve` under the same load, round by round.

    python -m bench.workers
    python -m bench.workers --workers 1 2 4 --rounds 9 --seconds 3

The load is h2load's: eight connections, and so many StartModule calls in flight on each. It is meant to come from
outside; on a machine of two cores it competes with the workers, so what it takes is told: all CPU columns are in cores.
Of the two ratios, both to one worker in the same round, the first is of calls per second as they came, with what
the load has taken away. The second is of what the same processes would do if the load came from another machine: so
many cores as there are workers (and cores), divided by the CPU time of a call, that of the parent included.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.contestants import ECHO_MODULE
from bench.payloads import MISSION_ID, MODULE_INPUT, SETUP_ID, START_MODULE, grpc_frame
from bench.processes import BenchError, Process, children_cpu_seconds, children_of, cpu_seconds
from bench.task_measure import MANY, slots

CONNECTIONS = 8
IN_FLIGHT = 8
WARM_UP_S = 0.5
SLACK_S = 30.0
AIM = 1.7

_DONE = re.compile(
    r"finished in ([\d.]+)(ms|s),.*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.DOTALL
)


@dataclass(frozen=True)
class Sample:
    """One round of one number of workers; CPU in cores."""

    rate: float
    workers: float
    parent: float
    load: float
    cores: int

    @property
    def us_per_call(self) -> float:
        """CPU time of a call, that of the parent included."""
        return (self.workers + self.parent) / self.rate * 1e6

    @property
    def alone(self) -> float:
        """Calls a second, if the load came from elsewhere."""
        return self.cores / self.us_per_call * 1e6


class Server:
    """`dk-trio serve` of the echo module, on whatever cores the system gives it."""

    def __init__(self, workers: int) -> None:
        argv = [sys.executable, "-m", "dk_trio", "serve", str(ECHO_MODULE), "--port", "0", "--grace", "0"]
        env = {**os.environ, **slots(MANY), "DIGITALKIN_ACCESS_LOG": "false", "DIGITALKIN_DATA_DIR": ":memory:"}
        self._process = Process([*argv, "--workers", str(workers)], core=None, env=env)
        self._workers = workers
        self._cores = min(workers, len(os.sched_getaffinity(0)))

    def __enter__(self) -> Self:
        self._process.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(None, None, None)

    def _cpu(self) -> tuple[float, float]:
        """CPU seconds of those who serve, and of the parent that hands connections out."""
        pid = self._process.pid
        if self._workers == 1:
            return cpu_seconds(pid), 0.0
        return sum(map(cpu_seconds, children_of(pid))), cpu_seconds(pid)

    def sample(self, body: Path, seconds: float) -> Sample:
        """One round. Raises BenchError when any call fails."""
        workers, parent, load = *self._cpu(), children_cpu_seconds()
        argv = ["h2load", f"-c{CONNECTIONS}", "-t1", f"-m{IN_FLIGHT}", f"-D{round(seconds * 1000)}ms", f"-d{body}"]
        argv += ["-w30", "-W30", "-Hcontent-type: application/grpc", "-Hte: trailers"]
        argv += [f"http://127.0.0.1:{self._process.port}{START_MODULE}"]
        began = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + SLACK_S, check=False)
        took = time.monotonic() - began
        workers_now, parent_now = self._cpu()
        found = _DONE.search(done.stdout)
        if found is None or any(map(int, found.groups()[3:])):
            raise BenchError(f"calls failed: {done.stdout[-1500:]}{done.stderr[-500:]}")
        return Sample(
            rate=int(found[3]) / float(found[1]) * (1000 if found[2] == "ms" else 1),
            workers=(workers_now - workers) / took,
            parent=(parent_now - parent) / took,
            load=(children_cpu_seconds() - load) / took,
            cores=self._cores,
        )


def request() -> bytes:
    """A StartModule with one output, framed."""
    from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleRequest
    from dk_trio.pb.google.protobuf import Struct

    message = StartModuleRequest(input=Struct.from_dict(MODULE_INPUT), setup_id=SETUP_ID, mission_id=MISSION_ID)
    return grpc_frame(bytes(message))


def measured(numbers: list[int], *, rounds: int, seconds: float) -> dict[int, list[Sample]]:
    """Samples of each number of workers, the order turned from round to round."""
    samples: dict[int, list[Sample]] = {number: [] for number in numbers}
    with ExitStack() as stack, tempfile.NamedTemporaryFile(prefix="dk-bench-") as file:
        file.write(request())
        file.flush()
        body = Path(file.name)
        servers = {number: stack.enter_context(Server(number)) for number in numbers}
        for server in servers.values():
            server.sample(body, WARM_UP_S)
        for index in range(rounds):
            for number in numbers if index % 2 == 0 else reversed(numbers):
                samples[number].append(servers[number].sample(body, seconds))
    return samples


def table(samples: dict[int, list[Sample]]) -> str:
    """Medians, and ratios to the first number of workers."""
    lines = ["workers  calls/s  workers' CPU  parent's  load's  us/call  ratio as it came  ratio, load elsewhere"]
    first = next(iter(samples.values()))
    for number, found in samples.items():
        columns = [statistics.median(getattr(it, name) for it in found) for name in ("workers", "parent", "load")]
        rate, cost = (statistics.median(getattr(it, name) for it in found) for name in ("rate", "us_per_call"))
        came, alone = (
            [getattr(it, name) / getattr(one, name) for it, one in zip(found, first, strict=True)]
            for name in ("rate", "alone")
        )
        lines.append(
            f"{number:7}  {rate:7,.0f}  {columns[0]:12.2f}  {columns[1]:8.2f}  {columns[2]:6.2f}  {cost:7.0f}  "
            f"{_spread(came):>16}  {_spread(alone):>21}"
        )
    return "\n".join(lines)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="numbers to compare")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in a round")
    parser.add_argument("--assert", action="store_true", dest="assert_aim", help="exit code 1 when the aim is missed")
    args = parser.parse_args()
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} cores, load average before {load}", flush=True)
    samples = measured(args.workers, rounds=args.rounds, seconds=args.seconds)
    print(table(samples))
    one, two = (samples.get(number, []) for number in (1, 2))
    if not one or not two:
        return 0
    ratio = statistics.median(b.alone / a.alone for a, b in zip(one, two, strict=True))
    print(f"\ntwo workers, load elsewhere: {ratio:.2f} times one's (aim: {AIM})")
    return int(args.assert_aim and ratio < AIM)


if __name__ == "__main__":
    sys.exit(main())
