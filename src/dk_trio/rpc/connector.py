"""From a channel's arguments to byte streams that are ready for HTTP/2: who to connect to, and TLS on top."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from .channel_options import ChannelOptions
from .handshake import advice, send_alert
from .resolver import ConnectError, Resolver, Target, parse_target

TLS: TypeAlias = ssl.SSLContext | Callable[[], ssl.SSLContext] | bool | None
"""A client's: True with the system's authorities, a context, whose ALPN is set to `h2`, or a function that is asked for
each connection and offers ALPN `h2` itself. None and False are plaintext."""


class Connector:
    """Makes the byte streams of one channel; see `open_channel` for the arguments."""

    def __init__(
        self,
        target: str,
        *,
        options: ChannelOptions,
        ssl_context: TLS,
        connect: Callable[[], Awaitable[trio.abc.Stream]] | None,
    ) -> None:
        self.target = target
        self._options = options
        self._custom = connect
        parsed = Target(target, host=target) if connect is not None else parse_target(target)
        self._resolver = Resolver(parsed, min_interval=options.dns_min_interval)
        self._context = _client_context(ssl_context)
        self.private = self._context is not None or connect is not None or parsed.is_local
        """Whether nobody on a network can read what is sent: TLS, or both ends are on this machine."""
        if options.authority is not None:
            self.authority = options.authority
            self._server_name = _host_of(options.authority)
        else:
            self.authority = target if connect is not None else parsed.authority
            self._server_name = parsed.server_name
        self.scheme = "http" if self._context is None else "https"

    def __repr__(self) -> str:
        return f"<Connector {self.target!r} {self.scheme}>"

    def confirm(self) -> None:
        """The stream of the last `connect` led to a server that serves."""
        self._resolver.confirm()

    async def connect(self) -> trio.abc.Stream:
        """Connect, with TLS and ALPN where asked for.

        Raises ConnectError, or whatever a custom `connect` raises.
        """
        if self._custom is not None:
            stream = await self._custom()
        else:
            stream = await self._resolver.connect(self._options.happy_eyeballs_delay)
        if self._context is None:
            return stream
        secure = trio.SSLStream(
            stream,
            self._context(),
            server_hostname=self._server_name,
            # HTTP/2 tells ends by itself; a server that closes without TLS's closing message is no attacker.
            https_compatible=True,
        )
        try:
            await secure.do_handshake()
            protocol = secure.selected_alpn_protocol()
        except trio.BrokenResourceError as error:
            try:
                await send_alert(secure)
            finally:
                await trio.aclose_forcefully(stream)
            cause = error.__cause__
            raise ConnectError(f"no TLS connection to {self.target!r}: {cause or error}{advice(cause)}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if protocol != "h2":
            await trio.aclose_forcefully(stream)
            raise ConnectError(
                f"the server at {self.target!r} does not speak HTTP/2 over TLS: it chose ALPN {protocol!r}, not 'h2'"
            )
        return secure


def _host_of(authority: str) -> str:
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def _client_context(given: TLS) -> Callable[[], ssl.SSLContext] | None:
    if given is None or given is False:
        return None
    if not isinstance(given, ssl.SSLContext | bool):
        return given
    context = ssl.create_default_context() if given is True else given
    context.set_alpn_protocols(["h2"])
    return lambda: context
