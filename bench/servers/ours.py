"""dk_trio.rpc with the compiled codec of dk_trio.pb, default options."""

from typing import Any

import trio
from grpclib.const import Cardinality, Handler

from bench import payloads
from bench.messages import ModuleReply, ModuleRequest, Reply, Request, Struct
from bench.servers import ServeArguments, arguments, ready
from dk_trio import rpc


class Service:
    async def unary(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(Reply(payload=request.payload))

    async def stream(self, stream: Any) -> None:
        request = await stream.recv_message()
        payload = b"x" * request.size
        for _ in range(request.count):
            await stream.send_message(Reply(payload=payload))

    async def hold(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(Reply())
        await trio.sleep_forever()

    async def start_module(self, stream: Any) -> None:
        request = await stream.recv_message()
        given = request.input.to_dict()
        assert given["root"]["protocol"] == "message"
        for index in range(payloads.MODULE_OUTPUTS):
            output = Struct.from_dict(payloads.module_output(index))
            await stream.send_message(ModuleReply(success=True, output=output, job_id=payloads.MODULE_JOB_ID))

    def __mapping__(self) -> dict[str, Handler]:
        return {
            payloads.UNARY: Handler(self.unary, Cardinality.UNARY_UNARY, Request, Reply),
            payloads.STREAM: Handler(self.stream, Cardinality.UNARY_STREAM, Request, Reply),
            payloads.HOLD: Handler(self.hold, Cardinality.UNARY_STREAM, Request, Reply),
            payloads.START_MODULE: Handler(self.start_module, Cardinality.UNARY_STREAM, ModuleRequest, ModuleReply),
        }


async def main(args: ServeArguments) -> None:
    listeners: list[Any] = list(await rpc.open_tcp_listeners(0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    if args.tls:
        listeners = list(rpc.tls_listeners(listeners, rpc.server_tls_context(args.certificate, args.key)))
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.Server([Service()]).serve, listeners)
        ready(port)


if __name__ == "__main__":
    trio.run(main, arguments())
