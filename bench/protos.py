"""The peers' messages: `bench_pb2.py`, generated from bench.proto by grpc_tools for each run, never committed."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROTOC_TIMEOUT_S = 60


def compile_protos(directory: Path) -> None:
    """Write `bench_pb2.py` into `directory`, which child processes get on their PYTHONPATH."""
    argv = ["-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={directory}", "bench.proto"]
    subprocess.run([sys.executable, *argv], check=True, timeout=PROTOC_TIMEOUT_S)
