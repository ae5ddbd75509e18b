"""google.protobuf's classes for the test service, from a descriptor set that `protoc` made for this test session.

No generated modules: theirs would be named `grpc.testing`, below the `grpc` that is grpcio.
"""

import os
from pathlib import Path
from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS_VARIABLE = "DK_INTEROP_DESCRIPTORS"  # path of the descriptor set; the tests set it for their peers


def load() -> SimpleNamespace:
    """Return a namespace with the message classes of package grpc.testing."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(os.environ[DESCRIPTORS_VARIABLE]).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    classes = {}
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
        for name, descriptor in pool.FindFileByName(file.name).message_types_by_name.items():
            classes[name] = message_factory.GetMessageClass(descriptor)
    return SimpleNamespace(**classes)
