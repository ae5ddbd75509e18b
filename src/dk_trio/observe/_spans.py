"""Spans around RPCs, calls and jobs. Needs opentelemetry, so only `traces` imports it, and only when there are spans.

    RPC (server)                      its parent is what the caller's `traceparent` names
      admission                       from the job's begin to its slot
      job                             around the author's code, whose own spans are its children
        storage.read                  a call of a service
          RPC (client)                a call to the provider, or to another module, which goes on with this trace

The current span is a context variable. It is set in the task of an RPC and in that of the author's code, which each
start with a fresh context, and is inherited by the tasks that are started there: so nothing of one call reaches the
next that runs in the same task. What the server does in the background, for no call, has no span.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from contextvars import Token
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dk_trio.hooks import Job, JobHook
from dk_trio.lifecycle import Reason
from dk_trio.log_context import CURRENT, MAX_ID
from dk_trio.rpc import CallInfo
from dk_trio.services.config import WRAP

from ._service_spans import wrapped

if TYPE_CHECKING:
    from multidict import MultiDict

# Semantic conventions of OpenTelemetry for RPCs and for errors. Not from their package, whose names are unstable.
SYSTEM: Final = "rpc.system.name"
METHOD: Final = "rpc.method"
CODE: Final = "rpc.response.status_code"
ERROR: Final = "error.type"

PROPAGATOR: Final = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

# Which statuses are the server's fault, says the convention; on the client all but OK are errors.
_SERVER_ERRORS: Final = frozenset(
    {
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.UNIMPLEMENTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
    }
)
# A job that was ended on purpose has not failed.
_ON_PURPOSE: Final = frozenset(
    {Reason.COMPLETED, Reason.SIGNAL_CANCEL, Reason.SIGNAL_STOP, Reason.STOP_MODULE, Reason.CLIENT_GONE}
)

# They come all the time, and for no job: a trace that begins with one of them tells nothing.
_BEGIN_NO_TRACE: Final = (
    "/grpc.",
    "/agentic_mesh_protocol.task_manager.v1.TaskManagerService/",
    "/agentic_mesh_protocol.registry.v1.RegistryService/Heartbeat",
)
_NAMED: Final = "grpc-previous-rpc-attempts"


class Tracing:
    """What all spans of one process come from.

    Attributes:
        tracer: None while nobody takes spans.
    """

    def __init__(self) -> None:
        self.tracer: trace.Tracer | None = None


class ServerSpans:
    """An interceptor for servers: a span for each RPC, in the caller's trace if it is in one."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def __call__(self, call: CallInfo) -> _ServerSpan:
        """A span around one call."""
        return _ServerSpan(self._tracing.tracer, call)


class _ServerSpan:
    __slots__ = ("_call", "_span", "_token", "_tracer")

    def __init__(self, tracer: trace.Tracer | None, call: CallInfo) -> None:
        self._tracer = tracer
        self._call = call
        self._span: trace.Span | None = None
        self._token: Token[Context]

    async def __aenter__(self) -> None:
        call = self._call
        # From an empty context: what the connection's task was in, when it began, is nothing to this call.
        context = PROPAGATOR.extract(call.metadata, Context(), _Received())
        if self._tracer is None or (call.path.startswith(_BEGIN_NO_TRACE) and not _valid(context)):
            return
        span = self._span = self._tracer.start_span(call.path[1:], context, SpanKind.SERVER, _of_call(call))
        before = call.metadata.get(_NAMED)
        if before is not None:
            span.set_attribute("dk_trio.previous_attempts", before)
        self._token = attach(trace.set_span_in_context(span, context))
        trace_id = f"{span.get_span_context().trace_id:032x}" if span.is_recording() else ""
        if trace_id:  # not taken back: the line of the access log comes later, and the next call has another context
            CURRENT.set({**CURRENT.get(), "trace": trace_id})

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        span = self._span
        if span is not None:
            detach(self._token)
            _end(span, self._call.status_for(error), error, _SERVER_ERRORS)


class ClientSpans:
    """An interceptor for channels: a span for each call that is made for a traced one, whose server goes on with it."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def __call__(self, call: CallInfo) -> _ClientSpan:
        """A span around one call."""
        return _ClientSpan(self._tracing.tracer, call)


class _ClientSpan:
    # The span is not made the current one: a call may live in a generator, whose caller's context it would change.
    __slots__ = ("_call", "_span", "_tracer")

    def __init__(self, tracer: trace.Tracer | None, call: CallInfo) -> None:
        self._tracer = tracer
        self._call = call
        self._span: trace.Span | None = None

    async def __aenter__(self) -> None:
        if self._tracer is None or not trace.get_current_span().get_span_context().is_valid:
            return
        call = self._call
        attributes = _of_call(call)
        host, _, port = call.target.rpartition(":")
        if port.isdecimal():
            attributes |= {"server.address": host.strip("[]"), "server.port": int(port)}
        elif call.target:
            attributes["server.address"] = call.target
        span = self._span = self._tracer.start_span(call.path[1:], None, SpanKind.CLIENT, attributes)
        for field in PROPAGATOR.fields:  # a caller's own, which an author has passed on, would be an older parent
            call.metadata.popall(field, None)
        PROPAGATOR.inject(call.metadata, trace.set_span_in_context(span))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None:
            _end(self._span, self._call.status_for(error), error, None)


class JobSpans(JobHook):
    """A span for each job's wait, and one for its code, in the trace of its RPC."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._spans: dict[str, trace.Span] = {}  # of jobs whose code runs

    def around(self, job: Job) -> AbstractContextManager[object]:
        """The current span of the author's code."""
        return _Current(self, job)

    def begun(self, job: Job) -> trace.Span | None:
        """The job has its slot."""
        tracer = self._tracing.tracer
        if tracer is None or not trace.get_current_span().get_span_context().is_valid:
            return None
        clock = _WallClock()
        admitted = clock.ns(job.admitted_at)
        waiting = tracer.start_span("admission", None, attributes=_of_job(job), start_time=clock.ns(job.created_at))
        waiting.end(admitted)
        span = tracer.start_span(f"job {job.module_name}", None, attributes=_of_job(job), start_time=admitted)
        self._spans[job.ids.job_id] = span
        return span

    def ended(self, job: Job) -> None:
        """The job has its outcome."""
        outcome = job.outcome
        tracer = self._tracing.tracer
        assert outcome is not None
        span = self._spans.pop(job.ids.job_id, None)
        if span is None:
            if job.admitted_at != inf or tracer is None or not trace.get_current_span().get_span_context().is_valid:
                return
            since = _WallClock().ns(job.created_at)
            span = tracer.start_span("admission", None, attributes=_of_job(job), start_time=since)
        else:
            span.set_attribute("dk_trio.outputs", job.outputs)
        span.set_attribute("dk_trio.reason", outcome.reason.value)
        if outcome.reason not in _ON_PURPOSE:
            error = outcome.error
            span.set_attribute(ERROR, outcome.reason.value if error is None else error.code)
            span.set_status(StatusCode.ERROR, None if error is None else error.text)
        span.end()

    def wrap(self, name: str, strategy: object) -> object:
        """Put spans around the calls of a job's service."""
        tracer = self._tracing.tracer
        return strategy if tracer is None else wrapped(tracer, name, strategy)


class _Current:
    __slots__ = ("_job", "_span", "_spans", "_token", "_wrapping")

    def __init__(self, spans: JobSpans, job: Job) -> None:
        self._spans = spans
        self._job = job

    def __enter__(self) -> None:
        span = self._span = self._spans.begun(self._job)
        if span is not None:
            self._token = attach(trace.set_span_in_context(span))
            self._wrapping = WRAP.set(self._spans.wrap if span.is_recording() else None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None:  # which ends with the job, that has more to say then
            WRAP.reset(self._wrapping)
            detach(self._token)


class _WallClock:
    """Times of Trio's clock as spans want them."""

    def __init__(self) -> None:
        self._trio = trio.current_time()
        self._wall = time.time_ns()

    def ns(self, moment: float) -> int:
        """Nanoseconds since the epoch."""
        return self._wall - round((self._trio - moment) * 1e9)


class _Received(Getter["MultiDict[str | bytes]"]):
    """What a caller has sent. It may be anything; what is no text or not well formed counts as not sent."""

    def get(self, carrier: MultiDict[str | bytes], key: str) -> list[str] | None:
        values = [value for value in carrier.getall(key, []) if isinstance(value, str)]
        return values or None

    def keys(self, carrier: MultiDict[str | bytes]) -> list[str]:
        return list(carrier.keys())


def _valid(context: Context) -> bool:
    return trace.get_current_span(context).get_span_context().is_valid


def _of_call(call: CallInfo) -> dict[str, str | int]:
    return {SYSTEM: "grpc", METHOD: call.path[1:]}


def _of_job(job: Job) -> dict[str, str]:
    ids = job.ids
    return {
        "dk_trio.module": job.module_name,
        "dk_trio.protocol": job.protocol[:MAX_ID],
        "dk_trio.job_id": ids.job_id,
        "dk_trio.mission_id": ids.mission_id[:MAX_ID],
        "dk_trio.setup_id": ids.setup_id[:MAX_ID],
        "dk_trio.setup_version_id": ids.setup_version_id[:MAX_ID],
    }


def _end(span: trace.Span, status: Status, error: BaseException | None, errors: frozenset[Status] | None) -> None:
    """End the span of a call; `errors` are the statuses that are errors, None: all but OK."""
    span.set_attribute(CODE, status.name)
    if status is not Status.OK if errors is None else status in errors:
        span.set_attribute(ERROR, status.name)
        span.set_status(StatusCode.ERROR, error.message if isinstance(error, GRPCError) else None)
    span.end()
