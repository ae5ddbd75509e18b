"""The peers by name: how each is started, what it needs, and which cases it cannot do and why.

`dk` is this project; its client runs inside the tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.npm import Missing, installed

from .more_cases import CASES

HERE = Path(__file__).parent.parent
ROOT = HERE.parents[1]
PROTOS = ROOT / "tests" / "proto"
NODE = HERE / "node"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the peers of one test session share."""

    folder: Path
    """For sockets and logs."""
    roots: Path
    """Certificate of the CA."""
    certificate: Path
    key: Path
    """The servers' certificate chain, for localhost and 127.0.0.1, and its key."""
    environment: dict[str, str]


# What the official Ruby client can do, by its own names.
RUBY_CLIENT_CASES = frozenset({
    "empty_unary", "large_unary", "client_compressed_unary", "client_streaming", "client_compressed_streaming",
    "server_streaming", "ping_pong", "empty_stream", "cancel_after_begin", "cancel_after_first_response",
    "timeout_on_sleeping_server", "status_code_and_message", "unimplemented_method", "unimplemented_service",
    "custom_metadata",
})  # fmt: skip

CLIENT_EXEMPTIONS: dict[str, dict[str, str]] = {
    "grpcio-sync": {},
    "grpcio-aio": {
        "status_while_client_still_sends": "grpc.aio puts its own status in place of the server's when a write fails",
    },
    "ruby": {case: "the official client has no such case" for case in CASES if case not in RUBY_CLIENT_CASES},
    "grpc-js": {},
}

_NO_SLEEP = "the official server ignores interval_us"
_UNSTABLE = "the C core under Debian's Ruby aborts now and then when calls of one connection overlap or end early"
SERVER_EXEMPTIONS: dict[str, dict[str, str]] = {
    "dk": {},
    "grpcio-sync": {},
    "grpcio-aio": {},
    "ruby": {
        "cacheable_unary": "not implemented by the official server",
        "half_duplex": "broken in the official server: it passes one argument of two",
        "status_details": "the official server sends no details",
        "deadline_reaches_the_server": "the official server does not tell",
        "deadline_between_responses": _NO_SLEEP,
        "concurrent_large_unary": _UNSTABLE,
        "concurrent_streams": _UNSTABLE,
        "failure_after_responses": _UNSTABLE,
        "status_while_client_still_sends": _UNSTABLE,
        "binary_metadata": _UNSTABLE,
    },
    "grpc-js": {},
}


def server_command(name: str, bench: Bench) -> list[str]:
    """Return the command line of a server peer, or raise Missing."""
    pair = [str(bench.certificate), str(bench.key)]
    modules = {"dk": "dk_server", "grpcio-sync": "grpcio_server", "grpcio-aio": "grpcio_aio_server"}
    if name in modules:
        return [sys.executable, "-m", f"tests.interop.battery.{modules[name]}", *pair]
    if name == "ruby":
        return ["ruby", str(HERE / "ruby/interop_server.rb"), ruby_script("server.rb"), str(bench.folder), *pair]
    return ["node", str(installed(NODE) / "server.js"), str(PROTOS), str(bench.folder), *pair]


def client_command(name: str) -> list[str]:
    """Return the command line of a client peer, or raise Missing."""
    if name.startswith("grpcio-"):
        return [sys.executable, "-m", "tests.interop.battery.grpcio_client", name.removeprefix("grpcio-")]
    if name == "ruby":
        return ["ruby", str(HERE / "ruby/interop_client.rb"), ruby_script("client.rb")]
    return ["node", str(installed(NODE) / "client.js"), str(PROTOS)]


def ruby_script(name: str) -> str:
    """Return the path of gRPC's own interop script in the grpc gem."""
    if shutil.which("ruby") is None:
        raise Missing("ruby is not installed (Debian: ruby-grpc)")
    needs = 'require "grpc"; require "googleauth"; puts Gem.loaded_specs["grpc"].full_gem_path'
    found = subprocess.run(["ruby", "-e", needs], capture_output=True, text=True, timeout=60, check=False)
    if found.returncode:
        raise Missing(f"the grpc gem does not load (Debian: ruby-grpc): {found.stderr.strip()[-300:]}")
    script = Path(found.stdout.strip()) / "src/ruby/pb/test" / name
    if not script.exists():
        raise Missing(f"the grpc gem comes without its interop scripts: {script} is missing")
    return str(script)
