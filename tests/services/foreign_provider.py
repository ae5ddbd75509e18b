"""A services-provider that is not ours: it honours nothing beyond the contract, and each of its answers is scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.services.channels import ChannelCache
from dk_trio.services.provider_clients import ProviderClients
from dk_trio.settings import ChannelSettings, QuerySettings

IDS = ("missions:m", "setups:s", "setup_versions:v")
Answer = Callable[[Any], Awaitable[Any]]


@dataclass
class Foreign:
    """What it was asked, and how it is reached.

    Attributes:
        clients: For strategies.
        requests: Method and request, in the order of calls.
        down: Nobody answers the telephone.
    """

    clients: ProviderClients
    requests: list[tuple[str, Any]] = field(default_factory=list)
    down: bool = False

    def asked(self, method: str) -> list[Any]:
        return [request for name, request in self.requests if name == method]


def replies(*steps: Any) -> Answer:
    """Gives one reply after the other, the last one for ever; a status is a failure."""
    left = [*steps]

    async def answer(_: Any) -> Any:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, Status):
            raise GRPCError(step, f"scripted {step.name}")
        if isinstance(step, Exception):
            raise step
        return step

    return answer


@asynccontextmanager
async def foreign(base: type, *more: tuple[type, dict[str, Answer]], **answers: Answer) -> AsyncIterator[Foreign]:
    """Serve `base` with these answers by method, and the services of `more` with theirs."""

    def service(kind: type, methods: dict[str, Answer]) -> Any:
        def method(name: str, answer: Answer) -> Any:
            async def serve(_: Any, message: Any) -> Any:
                it.requests.append((name, message))
                return await answer(message)

            return serve

        return type("Scripted", (kind,), {name: method(name, answer) for name, answer in methods.items()})()

    server = rpc.Server([service(base, answers), *(service(kind, methods) for kind, methods in more)])

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if it.down:
            raise OSError("connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(server.serve_stream, theirs)
        return ours

    with trio.fail_after(86400):
        async with trio.open_nursery() as nursery, ChannelCache().opened() as channels:
            clients = ProviderClients(
                channels,
                target="elsewhere:7",
                channel_settings=ChannelSettings(retry_max_attempts=1),
                query_settings=QuerySettings(max_retries=0),
                connect=connect,
            )
            it = Foreign(clients)
            async with clients.opened():
                yield it
            nursery.cancel_scope.cancel()
