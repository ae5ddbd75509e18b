"""One call pattern against one server for a while: h2load, or our own raw driver where nghttp2 is not installed."""

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, python, run_pinned

SLACK_S = 30.0  # start, TLS handshake and tear-down of a driver on a busy machine
H2LOAD = re.compile(
    r"finished in ([\d.]+)(ms|s),.*?"
    r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout.*?"
    r"traffic:[^\n]*\((\d+)\) data",
    re.DOTALL,
)


@dataclass(frozen=True)
class Call:
    """What is called: HTTP/2 path, framed request body, and how many calls are kept in flight on one connection."""

    path: str
    body: bytes
    in_flight: int
    tls: bool = False


@dataclass(frozen=True)
class Load:
    """What came back: finished calls, bytes of DATA (also those of unfinished calls), seconds."""

    calls: int
    data: int
    seconds: float


def name() -> str:
    """The driver in use, for the head of the table."""
    return "h2load" if shutil.which("h2load") else "bench.raw_driver (h2load is not installed)"


def drive(port: int, call: Call, *, seconds: float, core: int) -> Load:
    """Keep `call.in_flight` calls going for `seconds`. Raises BenchError when any call fails."""
    with tempfile.NamedTemporaryFile(prefix="dk-bench-") as body:
        body.write(call.body)
        body.flush()
        if shutil.which("h2load"):
            return _h2load(port, call, Path(body.name), seconds=seconds, core=core)
        return _raw(port, call, Path(body.name), seconds=seconds, core=core)


def _h2load(port: int, call: Call, body: Path, *, seconds: float, core: int) -> Load:
    scheme = "https" if call.tls else "http"
    argv = ["h2load", "-c1", "-t1", f"-m{call.in_flight}", f"-D{round(seconds * 1000)}ms", f"-d{body}"]
    argv += ["-w30", "-W30"]  # its defaults, named: windows never limit a server, and are the same for all
    argv += ["-Hcontent-type: application/grpc", "-Hte: trailers", f"{scheme}://127.0.0.1:{port}{call.path}"]
    out = run_pinned(argv, core=core, timeout=seconds + SLACK_S)
    found = H2LOAD.search(out)
    if found is None:
        raise BenchError(f"h2load's report was not understood:\n{out[-1500:]}")
    took, unit, succeeded, failed, errored, timed_out, data = found.groups()
    if int(failed) or int(errored) or int(timed_out):
        raise BenchError(f"calls failed on {call.path}:\n{out[-1500:]}")
    return Load(int(succeeded), int(data), float(took) / (1000 if unit == "ms" else 1))


def _raw(port: int, call: Call, body: Path, *, seconds: float, core: int) -> Load:
    args = [port, call.path, "--body", body, "--in-flight", call.in_flight, "--seconds", seconds]
    argv = python("bench.raw_driver", *args, *(["--tls"] if call.tls else []))
    return Load(**json.loads(run_pinned(argv, core=core, timeout=seconds + SLACK_S)))
