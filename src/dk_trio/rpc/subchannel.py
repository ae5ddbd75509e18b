"""The place of one connection in a channel: connects on demand, again after a loss, with backoff after failures.

States, as in gRPC's "Connectivity Semantics":

    IDLE --demand--> CONNECTING --SETTINGS--> READY --GOAWAY or loss--> IDLE
                          |
                          +--failure--> TRANSIENT_FAILURE --(attempts with backoff)--> READY

TRANSIENT_FAILURE is kept while further attempts run, until one succeeds: calls that do not wait for readiness fail
with the last cause instead of hanging through each attempt. A lost connection goes to IDLE: the next call connects at
once, the backoff only follows failures to connect.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

import trio

from .backoff import Backoff
from .client_connection import CLOSED, ClientLink
from .resolver import ConnectError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from .channel_options import ChannelOptions

_logger = logging.getLogger("dk_trio.rpc.channel")

KEEPALIVE_PENALTY: Final = 2.0
"""What the keepalive time is multiplied by when a server complains of too many pings (gRFC A8)."""


class ConnectivityState(Enum):
    """How reachable the server is; gRPC's "Connectivity Semantics"."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    TRANSIENT_FAILURE = "transient failure"


class SubchannelOwner(Protocol):
    """What a subchannel tells its channel. Called synchronously; must not wait."""

    def on_room(self) -> None:
        """Calls may begin that could not before."""

    def on_state(self) -> None:
        """The state of a subchannel has changed, or one of its connections is gone for good."""


class Subchannel:
    """One connection at a time, and those before it that are still draining."""

    def __init__(
        self,
        owner: SubchannelOwner,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        nursery: trio.Nursery,
        *,
        on_ready: Callable[[], None],
        options: ChannelOptions,
        authority: str,
        scheme: str,
        random: Random,
    ) -> None:
        self._owner = owner
        self._connect = connect
        self._nursery = nursery
        self._on_ready = on_ready
        self._options = options
        self._authority = authority
        self._scheme = scheme
        self._backoff = Backoff(options.reconnect, random)
        self._keepalive_time = options.keepalive_time
        self.state = ConnectivityState.IDLE
        self.link: ClientLink | None = None
        """The usable connection; None unless READY."""
        self.links: dict[ClientLink, None] = {}
        """All live connections, draining ones included."""
        self.last_error = ""
        """Why the last attempt to connect failed."""
        self.connects = 0
        self.connect_failures = 0

    def __repr__(self) -> str:
        return f"<Subchannel {self.state.value} {self.link!r}>"

    def demand(self) -> None:
        """Connect, if nothing is being done about it yet."""
        if self.state is ConnectivityState.IDLE:
            self._become(ConnectivityState.CONNECTING)
            self._nursery.start_soon(self._keep_connecting)

    def close(self) -> None:
        """Close every connection."""
        for link in list(self.links):
            link.close()

    def _become(self, state: ConnectivityState) -> None:
        if state is not self.state:
            self.state = state
            self._owner.on_state()

    # -- connecting -------------------------------------------------------------------------------------------------

    async def _keep_connecting(self) -> None:
        while True:
            started = trio.current_time()
            try:
                link = await self._open()
            except ConnectError as error:
                self.connect_failures += 1
                self.last_error = str(error)
                delay = self._backoff.failed()
                _logger.info("%s; next attempt in %.1f s", error, max(0.0, started + delay - trio.current_time()))
                self._become(ConnectivityState.TRANSIENT_FAILURE)
                await trio.sleep_until(started + delay)
                continue
            self._backoff.succeeded()
            self._on_ready()
            self.connects += 1
            self.link = link
            self._become(ConnectivityState.READY)
            self._owner.on_room()
            return

    async def _open(self) -> ClientLink:
        """One attempt, up to the server's first SETTINGS."""
        options = self._options
        link: ClientLink | None = None
        with trio.move_on_after(options.connect_timeout):
            try:
                stream = await self._connect()
            except ConnectError:
                raise
            except Exception as error:  # the boundary around a caller's `connect`: whatever it raises is its reason
                raise ConnectError(f"cannot connect to {self._authority}: {error!r}") from error
            link = ClientLink(
                stream,
                self,
                options=options,
                authority=self._authority,
                scheme=self._scheme,
                keepalive_time=self._keepalive_time,
            )
            self.links[link] = None
            self._nursery.start_soon(self._run_link, link)
            await link.settled.wait()
            if link.usable:
                return link
            why = link.lost or "the server is going away"
            if why == CLOSED and self._scheme == "http":
                why += "; does it want TLS?"
            raise ConnectError(f"cannot connect to {self._authority}: {why}")
        text = f"no connection to {self._authority} within {options.connect_timeout:g} s (connect_timeout)"
        if link is not None:
            text += ": connected, but the server sent no HTTP/2 SETTINGS; is this a gRPC port without TLS?"
            link.abort(text)
        raise ConnectError(text)

    async def _run_link(self, link: ClientLink) -> None:
        try:
            await link.run()
        except Exception:  # boundary: a defect of ours or of a stream class ends one connection, not the channel
            _logger.exception("a connection ended by an unexpected error")
        finally:
            self.links.pop(link, None)
            self._owner.on_state()

    # -- what links tell --------------------------------------------------------------------------------------------

    def on_link_room(self, link: ClientLink) -> None:
        """Pass it on, unless the link is not in use yet."""
        if link is self.link:
            self._owner.on_room()

    def on_link_goaway(self, link: ClientLink, *, too_many_pings: bool) -> None:
        """The next call connects anew while this connection drains."""
        if too_many_pings:
            self._keepalive_time *= KEEPALIVE_PENALTY
        self._leave(link)

    def on_link_lost(self, link: ClientLink) -> None:
        """The next call connects anew."""
        self._leave(link)

    def _leave(self, link: ClientLink) -> None:
        if link is self.link:
            self.link = None
            self._become(ConnectivityState.IDLE)
