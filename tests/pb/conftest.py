"""google.protobuf as the oracle: the same .proto files compiled for it, and random messages of every type."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = (
    *(
        f"agentic_mesh_protocol.{name}.v1"
        for name in (
            "cost", "filesystem", "module", "module_registry", "registry", "setup", "storage", "task_manager",
            "user_profile",
        )
    ),
    "dk_trio.provider.v1",
    "google.protobuf", "google.rpc", "grpc.health.v1", "grpc.reflection.v1", "grpc.reflection.v1alpha",
)  # fmt: skip


@pytest.fixture(scope="session")
def everything():
    """The generated package of tests/proto/dk_trio/test/v1."""
    return _test_packages()["dk_trio.test.v1"]


def _test_packages():
    from tests._pb.dk_trio.test import v1
    from tests._pb.grpc import testing

    return {"dk_trio.test.v1": v1, "grpc.testing": testing}


@pytest.fixture(scope="session")
def oracle(tmp_path_factory):
    """Full message name to google.protobuf class, in a descriptor pool of its own."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools compiles the .proto files for the oracle")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    out = tmp_path_factory.mktemp("oracle") / "descriptors.bin"
    roots = [ROOT / "proto", ROOT / "tests/proto"]
    protos = [str(path.relative_to(root)) for root in roots for path in sorted(root.rglob("*.proto"))]
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", *(f"-I{root}" for root in roots),
            "--include_imports", f"--descriptor_set_out={out}", *protos,
        ],
        check=True,
        timeout=60,
    )  # fmt: skip
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    top = message_factory.GetMessageClassesForFiles([file.name for file in files], pool)
    found = {}
    waiting = [cls.DESCRIPTOR for cls in top.values()]
    for descriptor in waiting:
        if not descriptor.GetOptions().map_entry:
            found[descriptor.full_name] = message_factory.GetMessageClass(descriptor)
            waiting.extend(descriptor.nested_types)
    return found


@pytest.fixture(scope="session")
def ours():
    """Full message name to our class."""
    for name in PACKAGES:
        importlib.import_module(f"dk_trio.pb.{name}")
    from tests._pb.message_pool import default_message_pool as test_pool

    from dk_trio.pb.message_pool import default_message_pool

    _test_packages()
    found = {}
    for pool in (default_message_pool, test_pool):
        found |= {url.removeprefix("type.googleapis.com/"): cls for url, cls in pool.url_to_type.items()}
    return found
