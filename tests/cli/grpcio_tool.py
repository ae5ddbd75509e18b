"""A tool that is not ours and behaves as modules of the existing SDK do: grpcio's server, gzip, bare job ids.

    python grpcio_tool.py DESCRIPTORS

Prints its port, then what each call came with, and in the end of each job how it ended, one JSON object a line. The
protocol of an input says how its job goes on.
"""

import json
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

SERVICE = "agentic_mesh_protocol.module.v1.ModuleService"
PROTOCOLS = ("echo", "fail", "refuse", "plain", "silent", "wait")
HUNG = 20.0  # seconds after which a test has failed anyway


def input_schema() -> dict[str, object]:
    """With references, as the existing SDK leaves them in whatever it is asked for."""
    names = {protocol: f"{protocol.title()}Input" for protocol in PROTOCOLS}
    health = {"HealthcheckPingInput": "healthcheck_ping"}
    definitions = {
        name: {
            "title": name,
            "description": f"Does {protocol}.",
            "type": "object",
            "properties": {
                "protocol": {"const": protocol, "default": protocol, "type": "string"},
                "created_at": {"type": "string"},
                "n": {"type": "integer", "minimum": 1, "default": 3},
                "options": {"$ref": "#/$defs/Options"},
            },
            "required": ["n"],
        }
        for protocol, name in names.items()
    }
    definitions |= {
        name: {"title": name, "type": "object", "properties": {"protocol": {"const": protocol, "type": "string"}}}
        for name, protocol in health.items()
    }
    options = {"title": "Options", "type": "object", "properties": {"deep": {"type": "string", "maxLength": 10}}}
    union = [{"$ref": f"#/$defs/{name}"} for name in definitions]
    return {
        "$defs": {**definitions, "Options": options},
        "properties": {"root": {"oneOf": union, "discriminator": {"propertyName": "protocol"}}},
        "required": ["root"],
        "title": "ToolInputUtilities",
        "type": "object",
    }


def documents(name: str, *, llm_format: bool) -> dict[str, object]:
    if name == "cost":
        return {"calls": {"name": "calls", "type": "API_CALL", "description": "", "unit": "call", "rate": 2}}
    schema = input_schema() if name == "input" else {"type": "object", "properties": {}}
    return {"json_schema": schema} if llm_format else schema


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


class Tool:
    def __init__(self, descriptors: bytes) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            self._pool.Add(file)
        self._methods = self._pool.FindServiceByName(SERVICE).methods_by_name

    def handlers(self) -> grpc.GenericRpcHandler:
        table = {f"GetModule{name.title()}": self._schema(name) for name in ("input", "output", "setup", "cost")}
        request, reply = self._types("StartModule")
        table["StartModule"] = grpc.unary_stream_rpc_method_handler(
            self._start, request.FromString, reply.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, table)  # the others are UNIMPLEMENTED

    def _types(self, method: str) -> list[type]:
        found = self._methods[method]
        return [message_factory.GetMessageClass(kind) for kind in (found.input_type, found.output_type)]

    def _schema(self, name: str) -> grpc.RpcMethodHandler:
        request_type, reply_type = self._types(f"GetModule{name.title()}")

        def answer(request: object, context: grpc.ServicerContext) -> object:
            document = documents(name, llm_format=request.llm_format)
            return json_format.ParseDict({"success": True, f"{name}_schema": document}, reply_type())

        return grpc.unary_unary_rpc_method_handler(answer, request_type.FromString, reply_type.SerializeToString)

    def _start(self, request: object, context: grpc.ServicerContext) -> object:
        reply = self._types("StartModule")[1]
        job_id = str(uuid.uuid4())
        left = threading.Event()
        context.add_callback(left.set)
        root = json_format.MessageToDict(request.input)["root"]
        metadata = [(key, value) for key, value in context.invocation_metadata() if not key.startswith("grpc-")]
        tell(
            root=root,
            ids=[request.setup_id, request.mission_id],
            metadata=[[key, value.hex() if isinstance(value, bytes) else value] for key, value in metadata],
            seconds=context.time_remaining(),
        )

        def message(output: dict[str, object]) -> object:
            return json_format.ParseDict({"success": True, "output": output, "job_id": job_id}, reply())

        system = {"role": "system"}
        yield message({"root": {"protocol": "module_start_info", "job_id": job_id}, "annotations": system})
        if root["protocol"] == "refuse":
            yield reply(success=False)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "[ModuleServicer.StartModule] no such input")
        if root["protocol"] == "fail":
            yield message({"code": "Error", "message": "it broke", "short_description": "Module execution failed"})
            return
        if root["protocol"] == "wait":
            tell(waiting=True)  # a caller that leaves before grpcio asks for more ends this generator, untold
            left.wait(HUNG)
            tell(ended=root["protocol"], active=context.is_active())
            return
        for number in range(int(root.get("n", 1))):
            yield message({"root": {"protocol": "echoed", "number": number}, "annotations": {}})
        if root["protocol"] != "plain":
            yield message({"root": {"protocol": "end_of_stream"}, "annotations": system})
        if root["protocol"] == "silent":  # a forced cancel of the existing SDK: no trailers, for ever
            left.wait(HUNG)
            tell(ended=root["protocol"], active=context.is_active())


def main(descriptors: str) -> None:
    server = grpc.server(ThreadPoolExecutor(8), compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers((Tool(Path(descriptors).read_bytes()).handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tell(port=port)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
