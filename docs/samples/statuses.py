"""Refuse a call with a status, and read the status at the caller's side."""

from greeter import GreeterBase, GreeterStub, HelloReply, HelloRequest
from grpclib import GRPCError, Status


class Greeter(GreeterBase):
    async def hello(self, message: HelloRequest) -> HelloReply:
        if not message.name:
            raise GRPCError(Status.INVALID_ARGUMENT, "name is empty")
        return HelloReply(text=f"Hello, {message.name}")


async def greet(stub: GreeterStub, name: str) -> str:
    try:
        reply = await stub.hello(HelloRequest(name=name))
    except GRPCError as error:
        return f"{error.status.name}: {error.message}"
    return reply.text
