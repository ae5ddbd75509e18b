"""What each call has to pass at a server: a token, and the limit of its client. One interceptor.

Calls of health checks pass without a token: probes have none, and a server that looks dead for lack of one is started
anew for ever. A Watch has no end of its own, so a stranger may have some of them, and not the whole server. Reflection
and all else need a token. Calls between modules of one process pass, since whoever can make one can read the token as
well.

A token that was taken leaves the metadata of its call: it is between two processes, and neither a module's code nor a
server that the call's metadata is passed on to has any use for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.rpc.client_limit import ClientLimit
from dk_trio.rpc.notices import Notices

from ._identity import identity_of
from .tokens import Token, known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dk_trio import rpc

_log = logging.getLogger("dk_trio.security")

HEALTH: Final = "/grpc.health.v1.Health/"
PROBES: Final = 25
"""Health checks of one address at the same time that show neither token nor certificate. A prober has one."""
_HEADER: Final = "authorization"

MISSING: Final = (
    "this server wants a bearer token: send it as metadata, `authorization: Bearer TOKEN` (DIGITALKIN_CLIENT_TOKEN, or "
    "--token of dk-trio's commands)"
)
UNKNOWN: Final = "the bearer token is none of this server's, or not any more"
SCHEME: Final = "this server wants a bearer token, and `authorization` is of another scheme"

_OF_CALLS: Final = "calls of {} are in progress, which is the limit of one client (DIGITALKIN_MAX_RPCS_PER_CLIENT)"
_OF_PROBES: Final = "health checks of {} without a token are in progress, which is the limit of one client"


class Gate:
    """The interceptor.

    Args:
        tokens: Gives those that are valid now; None: no token is wanted.
        max_rpcs_per_client: Calls of one client at the same time; None: no limit.

    Attributes:
        refusals: Calls that were refused, by reason: `no_token`, `wrong_token`, `rpcs_per_client`.
    """

    def __init__(self, tokens: Callable[[], Sequence[Token]] | None, *, max_rpcs_per_client: int | None = None) -> None:
        self._tokens = tokens
        self._limit = ClientLimit(max_rpcs_per_client)
        self._probes = ClientLimit(PROBES)
        self._notices = Notices(_log)
        self.refusals: Counter[str] = Counter()

    def __repr__(self) -> str:
        return (
            f"<Gate {'with' if self._tokens else 'without'} tokens, {self._limit!r}, {self.refusals.total()} refused>"
        )

    @asynccontextmanager
    async def __call__(self, call: rpc.CallInfo) -> AsyncIterator[None]:
        peer: rpc.Peer = call.peer  # type: ignore[assignment]  # of a server's call
        if call.path.startswith(HEALTH):
            token = self._shown(call)
            identity = identity_of(peer, None if token is None else token.name)
            with self._counted(self._probes, identity.key if identity.kind == "anonymous" else "", _OF_PROBES):
                yield
            return
        token = self._authenticated(call, peer)
        identity = call.identity = identity_of(peer, None if token is None else token.name)
        with self._counted(self._limit, identity.key, _OF_CALLS):
            yield

    def _authenticated(self, call: rpc.CallInfo, peer: rpc.Peer) -> Token | None:
        if self._tokens is None or peer.in_process:
            return None
        shown = call.metadata.getall(_HEADER, [])
        if not shown:
            raise self._refusal(peer, "no_token", MISSING)
        if len(shown) > 1 or _bearer(str(shown[0])) is None:
            raise self._refusal(peer, "no_token", SCHEME)
        token = self._shown(call)
        if token is None:
            raise self._refusal(peer, "wrong_token", UNKNOWN)
        del call.metadata[_HEADER]
        return token

    def _shown(self, call: rpc.CallInfo) -> Token | None:
        """The token of a call, if it is one of ours."""
        secret = _bearer(str(call.metadata.get(_HEADER, "")))
        return None if self._tokens is None or secret is None else known(self._tokens(), secret)

    def _refusal(self, peer: rpc.Peer, reason: str, text: str) -> GRPCError:
        self.refusals[reason] += 1
        self._notices.say(logging.WARNING, peer.host(), reason, f"calls from {peer.host()} are refused: {text}")
        return GRPCError(Status.UNAUTHENTICATED, text)

    @contextmanager
    def _counted(self, limit: ClientLimit, client: str, whose: str) -> Iterator[None]:
        with limit.one(client) as room:
            if not room:
                self.refusals["rpcs_per_client"] += 1
                text = f"{limit.limit} {whose}".format(client)
                self._notices.say(logging.WARNING, client, "rpcs_per_client", f"calls are refused: {text}")
                raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
            yield


def _bearer(header: str) -> str | None:
    """What stands behind `Bearer`; None where that does not stand."""
    scheme, _, secret = header.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None
