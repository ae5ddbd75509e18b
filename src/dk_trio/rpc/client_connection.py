"""One connection of a channel: its two I/O tasks, its keepalive, and its end.

A link is *usable* from the server's first SETTINGS until GOAWAY, loss or closing. After GOAWAY it lives on without new
calls until the last of its calls has ended. Whatever ends it, each call that is still open on it fails with the
reason, which is kept in `lost`.
"""

from __future__ import annotations

import logging
import ssl
from math import isinf
from typing import TYPE_CHECKING, Final, Protocol

import trio

from dk_trio.wire import ClientConnection, ErrorCode, Limits, PeerError, Stream
from dk_trio.wire.compression import ENCODINGS
from dk_trio.wire.frames import LARGEST_STREAM_ID, error_name

from .handshake import advice
from .transport import CLOSE_TIMEOUT, FLUSH_TIMEOUT, Transport

if TYPE_CHECKING:
    from .channel_options import ChannelOptions

LINGER: Final = 1.0
"""Seconds in which a connection that can no longer be written to may still deliver what the server had sent."""
CLOSED: Final = "the server closed the connection"
ACCEPT_ENCODING: Final = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
_KEEPALIVE: Final = b"dkalive\x00"
_TOO_MANY_PINGS: Final = b"too_many_pings"

_logger = logging.getLogger("dk_trio.rpc.channel")


class LinkOwner(Protocol):
    """What a link tells whoever opened it. Called synchronously; must not wait."""

    def on_link_room(self, link: ClientLink) -> None:
        """More calls fit than before."""

    def on_link_goaway(self, link: ClientLink, *, too_many_pings: bool) -> None:
        """The server takes no further calls on this connection."""

    def on_link_lost(self, link: ClientLink) -> None:
        """The connection is over; `link.lost` says why."""


class _Wire(ClientConnection):
    """The wire's client connection, which also tells when a stream is gone and how often output was taken."""

    link: ClientLink
    taken = 0

    def take(self) -> bytes:
        self.taken += 1
        return super().take()

    def forget(self, stream: Stream) -> None:
        ClientConnection.forget(self, stream)  # super() costs as much again, once for each call
        if self.link.watched:
            self.link.on_stream_gone()

    def _end_stream(self, stream: Stream, code: int, reason: str, *, remote: bool) -> None:
        super()._end_stream(stream, code, reason, remote=remote)
        if self.link.watched:
            self.link.on_stream_gone()


class ClientLink:
    """A connection to the server over `stream`, which it owns from now on. Start `run` as a task."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        owner: LinkOwner,
        *,
        options: ChannelOptions,
        authority: str,
        scheme: str,
        keepalive_time: float,
    ) -> None:
        self.wire = _Wire(
            authority=authority,
            scheme=scheme,
            fields=((b"user-agent", options.user_agent.encode()), ACCEPT_ENCODING),
            events=self,
            limits=Limits(header_list_bytes=options.max_metadata_bytes),
            max_message_bytes=options.max_receive_message_bytes,
            stream_window=options.stream_window,
        )
        self.wire.link = self
        self.transport = Transport(stream, self.wire)
        self.peer = self.transport.peer
        self.lost: str | None = None
        """Why the connection is over; None while it lives."""
        self.draining = False
        """GOAWAY was received: calls end, none begins."""
        self.watched = False
        """Somebody wants to know when a stream is gone: calls wait for its place, or the connection drains."""
        self.limit = 0
        """Calls that may be open at once: the server's limit while the connection is usable, else 0."""
        self.reserved = 0
        """Room that was promised to calls which have not opened their stream yet."""
        self.settled = trio.Event()
        """Set when the server's SETTINGS have come, or the connection is over."""
        self._owner = owner
        self._options = options
        self._keepalive_time = keepalive_time
        self._stream = stream
        self._ending = trio.CancelScope()
        self._reason = "the connection was lost"
        self._polite = False
        self._written = trio.Event()

    def __repr__(self) -> str:
        state = "lost" if self.lost is not None else "draining" if self.draining else "ready"
        if state == "ready" and not self.settled.is_set():
            state = "connecting"
        return f"<ClientLink {state}, {len(self.wire.streams)} calls>"

    @property
    def usable(self) -> bool:
        """True while calls may begin here."""
        return self.lost is None and not self.draining and self.settled.is_set()

    @property
    def room(self) -> int:
        """Calls that may begin now, those with a reservation aside."""
        return self.limit - len(self.wire.streams) - self.reserved

    # -- tasks ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry calls until the connection is over. Closes the stream."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._keep_alive)
                with self._ending:
                    await self._read()
                self._end(self._reason)
                with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                    await self._flush()
                nursery.cancel_scope.cancel()
        finally:
            self._end("the channel was cancelled")
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()

    async def _read(self) -> None:
        try:
            await self.transport.read()
        except PeerError as error:
            _logger.warning("connection closed: the server broke HTTP/2: %s", error)
            self._reason = f"the server broke HTTP/2: {error}"
        else:
            self._reason = CLOSED
            failure = self.transport.failure
            if isinstance(failure, ssl.SSLError):  # TLS 1.3 tells of a refused certificate only here
                self._reason += f": {failure.reason or failure}{advice(failure)}"

    async def _write(self) -> None:
        try:
            await self.transport.write()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # What the server sent before it closed may still be there to read, the end of calls under way above all.
            self._stop_using(too_many_pings=False)
            self._ending.deadline = min(self._ending.deadline, trio.current_time() + LINGER)
        finally:
            self._written.set()

    async def _flush(self) -> None:
        self.transport.finish()
        await self._written.wait()

    async def _keep_alive(self) -> None:
        """Ask a silent server whether it is there (gRFC A8); any byte from it is an answer."""
        options = self._options
        interval = max(self._keepalive_time, options.min_ping_interval)
        if isinf(interval):
            return
        while True:
            # A time and not a duration: what is left of one may be too little to move a clock, and this would spin.
            due = self.wire.now + interval
            if not self.settled.is_set():
                await self.settled.wait()
                continue
            if trio.current_time() < due:
                await trio.sleep_until(due)
                continue
            if not options.keepalive_without_calls and not self.wire.streams:
                await trio.sleep(interval)
                continue
            heard = self.wire.now
            self.wire.ping(_KEEPALIVE)
            self.transport.wake()
            await trio.sleep(options.keepalive_timeout)
            if self.wire.now == heard:
                self.abort(f"the server did not answer a ping within {options.keepalive_timeout:g} s")
                return

    # -- ends -------------------------------------------------------------------------------------------------------

    def abort(self, reason: str) -> None:
        """Give the connection up now: its calls fail with UNAVAILABLE and `reason`."""
        self._reason = reason
        self._end(reason)
        self._ending.cancel(reason=reason)

    def close(self) -> None:
        """End it politely: reset what is open, say GOAWAY, close. The calls have been failed by their owner."""
        if self.lost is None:
            for stream in list(self.wire.streams.values()):
                self.wire.finish(stream)
            self.wire.goaway()
            self._polite = True
        self.abort("the channel was closed")

    def _end(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        self.limit = 0
        self.wire.close(ErrorCode.CANCEL, reason, remote=True)
        if not self._polite:
            # Calls whose request is still here count as never sent and may be made elsewhere: it must not go out now.
            self.wire.take()
            if self.wire.error is not None:
                self.wire.goaway(self.wire.error.code, self.wire.error.reason.encode())
        self.transport.release()
        self.settled.set()
        self._owner.on_link_lost(self)

    def on_stream_gone(self) -> None:
        """A stream was freed: its place can be taken, or was the last one."""
        if self.lost is not None:
            return
        if not self.draining:
            self._owner.on_link_room(self)
        elif not self.wire.streams and not self.reserved:
            self._leave()

    def retire(self) -> None:
        """Begin no further call here: the stream ids run out."""
        self._stop_using(too_many_pings=False)

    def _leave(self) -> None:
        self.wire.goaway()
        self._polite = True
        self._reason = "the connection has drained"
        self._ending.cancel(reason=self._reason)

    # -- events of the wire -----------------------------------------------------------------------------------------

    def on_settings(self) -> None:
        """The connection is established with the first ones; later ones may make room."""
        if self.draining:
            return
        limit = self.wire.peer.max_concurrent_streams
        self.limit = LARGEST_STREAM_ID if limit is None else limit
        if self.settled.is_set():
            self._owner.on_link_room(self)
        else:
            self.settled.set()

    def on_pong(self, payload: bytes) -> None:
        """Nothing to do: `wire.now` shows that something came."""

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """Stop using the connection; the wire has reset the calls that the server did not take."""
        pings = code == ErrorCode.ENHANCE_YOUR_CALM and debug == _TOO_MANY_PINGS
        if code != ErrorCode.NO_ERROR:
            _logger.warning("the server ends the connection with %s: %r", error_name(code), debug[:100])
        self._stop_using(too_many_pings=pings)
        self.on_stream_gone()

    def _stop_using(self, *, too_many_pings: bool) -> None:
        if not self.draining and self.lost is None:
            self.draining = self.watched = True
            self.limit = 0
            self.settled.set()
            self._owner.on_link_goaway(self, too_many_pings=too_many_pings)

    # -- calls ------------------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Promise room to a call that will open its stream as soon as its task runs."""
        self.reserved += 1

    def unreserve(self) -> None:
        """Take a promise back, because the call opens its stream now or will not."""
        self.reserved -= 1
