"""grpclib's channel on asyncio with google.protobuf (upb), default options."""

import asyncio
import os
import sys

import bench_pb2
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from bench import payloads
from bench.clients import STREAM_COUNT, STREAM_SIZE, WARM_UP_S, ClientArguments, Tally, arguments


async def main(args: ClientArguments) -> None:
    tally = Tally()
    channel = Channel("127.0.0.1", args.port)
    echo = UnaryUnaryMethod(channel, payloads.UNARY, bench_pb2.Request, bench_pb2.Reply)
    feed = UnaryStreamMethod(channel, payloads.STREAM, bench_pb2.Request, bench_pb2.Reply)

    async def unary() -> None:
        while True:
            reply = await echo(bench_pb2.Request(payload=payloads.UNARY_PAYLOAD))
            tally.unary(reply.payload)

    async def stream() -> None:
        while True:
            async with feed.open() as call:
                await call.send_message(bench_pb2.Request(count=STREAM_COUNT, size=STREAM_SIZE), end=True)
                async for _ in call:
                    tally.message()

    tasks = [asyncio.create_task({"unary": unary, "stream": stream}[args.mode]()) for _ in range(args.in_flight)]
    done, _ = await asyncio.wait(tasks, timeout=WARM_UP_S, return_when=asyncio.FIRST_EXCEPTION)
    tally.begin()
    if not done:
        done, _ = await asyncio.wait(tasks, timeout=args.seconds, return_when=asyncio.FIRST_EXCEPTION)
    for failed in done:
        failed.result()
    tally.report()
    sys.stdout.flush()
    os._exit(0)  # cancelled grpclib streams log tracebacks on the way out; nothing of value is left


if __name__ == "__main__":
    asyncio.run(main(arguments()))
