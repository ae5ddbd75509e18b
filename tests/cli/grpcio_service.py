"""A caller of any method that is not ours: grpcio, with the messages that the server's reflection describes.

    python grpcio_service.py HOST:PORT COMPRESSION METHOD REQUEST_AS_JSON [METHOD REQUEST_AS_JSON ...]

Makes the calls one after another, with the retries that callers of the existing SDK configure. Prints each response and
then the status of each call, one JSON object a line.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"
COMPRESSION = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
RETRIES = {
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


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def call(channel: grpc.Channel, method: object, request: str, compression: grpc.Compression) -> None:
    types = [message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)]
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub = kind(
        f"/{SERVICE}/{method.name}",
        request_serializer=types[0].SerializeToString,
        response_deserializer=types[1].FromString,
    )
    message = json_format.ParseDict(json.loads(request), types[0]())
    try:
        if method.server_streaming:
            answered = stub(message, timeout=30, compression=compression)
            responses = answered
        else:
            response, answered = stub.with_call(message, timeout=30, compression=compression)
            responses = [response]
        for response in responses:
            tell(**json_format.MessageToDict(response, preserving_proto_field_name=True))
    except grpc.RpcError as error:
        answered = error
    trailers = {key: value for key, value in answered.trailing_metadata() if key == "grpc-status-details-bin"}
    binary = trailers.get("grpc-status-details-bin", b"").hex()
    tell(status=answered.code().name, details=answered.details(), binary=binary)


def main(address: str, compression: str, *calls: str) -> None:
    options = [("grpc.service_config", json.dumps(RETRIES)), ("grpc.enable_retries", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName(SERVICE)
        for name, request in zip(calls[::2], calls[1::2], strict=True):
            call(channel, service.methods_by_name[name], request, COMPRESSION[compression])


if __name__ == "__main__":
    main(*sys.argv[1:])
