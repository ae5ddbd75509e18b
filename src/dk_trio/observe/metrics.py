"""Metrics of a process, for Prometheus.

    GET http://METRICS_HOST:METRICS_PORT/metrics

Theory of operation
-------------------
Nearly everything is *asked for*: a scrape reads `statistics()` of each server in the same loop, so that what it tells
is of one moment and costs nothing while nobody asks. *Counted* are only the durations and outcomes of RPCs and jobs,
by an interceptor and a hook, in plain numbers (`_metric_counts`).

Each `Metrics` has a registry of its own and nothing global, so two servers in one process do not meet. The endpoint has
a port and a small web server of its own: a full server, and one that drains, can be scraped, and a scraper that is slow
or hangs holds one of the web server's few connections and nothing else. A scrape takes a few milliseconds of the loop,
most of them for writing thirty kilobytes of text, and one that comes within `FRESH` of another gets the same text.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from dk_trio.boundary import unwrapped
from dk_trio.errors import MissingPackageError

from ._metric_counts import JobCounts, RpcCounts
from ._metric_sources import tell_process, tell_provider, tell_server
from ._metric_values import Book
from ._part import Observed, Part

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client import Metric as Family

    from dk_trio.settings import ObserveSettings

    from .web import App, Receive, Scope, Send

_log = logging.getLogger("dk_trio.metrics")

FRESH: Final = 0.25
"""Seconds for which numbers are told again. No scraper asks as often, so this only meets those who ask too much."""

PATHS: Final = frozenset({"/metrics", "/metrics/"})


class Metrics(Part):
    """Serves the metrics of this process.

    Args:
        settings: Where: `metrics_host` and `metrics_port`.
        worker: Number of this process among its siblings, from 0; added to the port.

    Attributes:
        address: `HOST:PORT` of the endpoint while it is open, else empty.

    Raises:
        MissingPackageError: The extra `metrics` is not installed.
    """

    def __init__(self, settings: ObserveSettings, worker: int = 0) -> None:
        try:
            import prometheus_client  # noqa: F401  (an operator is told now, and not by a scrape)
        except ImportError as error:
            raise MissingPackageError(
                f"Metrics (DIGITALKIN_METRICS_PORT) need the package prometheus-client, which cannot be imported: "
                f"{error}.",
                hint="Install the extra: pip install 'dk-trio[metrics]'.",
            ) from error
        self._host = settings.metrics_host
        port = settings.metrics_port or 0
        self._port = port + worker if port else 0
        self._rpcs = RpcCounts()
        self._jobs = JobCounts()
        self.interceptors = (self._rpcs,)
        self.hooks = (self._jobs,)
        self.address = ""

    def __repr__(self) -> str:
        return f"<Metrics at {self.address or 'no address'}>"

    @asynccontextmanager
    async def opened(self, observed: Observed) -> AsyncIterator[None]:
        """Answer scrapes for the length of the block.

        Raises:
            ListenError: The address cannot be listened on.
            MissingPackageError: The extra `metrics` is not installed.
        """
        from .web import serve_app

        serve = partial(serve_app, self.app(observed), host=self._host, port=self._port, setting="DIGITALKIN_METRICS")
        async with unwrapped(), trio.open_nursery() as nursery:
            self.address = await nursery.start(serve)
            _log.info("metrics are at http://%s/metrics", self.address)
            try:
                yield
            finally:
                self.address = ""
                nursery.cancel_scope.cancel()

    def app(self, observed: Observed) -> App:
        """The endpoint as an ASGI app: `GET /metrics`, in the format that the scraper asks for."""
        page = _Page(self.registry(observed))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  (what ASGI calls)
            if scope["path"] not in PATHS:
                await _answer(send, 404, "text/plain", b"metrics are at /metrics\n")
            elif scope["method"] not in {"GET", "HEAD"}:
                await _answer(send, 405, "text/plain", b"GET and HEAD\n")
            else:
                accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
                await _answer(send, 200, *page.read(accept.decode("latin-1")))

        return app

    def registry(self, observed: Observed) -> CollectorRegistry:
        """What a scrape reads, for an exporter of one's own."""
        from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(_Collector(partial(self._tell, observed)))
        return registry

    def _tell(self, observed: Observed) -> Book:
        book = Book()
        tell_process(book, observed.worker)
        for server in observed.modules():
            tell_server(book, server)
        if observed.provider is not None:
            tell_provider(book, observed.provider)
        self._rpcs.tell(book)
        self._jobs.tell(book)
        return book


class _Collector:
    """What prometheus-client asks for the numbers of a scrape."""

    def __init__(self, tell: Callable[[], Book]) -> None:
        self._tell = tell

    def collect(self) -> Iterator[Family]:
        return self._tell().families()


class _Page:
    """The text of the last scrape, by format."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._texts: dict[str, bytes] = {}
        self._until = -inf

    def read(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of a format that is accepted."""
        from prometheus_client.exposition import choose_encoder

        now = trio.current_time()
        if now >= self._until:
            self._texts.clear()
            self._until = now + FRESH
        encode, kind = choose_encoder(accept)
        text = self._texts.get(kind)
        if text is None:
            text = self._texts[kind] = encode(self._registry)
        return kind, text


async def _answer(send: Send, status: int, kind: str, text: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
