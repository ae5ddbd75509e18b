"""To see what a server does: logs, metrics, traces, task tree, profiles, and a page that shows them live.

    observation = Observation(settings)
    server = ModuleServer(
        MyModule,
        settings=settings,
        interceptors=observation.interceptors,
        client_interceptors=observation.client_interceptors,
        hooks=observation.hooks,
    )
    async with server.running() as address, observation.opened(Observed(modules=lambda: [server])):
        ...

What is switched off is neither imported nor called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ._part import Observed as Observed
from ._part import Part as Part

if TYPE_CHECKING:
    from dk_trio import rpc
    from dk_trio.hooks import JobHook
    from dk_trio.settings import Settings

__all__ = ["Observation", "Observed", "Part"]


class Observation:
    """The parts that the settings ask for, as one.

    Args:
        settings: Of the server.
        worker: Number of this process among its siblings, from 0; each has its own ports.
        failures: The access log tells of failures only; what ended as it should is told at debug.

    Attributes:
        interceptors: For the server.
        client_interceptors: For the calls that it makes.
        hooks: For its jobs.

    Raises:
        ConfigurationError: A part needs a package that is not installed, or a directory that cannot be used.
    """

    def __init__(self, settings: Settings, *, worker: int = 0, failures: bool = False) -> None:
        self._parts = [*_parts(settings, worker, failures=failures)]
        # The first is outermost: the access log has what traces and metrics cost in it, and begins the ids of a line.
        self.interceptors: list[rpc.Interceptor] = [item for part in self._parts for item in part.interceptors]
        self.client_interceptors: list[rpc.Interceptor] = [
            item for part in self._parts for item in part.client_interceptors
        ]
        self.hooks: list[JobHook] = [item for part in self._parts for item in part.hooks]

    def __repr__(self) -> str:
        return f"<Observation {', '.join(type(part).__name__ for part in self._parts) or 'of nothing'}>"

    @asynccontextmanager
    async def opened(self, observed: Observed) -> AsyncIterator[None]:
        """Look at what is served for the length of the block; what was seen last is written at its end, bounded.

        Raises:
            ConfigurationError: A port cannot be listened on.
        """
        async with AsyncExitStack() as stack:
            for part in self._parts:
                await stack.enter_async_context(part.opened(observed))
            yield


def _parts(settings: Settings, worker: int, *, failures: bool) -> Iterator[Part]:
    observe = settings.observe
    if observe.access_log:
        from .access_log import AccessLog

        yield AccessLog(failures=failures)
    if observe.traces_endpoint is not None:
        from .traces import Traces

        yield Traces(observe)
    if observe.metrics_port is not None:
        from .metrics import Metrics

        yield Metrics(observe, worker)
    if observe.profiler != "none":
        from .profilers import Profilers

        yield Profilers(observe)
    from .dumps import TaskDumps

    yield TaskDumps()
    if observe.inspector:
        from .inspector import Inspector

        yield Inspector(observe, worker)
