"""The clients under test. Each module is a program: it keeps calls in flight on a channel and prints a line of JSON."""

import argparse
import json
import time
from dataclasses import dataclass

from bench import payloads

WARM_UP_S = 0.3
STREAM_COUNT = 1000
STREAM_SIZE = 100


@dataclass(frozen=True)
class ClientArguments:
    """`mode` is unary or stream; `seconds` is the measured part, after the warm-up."""

    port: int
    mode: str
    in_flight: int
    seconds: float


def arguments() -> ClientArguments:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--mode", choices=["unary", "stream"], required=True)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    found = parser.parse_args()
    return ClientArguments(found.port, found.mode, found.in_flight, found.seconds)


class Tally:
    """Counts what the calls received between `begin()` and `report()`."""

    def __init__(self) -> None:
        self.units = 0
        self._before = 0
        self._wall = 0.0
        self._cpu = 0.0

    def unary(self, payload: bytes) -> None:
        assert payload == payloads.UNARY_PAYLOAD
        self.units += 1

    def message(self) -> None:
        self.units += 1

    def begin(self) -> None:
        self._before, self._wall, self._cpu = self.units, time.perf_counter(), time.process_time()

    def report(self) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(json.dumps({"units": self.units - self._before, "seconds": wall, "cpu_s": cpu}), flush=True)
