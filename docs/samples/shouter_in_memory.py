"""A module and its caller in one process: no port, no operating system between them, no real time."""

import trio
import trio.testing
from shouter import Shouter

from dk_trio import ModuleClient, ModuleServer, rpc


async def shout(text: str) -> list[str]:
    """What the module answers, without the first and the last message that every stream has."""
    server = ModuleServer(Shouter)
    async with server.opened(), trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve_stream, theirs)
            return ours

        async with (
            rpc.open_channel("memory", connect=connect) as channel,
            ModuleClient(channel).start({"text": text}, protocol="shout", timeout=60) as outputs,
        ):
            roots = [output["root"] async for output in outputs]
        nursery.cancel_scope.cancel()
    return [root["text"] for root in roots[1:-1]]


if __name__ == "__main__":
    print(trio.run(shout, "hello wire", clock=trio.testing.MockClock(autojump_threshold=0)))
