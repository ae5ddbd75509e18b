"""The program behind `make bench`."""

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench import cases, drivers
from bench.contestants import CONTESTANTS, ECHO_MODULE, SERVED_MODULE, Contestant, serve_echo_module
from bench.measure import Probe, client_sample, memory_sample, rotate, server_sample
from bench.processes import BenchError, Process, cores, environment, python, run_pinned
from bench.protos import compile_protos
from bench.table import Measured, render, verdicts

PREFLIGHT_TIMEOUT_S = 60.0
WARM_UP_S = 0.3


@dataclass(frozen=True)
class Effort:
    """How many rounds, and seconds of load in each; memory is sampled in as many rounds as `memory_rounds` says."""

    rounds: int
    seconds: float
    memory_rounds: int


FULL = Effort(rounds=5, seconds=1.5, memory_rounds=5)
QUICK = Effort(rounds=3, seconds=0.3, memory_rounds=1)


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

    def finish(self, result: Measured, probes: dict[str, Probe], rounds: int) -> None:
        result.failures.update(self.absent)
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
            self.finish(Measured(case.key, case.title, case.unit), probes, self.effort.rounds)

    def server_probe(self, process: Process, case: cases.ServerCase) -> Probe:
        return lambda: server_sample(process, case, seconds=self.effort.seconds)

    def measure_module(self, running: dict[str, Process]) -> None:
        """The module-like call, with a served module beside it (which also validates, admits and runs a session)."""
        if not self.wanted(cases.MODULE_KEY):
            return
        case = cases.module(self.preflight("--module-body"))
        result = Measured(case.key, case.title)
        probes = {name: self.server_probe(process, case) for name, process in running.items()}
        with contextlib.ExitStack() as stack:
            if ECHO_MODULE.exists():
                try:
                    served = stack.enter_context(Process(serve_echo_module(), core=cores()[0], env=self.env))
                    body = self.preflight(served.port, "--echo-module")
                    probes[SERVED_MODULE] = self.server_probe(served, cases.module(body))
                except BenchError as error:
                    result.failures[SERVED_MODULE] = str(error)
            self.finish(result, probes, self.effort.rounds)

    def preflight(self, *args: object) -> bytes:
        """What bench.preflight printed: an encoded request, or nothing. Raises BenchError when a check fails."""
        argv = python("bench.preflight", *args)
        return bytes.fromhex(run_pinned(argv, core=cores()[1], timeout=PREFLIGHT_TIMEOUT_S, env=self.env))

    def measure_clients(self, running: dict[str, Process]) -> None:
        chosen = [case for case in cases.CLIENTS if self.wanted(case.key)]
        if not chosen:
            return
        with Process(python("bench.servers.canned"), core=cores()[0], env=self.env) as canned:
            for case in chosen:
                server = canned if case.server == cases.CANNED else running.get(case.server)
                if server is not None:
                    probes = {one.name: self.client_probe(one, server.port, case) for one in self.contestants}
                    self.finish(Measured(case.key, case.title, case.unit), probes, self.effort.rounds)

    def client_probe(self, one: Contestant, port: int, case: cases.ClientCase) -> Probe:
        argv = one.client(port, "--mode", case.mode, "--in-flight", case.in_flight, "--seconds", self.effort.seconds)
        return lambda: client_sample(argv, self.env, seconds=self.effort.seconds)

    def measure_memory(self) -> None:
        if self.wanted(cases.MEMORY_KEY):
            probes = {one.name: self.memory_probe(one) for one in self.contestants if one.name not in self.absent}
            result = Measured(cases.MEMORY_KEY, cases.MEMORY_TITLE, "stream")
            self.finish(result, probes, self.effort.memory_rounds)

    def memory_probe(self, one: Contestant) -> Probe:
        return lambda: memory_sample(one.server(), self.env)

    def run(self) -> None:
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


def heading(effort: Effort) -> str:
    versions = []
    for package in ("dk-trio", "grpcio", "grpclib", "protobuf", "trio"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    server, driver = cores()
    return (
        f"Python {platform.python_version()}, {', '.join(versions)}\n"
        f"driver {drivers.name()} on core {driver}, server on core {server}; load average {load}\n"
        f"medians of {effort.rounds} rounds of {effort.seconds} s; ratios are to {cases.YARDSTICK} in the same round\n"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute, and about as noisy as that sounds")
    parser.add_argument("--rounds", type=int, help="instead of 5 (3 with --quick)")
    parser.add_argument("--seconds", type=float, help="of load in a round")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the cases whose key contains TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples, medians and ratios to FILE")
    parser.add_argument("--assert", action="store_true", dest="assert_aims", help="exit code 1 when an aim is missed")
    return parser.parse_args()


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave the `with` blocks, so that every child is ended
    base = QUICK if args.quick else FULL
    rounds = args.rounds or base.rounds
    effort = Effort(rounds, args.seconds or base.seconds, min(rounds, base.memory_rounds))
    started = time.monotonic()
    print(heading(effort), flush=True)
    with tempfile.TemporaryDirectory(prefix="dk-bench-") as directory:
        compile_protos(Path(directory))
        bench = Bench(Path(directory), effort, args.only)
        bench.run()
    found = [verdict for verdict in verdicts(bench.results) if args.only in verdict.aim.case]
    print("\n".join(str(verdict) for verdict in found))
    print(f"\n{time.monotonic() - started:.0f} s")
    if args.json:
        report = {
            "heading": heading(effort),
            "aims": [{"text": str(verdict), "passed": verdict.passed} for verdict in found],
            "cases": [result.as_json() for result in bench.results],
        }
        args.json.write_text(json.dumps(report, indent=1))
    failed = any(result.failures for result in bench.results) or not all(verdict.passed for verdict in found)
    return 1 if args.assert_aims and failed else 0


if __name__ == "__main__":
    sys.exit(main())
