"""What tests of calls to a provider stand on: a provider of which every reply is scripted, over memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message
from tests.rpc.wire_client import TestService

from dk_trio import rpc
from dk_trio.extensions import ALL, HONOURS, IDEMPOTENCY_KEY
from dk_trio.services.breaker import BreakerOptions
from dk_trio.services.provider_clients import provider_options
from dk_trio.services.query import ProviderQuery
from dk_trio.settings import ChannelSettings, QuerySettings

DAY = 86400
ROUTE = "/test.Service/unary"


class Steady(Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class ScriptedProvider:
    """Fails as `script` says, one entry for each call of `ROUTE`, the last one for ever; answers when it is empty.

    An entry is a status; "drop" applies the call and breaks the connection instead of replying; "lose" breaks it before
    the call is applied; "hang" never answers; a number of seconds is how long the good answer takes; None answers.
    """

    def __init__(self, script: list[Any] | None = None, *, honours: bool = True, health: bool = True) -> None:
        self.script = list(script or ())
        self.honours = honours
        self.calls: list[float] = []
        self.applied: Counter[str] = Counter()
        """Texts of requests that were applied, each once for each key where keys are honoured."""
        self.pushback: str | None = None
        self.details: list[Any] | None = None
        self.down = False
        self.connects = 0
        self.accepted = 0
        self._keys: set[str] = set()
        self._streams: list[trio.abc.Stream] = []
        self._healthy = health
        self.nursery: trio.Nursery
        self.restart(honours=honours)

    def restart(self, *, honours: bool) -> None:
        """From now on connections reach another server process."""
        self.honours = honours
        words = {HONOURS: ",".join(sorted(ALL))} if honours else {}
        services: list[Any] = [TestService(unary=self._serve, unary_aside=self._answer)]
        if self._healthy:
            services.append(rpc.Health())
        self.server = rpc.Server(services, options=rpc.ServerOptions(response_metadata=words))

    async def connect(self) -> trio.abc.Stream:
        self.connects += 1
        await trio.lowlevel.checkpoint()
        if self.down:
            raise OSError("connection refused")
        self.accepted += 1
        ours, theirs = trio.testing.memory_stream_pair()
        self._streams.append(ours)
        self.nursery.start_soon(self.server.serve_stream, theirs)
        return ours

    async def cut(self) -> None:
        streams, self._streams[:] = [*self._streams], []
        for stream in streams:
            await trio.aclose_forcefully(stream)

    async def _serve(self, stream: rpc.ServerCall) -> None:
        self.calls.append(trio.current_time())
        message = await stream.recv_message()
        step = self.script[0] if self.script else None
        if len(self.script) > 1:
            self.script.pop(0)
        if isinstance(step, Status):
            pushback = {} if self.pushback is None else {"grpc-retry-pushback-ms": self.pushback}
            text = f"scripted {step.name}"
            await stream.send_trailing_metadata(
                status=step, status_message=text, status_details=self.details, metadata=pushback
            )
            return
        if step == "lose":
            await self.cut()
            return
        if step == "hang":
            await trio.sleep_forever()
        if isinstance(step, int | float):
            await trio.sleep(step)
        key = stream.metadata.get(IDEMPOTENCY_KEY)
        if not (self.honours and key in self._keys):
            self.applied[message.text] += 1
            if self.honours and key is not None:
                self._keys.add(key)
        if step == "drop":
            await self.cut()
            return
        await self._reply(stream, message)

    async def _answer(self, stream: rpc.ServerCall) -> None:
        """A method that always works."""
        await self._reply(stream, await stream.recv_message())

    async def _reply(self, stream: rpc.ServerCall, message: Message) -> None:
        await stream.send_message(message)


@asynccontextmanager
async def scripted(
    *script: Any,
    honours: bool = True,
    health: bool = True,
    attempts: int = 5,
    retries: int = 2,
    timeout: float = 30.0,
    known: bool = True,
    breaker: BreakerOptions | None = None,
    seed: int | None = None,
    change: Callable[[rpc.ChannelOptions], rpc.ChannelOptions] = lambda options: options,
) -> AsyncIterator[tuple[ProviderQuery, ScriptedProvider]]:
    """A query and its provider. `known`: a first call has shown what is honoured. Afterwards nothing may be left."""
    provider = ScriptedProvider(list(script), honours=honours, health=health)
    options = change(provider_options(ChannelSettings(retry_max_attempts=attempts)))
    random = Steady() if seed is None else Random(seed)
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            provider.nursery = nursery
            channel = rpc.open_channel("provider:1", options=options, connect=provider.connect, random=random)
            async with channel:
                settings = QuerySettings(max_retries=retries, timeout=timeout)
                query = ProviderQuery(channel, settings, breaker=breaker, random=random)
                if known:
                    await query.read("/test.Service/unary_aside", Message(), Message)
                yield query, provider
                statistics = channel.statistics()
                assert (statistics.calls, statistics.waiting) == (0, 0)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


async def read(query: ProviderQuery, text: str = "", **arguments: Any) -> Message:
    return await query.read(ROUTE, Message(text=text), Message, **arguments)


async def write(query: ProviderQuery, text: str = "", **arguments: Any) -> Message:
    return await query.write(ROUTE, Message(text=text), Message, **arguments)


async def status_of(call: Any) -> Status:
    """What a query ends with."""
    try:
        await call
    except GRPCError as error:
        return error.status
    return Status.OK
