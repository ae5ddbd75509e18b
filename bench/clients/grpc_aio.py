"""The yardstick: grpc.aio's channel (C core) with google.protobuf (upb), default options."""

import asyncio

import bench_pb2
import grpc

from bench import payloads
from bench.clients import STREAM_COUNT, STREAM_SIZE, WARM_UP_S, ClientArguments, Tally, arguments


async def main(args: ClientArguments) -> None:
    tally = Tally()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{args.port}") as channel:
        serialize, parse = bench_pb2.Request.SerializeToString, bench_pb2.Reply.FromString
        echo = channel.unary_unary(payloads.UNARY, serialize, parse)
        feed = channel.unary_stream(payloads.STREAM, serialize, parse)

        async def unary() -> None:
            while True:
                reply = await echo(bench_pb2.Request(payload=payloads.UNARY_PAYLOAD))
                tally.unary(reply.payload)

        async def stream() -> None:
            while True:
                async for _ in feed(bench_pb2.Request(count=STREAM_COUNT, size=STREAM_SIZE)):
                    tally.message()

        tasks = [asyncio.create_task({"unary": unary, "stream": stream}[args.mode]()) for _ in range(args.in_flight)]
        done, _ = await asyncio.wait(tasks, timeout=WARM_UP_S, return_when=asyncio.FIRST_EXCEPTION)
        tally.begin()
        if not done:
            done, _ = await asyncio.wait(tasks, timeout=args.seconds, return_when=asyncio.FIRST_EXCEPTION)
        for failed in done:
            failed.result()
        tally.report()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(arguments()))
