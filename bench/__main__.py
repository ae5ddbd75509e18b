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
from importlib import metadata
from pathlib import Path

from bench import cases, drivers, observe_measure, provider_measure, task_measure
from bench.processes import cores
from bench.protos import compile_protos
from bench.run import FULL, QUICK, Bench, Effort
from bench.table import verdicts


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
        f"medians of {effort.rounds} rounds of {effort.seconds} s (modules: of {effort.task_rounds}); "
        f"ratios are to {cases.YARDSTICK} in the same round\n"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes, and about as noisy as that sounds")
    parser.add_argument("--rounds", type=int, help="of every case, instead of what it has by default")
    parser.add_argument("--seconds", type=float, help="of load in a round")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the cases whose key contains TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples, medians and ratios to FILE")
    parser.add_argument("--assert", action="store_true", dest="assert_aims", help="exit code 1 when an aim is missed")
    return parser.parse_args()


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave the `with` blocks, so that every child is ended
    base = QUICK if args.quick else FULL
    effort = base.told(rounds=args.rounds, seconds=args.seconds)
    started = time.monotonic()
    print(heading(effort), flush=True)
    with tempfile.TemporaryDirectory(prefix="dk-bench-") as directory:
        compile_protos(Path(directory))
        bench = Bench(Path(directory), effort, args.only)
        bench.run()
        task_measure.measure(bench)
        observe_measure.measure(bench)
        provider_measure.measure(bench)
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
