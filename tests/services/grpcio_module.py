"""A module server of other make: grpcio, with the messages of our descriptors, behaving as the existing SDK does.

    python grpcio_module.py DESCRIPTORS

Prints its port. An input says by its protocol how its job goes on; at the end of each call its protocol is printed.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"


def handlers(descriptors: bytes) -> grpc.GenericRpcHandler:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    service = pool.FindServiceByName(SERVICE)

    def types(name: str) -> list[type]:
        method = service.methods_by_name[name]
        return [message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)]

    request_type, reply_type = types("StartModule")

    def answer(output: dict[str, object]) -> object:
        return json_format.ParseDict({"success": True, "job_id": "j1", "output": output}, reply_type())

    def start_module(request: object, context: grpc.ServicerContext) -> object:
        data = json_format.MessageToDict(request, preserving_proto_field_name=True)
        protocol = data["input"]["root"]["protocol"]
        left = threading.Event()
        context.add_callback(left.set)
        context.add_callback(lambda: print(protocol, flush=True))
        seconds = context.time_remaining()
        metadata = [
            [key, value.hex() if isinstance(value, bytes) else value] for key, value in context.invocation_metadata()
        ]
        told = {"metadata": [pair for pair in metadata if pair[0].startswith("my-")], "seconds": seconds}
        yield answer({"root": {"protocol": "module_start_info", "job_id": "j1"}})
        yield answer({"root": {"protocol": "told", **told, **data["input"]["root"]}})
        if protocol == "wait":
            left.wait(20)
            return
        if protocol == "fail":
            yield answer({"code": "Error", "message": "it broke", "short_description": "Module execution failed"})
            return
        yield answer({"root": {"protocol": "end_of_stream"}})
        if protocol == "silent":  # a forced cancel of the existing SDK: no trailers, for ever
            left.wait(20)

    def get_module_input(request: object, context: grpc.ServicerContext) -> object:
        reply = types("GetModuleInput")[1]
        return json_format.ParseDict({"success": True, "input_schema": {"llm": request.llm_format}}, reply())

    input_request, input_reply = types("GetModuleInput")
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "StartModule": grpc.unary_stream_rpc_method_handler(
                start_module, request_type.FromString, reply_type.SerializeToString
            ),
            "GetModuleInput": grpc.unary_unary_rpc_method_handler(
                get_module_input, input_request.FromString, input_reply.SerializeToString
            ),
        },
    )


def main(descriptors: str) -> None:
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((handlers(Path(descriptors).read_bytes()),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()  # until the test has gone
    server.stop(0).wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
