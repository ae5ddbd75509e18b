"""One sample of one server in one of the task cases, from what the programs of bench/tasks print."""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import payloads, task_messages
from bench.cases import CPU_US, DRIVER_BUSY, KIB_EACH, MEAN_MS, OVERHEAD_MS, P50_MS, P99_MS, PER_MINUTE
from bench.drivers import SLACK_S
from bench.processes import Process, children_cpu_seconds, cores, python, run_pinned
from bench.table import Sample
from bench.tasks.together import LIMIT_S

SETTLE_S = 1.0  # for thousands of sessions to get from their first message to their sleep
CHECK_BODY = payloads.grpc_frame(b"")
CHECK_ANSWER = payloads.grpc_frame(task_messages.SERVING)


@dataclass(frozen=True)
class Request:
    """A framed StartModule request, and how many bytes its answer has, framed."""

    body: bytes
    answer_bytes: int


def requests(printed: str) -> dict[str, Request]:
    """By case, from what the preflight prints."""
    found = json.loads(printed)
    return {
        name: Request(payloads.grpc_frame(bytes.fromhex(one["body"])), one["answer_bytes"])
        for name, one in found.items()
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latencies(seconds: Sequence[float]) -> Sample:
    return {P50_MS: quantile(seconds, 0.5) * 1000, P99_MS: quantile(seconds, 0.99) * 1000}


def budget(took: Sequence[float], *, ideal_s: float, seconds: float) -> Sample:
    """Tasks that take `ideal_s` each when nothing else runs, and took `seconds` together."""
    mean = fmean(took)
    return {
        MEAN_MS: mean * 1000,
        OVERHEAD_MS: (mean - ideal_s) * 1000,
        PER_MINUTE: len(took) / seconds * 60,
    }


@contextmanager
def file_of(body: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="dk-bench-") as file:
        file.write(body)
        file.flush()
        yield Path(file.name)


def driven(program: str, process: Process, body: bytes, *args: object, timeout: float) -> dict[str, Any]:
    """What a program of bench/tasks says after driving a server. Raises BenchError when it fails."""
    with file_of(body) as path:
        argv = python(f"bench.tasks.{program}", process.port, "--body", path, *args)
        found: dict[str, Any] = json.loads(run_pinned(argv, core=cores()[1], timeout=timeout, env=process.env))
    return found


def one_by_one(process: Process, path: str, request: Request, *, seconds: float) -> Sample:
    args = ("--path", path, "--seconds", seconds, "--expected", request.answer_bytes)
    return latencies(driven("one_by_one", process, request.body, *args, timeout=seconds + SLACK_S)["took"])


def latency_sample(process: Process, request: Request, *, seconds: float) -> Sample:
    return one_by_one(process, payloads.START_MODULE, request, seconds=seconds)


def budget_sample(process: Process, request: Request, *, tasks: int, steps: int) -> Sample:
    ideal_s = steps * task_messages.STEP_S
    args = ("--tasks", tasks, "--spread", ideal_s / 2, "--expected", request.answer_bytes)
    before, driver_before, began = process.cpu_seconds(), children_cpu_seconds(), time.monotonic()
    found = driven("together", process, request.body, *args, timeout=LIMIT_S + SLACK_S)
    cpu, driver_cpu = process.cpu_seconds() - before, children_cpu_seconds() - driver_before
    return {
        **budget(found["took"], ideal_s=ideal_s, seconds=found["seconds"]),
        CPU_US: cpu / tasks * 1e6,
        DRIVER_BUSY: driver_cpu / (time.monotonic() - began),
    }


def parked_sample(argv: list[str], env: dict[str, str], request: Request, *, count: int, seconds: float) -> Sample:
    """Memory of a session that sleeps, and how long a health check takes beside `count` of them."""
    server_core, driver_core = cores()
    with file_of(request.body) as body, Process(argv, core=server_core, env=env) as server:
        raw = python("bench.raw_driver", server.port, payloads.START_MODULE, "--body", body, "--hold", count)
        check = Request(CHECK_BODY, len(CHECK_ANSWER))
        one_by_one(server, task_messages.HEALTH_CHECK, check, seconds=0.1)  # what it imports and caches is no session's
        with Process(raw, core=driver_core, env=env, announces="OPEN ") as holder:
            time.sleep(SETTLE_S)
            before = server.rss_bytes()
            holder.go_on()
            time.sleep(SETTLE_S)
            grown = server.rss_bytes() - before
            lag = one_by_one(server, task_messages.HEALTH_CHECK, check, seconds=seconds)
            return {KIB_EACH: grown / (count - 1) / 1024, **lag}


def cancel_sample(process: Process, request: Request, *, tasks: int, mode: str, log: Path) -> Sample:
    """Latency of cancels, or, when their slots are filled again, of the new calls' first messages."""
    args = ("--tasks", tasks, "--mode", mode, "--log", log)
    found = driven("cancel", process, request.body, *args, timeout=SLACK_S)
    return latencies(found["answered"] or found["took"])
