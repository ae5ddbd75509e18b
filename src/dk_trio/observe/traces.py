"""Spans of RPCs, jobs, services and calls of other modules, for an OpenTelemetry collector.

What has which span stands in `_spans`. This is where they go: a bounded queue, from which a thread of the SDK sends
them by OTLP over HTTP. When the queue is full, spans are dropped; nobody ever waits for a collector, the end of the
server neither: what is left is sent in a thread, for `SHUTDOWN_TIMEOUT` at most.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from math import inf
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import trio

from dk_trio.errors import MissingPackageError

from ._part import Observed, Part

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from dk_trio.settings import ObserveSettings

_log = logging.getLogger("dk_trio.traces")

QUEUE: Final = 4096
"""Spans that wait to be sent: some MB, and the spans of a thousand jobs."""

BATCH: Final = 512
"""Spans that are sent at once."""

SEND_EVERY: Final = 2.0
"""Seconds that a span waits for others to be sent with."""

EXPORT_TIMEOUT: Final = 10.0
"""Seconds that a collector may take for one batch, repetitions included; then the batch is lost."""

SHUTDOWN_TIMEOUT: Final = 5.0
"""Seconds in which what waits is sent at the end: as long as signals get."""

TOLD_EVERY: Final = 60.0
"""Seconds between two lines of the log about a collector that takes nothing, of which the exporter has four for each
batch; or about what callers send for a trace, of which they could make any number."""

_PATH: Final = "/v1/traces"
_TALKERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.trace.propagation.tracecontext",
    "opentelemetry.baggage.propagation",
)


class Traces(Part):
    """Sends spans to a collector.

    Args:
        settings: Where to, `traces_endpoint`, and how many of the traces that begin here, `traces_sample`.
        processor: What takes spans, in place of a queue to the collector. Without one the process sends through this
            what an author's own spans are, too, unless its program has set another provider of tracers.

    Raises:
        MissingPackageError: The extra `otel` is not installed.
    """

    def __init__(self, settings: ObserveSettings, *, processor: SpanProcessor | None = None) -> None:
        try:
            import opentelemetry.exporter.otlp.proto.http.trace_exporter
            import opentelemetry.sdk.trace  # noqa: F401

            from ._spans import ClientSpans, JobSpans, ServerSpans, Tracing
        except ImportError as error:
            raise MissingPackageError(
                f"Traces (DIGITALKIN_TRACES_ENDPOINT) need the OpenTelemetry packages, which cannot be imported: "
                f"{error}.",
                hint="Install the extra: pip install 'dk-trio[otel]'.",
            ) from error
        self._endpoint = settings.traces_endpoint or ""
        self._sample = settings.traces_sample
        self._processor = processor
        self._tracing = Tracing()
        self.interceptors = (ServerSpans(self._tracing),)
        self.client_interceptors = (ClientSpans(self._tracing),)
        self.hooks = (JobSpans(self._tracing),)

    def __repr__(self) -> str:
        return f"<Traces to {self._endpoint or self._processor!r}{'' if self._tracing.tracer else ', closed'}>"

    @asynccontextmanager
    async def opened(self, observed: Observed) -> AsyncIterator[None]:
        """Make spans for the length of the block; what waits is sent at its end, bounded.

        Cancellation:
            The end is shielded, for `SHUTDOWN_TIMEOUT`.
        """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(self._sample)),
            resource=_resource(observed),
            shutdown_on_exit=False,  # which would wait for a collector that is dead
        )
        provider.add_span_processor(self._processor or self._queue())
        if self._processor is None:
            _make_default(provider)
            _log.info("spans are sent to %s", self._endpoint)
        self._tracing.tracer = provider.get_tracer("dk_trio")
        with _told_seldom():
            try:
                yield
            finally:
                self._tracing.tracer = None
                await self._shut_down(provider)

    async def _shut_down(self, provider: TracerProvider) -> None:
        with trio.move_on_after(SHUTDOWN_TIMEOUT, shield=True) as scope:
            await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
        if scope.cancelled_caught:
            _log.warning("spans were left unsent: %s took none for %g s", self._endpoint, SHUTDOWN_TIMEOUT)

    def _queue(self) -> SpanProcessor:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        endpoint = self._endpoint.rstrip("/")
        if not endpoint.endswith(_PATH):
            endpoint += _PATH
        return BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT),
            max_queue_size=QUEUE,
            schedule_delay_millis=SEND_EVERY * 1000,
            max_export_batch_size=BATCH,
            export_timeout_millis=EXPORT_TIMEOUT * 1000,
        )


def _resource(observed: Observed) -> Resource:
    """What the spans are of: named by whoever runs it (OTEL_SERVICE_NAME), or by what is served."""
    from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource

    given = Resource.create()
    if not str(given.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return given
    names = [module.name for server in observed.modules() for module in server.modules.values()]
    if observed.provider is not None:
        names.append("services-provider")
    return given.merge(Resource({SERVICE_NAME: ", ".join(names) or "dk-trio", SERVICE_INSTANCE_ID: str(uuid4())}))


@contextmanager
def _told_seldom() -> Iterator[None]:
    """For the length of the block the log is not filled by a collector that is away, or by a caller."""
    with ExitStack() as stack:
        for name in _TALKERS:
            logger, seldom = logging.getLogger(name), _Seldom()
            logger.addFilter(seldom)
            stack.callback(logger.removeFilter, seldom)
        yield


class _Seldom(logging.Filter):
    """Lets one record through in `TOLD_EVERY` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at = -inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + TOLD_EVERY
        return True


def _make_default(provider: TracerProvider) -> None:
    """Authors ask OpenTelemetry for a tracer, and not this server."""
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
