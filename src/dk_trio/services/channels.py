"""Channels that calls share: one for each target, made by its first user and closed some time after its last one.

A server owns one cache and opens it for its own lifetime. Its jobs lease channels from it; a lease only counts, so a
job that calls a module ten times connects once, and a thousand jobs that call the same module share that connection.

Each channel lives in a task of the cache, never in that of a job: whoever leaves, the others keep it. That task is
cancelled at a deadline, which is never while there are users, and `grace` seconds after the last one has left. A user
who comes in between moves the deadline away; one who comes when it has passed makes another channel.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, NamedTuple, Self, TypeAlias

import trio

from dk_trio import chance, rpc
from dk_trio.boundary import unwrapped
from dk_trio.rpc.notices import Notices
from dk_trio.security import ClientSecurity, exposed
from dk_trio.security.reload import RELOAD_INTERVAL
from dk_trio.services.registry import target_of

_log = logging.getLogger("dk_trio.security")

Connect: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes the byte stream to a server, in place of TCP."""

Dial: TypeAlias = Callable[[str], Awaitable[trio.abc.Stream]]
"""Makes the byte stream to a target, `HOST:PORT`, in place of TCP."""

# A module that is called now and then keeps its connection; a server that is gone is forgotten before anybody wonders.
GRACE: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCacheStatistics:
    """A snapshot of a cache.

    Attributes:
        channels: Open now.
        in_use: Of these, those that are leased.
        leases: Leases that were not given back.
        opened: Channels since the cache was made.
    """

    channels: int
    in_use: int
    leases: int
    opened: int


class _Key(NamedTuple):
    """Everything that makes two channels different."""

    target: str
    ssl_context: rpc.TLS
    options: rpc.ChannelOptions
    connect: Connect | None
    in_process: bool


@dataclass(slots=True, eq=False)
class _Shared:
    channel: rpc.Channel
    users: int = 0
    lifetime: trio.CancelScope = field(default_factory=trio.CancelScope)
    entered: trio.Event = field(default_factory=trio.Event)


class Lease:
    """The use of a channel, until `release`.

    Attributes:
        channel: The channel, which is open.
    """

    __slots__ = ("_grace", "_shared", "_token", "channel")

    def __init__(self, shared: _Shared, grace: float) -> None:
        self.channel = shared.channel
        self._shared: _Shared | None = shared
        self._grace = grace
        self._token = trio.lowlevel.current_trio_token()
        shared.users += 1
        shared.lifetime.deadline = inf

    def __repr__(self) -> str:
        return f"<Lease of {self.channel!r}{'' if self._shared else ', released'}>"

    def release(self) -> None:
        """Give the channel back. Doing it again does nothing."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.users -= 1
            if not shared.users:
                shared.lifetime.deadline = trio.current_time() + self._grace

    def abandon(self) -> None:
        """Release as soon as Trio can; for finalisers, which run at any time in any thread."""
        if self._shared is not None:
            try:
                self._token.run_sync_soon(self.release)
            except trio.RunFinishedError:
                return


class ChannelCache:
    """Shared channels, usable inside `async with cache.opened():` only.

    Args:
        options: Of channels that are not given their own.
        grace: Seconds that a channel without users stays open.
        interceptors: Around each call on each channel.
        security: What is shown to others: TLS, where a channel is not given its own or a `connect`, and interceptors,
            but not to servers of this process. None: nothing.
        dial: In place of TCP, for channels without a `connect` of their own.

    Attributes:
        tls: Of `security`.
        reload_interval: Seconds between two looks at the files of credentials, those of `security` and any others.
        id: Of the owner, whom servers that are called by his jobs are told.
    """

    def __init__(
        self,
        *,
        options: rpc.ChannelOptions | None = None,
        grace: float = GRACE,
        interceptors: Sequence[rpc.Interceptor] = (),
        security: ClientSecurity | None = None,
        dial: Dial | None = None,
    ) -> None:
        if not grace >= 0:
            raise ValueError(f"grace must not be negative, not {grace!r}")
        self.id = chance.new_uuid().hex[:16]
        self._options = options or rpc.ChannelOptions()
        self._grace = grace
        self.tls = None if security is None else security.tls
        self.reload_interval = RELOAD_INTERVAL if security is None else security.interval
        self._shown = () if security is None else tuple(security.interceptors)
        self._notices = Notices(_log)
        self._interceptors = tuple(interceptors)
        self._dial = dial
        self._channels: dict[_Key, _Shared] = {}
        self._nursery: trio.Nursery | None = None
        self._context: contextvars.Context
        self._opened = 0

    def __repr__(self) -> str:
        now = self.statistics()
        state = "" if self._nursery is not None else ", closed"
        return f"<ChannelCache {now.channels} channels, {now.in_use} in use{state}>"

    def statistics(self) -> ChannelCacheStatistics:
        """What is open now."""
        users = [shared.users for shared in self._channels.values()]
        return ChannelCacheStatistics(
            channels=len(users), in_use=sum(map(bool, users)), leases=sum(users), opened=self._opened
        )

    def warn(self, channel: rpc.Channel) -> None:
        """Tell, once for each server, that calls to it can be read on the way."""
        if text := exposed(channel):
            self._notices.say(logging.WARNING, channel.target, "plaintext", text)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Channels exist for the length of the block. At its end all are closed, and calls on them fail: CANCELLED."""
        if self._nursery is not None:
            raise RuntimeError("This ChannelCache is open already.")
        async with unwrapped(), trio.open_nursery() as nursery:
            self._nursery = nursery
            self._context = contextvars.copy_context()
            try:
                yield self
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel(reason="the channel cache was closed")

    @asynccontextmanager
    async def channel(
        self,
        address: str,
        port: int,
        *,
        ssl_context: rpc.TLS = None,
        options: rpc.ChannelOptions | None = None,
        connect: Connect | None = None,
    ) -> AsyncIterator[rpc.Channel]:
        """A channel to `address:port`, shared with all who ask for the same; see `lease`."""
        lease = await self.lease(address, port, ssl_context=ssl_context, options=options, connect=connect)
        try:
            yield lease.channel
        finally:
            lease.release()

    async def lease(
        self,
        address: str,
        port: int,
        *,
        ssl_context: rpc.TLS = None,
        options: rpc.ChannelOptions | None = None,
        connect: Connect | None = None,
        in_process: bool = False,
    ) -> Lease:
        """`channel` for those who cannot keep a block open; they owe a `release`. Connects with the first call.

        Args:
            address: Host name or IP address, or the whole target of a Unix socket (`unix:/path`).
            port: Its port.
            ssl_context: TLS as for `rpc.open_channel`; None is the cache's, False is plaintext in any case.
            options: Of the channel; those of the cache when None.
            connect: Makes the byte stream in place of TCP. `address` and `port` only name the server then.
            in_process: `connect` leads to a server of this process, which asks nobody in it who they are.

        Raises:
            ValueError: The address is not understood.
            RuntimeError: The cache is not open.
        """
        target = target_of(address, port)
        return await self.lease_target(
            target, ssl_context=ssl_context, options=options, connect=connect, in_process=in_process
        )

    async def lease_target(
        self,
        target: str,
        *,
        ssl_context: rpc.TLS = None,
        options: rpc.ChannelOptions | None = None,
        connect: Connect | None = None,
        in_process: bool = False,
    ) -> Lease:
        """`lease` by what `rpc.open_channel` calls a target."""
        nursery = self._nursery
        if nursery is None:
            raise RuntimeError("This ChannelCache is not open: use it inside `async with cache.opened():`.")
        if ssl_context is None and connect is None:
            ssl_context = self.tls
        key = _Key(target, ssl_context, options or self._options, connect, in_process)
        shared = self._channels.get(key)
        if shared is None or shared.lifetime.cancel_called:
            dial = self._dial
            channel = rpc.open_channel(
                key.target,
                options=key.options,
                ssl_context=ssl_context,
                connect=partial(dial, target) if connect is None and dial is not None else connect,
                interceptors=self._interceptors if in_process else (*self._interceptors, *self._shown),
            )
            self.warn(channel)
            shared = self._channels[key] = _Shared(channel)
            self._opened += 1
            # In the context of the cache's owner: the first user's must not live on in it.
            self._context.run(nursery.start_soon, self._keep, key, shared)
        lease = Lease(shared, self._grace)
        try:
            await shared.entered.wait()
        except BaseException:
            lease.release()
            raise
        return lease

    async def _keep(self, key: _Key, shared: _Shared) -> None:
        try:
            with shared.lifetime:
                async with shared.channel:
                    shared.entered.set()
                    await trio.sleep_forever()
        finally:
            shared.entered.set()
            if self._channels.get(key) is shared:
                del self._channels[key]
