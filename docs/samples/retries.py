"""Which failed calls the channel repeats by itself, and whether calls wait for a server that is not there."""

from greeter import GreeterStub, HelloRequest
from grpclib import Status

from dk_trio import rpc

OPTIONS = rpc.ChannelOptions(
    retry=rpc.RetryPolicy(
        max_attempts=4,
        initial_backoff=0.1,  # seconds: 0.1, 0.2, 0.4, each with 20 % of jitter
        statuses=frozenset({Status.UNAVAILABLE}),
    ),
    wait_for_ready=True,  # a call that finds no server waits for one until its deadline
)


async def greet(target: str) -> str:
    async with rpc.open_channel(target, options=OPTIONS) as channel:
        reply = await GreeterStub(channel).hello(HelloRequest(name="Ada"), timeout=10)
    return reply.text
