"""The same service over TLS; gRPC needs HTTP/2, which both ends agree on by ALPN."""

import ssl

import trio
from greeter import GreeterStub, HelloRequest
from greeter_service import Greeter

from dk_trio import rpc


async def serve(
    certificate: str, key: str, port: int = 50051, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED
) -> None:
    context = rpc.server_tls_context(certificate, key)
    listeners = rpc.tls_listeners(await rpc.open_tcp_listeners(port, host="127.0.0.1"), context)
    await rpc.Server([Greeter()]).serve(listeners, task_status=task_status)


async def greet(target: str, authority: str) -> str:
    """Call a server whose certificate is signed by the authority of this PEM file."""
    context = ssl.create_default_context(cafile=authority)
    async with rpc.open_channel(target, ssl_context=context) as channel:
        reply = await GreeterStub(channel).hello(HelloRequest(name="Ada"))
    return reply.text
