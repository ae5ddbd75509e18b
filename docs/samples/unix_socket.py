"""The same service on a Unix socket."""

from pathlib import Path

import trio
from greeter import GreeterStub, HelloRequest
from greeter_service import Greeter

from dk_trio import rpc


async def greet_over(path: Path) -> str:
    server = rpc.Server([Greeter()])
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [await rpc.open_unix_listener(path)])
        async with rpc.open_channel(f"unix:{path}") as channel:
            reply = await GreeterStub(channel).hello(HelloRequest(name="Ada"))
        nursery.cancel_scope.cancel()
    return reply.text
