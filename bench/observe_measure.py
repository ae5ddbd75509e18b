"""What it costs to see what a server does: the echo module with logs and metrics, with traces, and with none of them.

`QUIET` writes no access log and has no metrics. `QUIET_AGAIN` is the same, another process: how far its ratio is from 1
is the noise of the run. `WATCHED` is what an operator has: an access log as JSON on stderr and in a file, and metrics
that are scraped while the load is on. `TRACED` sends spans of every call to a collector that nobody runs.
"""

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench import payloads
from bench.cases import QUIET, QUIET_AGAIN, TRACED, WATCHED, ServerCase
from bench.contestants import serve_echo_module
from bench.drivers import Call
from bench.measure import rotate, server_sample
from bench.processes import Process, cores
from bench.run import WARM_UP_S, Bench
from bench.table import Measured, Sample, render
from bench.task_measure import MANY, slots
from bench.task_samples import Request, requests

IN_FLIGHT = (1, 64)
KEYS = {f"observe-{in_flight}": in_flight for in_flight in IN_FLIGHT}
SCRAPE_EVERY_S = 1.0  # Prometheus asks each 15 s
SCRAPE_TIMEOUT_S = 5.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def settings(directory: Path, metrics_port: int) -> dict[str, dict[str, str]]:
    """The environment of each contestant. A contestant whose package is not installed is left out."""
    quiet = slots(MANY) | {"DIGITALKIN_ACCESS_LOG": "false", "DIGITALKIN_LOG_LEVEL": "warning"}
    logs = directory / "logs"
    found = {
        QUIET: quiet,
        QUIET_AGAIN: quiet,
        WATCHED: slots(MANY)
        | {
            "DIGITALKIN_LOG_DIR": str(logs),
            "DIGITALKIN_LOG_FORMAT": "json",
            "DIGITALKIN_METRICS_PORT": str(metrics_port),
        },
    }
    logs.mkdir(exist_ok=True)
    if find_spec("opentelemetry") is not None:
        found[TRACED] = quiet | {"DIGITALKIN_TRACES_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    return found


@contextlib.contextmanager
def scraped(port: int) -> Iterator[None]:
    """Somebody asks for the metrics now and then."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(SCRAPE_EVERY_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SCRAPE_TIMEOUT_S) as answer:
                answer.read()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sample(env: dict[str, str], case: ServerCase, *, seconds: float, metrics_port: int | None) -> Sample:
    """Of a process of its own: two processes that do the same differ by more than what is measured here."""
    argv = serve_echo_module("--grace", "0")
    with (
        Process(argv, core=cores()[0], env=env) as process,
        contextlib.nullcontext() if metrics_port is None else scraped(metrics_port),
    ):
        server_sample(process, case, seconds=WARM_UP_S)
        return server_sample(process, case, seconds=seconds)


def case_of(key: str, request: Request) -> ServerCase:
    in_flight = KEYS[key]
    return ServerCase(
        key=key,
        title=f"module: what it costs to watch StartModule, {in_flight} in flight",
        call=Call(payloads.START_MODULE, request.body, in_flight),
        reply_bytes=request.answer_bytes,
    )


def measure(bench: Bench) -> None:
    wanted = [key for key in KEYS if bench.wanted(key)]
    if not wanted:
        return
    request = requests(bench.preflight("--tasks", bench.effort.steps))["start"]
    metrics_port = free_port()
    environments = {name: bench.env | env for name, env in settings(bench.directory, metrics_port).items()}
    for key in wanted:
        case = case_of(key, request)
        probes = {
            name: partial(
                sample,
                env,
                case,
                seconds=bench.effort.seconds,
                metrics_port=metrics_port if name == WATCHED else None,
            )
            for name, env in environments.items()
        }
        result = Measured(key, case.title, yardstick=QUIET)
        rotate(result, probes, rounds=bench.effort.rounds)
        bench.results.append(result)
        print(render(result), end="\n\n", flush=True)
