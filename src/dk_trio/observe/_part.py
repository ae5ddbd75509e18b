"""What the parts of this package have in common: what they look at, and where they are put into a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dk_trio import rpc
    from dk_trio.hooks import JobHook
    from dk_trio.provider import Provider
    from dk_trio.server import ModuleServer


def _no_modules() -> Sequence[ModuleServer]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What is looked at in this process.

    Attributes:
        modules: The module servers of this process.
        provider: The services-provider, in a process that serves one.
        worker: Number of this process among its siblings, from 0.
    """

    modules: Callable[[], Sequence[ModuleServer]] = _no_modules
    provider: Provider | None = None
    worker: int = 0


class Part:
    """One way to look at a server. A subclass fills in what it needs.

    Attributes:
        interceptors: Around each RPC that is served.
        client_interceptors: Around each call that the server makes.
        hooks: Around each job.
    """

    interceptors: Sequence[rpc.Interceptor] = ()
    client_interceptors: Sequence[rpc.Interceptor] = ()
    hooks: Sequence[JobHook] = ()

    @asynccontextmanager
    async def opened(self, observed: Observed) -> AsyncIterator[None]:
        """Look, for the length of the block, in which the server serves."""
        yield
