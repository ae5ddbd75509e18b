"""The task cases: a served bench/echo_module.py beside bare grpc.aio that answers the same StartModule.

Everything here is `dk-trio serve` with all that it does for a call: parsing, validation, admission, a session, cleanup.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping

from bench import payloads, task_messages
from bench.cases import SERVED_MODULE, YARDSTICK, ServerCase
from bench.contestants import serve_echo_module
from bench.drivers import Call
from bench.measure import Probe, server_sample
from bench.processes import BenchError, Process, cores, python
from bench.run import WARM_UP_S, Bench
from bench.table import Measured, Sample
from bench.task_samples import (
    Request,
    budget_sample,
    cancel_sample,
    latency_sample,
    parked_sample,
    requests,
)
from bench.tasks.cancel import MODES

STARTS_IN_FLIGHT = (1, 16, 64, 200)
STREAMS_IN_FLIGHT = (1, 4)
BUDGETS = (200, 800, 2000)
CANCELLED = 200
LAG_S = 2.0

LATENCY_KEY = "start-latency"
PARKED_KEY = "parked"
CANCELS = {
    "burst": f"module: cancel of {CANCELLED} sessions at once",
    "spread": f"module: cancel of {CANCELLED} sessions, one by one within a second",
    "refill": f"module: first message of {CANCELLED} calls behind {CANCELLED} cancels, with {CANCELLED} slots",
}

START_KEYS = tuple(f"start-{in_flight}" for in_flight in STARTS_IN_FLIGHT)
STREAM_KEYS = tuple(f"start-stream-{task_messages.STREAM_OUTPUTS}-{in_flight}" for in_flight in STREAMS_IN_FLIGHT)
BUDGET_KEYS = tuple(f"budget-{tasks}" for tasks in BUDGETS)
CANCEL_KEYS = tuple(f"cancel-{mode}" for mode in MODES)
RUNNING_KEYS = (*START_KEYS, *STREAM_KEYS, LATENCY_KEY, *BUDGET_KEYS)  # cases that share one pair of servers

MANY = 20_000  # more than any case has at the same time: admission is passed, not the subject
CONTESTANTS = {SERVED_MODULE: serve_echo_module("--grace", "0"), YARDSTICK: python("bench.servers.grpc_aio_tasks")}


def slots(count: int) -> dict[str, str]:
    """The environment of a server with so many task slots and no queue before them."""
    return {
        "DIGITALKIN_MAX_CONCURRENT_RPCS": str(MANY),
        "DIGITALKIN_MAX_CONCURRENT_TASKS": str(count),
        "DIGITALKIN_MAX_QUEUED_TASKS": "0",
    }


def starts(request: Request) -> list[ServerCase]:
    return [
        ServerCase(
            key=key,
            title=f"module: StartModule with one output, {in_flight} in flight",
            call=Call(payloads.START_MODULE, request.body, in_flight),
            reply_bytes=request.answer_bytes,
        )
        for key, in_flight in zip(START_KEYS, STARTS_IN_FLIGHT, strict=True)
    ]


def streams(request: Request) -> list[ServerCase]:
    count = task_messages.STREAM_OUTPUTS + 2
    return [
        ServerCase(
            key=key,
            title=f"module: StartModule with {task_messages.STREAM_OUTPUTS:,} outputs, {in_flight} in flight",
            call=Call(payloads.START_MODULE, request.body, in_flight),
            messages=count,
            reply_bytes=request.answer_bytes / count,
            unit="message",
        )
        for key, in_flight in zip(STREAM_KEYS, STREAMS_IN_FLIGHT, strict=True)
    ]


class TaskBench:
    """The task cases of one run."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.effort = bench.effort
        self.absent: dict[str, str] = {}

    def run(self) -> None:
        if not self.wanted(*RUNNING_KEYS, PARKED_KEY, *CANCEL_KEYS):
            return
        asked = requests(self.bench.preflight("--tasks", self.effort.steps))
        if self.wanted(*RUNNING_KEYS):
            with self.servers(dict.fromkeys(CONTESTANTS, slots(MANY))) as running:
                for case in (*starts(asked["start"]), *streams(asked["stream"])):
                    if self.wanted(case.key):
                        self.measure_server(case, running)
                if self.wanted(LATENCY_KEY):
                    self.measure_latency(asked["start"], running)
                for key, tasks in zip(BUDGET_KEYS, BUDGETS, strict=True):
                    if self.wanted(key):
                        self.measure_budget(asked["steps"], running, key, tasks)
        if self.wanted(PARKED_KEY):
            self.measure_parked(asked["parked"])
        if self.wanted(*CANCEL_KEYS):
            self.measure_cancels(asked["parked"])

    def wanted(self, *keys: str) -> bool:
        return any(self.bench.wanted(key) for key in keys)

    @contextlib.contextmanager
    def servers(self, settings: dict[str, dict[str, str]]) -> Iterator[dict[str, Process]]:
        """A running, checked server of each contestant; one that does not start or answers otherwise is left out."""
        with contextlib.ExitStack() as stack:
            running = {}
            for name, argv in CONTESTANTS.items():
                try:
                    process = stack.enter_context(Process(argv, core=cores()[0], env=self.bench.env | settings[name]))
                    self.bench.preflight(process.port, "--tasks", self.effort.steps)
                    running[name] = process
                except BenchError as error:
                    self.absent[name] = str(error)
            yield running

    def finish(self, result: Measured, probes: Mapping[str, Probe], rounds: int) -> None:
        self.bench.finish(result, probes, rounds, self.absent)

    def measure(
        self, result: Measured, running: dict[str, Process], sample: Callable[[Process], Sample], rounds: int
    ) -> None:
        probes = {name: functools.partial(sample, process) for name, process in running.items()}
        self.finish(result, probes, rounds)

    def measure_server(self, case: ServerCase, running: dict[str, Process]) -> None:
        for process in running.values():
            with contextlib.suppress(BenchError):  # what fails here fails again, and is reported, in the rounds
                server_sample(process, case, seconds=WARM_UP_S)
        sample = functools.partial(server_sample, case=case, seconds=self.effort.seconds)
        self.measure(Measured(case.key, case.title, case.unit), running, sample, self.effort.task_rounds)

    def measure_latency(self, request: Request, running: dict[str, Process]) -> None:
        result = Measured(LATENCY_KEY, "module: time of a StartModule with one output, one after the other")
        sample = functools.partial(latency_sample, request=request, seconds=self.effort.seconds)
        self.measure(result, running, sample, self.effort.task_rounds)

    def measure_budget(self, request: Request, running: dict[str, Process], key: str, tasks: int) -> None:
        steps, step_ms = self.effort.steps, task_messages.STEP_S * 1000
        title = f"module: {tasks:,} tasks at a time, each {steps} outputs and {steps} times {step_ms:.0f} ms of waiting"
        sample = functools.partial(budget_sample, request=request, tasks=tasks, steps=steps)
        self.measure(Measured(key, title, "task"), running, sample, self.effort.long_rounds)

    def measure_parked(self, request: Request) -> None:
        count = self.effort.parked
        env = self.bench.env | slots(MANY)
        probes = {
            name: functools.partial(parked_sample, argv, env, request, count=count, seconds=LAG_S)
            for name, argv in CONTESTANTS.items()
        }
        title = f"module: {count:,} parked sessions, and a health check beside them"
        self.finish(Measured(PARKED_KEY, title, "session"), probes, self.effort.long_rounds)

    def measure_cancels(self, request: Request) -> None:
        logs = {name: self.bench.directory / f"{name}.events" for name in CONTESTANTS}
        for log in logs.values():
            log.touch()
        settings = {name: slots(CANCELLED) | {"BENCH_EVENT_LOG": str(log)} for name, log in logs.items()}
        with self.servers(settings) as running:
            for key, mode in zip(CANCEL_KEYS, MODES, strict=True):
                if self.wanted(key):
                    probes = {
                        name: functools.partial(
                            cancel_sample, process, request, tasks=CANCELLED, mode=mode, log=logs[name]
                        )
                        for name, process in running.items()
                    }
                    for probe in probes.values():
                        with contextlib.suppress(BenchError):  # a first cancel imports and caches; see measure_server
                            probe()
                    self.finish(Measured(key, CANCELS[mode]), probes, self.effort.task_rounds)


def measure(bench: Bench) -> None:
    TaskBench(bench).run()
