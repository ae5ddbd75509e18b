"""Where spans go: to a collector that may be dead, under a name, and never to the tracing of the whole process."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import Any

import pytest
import trio
import trio.testing
from opentelemetry import trace
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.module.remote_kit import echo
from tests.module.served import outputs_of

from dk_trio.errors import MissingPackageError
from dk_trio.observe import Observed
from dk_trio.observe.traces import SHUTDOWN_TIMEOUT, Traces, _told_seldom
from dk_trio.settings import ObserveSettings

from .recorded import HELLO, START, Recorded, traced


class Dead(SpanExporter):
    """A collector that takes a connection and nothing else."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.asked = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        self.asked.set()
        self.release.wait(30)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.release.wait(30)


async def test_a_dead_collector_does_not_keep_the_server_from_its_end(autojump_clock, caplog):
    dead = Dead()
    traces = Traces(ObserveSettings(traces_endpoint="http://collector"), processor=BatchSpanProcessor(dead))
    try:
        began = trio.current_time()
        async with traces.opened(Observed()):
            assert traces._tracing.tracer is not None
            for _ in range(3):
                traces._tracing.tracer.start_span("x").end()
        assert trio.current_time() - began == SHUTDOWN_TIMEOUT  # which virtual time passes at once
        assert "unsent" in caplog.text
    finally:
        dead.release.set()


def test_the_queue_sends_to_the_path_of_otlp(monkeypatch):
    made = []
    monkeypatch.setattr(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter",
        lambda **arguments: made.append(arguments["endpoint"]) or InMemorySpanExporter(),
    )
    for endpoint in ("http://collector:4318", "http://collector:4318/", "http://collector:4318/v1/traces"):
        Traces(ObserveSettings(traces_endpoint=endpoint))._queue().shutdown()
    assert made == ["http://collector:4318/v1/traces"] * 3


async def test_the_resource_is_named_by_what_is_served(autojump_clock, monkeypatch):
    recorded = Recorded()
    async with traced(echo, recorded) as client:
        await outputs_of(client, HELLO)
    assert recorded.one(START).resource.attributes["service.name"] == "Sample"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    again = Recorded()
    async with traced(echo, again) as client:
        await outputs_of(client, HELLO)
    assert again.one(START).resource.attributes["service.name"] == "mine"


async def test_traces_of_a_test_do_not_become_those_of_the_process(autojump_clock):
    async with Recorded().traces.opened(Observed()):
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_a_collector_that_is_away_does_not_fill_the_log(caplog):
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    with _told_seldom():
        for number in range(5):
            logger.warning("Transient error %d", number)
    logger.warning("after")
    assert [record.getMessage() for record in caplog.records] == ["Transient error 0", "after"]


async def test_a_caller_cannot_fill_the_log_with_a_trace_that_cannot_be_read(autojump_clock, caplog):
    metadata = {"traceparent": "x" * 1000, "baggage": ",".join("%;=" for _ in range(100))}
    async with traced(echo, Recorded()) as client:
        for _ in range(3):
            await outputs_of(client, HELLO, metadata=metadata)
    assert len([record for record in caplog.records if record.name.startswith("opentelemetry")]) == 2


def test_what_is_switched_off_is_not_even_imported():
    code = """if True:
        import sys
        from dk_trio import Settings
        from dk_trio.observe import Observation
        off = Observation(Settings())
        assert off.client_interceptors == [], off.client_interceptors
        print(sorted({"opentelemetry", "prometheus_client", "requests", "hypercorn"} & sys.modules.keys()))
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "[]\n"


def test_a_missing_package_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingPackageError) as caught:
        Traces(ObserveSettings(traces_endpoint="http://collector"))
    assert "pip install 'dk-trio[otel]'" in caught.value.text
