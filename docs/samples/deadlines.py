"""Two ways to limit a call; the shorter one counts."""

import trio
from greeter import GreeterStub, HelloRequest
from grpclib import GRPCError, Status


async def by_argument(stub: GreeterStub) -> None:
    """The timeout, in seconds, travels to the server and ends the call with a status."""
    try:
        async for reply in stub.repeat(HelloRequest(name="Ada"), timeout=2.5):
            print(reply.text)
    except GRPCError as error:
        if error.status is not Status.DEADLINE_EXCEEDED:
            raise
        print("deadline exceeded")


async def by_scope(stub: GreeterStub) -> None:
    """A cancel scope limits whatever is inside; what is left of it travels to the server too."""
    with trio.move_on_after(2.5) as scope:
        async for reply in stub.repeat(HelloRequest(name="Ada")):
            print(reply.text)
    if scope.cancelled_caught:
        print("moved on")
