"""A client of the provider that is not ours: grpcio, as the existing SDK configures it, with messages by reflection.

    python grpcio_client.py HOST:PORT COMPRESSION < CALLS

CALLS is a JSON list of `[PACKAGE, METHOD, REQUEST, METADATA]`. Makes them one after another; prints for each a line of
JSON with reply, initial metadata and status.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

COMPRESSION = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
SERVICES = {
    "storage": "StorageService",
    "cost": "CostService",
    "filesystem": "FilesystemService",
    "user_profile": "UserProfileService",
    "task_manager": "TaskManagerService",
    "registry": "RegistryService",
    "module_registry": "ModuleRegistryService",
    "setup": "SetupService",
    "provider": "ProviderService",
}
OPTIONS = {
    "grpc.max_receive_message_length": 100 * 1024 * 1024,
    "grpc.max_send_message_length": 100 * 1024 * 1024,
    "grpc.enable_retries": 1,
    "grpc.service_config": json.dumps(
        {
            "methodConfig": [
                {
                    "name": [{}],
                    "retryPolicy": {
                        "maxAttempts": 5,
                        "initialBackoff": "0.1s",
                        "maxBackoff": "10s",
                        "backoffMultiplier": 2.0,
                        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"],
                    },
                }
            ]
        }
    ),
}


def main(address: str, compression: str) -> None:
    with grpc.insecure_channel(address, options=list(OPTIONS.items()), compression=COMPRESSION[compression]) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        for package, name, request, metadata in json.load(sys.stdin):
            ours = package == "provider"
            service = f"{'dk_trio' if ours else 'agentic_mesh_protocol'}.{package}.v1.{SERVICES[package]}"
            method = pool.FindServiceByName(service).methods_by_name[name]
            request_type, reply_type = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
            stub = channel.unary_unary(
                f"/{service}/{name}",
                request_serializer=request_type.SerializeToString,
                response_deserializer=reply_type.FromString,
            )
            message = json_format.ParseDict(request, request_type())
            told = {}
            try:
                reply, call = stub.with_call(message, timeout=30, metadata=list(metadata.items()))
                told["reply"] = json_format.MessageToDict(reply, preserving_proto_field_name=True)
                told["initial"] = dict(call.initial_metadata())
            except grpc.RpcError as error:
                call = error
                details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
                told["details"] = details.hex()
                told["message"] = error.details()
            print(json.dumps(told | {"status": call.code().name}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
