"""gRPC's own reflection client, a process of its own: `reflection_peer.py PORT` prints what it learnt as JSON."""

from __future__ import annotations

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> None:
    with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("agentic_mesh_protocol.module.v1.ModuleService")
        request = pool.FindMessageTypeByName("agentic_mesh_protocol.module.v1.StartModuleRequest")
        try:
            pool.FindMessageTypeByName("absent.Message")
            absent = "found"
        except KeyError:
            absent = "KeyError"
        learnt = {
            "services": sorted(database.get_services()),
            "methods": [method.name for method in service.methods],
            "fields": {field.name: field.number for field in request.fields},
            "extensions": list(database.FindAllExtensionNumbers("google.protobuf.Struct")),
            "absent": absent,
        }
    print(json.dumps(learnt))


if __name__ == "__main__":
    main()
