"""A TCP relay that counts: what two peers say to each other is theirs, how much of it there was is seen here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio


@dataclass
class Tap:
    """Bytes that have passed, and where clients connect."""

    port: int
    to_server: int = 0
    to_client: int = 0


@asynccontextmanager
async def open_tap(server_port: int) -> AsyncIterator[Tap]:
    """Relay a free loopback port to `server_port` until the block is left."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tap = Tap(listeners[0].socket.getsockname()[1])

    async def serve(client: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server_port) as server, trio.open_nursery() as nursery:

            async def forward() -> None:
                async for chunk in client:
                    tap.to_server += len(chunk)
                    await server.send_all(chunk)
                await server.send_eof()

            nursery.start_soon(forward)
            async for chunk in server:
                tap.to_client += len(chunk)
                await client.send_all(chunk)
            nursery.cancel_scope.cancel()

    async def guarded(client: trio.SocketStream) -> None:
        try:
            await serve(client)
        except* (trio.BrokenResourceError, OSError):
            pass  # either end may go without a word

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, guarded, listeners)
        yield tap
        nursery.cancel_scope.cancel()
