"""Who a server's services call: one `ProviderQuery` for each provider, shared by all jobs.

A server owns one `ProviderClients` and opens it for its own lifetime. Jobs come and go without opening or closing
anything: a channel is leased from the server's cache by the first query, connects with it, and is given back at the
end. What is learnt of a provider, its circuit breaker and what it honours, is thereby common to all who call it.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Any, Self

import trio

from dk_trio import rpc
from dk_trio.boundary import unwrapped
from dk_trio.client import channel_options
from dk_trio.settings import ChannelSettings, QuerySettings

from .breaker import BreakerOptions
from .channels import ChannelCache, Connect, Lease
from .client_config import ClientConfig, parse_client_config
from .keyed_locks import KeyedLocks
from .query import PROVIDER_THROTTLING, ProviderQuery, QueryStatistics


def provider_options(settings: ChannelSettings) -> rpc.ChannelOptions:
    """Options of a channel to a provider: those of every channel, a retry budget, and room to repeat what is large.

    Requests are not compressed: most have a few hundred bytes, which gzip makes hardly smaller and some tens of
    microseconds later, and a provider is near. `compression` of a `client_config` says otherwise, and replies may come
    compressed in any case.
    """
    options = channel_options(settings)
    assert options.retry is not None
    # A call keeps one reference to its serialised request for this, no copy.
    retry = replace(options.retry, throttling=PROVIDER_THROTTLING, buffer_bytes=options.max_send_message_bytes + 1)
    return replace(options, retry=retry)


class ProviderClients:
    """Queries to providers; usable inside `async with clients.opened():` only.

    Args:
        channels: Where channels come from; open for longer than this.
        target: The server's provider: `host:port`, `unix:/path`, ...
        channel_settings: Of all channels.
        query_settings: Of all queries.
        ssl_context: TLS to the server's provider, as for `rpc.open_channel`; None is that of `channels`.
        connect: Makes byte streams to the server's provider in place of TCP, for a provider in this process.
        breaker: Options of circuit breakers.
        random: Source of jitter.

    Attributes:
        locks: Of what jobs read and then write, where the contract has no call that does both.
    """

    def __init__(
        self,
        channels: ChannelCache,
        *,
        target: str,
        channel_settings: ChannelSettings | None = None,
        query_settings: QuerySettings | None = None,
        ssl_context: rpc.TLS = None,
        connect: Connect | None = None,
        breaker: BreakerOptions | None = None,
        random: Random | None = None,
    ) -> None:
        self.locks = KeyedLocks()
        self._channels = channels
        self._options = provider_options(channel_settings or ChannelSettings())
        self._settings = query_settings or QuerySettings()
        self._default = ClientConfig(target=target, options=self._options)
        self._ssl_context = ssl_context
        self._connect = connect
        self._breaker = breaker
        self._random = random
        # None is the server's own provider, which alone has `ssl_context` and `connect`.
        self._queries: dict[ClientConfig | None, ProviderQuery] = {}
        self._leases: dict[ClientConfig | None, Lease] = {}
        self._leasing = trio.Lock()
        self._open = False
        self._nursery: trio.Nursery | None = None
        self._context: contextvars.Context

    def __repr__(self) -> str:
        state = "" if self._open else ", closed"
        return f"<ProviderClients {self._default.target!r}, {len(self._queries)} providers{state}>"

    def statistics(self) -> Mapping[str, QueryStatistics]:
        """Target -> what was asked of it. Of two configurations with one target, the first."""
        told: dict[str, QueryStatistics] = {}
        for query in self._queries.values():
            told.setdefault(query.breaker.target, query.statistics())
        return MappingProxyType(told)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Queries can be made for the length of the block. At its end the channels are given back to their cache."""
        if self._open:
            raise RuntimeError("This ProviderClients is open already.")
        async with unwrapped(), trio.open_nursery() as self._nursery:
            self._open = True
            self._context = contextvars.copy_context()
            try:
                yield self
            finally:
                self._open = False
                self._queries.clear()
                while self._leases:
                    self._leases.popitem()[1].release()
                self._nursery.cancel_scope.cancel(reason="the clients of providers were closed")

    def query(self, client_config: Any = None) -> ProviderQuery:
        """Calls to one provider; the same object for the same configuration.

        Args:
            client_config: None is the server's provider; else see `client_config`.

        Raises:
            ConfigurationError: The configuration is not understood.
            RuntimeError: This is not open.
        """
        if not self._open:
            raise RuntimeError("This ProviderClients is not open: use it inside `async with clients.opened():`.")
        key = None if client_config is None else parse_client_config(client_config, defaults=self._options)
        if key == self._default and self._ssl_context is None:
            key = None
        query = self._queries.get(key)
        if query is None:
            # Read now, so that a wrong file is told to whoever named it, and not by some later call.
            tls = self._ssl_context if key is None else self._tls(key)
            query = self._queries[key] = ProviderQuery(
                partial(self._channel, key, tls),
                self._settings,
                target=(key or self._default).target,
                breaker=self._breaker,
                random=self._random,
            )
        return query

    def _tls(self, config: ClientConfig) -> rpc.TLS:
        if config.credentials is None:
            return False if config.plaintext else None
        files = config.credentials.reloaded(config.target)
        assert self._nursery is not None
        # In the context of the owner: the job that comes first must not live on in it.
        self._context.run(self._nursery.start_soon, files.watch, self._channels.reload_interval)
        return lambda: files.current

    async def _channel(self, key: ClientConfig | None, tls: rpc.TLS) -> rpc.Channel:
        async with self._leasing:
            lease = self._leases.get(key)
            if lease is None:
                if not self._open:
                    raise RuntimeError(f"{self!r}: its `async with` has ended.")
                config = key or self._default
                lease = await self._channels.lease_target(
                    config.target,
                    ssl_context=tls,
                    options=config.options,
                    connect=self._connect if key is None else None,
                )
                self._leases[key] = lease
        return lease.channel
