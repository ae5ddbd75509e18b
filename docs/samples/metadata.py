"""Metadata: what travels beside the messages, in both directions."""

from greeter import HelloReply, HelloRequest
from grpclib.const import Cardinality

from dk_trio import rpc


async def greet(channel: rpc.Channel, name: str) -> tuple[str, dict[str, str | bytes]]:
    """Greet, and return the reply with the trailers. Values are text, those of names in `-bin` are bytes."""
    async with channel.request(
        "/greeter.v1.Greeter/Hello",
        Cardinality.UNARY_UNARY,
        HelloRequest,
        HelloReply,
        timeout=5,
        metadata={"x-tenant": "blue", "x-trace-bin": b"\x00\x01"},
    ) as stream:
        await stream.send_message(HelloRequest(name=name), end=True)
        reply = await stream.recv_message()
        assert reply is not None
        await stream.recv_trailing_metadata()
        return reply.text, dict(stream.trailing_metadata or {})
