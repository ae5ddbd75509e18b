"""A server's ends of its services-provider: calls of its jobs' services, signals, setups, and its own registration.

Signals have a connection of their own: a file of 100 MB that a job uploads must not stand before another job's cancel.

Nothing here waits for the provider: a server starts, serves and stops without it. What cannot be done meanwhile is
told where it matters: a job's service raises UNAVAILABLE, a setup that is not cached is UNAVAILABLE to its caller,
signals are kept, and the server is not ready until the registry has taken it for the first time.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from dk_trio import rpc
from dk_trio.addresses import EVERYWHERE
from dk_trio.boundary import unwrapped
from dk_trio.client import channel_options
from dk_trio.registration import Registration, RegistrationStatus
from dk_trio.services.channels import ChannelCache, Connect
from dk_trio.services.provider_clients import ProviderClients
from dk_trio.services.query import QueryStatistics
from dk_trio.services.registry import ModuleInfo
from dk_trio.services.remote.registry import GrpcRegistry
from dk_trio.settings import Settings
from dk_trio.signals import RemoteSignals, RemoteSignalsStatistics

_log = logging.getLogger("dk_trio.provider_link")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLinkStatistics:
    """A snapshot of a server's ends of its provider.

    Attributes:
        target: `HOST:PORT` of the provider.
        registration: Where the server's own registration stands, that which stands worst when it has several modules;
            None outside of `registered`.
        signals: What went out and came in.
        queries: Calls of services by provider, with retries and circuit breakers.
    """

    target: str
    registration: RegistrationStatus | None
    signals: RemoteSignalsStatistics
    queries: Mapping[str, QueryStatistics]


class ProviderLink:
    """Owned by a server in remote mode.

    Args:
        settings: Of the server.
        channels: The server's channels, with the TLS of all that it calls.
        connect: Opens the byte stream to the provider, in place of TCP.
        interceptors: Around each call to it.

    Attributes:
        target: `HOST:PORT` of the provider.
        clients: Calls to it, and to other providers that a module names with `client_config`.
        signals: What jobs are told and tell.
        stays: Whether the registrations are left when this ends, since other processes serve on at the address.
    """

    def __init__(
        self,
        settings: Settings,
        channels: ChannelCache,
        *,
        connect: Connect | None = None,
        interceptors: Sequence[rpc.Interceptor] = (),
    ) -> None:
        self._settings = settings
        self._channels = channels
        self.target = settings.services.provider
        self.clients = ProviderClients(
            channels,
            target=self.target,
            channel_settings=settings.channel,
            query_settings=settings.query,
            connect=connect,
        )
        self._channel = rpc.open_channel(
            self.target,
            options=channel_options(settings.channel),
            ssl_context=channels.tls if connect is None else None,
            connect=connect,
            interceptors=interceptors,
        )
        self.signals = RemoteSignals(self._channel, settings.signals)
        self.stays = False
        self._registrations: dict[str, Registration] = {}

    def __repr__(self) -> str:
        registered = ", ".join(map(repr, self._registrations.values())) or "not registered"
        return f"<ProviderLink to {self.target}, {registered}, {self.signals!r}>"

    def statistics(self) -> ProviderLinkStatistics:
        """How it stands now."""
        registration = self._standing()
        return ProviderLinkStatistics(
            target=self.target,
            registration=registration,
            signals=self.signals.statistics(),
            queries=self.clients.statistics(),
        )

    def health(self) -> dict[str, str]:
        """What is kept up here, by name, with what is wrong with it; empty texts when nothing is."""
        signals = self.signals.health()
        registration = self._standing()
        found = {"signals out": signals.outbound.reason, "signals in": signals.inbound.reason}
        if registration is not None:
            found["registration"] = registration.trouble or ("" if registration.registered else "not registered yet")
        return found

    def _standing(self) -> RegistrationStatus | None:
        statuses = [registration.status() for registration in self._registrations.values()]
        return min(statuses, key=lambda status: (status.registered, not status.trouble), default=None)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Calls and signals work for the length of the block. At its end signals that wait are sent, within a bound.

        Can be entered once.
        """
        self._channels.warn(self._channel)
        async with self.clients.opened(), self._channel, self.signals.opened():
            yield

    def hasten(self) -> None:
        """See `RemoteSignals.hasten`."""
        self.signals.hasten()

    @asynccontextmanager
    async def registered(
        self, info: ModuleInfo, *, on_change: Callable[[RegistrationStatus], object], instance: str = ""
    ) -> AsyncIterator[None]:
        """Keep a module of the server known to the registry for the length of the block.

        A block that is cancelled, or left by an exception, is the end of the server, and takes the registration back as
        `Registration.withdraw` does, unless the channels were cancelled with it; then its lease runs out. One that ends
        by itself comes again, with what new code says of the module.

        Args:
            info: The module, and where the server listens.
            on_change: Called when the registration has changed. Must not wait.
            instance: Which one of several at its address this is; the lease of one that is gone is that of the next one
                under its name. One of its own when empty.
        """
        settings = self._settings.server
        address = settings.advertise_host or info.address
        if address in EVERYWHERE:
            import socket

            address = socket.gethostname()
            _log.warning(
                "the registry is told that %s is at %s:%d, as it listens on all addresses: set "
                "SERVER_CHANNEL_ADVERTISE_HOST to the name that others reach it by",
                info.module_id,
                address,
                info.port,
            )
        registration = Registration(
            GrpcRegistry("", "", "", providers=self.clients, told=info, instance=instance),
            module_id=info.module_id,
            address=address,
            port=info.port,
            version=info.version,
            interval=settings.heartbeat_interval,
            connects=self._connects,
            on_change=on_change,
        )
        self._registrations[info.module_id] = registration
        returns = False
        try:
            async with unwrapped(), trio.open_nursery() as nursery:
                nursery.start_soon(registration.run)
                yield
                returns = True
                nursery.cancel_scope.cancel()
        finally:
            del self._registrations[info.module_id]
            if not returns and not self.stays:
                with trio.CancelScope(shield=True):  # which has a bound of its own
                    await registration.withdraw()

    async def _connects(self) -> None:
        """Wait until the provider has a connection for calls, which it has not now."""
        channel = await self.clients.query().channel()
        if channel.state is rpc.ConnectivityState.READY:  # what it has answered does not change so soon
            await trio.sleep_forever()
        await channel.ready()

    async def withdraw(self) -> None:
        """Give the registrations back: nobody is sent here any more. Bounded, and never raises."""
        async with trio.open_nursery() as nursery:
            for registration in self._registrations.values():
                nursery.start_soon(registration.withdraw)
