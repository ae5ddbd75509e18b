"""The security of a process that serves: its TLS, who may call it, and what it shows to those it calls."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from dk_trio import rpc
from dk_trio.addresses import is_loopback
from dk_trio.boundary import unwrapped
from dk_trio.errors import TokenFileError

from ._authorization import Authorization
from ._client import ClientSecurity
from ._gate import Gate
from .certificates import Certificate, exposed, server_files
from .reload import Reloaded
from .tokens import Token, read_tokens, weak

if TYPE_CHECKING:
    import ssl

    from dk_trio.settings import SecuritySettings

_log = logging.getLogger("dk_trio.security")

_SOON: Final = 7 * 86400.0
"""Seconds before its end in which a certificate is told of at every start and reload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityStatistics:
    """A snapshot.

    Attributes:
        calls_refused: By reason: `no_token`, `wrong_token`, `rpcs_per_client`.
        certificate_expires: When the server's certificate ends, in seconds of `time.time`; None without TLS.
        reloads: Times that changed files were loaded.
        reload_failures: Times that changed files could not be used.
    """

    calls_refused: Mapping[str, int]
    certificate_expires: float | None
    reloads: int
    reload_failures: int


class Security:
    """Made from the settings, whose files it reads at once.

        security = Security(settings.security)
        server = rpc.Server(services, interceptors=security.among(interceptors))
        async with security.opened():
            await server.serve(security.listeners(await rpc.open_tcp_listeners(port)))

    Attributes:
        gate: The interceptor of a server that wants tokens, client certificates, or limits of one client.
        interceptors: It, if the server wants any of these.
        client: For calls that this process makes.

    Raises:
        TLSFileError: A file of TLS cannot be used.
        TokenFileError: The file of tokens cannot be used.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self._settings = settings
        files = server_files(settings)
        self._files = files
        self._tls = None if files is None else Reloaded("the server's TLS", files.paths, files.load)
        self._tokens = _tokens_of(settings)
        self.client = ClientSecurity(settings)
        self.gate = Gate(self._tokens, max_rpcs_per_client=settings.max_rpcs_per_client)
        guarded = self._tokens is not None or settings.tls_client_ca is not None
        self.interceptors: Sequence[rpc.Interceptor] = (
            [self.gate] if guarded or settings.max_rpcs_per_client is not None else []
        )

    def __repr__(self) -> str:
        return f"<Security {'TLS' if self._tls else 'plaintext'}, {self.gate!r}, {self.client!r}>"

    def statistics(self) -> SecurityStatistics:
        """What was refused and reloaded."""
        kept = [each for each in (self._tls, None if self._tokens is None else self._tokens.file) if each is not None]
        certificate = self._certificate
        return SecurityStatistics(
            calls_refused=dict(self.gate.refusals),
            certificate_expires=None if certificate is None else certificate.expires,
            reloads=sum(each.reloads for each in kept),
            reload_failures=sum(each.failures for each in kept),
        )

    @property
    def _certificate(self) -> Certificate | None:
        return None if self._tls is None else self._tls.current[1]

    def among(self, interceptors: Sequence[rpc.Interceptor]) -> Sequence[rpc.Interceptor]:
        """A server's interceptors with the gate in its place.

        It is inside of all others, so that a refused call is logged and measured as any call is, and around those that
        ask what the caller may do.
        """
        outer = [each for each in interceptors if not isinstance(each, Authorization)]
        inner = [each for each in interceptors if isinstance(each, Authorization)]
        return [*outer, *self.interceptors, *inner]

    # -- connections --------------------------------------------------------------------------------------------------

    @property
    def max_connections_per_client(self) -> int | None:
        """For `rpc.ServerOptions`."""
        return self._settings.max_connections_per_client

    def listeners(
        self, listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]
    ) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """With TLS on top, if there is TLS."""
        return listeners if self._tls is None else rpc.tls_listeners(listeners, self._context)

    def stream(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """An accepted connection with TLS on top, if there is TLS; for those who accept by themselves."""
        return stream if self._tls is None else rpc.tls_stream(stream, self._context())

    def _context(self) -> ssl.SSLContext:
        assert self._tls is not None
        return self._tls.current[0]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Files that change are loaded again, for the length of the block."""
        interval = self._settings.tls_reload_interval
        async with unwrapped(), self.client.opened(), trio.open_nursery() as nursery:
            if self._tls is not None:
                nursery.start_soon(self._tls.watch, interval)
            if self._tokens is not None and self._tokens.file is not None:
                nursery.start_soon(self._tokens.file.watch, interval)
            yield
            nursery.cancel_scope.cancel()

    # -- what an operator should know ---------------------------------------------------------------------------------

    def warn(self, host: str) -> None:
        """Tell what is risky about serving on this address, each in one line of the log."""
        for line in self.risks(host):
            _log.warning(line)

    def risks(self, host: str) -> Iterator[str]:
        """The same, as texts."""
        if self._files is not None and (key := self._files.exposed_key()):
            yield key
        path = self._settings.auth_tokens_file
        if path is not None and (file := exposed(path, "DIGITALKIN_AUTH_TOKENS_FILE")):
            yield file
        certificate = self._certificate
        if certificate is not None and (left := certificate.expires - time.time()) < _SOON:
            yield f"the server's certificate expires in {max(0.0, left / 86400):.1f} days"
        if self._tokens is not None and (names := weak(self._tokens())):
            yield f"short tokens can be guessed: {', '.join(names)}. `openssl rand -hex 32` makes a good one"
        if is_loopback(host):
            return
        if self._tls is None:
            yield (
                f"listening on {host} in plaintext: whoever is on the network can read and change what callers send, "
                "tokens too. Set DIGITALKIN_TLS_CERT and DIGITALKIN_TLS_KEY"
            )
        if self._tokens is None and self._settings.tls_client_ca is None:
            yield (
                f"listening on {host} without authentication: whoever reaches this port can call it. Set "
                "DIGITALKIN_AUTH_TOKENS_FILE, or DIGITALKIN_TLS_CLIENT_CA for client certificates"
            )


class _Tokens:
    """The token of the settings and those of the file, which is watched."""

    def __init__(self, given: Sequence[Token], file: Reloaded[Sequence[Token]] | None) -> None:
        self._given = given
        self.file = file

    def __call__(self) -> Sequence[Token]:
        return self._given if self.file is None else [*self._given, *self.file.current]


def _tokens_of(settings: SecuritySettings) -> _Tokens | None:
    path = settings.auth_tokens_file
    if settings.auth_token is None and path is None:
        return None
    given = [] if settings.auth_token is None else [Token("token", settings.auth_token.encode())]
    file: Reloaded[Sequence[Token]] | None = None
    if path is not None:
        load: Callable[[], Sequence[Token]] = lambda: read_tokens(path)  # noqa: E731  its type
        file = Reloaded("the file of tokens", [path], load)
        if not file.current and not given:
            raise TokenFileError(
                f"DIGITALKIN_AUTH_TOKENS_FILE={path} (--auth-token-file) has no token in it: nobody could call it.",
                hint="Write one token a line; `openssl rand -hex 32` makes one.",
            )
    return _Tokens(given, file)
