"""A caller that is not ours and behaves as the existing SDK's: grpcio, gzip, no module id, no deadline of StartModule.

    python grpcio_authoring.py DESCRIPTORS HOST:PORT < CALLS_AS_JSON

Each call is `[method, request, metadata]`. Prints, one JSON object a line, each response as google.protobuf reads it,
and then the status with its details as grpc_status.rpc_status takes them out of the trailers.
"""

import json
import sys
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"
DETAILS = "grpc-status-details-bin"
PATIENCE = 30.0


def tell(**facts: object) -> None:
    print(json.dumps(facts, allow_nan=False), flush=True)


class Caller:
    def __init__(self, channel: grpc.Channel, descriptors: bytes) -> None:
        self._channel = channel
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            self._pool.Add(file)
        self._service = self._pool.FindServiceByName(SERVICE)

    def call(self, name: str, request: dict[str, object], metadata: list[list[str]]) -> None:
        method = self._service.methods_by_name[name]
        types = [message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)]
        kind = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        stub = kind(
            f"/{SERVICE}/{name}",
            request_serializer=types[0].SerializeToString,
            response_deserializer=types[1].FromString,
        )
        arguments = {
            "compression": grpc.Compression.Gzip,
            "metadata": [(key, bytes.fromhex(value) if key.endswith("-bin") else value) for key, value in metadata],
        }
        message = json_format.ParseDict(request, types[0]())
        try:
            if method.server_streaming:
                answered = stub(message, **arguments)
                responses = answered
            else:
                response, answered = stub.with_call(message, timeout=PATIENCE, **arguments)
                responses = [response]
            for response in responses:
                tell(**json_format.MessageToDict(response, preserving_proto_field_name=True))
        except grpc.RpcError as error:
            answered = error
        tell(status=answered.code().name, message=answered.details(), details=self._details(answered))

    def _details(self, answered: grpc.Call) -> list[dict[str, object]]:
        """What grpc_status.rpc_status.from_call does, which is not installed everywhere."""
        for key, value in answered.trailing_metadata() or ():
            if key == DETAILS:
                kind = message_factory.GetMessageClass(self._pool.FindMessageTypeByName("google.rpc.Status"))
                status = kind.FromString(value)
                if (status.code, status.message) != (answered.code().value[0], answered.details()):
                    raise ValueError(f"the trailers and {DETAILS} say different things: {status}, {answered!r}")
                message = json_format.MessageToDict(status, descriptor_pool=self._pool)
                return message.get("details", [])
        return []


def main(descriptors: str, address: str) -> None:
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        caller = Caller(channel, Path(descriptors).read_bytes())
        for name, request, metadata in json.load(sys.stdin):
            caller.call(name, request, metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
