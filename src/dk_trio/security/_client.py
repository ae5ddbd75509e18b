"""What this process shows to servers that it calls: TLS, a certificate, a token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.boundary import unwrapped
from dk_trio.errors import ConfigurationError
from dk_trio.rpc.resolver import parse_target

from .certificates import client_files
from .reload import Reloaded

if TYPE_CHECKING:
    import ssl

    from dk_trio import rpc
    from dk_trio.settings import SecuritySettings

_HEADER: Final = "authorization"


def exposed(channel: rpc.Channel) -> str:
    """What is risky about calls on a channel; empty when nothing is."""
    if channel.private:
        return ""
    return (
        f"calls to {channel.target} are plaintext: whoever is on the way can read and change them. Speak TLS "
        "(DIGITALKIN_CLIENT_CA, or DIGITALKIN_CLIENT_SECURITY=secure)"
    )


class ClientSecurity:
    """As a client; made from the settings.

    Attributes:
        tls: For `rpc.open_channel` and whoever opens channels; None is plaintext.
        interceptors: For the same; they show the token, but not in plaintext beyond this machine.
        interval: Seconds between two looks at its files.

    Raises:
        TLSFileError: A file cannot be used.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self.interval = settings.tls_reload_interval
        self._token = settings.client_token
        self._plaintext_token = settings.client_token_plaintext
        files = client_files(settings)
        self._files = None if files is None else Reloaded("the client's TLS", files.paths, lambda: files.load()[0])
        self.tls: rpc.TLS = None if self._files is None else self._context
        self.interceptors: Sequence[rpc.Interceptor] = [] if self._token is None else [self._show_token]

    def __repr__(self) -> str:
        return f"<ClientSecurity {'TLS' if self._files else 'plaintext'}{', token' if self._token else ''}>"

    def _context(self) -> ssl.SSLContext:
        assert self._files is not None
        return self._files.current

    def check(self, target: str) -> None:
        """Refuse a server that every call must be refused to, before the first one.

        Raises:
            ConfigurationError: The token would go there in plaintext.
        """
        if self._token is None or self._plaintext_token or self._files is not None:
            return
        if not parse_target(target).is_local:
            raise ConfigurationError(
                f"DIGITALKIN_CLIENT_TOKEN would go to {target} in plaintext, for everybody on the way to read.",
                hint="Speak TLS (DIGITALKIN_CLIENT_CA, or DIGITALKIN_CLIENT_SECURITY=secure); or allow it with "
                "DIGITALKIN_CLIENT_TOKEN_PLAINTEXT=true, where a proxy on this machine adds TLS.",
            )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Files that change are loaded again, for the length of the block."""
        async with unwrapped(), trio.open_nursery() as nursery:
            if self._files is not None:
                nursery.start_soon(self._files.watch, self.interval)
            yield
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _show_token(self, call: rpc.CallInfo) -> AsyncIterator[None]:
        if _HEADER not in call.metadata:  # a call that brings its own is whoever made it
            if not call.private and not self._plaintext_token:
                raise GRPCError(
                    Status.UNAUTHENTICATED,
                    f"the token for {call.target} was not sent, as it would go there in plaintext; speak TLS, or set "
                    "DIGITALKIN_CLIENT_TOKEN_PLAINTEXT=true",
                )
            call.metadata[_HEADER] = f"Bearer {self._token}"
        yield
