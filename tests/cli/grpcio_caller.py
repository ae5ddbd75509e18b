"""A caller that is not ours: grpcio and google.protobuf. Prints what StartModule gives, one JSON object a line.

    python grpcio_caller.py HOST:PORT ROOT_AS_JSON [gzip]

The two messages are built from descriptors here, so that nothing of dk_trio takes part.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2

PACKAGE = "agentic_mesh_protocol.module.v1"


def messages() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(
        name="caller.proto", package=PACKAGE, syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    kind = descriptor_pb2.FieldDescriptorProto
    for name, fields in {
        "StartModuleRequest": [("input", None), ("setup_id", kind.TYPE_STRING), ("mission_id", kind.TYPE_STRING)],
        "StartModuleResponse": [("success", kind.TYPE_BOOL), ("output", None), ("job_id", kind.TYPE_STRING)],
    }.items():
        message = file.message_type.add(name=name)
        for number, (field, scalar) in enumerate(fields, 1):
            added = message.field.add(name=field, number=number, label=kind.LABEL_OPTIONAL)
            if scalar is None:
                added.type, added.type_name = kind.TYPE_MESSAGE, ".google.protobuf.Struct"
            else:
                added.type = scalar
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in ("StartModuleRequest", "StartModuleResponse")
    }


def main(address: str, root: str, *compression: str) -> None:
    types = messages()
    request = types["StartModuleRequest"](setup_id="setups:any", mission_id="missions:any")
    request.input.update({"root": json.loads(root)})
    with grpc.insecure_channel(address) as channel:
        start = channel.unary_stream(
            f"/{PACKAGE}.ModuleService/StartModule",
            request_serializer=types["StartModuleRequest"].SerializeToString,
            response_deserializer=types["StartModuleResponse"].FromString,
        )
        call = start(request, timeout=30, compression=grpc.Compression.Gzip if compression else None)
        try:
            for response in call:
                print(json.dumps(json_format.MessageToDict(response, preserving_proto_field_name=True)))
        except grpc.RpcError as error:
            print(json.dumps({"status": error.code().name, "details": error.details()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
