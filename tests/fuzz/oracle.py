"""google.protobuf's classes of our messages, compiled in this process: a fuzzer has no fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("Scalars", "Optionals", "Lists", "Maps", "Choice", "Tree", "WellKnown")


def google_classes(folder: Path) -> dict[str, Any]:
    """Those of the messages of the tests, and of Struct, by their names; `folder` is for what the compiler writes."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from grpc_tools import protoc

    proto, out = ROOT / "tests/proto", folder / "descriptors.bin"
    files = [str(path.relative_to(proto)) for path in sorted(proto.glob("dk_trio/test/v1/*.proto"))]
    well_known = Path(protoc.__file__).with_name("_proto")
    arguments = ["", f"-I{proto}", f"-I{ROOT / 'proto'}", f"-I{well_known}", "--include_imports"]
    if protoc.main([*arguments, f"--descriptor_set_out={out}", *files]):
        raise RuntimeError("protoc has failed")
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    names = {name: f"dk_trio.test.v1.{name}" for name in TESTS} | {"Struct": "google.protobuf.Struct"}
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full)) for name, full in names.items()}
