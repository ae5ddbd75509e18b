"""Code around every call: the same shape on the server and on the client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from greeter_service import Greeter
from grpclib import GRPCError, Status

from dk_trio import rpc

TOKEN = "Bearer opensesame"


@asynccontextmanager
async def require_token(call: rpc.CallInfo) -> AsyncIterator[None]:
    """For a server: refuse calls without the token, before any handler sees them."""
    if call.metadata.get("authorization") != TOKEN:
        raise GRPCError(Status.UNAUTHENTICATED, "authorization is missing or wrong")
    yield


@asynccontextmanager
async def send_token(call: rpc.CallInfo) -> AsyncIterator[None]:
    """For a client: add the token to what is sent."""
    call.metadata["authorization"] = TOKEN
    yield


@asynccontextmanager
async def log_duration(call: rpc.CallInfo) -> AsyncIterator[None]:
    """For either side: one line for each call, with its seconds."""
    start = trio.current_time()
    try:
        yield
    finally:
        print(f"{call.side} {call.path} {trio.current_time() - start:.3f}")


server = rpc.Server([Greeter()], interceptors=[log_duration, require_token])


async def connect(target: str) -> None:
    async with rpc.open_channel(target, interceptors=[send_token]) as channel:
        await channel.ready()
