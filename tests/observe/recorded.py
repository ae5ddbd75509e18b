"""Spans that end in memory, and a module that is traced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from tests.module.remote_kit import module
from tests.module.served import served

from dk_trio import ModuleClient
from dk_trio.observe import Observed
from dk_trio.observe.traces import Traces
from dk_trio.settings import ObserveSettings

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
HELLO = {"protocol": "message", "text": "hello"}
START = "agentic_mesh_protocol.module.v1.ModuleService/StartModule"


class Recorded:
    """Traces that end in memory."""

    def __init__(self, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = Traces(
            ObserveSettings(traces_endpoint="http://collector", **settings),
            processor=SimpleSpanProcessor(self.exporter),
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """Of a server."""
        traces = self.traces
        return {
            "interceptors": traces.interceptors,
            "client_interceptors": traces.client_interceptors,
            "hooks": traces.hooks,
        }

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def one(self, name: str, kind: SpanKind | None = None) -> ReadableSpan:
        found = [span for span in self.spans if span.name == name and kind in {None, span.kind}]
        assert len(found) == 1, (name, [span.name for span in self.spans])
        return found[0]

    def tree(self) -> dict[str, str]:
        """Each span's name, and the name of its parent."""
        names = {span.context.span_id: told(span) for span in self.spans}
        return {
            told(span): "" if span.parent is None else names.get(span.parent.span_id, f"{span.parent.span_id:016x}")
            for span in self.spans
        }


def told(span: ReadableSpan) -> str:
    mark = {SpanKind.SERVER: " served", SpanKind.CLIENT: " called"}.get(span.kind, "")
    return span.name.rpartition("/")[2] + mark


@asynccontextmanager
async def traced(handle: Any, recorded: Recorded, **arguments: Any) -> AsyncIterator[ModuleClient]:
    async with (
        served(module(handle), **recorded.arguments, **arguments) as (server, client),
        recorded.traces.opened(Observed(modules=lambda: [server])),
    ):
        yield client
        await trio.testing.wait_all_tasks_blocked()
