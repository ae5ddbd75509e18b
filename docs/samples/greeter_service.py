"""The service of all samples: one method of each cardinality."""

from collections.abc import AsyncIterator

import trio
from greeter import GreeterBase, HelloReply, HelloRequest


class Greeter(GreeterBase):
    async def hello(self, message: HelloRequest) -> HelloReply:
        return HelloReply(text=f"Hello, {message.name}")

    async def repeat(self, message: HelloRequest) -> AsyncIterator[HelloReply]:
        while True:
            yield HelloReply(text=f"Hello, {message.name}")
            await trio.sleep(1)

    async def together(self, messages: AsyncIterator[HelloRequest]) -> HelloReply:
        names = [message.name async for message in messages]
        return HelloReply(text=f"Hello, {' and '.join(names)}")

    async def each(self, messages: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloReply]:
        async for message in messages:
            yield HelloReply(text=f"Hello, {message.name}")
