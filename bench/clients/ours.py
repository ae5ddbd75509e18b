"""dk_trio.rpc's channel with the compiled codec of dk_trio.pb, default options, called as a generated stub calls it."""

from collections.abc import AsyncIterator

import trio

from bench import payloads
from bench.clients import STREAM_COUNT, STREAM_SIZE, WARM_UP_S, ClientArguments, Tally, arguments
from bench.messages import Reply, Request
from dk_trio import rpc


class BenchStub(rpc.ServiceStub):
    async def unary(self, message: Request) -> Reply:
        return await self._unary_unary(payloads.UNARY, message, Reply)

    async def stream(self, message: Request) -> AsyncIterator[Reply]:
        async for reply in self._unary_stream(payloads.STREAM, message, Reply):
            yield reply


async def main(args: ClientArguments) -> None:
    tally = Tally()
    async with rpc.open_channel(f"127.0.0.1:{args.port}") as channel, trio.open_nursery() as nursery:
        stub = BenchStub(channel)

        async def unary() -> None:
            while True:
                reply = await stub.unary(Request(payload=payloads.UNARY_PAYLOAD))
                tally.unary(reply.payload)

        async def stream() -> None:
            while True:
                async for _ in stub.stream(Request(count=STREAM_COUNT, size=STREAM_SIZE)):
                    tally.message()

        for _ in range(args.in_flight):
            nursery.start_soon({"unary": unary, "stream": stream}[args.mode])
        await trio.sleep(WARM_UP_S)
        tally.begin()
        await trio.sleep(args.seconds)
        tally.report()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, arguments())
