"""A minute in a millisecond: client and server over memory, on a virtual clock."""

import trio
import trio.testing
from greeter import GreeterStub, HelloRequest
from greeter_service import Greeter

from dk_trio import rpc


async def count_greetings(seconds: float) -> int:
    """How many greetings arrive within `seconds`, of a service that sends one a second."""
    server = rpc.Server([Greeter()])
    greetings = 0

    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve_stream, theirs)
            return ours

        async with rpc.open_channel("memory", connect=connect) as channel:
            with trio.move_on_after(seconds):
                async for _ in GreeterStub(channel).repeat(HelloRequest(name="Ada")):
                    greetings += 1
        nursery.cancel_scope.cancel()
    return greetings


if __name__ == "__main__":
    print(trio.run(count_greetings, 59.5, clock=trio.testing.MockClock(autojump_threshold=0)))
