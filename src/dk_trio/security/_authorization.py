"""The place for rules of one's own: who may call what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc

from ._gate import HEALTH
from ._identity import Identity, identity_of

Authorize: TypeAlias = Callable[[rpc.CallInfo, Identity], Awaitable[None] | None]
"""Raises PermissionError, whose text the caller gets, or any GRPCError; else the call goes on."""


class Authorization:
    """An interceptor that asks about each call before its handler runs. Health checks are not asked about.

        ModuleServer(MyModule, settings=settings, interceptors=[Authorization(only_the_scheduler)])

    Wherever it stands among a server's interceptors, it is asked after the caller has shown who it is.

    Args:
        authorize: Gets the call and who makes it; may be async. What it raises by mistake refuses the call, too.
    """

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    def __repr__(self) -> str:
        return f"<Authorization by {self._authorize!r}>"

    @asynccontextmanager
    async def __call__(self, call: rpc.CallInfo) -> AsyncIterator[None]:
        if not call.path.startswith(HEALTH):
            try:
                answer = self._authorize(call, _identity(call))
                if answer is not None:
                    await answer
            except PermissionError as error:
                text = str(error) or f"{call.path} is not allowed"
                raise GRPCError(Status.PERMISSION_DENIED, text) from None
        yield


def _identity(call: rpc.CallInfo) -> Identity:
    if isinstance(call.identity, Identity):
        return call.identity
    peer: rpc.Peer = call.peer  # type: ignore[assignment]  # of a server's call
    return identity_of(peer)
