"""grpclib on asyncio with google.protobuf (upb), default options."""

import asyncio
import ssl
from typing import Any

import bench_pb2
from google.protobuf import json_format, struct_pb2
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from bench import payloads
from bench.servers import ServeArguments, arguments, ready


class Service:
    async def unary(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(bench_pb2.Reply(payload=request.payload))

    async def stream(self, stream: Any) -> None:
        request = await stream.recv_message()
        payload = b"x" * request.size
        for _ in range(request.count):
            await stream.send_message(bench_pb2.Reply(payload=payload))

    async def hold(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(bench_pb2.Reply())
        await asyncio.Event().wait()

    async def start_module(self, stream: Any) -> None:
        request = await stream.recv_message()
        given = json_format.MessageToDict(request.input)
        assert given["root"]["protocol"] == "message"
        for index in range(payloads.MODULE_OUTPUTS):
            output = struct_pb2.Struct()
            output.update(payloads.module_output(index))
            await stream.send_message(bench_pb2.ModuleReply(success=True, output=output, job_id=payloads.MODULE_JOB_ID))

    def __mapping__(self) -> dict[str, Handler]:
        request, reply = bench_pb2.Request, bench_pb2.Reply
        module = (bench_pb2.ModuleRequest, bench_pb2.ModuleReply)
        return {
            payloads.UNARY: Handler(self.unary, Cardinality.UNARY_UNARY, request, reply),
            payloads.STREAM: Handler(self.stream, Cardinality.UNARY_STREAM, request, reply),
            payloads.HOLD: Handler(self.hold, Cardinality.UNARY_STREAM, request, reply),
            payloads.START_MODULE: Handler(self.start_module, Cardinality.UNARY_STREAM, *module),
        }


async def main(args: ServeArguments) -> None:
    context = None
    if args.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.certificate, args.key)
        context.set_alpn_protocols(["h2"])
    server: Any = Server([Service()])
    await server.start("127.0.0.1", 0, ssl=context)
    ready(server._server.sockets[0].getsockname()[1])
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
