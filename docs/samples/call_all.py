"""Call the four methods of a generated stub."""

from contextlib import aclosing

import trio
from greeter import GreeterStub, HelloRequest

from dk_trio import rpc

NAMES = [HelloRequest(name="Ada"), HelloRequest(name="Grace")]


async def main(target: str = "127.0.0.1:50051") -> None:
    async with rpc.open_channel(target) as channel:
        stub = GreeterStub(channel)

        reply = await stub.hello(HelloRequest(name="Ada"), timeout=5)
        print(reply.text)

        async with aclosing(stub.repeat(HelloRequest(name="Ada"))) as replies:
            async for reply in replies:
                print(reply.text)
                break  # leaving the block cancels the call

        reply = await stub.together(NAMES)
        print(reply.text)

        async with aclosing(stub.each(NAMES)) as replies:
            async for reply in replies:
                print(reply.text)


if __name__ == "__main__":
    trio.run(main)
