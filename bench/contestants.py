"""Who is measured, in what order they first run, and what each needs to be there at all."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.cases import OURS, YARDSTICK
from bench.processes import REPO, python

GRPCLIB = "grpclib"
ECHO_MODULE = REPO / "bench" / "echo_module.py"


@dataclass(frozen=True)
class Contestant:
    """`program` is the name of a module in bench/servers and of one in bench/clients."""

    name: str
    program: str
    needs: tuple[str, ...]

    def missing(self) -> str:
        """The first package that is not there, or an empty string."""
        return next((need for need in self.needs if not _found(need)), "")

    def server(self, *args: object) -> list[str]:
        return python(f"bench.servers.{self.program}", *args)

    def client(self, *args: object) -> list[str]:
        return python(f"bench.clients.{self.program}", *args)


CONTESTANTS = (
    Contestant(OURS, "ours", ("dk_trio.rpc", "dk_trio.pb")),
    Contestant(YARDSTICK, "grpc_aio", ("grpc", "google.protobuf", "grpc_tools")),
    Contestant(GRPCLIB, "asyncio_grpclib", ("grpclib", "google.protobuf", "grpc_tools")),
)


def serve_echo_module(*options: str) -> list[str]:
    """The real thing: the console script beside this interpreter, on a free port."""
    return [str(Path(sys.executable).with_name("dk-trio")), "serve", str(ECHO_MODULE), "--port", "0", *options]


def _found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
