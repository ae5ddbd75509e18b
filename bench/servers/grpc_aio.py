"""The yardstick: grpc.aio (C core) with google.protobuf (upb), default options."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bench_pb2
import grpc
from google.protobuf import json_format, struct_pb2

from bench import payloads
from bench.servers import ServeArguments, arguments, ready


async def unary(request: Any, context: Any) -> Any:
    return bench_pb2.Reply(payload=request.payload)


async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
    payload = b"x" * request.size
    for _ in range(request.count):
        yield bench_pb2.Reply(payload=payload)


async def hold(request: Any, context: Any) -> AsyncIterator[Any]:
    yield bench_pb2.Reply()
    await asyncio.Event().wait()


async def start_module(request: Any, context: Any) -> AsyncIterator[Any]:
    given = json_format.MessageToDict(request.input)
    assert given["root"]["protocol"] == "message"
    for index in range(payloads.MODULE_OUTPUTS):
        output = struct_pb2.Struct()
        output.update(payloads.module_output(index))
        yield bench_pb2.ModuleReply(success=True, output=output, job_id=payloads.MODULE_JOB_ID)


def handlers() -> list[grpc.GenericRpcHandler]:
    def streaming(behaviour: Any, request_type: Any, reply_type: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(
            behaviour,
            request_deserializer=request_type.FromString,
            response_serializer=reply_type.SerializeToString,
        )

    echo = grpc.unary_unary_rpc_method_handler(
        unary,
        request_deserializer=bench_pb2.Request.FromString,
        response_serializer=bench_pb2.Reply.SerializeToString,
    )
    bench = {
        "Unary": echo,
        "Stream": streaming(stream, bench_pb2.Request, bench_pb2.Reply),
        "Hold": streaming(hold, bench_pb2.Request, bench_pb2.Reply),
    }
    module = {"StartModule": streaming(start_module, bench_pb2.ModuleRequest, bench_pb2.ModuleReply)}
    return [
        grpc.method_handlers_generic_handler(payloads.UNARY.split("/")[1], bench),
        grpc.method_handlers_generic_handler(payloads.START_MODULE.split("/")[1], module),
    ]


async def main(args: ServeArguments) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(handlers()))
    if args.tls:
        pair = (Path(args.key).read_bytes(), Path(args.certificate).read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(port)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
