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


def authorization(authorize: Authorize) -> rpc.Interceptor:
    """An interceptor that asks `authorize` about each call, before its handler runs. Health checks are not asked about.

        ModuleServer(MyModule, settings=settings, interceptors=[authorization(only_the_scheduler)])

    Args:
        authorize: Gets the call and who makes it; may be async. What it raises by mistake refuses the call, too.
    """

    @asynccontextmanager
    async def ask(call: rpc.CallInfo) -> AsyncIterator[None]:
        if not call.path.startswith(HEALTH):
            try:
                answer = authorize(call, _identity(call))
                if answer is not None:
                    await answer
            except PermissionError as error:
                text = str(error) or f"{call.path} is not allowed"
                raise GRPCError(Status.PERMISSION_DENIED, text) from None
        yield

    return ask


def _identity(call: rpc.CallInfo) -> Identity:
    if isinstance(call.identity, Identity):
        return call.identity
    peer: rpc.Peer = call.peer  # type: ignore[assignment]  # of a server's call
    return identity_of(peer)
