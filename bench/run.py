"""One run of the benchmark: the servers and clients of bench.proto, case by case."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench import cases
from bench.cases import SERVED_MODULE
from bench.contestants import CONTESTANTS, ECHO_MODULE, Contestant, serve_echo_module
from bench.measure import Probe, client_sample, memory_sample, rotate, server_sample
from bench.processes import BenchError, Process, cores, environment, python, run_pinned
from bench.table import Measured, render

PREFLIGHT_TIMEOUT_S = 60.0
WARM_UP_S = 0.3


@dataclass(frozen=True)
class Effort:
    """How many rounds, and seconds of load in each; what takes long has fewer rounds.

    `long_rounds` are those of the budget cases, whose tasks have `steps`, and of the case with `parked` sessions.
    """

    rounds: int
    seconds: float
    memory_rounds: int
    task_rounds: int
    long_rounds: int
    steps: int
    parked: int

    def told(self, *, rounds: int | None, seconds: float | None) -> "Effort":
        """With what was asked for on the command line; memory is never sampled more often than by default."""
        told = replace(self, seconds=seconds or self.seconds)
        if rounds is None:
            return told
        memory_rounds = min(rounds, self.memory_rounds)
        return replace(told, rounds=rounds, memory_rounds=memory_rounds, task_rounds=rounds, long_rounds=rounds)


FULL = Effort(rounds=5, seconds=1.5, memory_rounds=5, task_rounds=3, long_rounds=2, steps=15, parked=10_000)
QUICK = Effort(rounds=3, seconds=0.3, memory_rounds=1, task_rounds=1, long_rounds=1, steps=5, parked=2_000)


class Bench:
    """One run: the contestants that are there, the temporary files they share, and the results so far."""

    def __init__(self, directory: Path, effort: Effort, only: str = "") -> None:
        self.directory = directory
        self.effort = effort
        self.only = only
        self.results: list[Measured] = []
        self.absent = {one.name: f"{missing} is missing" for one in CONTESTANTS if (missing := one.missing())}
        self.contestants = [one for one in CONTESTANTS if one.name not in self.absent]
        self.env = environment(directory)

    def wanted(self, key: str) -> bool:
        return self.only in key

    @contextlib.contextmanager
    def servers(self, *args: object) -> Iterator[dict[str, Process]]:
        """A running, preflighted server of each contestant; one that does not start or answers wrongly is left out."""
        with contextlib.ExitStack() as stack:
            running = {}
            for one in self.contestants:
                try:
                    process = stack.enter_context(Process(one.server(*args), core=cores()[0], env=self.env))
                    self.preflight(process.port, *args[:2])
                    running[one.name] = process
                except BenchError as error:
                    self.absent[one.name] = str(error)
            yield running

    def finish(self, result: Measured, probes: Mapping[str, Probe], rounds: int, absent: dict[str, str]) -> None:
        result.failures.update(absent)
        if probes:
            rotate(result, probes, rounds=rounds)
        self.results.append(result)
        print(render(result), end="\n\n", flush=True)

    def measure_servers(self, chosen: tuple[cases.ServerCase, ...], running: dict[str, Process]) -> None:
        for case in chosen:
            if not self.wanted(case.key):
                continue
            probes = {name: self.server_probe(process, case) for name, process in running.items()}
            for process in running.values():
                with contextlib.suppress(BenchError):  # what fails here fails again, and is reported, in the rounds
                    server_sample(process, case, seconds=WARM_UP_S)
            self.finish(Measured(case.key, case.title, case.unit), probes, self.effort.rounds, self.absent)

    def server_probe(self, process: Process, case: cases.ServerCase) -> Probe:
        return lambda: server_sample(process, case, seconds=self.effort.seconds)

    def measure_module(self, running: dict[str, Process]) -> None:
        """The module-like call, with a served module beside it (which also validates, admits and runs a session)."""
        if not self.wanted(cases.MODULE_KEY):
            return
        case = cases.module(bytes.fromhex(self.preflight("--module-body")))
        result = Measured(case.key, case.title)
        probes = {name: self.server_probe(process, case) for name, process in running.items()}
        with contextlib.ExitStack() as stack:
            if ECHO_MODULE.exists():
                try:
                    served = stack.enter_context(Process(serve_echo_module(), core=cores()[0], env=self.env))
                    body = bytes.fromhex(self.preflight(served.port, "--echo-module"))
                    probes[SERVED_MODULE] = self.server_probe(served, cases.module(body))
                except BenchError as error:
                    result.failures[SERVED_MODULE] = str(error)
            self.finish(result, probes, self.effort.rounds, self.absent)

    def preflight(self, *args: object) -> str:
        """What bench.preflight printed: an encoded request, or nothing. Raises BenchError when a check fails."""
        argv = python("bench.preflight", *args)
        return run_pinned(argv, core=cores()[1], timeout=PREFLIGHT_TIMEOUT_S, env=self.env)

    def measure_clients(self, running: dict[str, Process]) -> None:
        chosen = [case for case in cases.CLIENTS if self.wanted(case.key)]
        if not chosen:
            return
        with Process(python("bench.servers.canned"), core=cores()[0], env=self.env) as canned:
            for case in chosen:
                server = canned if case.server == cases.CANNED else running.get(case.server)
                if server is not None:
                    probes = {one.name: self.client_probe(one, server.port, case) for one in self.contestants}
                    self.finish(Measured(case.key, case.title, case.unit), probes, self.effort.rounds, self.absent)

    def client_probe(self, one: Contestant, port: int, case: cases.ClientCase) -> Probe:
        argv = one.client(port, "--mode", case.mode, "--in-flight", case.in_flight, "--seconds", self.effort.seconds)
        return lambda: client_sample(argv, self.env, seconds=self.effort.seconds)

    def measure_memory(self) -> None:
        if self.wanted(cases.MEMORY_KEY):
            probes = {one.name: self.memory_probe(one) for one in self.contestants if one.name not in self.absent}
            result = Measured(cases.MEMORY_KEY, cases.MEMORY_TITLE, "stream")
            self.finish(result, probes, self.effort.memory_rounds, self.absent)

    def memory_probe(self, one: Contestant) -> Probe:
        return lambda: memory_sample(one.server(), self.env)

    def run(self) -> None:
        shared = [cases.MODULE_KEY, *(case.key for case in cases.PLAIN), *(case.key for case in cases.CLIENTS)]
        if any(map(self.wanted, shared)):
            with self.servers() as running:
                self.measure_servers(cases.PLAIN, running)
                self.measure_module(running)
                self.measure_clients(running)
        if any(self.wanted(case.key) for case in cases.TLS):
            with self.servers("--certificate", *certificate(self.directory)) as running:
                self.measure_servers(cases.TLS, running)
        self.measure_memory()


def certificate(directory: Path) -> tuple[Path, str, Path]:
    """A fresh self-signed certificate for localhost, as arguments after `--certificate`."""
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = directory / "certificate.pem", directory / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems) + authority.cert_pem.bytes())
    key.write_bytes(leaf.private_key_pem.bytes())
    return chain, "--key", key
