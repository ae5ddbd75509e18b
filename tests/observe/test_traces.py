"""Spans: one trace through callers, modules, services and the provider, with the right parents, ends and times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.exceptions import GRPCError
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from tests.module.remote_kit import MISSION, echo, keep, module, wait
from tests.module.served import outputs_of, served

from dk_trio import ModuleClient, ModuleServer, Settings, rpc
from dk_trio.errors import ModuleCallError
from dk_trio.log_context import CURRENT, MAX_ID
from dk_trio.observe import Observed
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthStub
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.registry import ModuleInfo
from dk_trio.services.strategy import BaseStrategy
from dk_trio.settings import TaskSettings

from .recorded import CALLER, HELLO, START, TRACE, TRACEPARENT, Recorded, told, traced
from .watched import watched

# -- the shape of a trace ---------------------------------------------------------------------------------------------


async def test_a_job_goes_on_with_the_trace_of_its_caller(autojump_clock):
    recorded = Recorded()
    async with traced(echo, recorded) as client:
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    assert recorded.tree() == {
        "StartModule served": CALLER,
        "admission": "StartModule served",
        "job Sample": "StartModule served",
    }
    for span in recorded.spans:
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span.context.trace_state.get("vendor") == "1"


async def test_what_is_logged_in_a_call_has_its_trace(autojump_clock):
    seen = []

    async def handle(self, data, setup, context):
        seen.append(CURRENT.get())
        await echo(self, data, setup, context)

    recorded = Recorded()
    async with traced(handle, recorded) as client:
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT})
        await outputs_of(client, HELLO, metadata={"traceparent": f"{TRACEPARENT[:-2]}00"})
    assert [ids.get("trace") for ids in seen] == [TRACE, None]
    assert all(ids["job"] for ids in seen)


async def test_a_call_without_a_trace_begins_one(autojump_clock):
    recorded = Recorded()
    async with traced(echo, recorded) as client:
        await outputs_of(client, HELLO)
        await outputs_of(client, HELLO)
    roots = [span for span in recorded.spans if span.parent is None]
    assert [span.name for span in roots] == [START, START]
    assert len({span.context.trace_id for span in recorded.spans}) == 2


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-0-0-01", f"00-{'0' * 32}-{CALLER}-01"])
async def test_a_trace_that_cannot_be_read_is_as_good_as_none(autojump_clock, traceparent):
    recorded = Recorded()
    async with traced(echo, recorded) as client:
        await outputs_of(client, HELLO, metadata={"traceparent": traceparent})
    assert recorded.one(START).parent is None


async def test_spans_of_the_author_are_children_of_the_job(autojump_clock):
    recorded = Recorded()

    async def handle(self, data, setup, context):
        tracer = provider.get_tracer("author")
        with tracer.start_as_current_span("thinking"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(aside, tracer)

    async def aside(tracer):
        with tracer.start_as_current_span("aside"):
            await trio.sleep(1)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(recorded.exporter))
    async with traced(handle, recorded) as client:
        await outputs_of(client, HELLO)
    tree = recorded.tree()
    assert (tree["aside"], tree["thinking"]) == ("thinking", "job Sample")


async def test_calls_of_services_are_spans_and_their_strategies_stay_what_they_are(autojump_clock):
    async def handle(self, data, setup, context):
        assert isinstance(context.storage, BaseStrategy)
        await keep(self, data, setup, context)
        with pytest.raises(Exception, match="nowhere"):
            await context.storage.read("nowhere", "x")

    recorded = Recorded()
    async with traced(handle, recorded) as client:
        await outputs_of(client, HELLO)
    tree = recorded.tree()
    assert (tree["storage.store"], tree["storage.read"]) == ("job Sample", "job Sample")
    assert recorded.one("storage.store").status.status_code is StatusCode.UNSET
    failed = recorded.one("storage.read")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["dk_trio.service"] == "storage"
    assert failed.attributes["error.type"]
    assert "storage.close" not in tree


async def test_a_trace_goes_through_the_provider(autojump_clock):
    recorded = Recorded()
    async with watched(recorded.traces, keep) as here, recorded.traces.opened(here.observed):
        await outputs_of(
            here.client,
            HELLO,
            setup_id=here.setup_id,
            mission_id=MISSION,
            metadata={"traceparent": TRACEPARENT},
        )
        await trio.sleep(30)  # signals, polls: what the server does for no call
    tree = recorded.tree()
    assert tree["StoreRecord served"] == "StoreRecord called"
    assert tree["StoreRecord called"] == "storage.store"
    assert tree["storage.store"] == "job Sample"
    assert tree.pop("GetSetup served") == ""  # jobs share what is fetched, so it is in no job's trace
    assert {f"{span.context.trace_id:032x}" for span in recorded.spans if told(span) in tree} == {TRACE}
    assert len(recorded.spans) == len(tree) + 1
    called = recorded.one("agentic_mesh_protocol.storage.v1.StorageService/StoreRecord", SpanKind.CLIENT)
    assert (called.attributes["server.address"], called.attributes["server.port"]) == ("provider", 50051)


@asynccontextmanager
async def two_modules(
    recorded: Recorded, callee: Any, *, metadata: bool = False, ours: dict[str, Any] | None = None
) -> AsyncIterator[tuple[ModuleClient, list[Any]]]:
    """A module that calls another one of this process, and what the other was sent."""
    platform = LocalPlatform(None)
    sent: list[Any] = []

    async def call(self: Any, data: Any, setup: Any, context: Any) -> None:
        answers = context.communication.call_module(
            "callee.memory",
            1,
            HELLO,
            "setups:s",
            context.session.mission_id,
            metadata=context.request_metadata if metadata else None,
        )
        sent.extend([answer async for answer in answers])

    async def answer(self: Any, data: Any, setup: Any, context: Any) -> None:
        sent.append(context.request_metadata)
        await callee(self, data, setup, context)

    other = ModuleServer(
        module(answer, metadata={"module_id": "modules:callee"}), platform=platform, **recorded.arguments
    )
    async with platform.opened(), other.opened(), trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ends = trio.testing.memory_stream_pair()
            nursery.start_soon(other.serve_stream, ends[1])
            return ends[0]

        info = ModuleInfo(module_id="modules:callee", address="callee.memory", port=1, module_name="Callee")
        with platform.registry.serving(info, connect=connect, setups=()):
            arguments = recorded.arguments if ours is None else ours
            async with served(module(call), platform=platform, **arguments) as (_, client):
                yield client, sent
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("passed_on", [False, True])
async def test_one_trace_goes_through_two_modules(autojump_clock, passed_on):
    recorded = Recorded()
    async with (
        recorded.traces.opened(Observed()),
        two_modules(recorded, echo, metadata=passed_on) as (client, _),
    ):
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT})
        await trio.testing.wait_all_tasks_blocked()
    ours = recorded.one(START, SpanKind.CLIENT)
    assert ours.status.status_code is StatusCode.UNSET
    assert ours.attributes["rpc.response.status_code"] == "OK"
    parents = {span.context.span_id: span for span in recorded.spans}
    inner = next(span for span in recorded.spans if span.parent and span.parent.span_id == ours.context.span_id)
    assert (inner.name, inner.kind) == (START, SpanKind.SERVER)
    job = parents[ours.parent.span_id]
    outer = parents[job.parent.span_id]
    assert (job.name, outer.name) == ("job Sample", START)
    assert f"{outer.parent.span_id:016x}" == CALLER
    assert {f"{span.context.trace_id:032x}" for span in recorded.spans} == {TRACE}


async def test_without_traces_a_callers_trace_goes_on_with_its_metadata(autojump_clock):
    recorded = Recorded()  # and never opened
    async with two_modules(recorded, echo, metadata=True, ours={}) as (client, sent):
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT, "baggage": "user=1"})
    assert sent[0]["traceparent"] == TRACEPARENT
    assert sent[0]["baggage"] == "user=1"
    assert recorded.spans == []


async def test_baggage_reaches_the_author_and_the_module_that_is_called(autojump_clock):
    seen = []

    async def look(self, data, setup, context):
        seen.append(baggage.get_baggage("user"))

    recorded = Recorded()
    async with recorded.traces.opened(Observed()), two_modules(recorded, look) as (client, _):
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT, "baggage": "user=7"})
    assert seen == ["7"]


# -- how spans end ----------------------------------------------------------------------------------------------------


async def test_what_fails_has_the_status_that_the_caller_gets(autojump_clock):
    async def handle(self, data, setup, context):
        raise ValueError("oh")

    recorded = Recorded()
    async with traced(handle, recorded) as client:
        with pytest.raises(GRPCError):
            await outputs_of(client, HELLO)
    call, job = recorded.one(START), recorded.one("job Sample")
    assert call.attributes["rpc.response.status_code"] == call.attributes["error.type"] == "INTERNAL"
    assert call.status.status_code is job.status.status_code is StatusCode.ERROR
    assert job.attributes["error.type"] == "MODULE_FAILED"
    assert job.attributes["dk_trio.reason"] == "failed"
    assert "oh" in job.status.description


async def test_a_job_whose_caller_leaves_has_not_failed(autojump_clock):
    recorded = Recorded()
    async with traced(wait, recorded) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outputs_of, client, HELLO)
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        call, job = recorded.one(START), recorded.one("job Sample")
    assert (call.attributes["rpc.response.status_code"], call.status.status_code) == ("CANCELLED", StatusCode.UNSET)
    assert (job.attributes["dk_trio.reason"], job.status.status_code) == ("client_gone", StatusCode.UNSET)


async def test_a_deadline_is_an_error_of_the_server(autojump_clock):
    recorded = Recorded()
    async with traced(wait, recorded) as client:
        with pytest.raises(GRPCError):
            await outputs_of(client, HELLO, timeout=2)
        await trio.testing.wait_all_tasks_blocked()
        assert recorded.one(START).attributes["error.type"] == "DEADLINE_EXCEEDED"
        assert recorded.one("job Sample").attributes["error.type"] == "DEADLINE_EXCEEDED"


async def test_a_call_that_fails_has_a_status_on_both_sides(autojump_clock):
    async def fail(self, data, setup, context):
        raise ValueError("callee")

    recorded = Recorded()
    async with recorded.traces.opened(Observed()), two_modules(recorded, fail) as (client, _):
        with pytest.raises(GRPCError):
            await outputs_of(client, HELLO)
        await trio.testing.wait_all_tasks_blocked()
    ours = recorded.one(START, SpanKind.CLIENT)
    assert ours.attributes["rpc.response.status_code"] == "INTERNAL"
    assert ours.status.status_code is StatusCode.ERROR
    assert issubclass(ModuleCallError, Exception)


async def test_the_wait_for_a_slot_has_its_length_also_when_there_was_none(autojump_clock):
    tasks = TaskSettings(max_concurrent_tasks=1, max_queued_tasks=1, admission_timeout=2)
    recorded = Recorded()
    settings = replace(Settings(), tasks=tasks)

    async def handle(self, data, setup, context):
        await trio.sleep(5)

    async def start():
        try:
            await outputs_of(client, HELLO)
        except GRPCError as error:
            refused.append(error)

    refused: list[GRPCError] = []
    async with traced(handle, recorded, settings=settings) as client, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(start)
            await trio.sleep(0.5)
    assert len(refused) == 1
    waits = [span for span in recorded.spans if span.name == "admission"]
    assert sorted(round((span.end_time - span.start_time) / 1e9, 1) for span in waits) == [0.0, 2.0, 4.5]
    (lost,) = [span for span in waits if "error.type" in span.attributes]
    assert lost.attributes["error.type"] == "QUEUE_FULL"
    assert lost.attributes["dk_trio.reason"] == "refused"
    assert len([span for span in recorded.spans if span.name == "job Sample"]) == 2


async def test_what_a_span_says_of_its_job(autojump_clock):
    recorded = Recorded()
    async with traced(echo, recorded) as client:
        outputs = await outputs_of(client, HELLO, mission_id="missions:7", setup_id="setups:8")
    ids = outputs[0]["root"]
    attributes = recorded.one("job Sample").attributes
    assert attributes["dk_trio.job_id"] == ids["job_id"]
    assert attributes["dk_trio.mission_id"] == "missions:7"
    assert attributes["dk_trio.setup_id"] == "setups:8"
    assert (attributes["dk_trio.module"], attributes["dk_trio.protocol"]) == ("Sample", "message")
    assert attributes["dk_trio.outputs"] == 3
    call = recorded.one(START).attributes
    assert (call["rpc.system.name"], call["rpc.method"]) == ("grpc", START)


async def test_a_span_has_the_beginning_of_an_id_that_has_no_end(autojump_clock):
    recorded = Recorded()
    async with traced(echo, recorded) as client:
        await outputs_of(client, HELLO, mission_id="missions:" + 1_000_000 * "7")
    assert len(recorded.one("job Sample").attributes["dk_trio.mission_id"]) == MAX_ID


# -- what does not leak -----------------------------------------------------------------------------------------------


async def test_nothing_of_one_call_reaches_the_next_one_of_its_task(autojump_clock):
    seen = []

    async def handle(self, data, setup, context):
        seen.append((trio.lowlevel.current_task().parent_nursery.parent_task, baggage.get_baggage("user")))
        await echo(self, data, setup, context)

    recorded = Recorded()
    async with traced(handle, recorded) as client:
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT, "baggage": "user=1"})
        await outputs_of(client, HELLO)
    assert seen[0][0] is seen[1][0]  # one task has run both calls
    assert [user for _, user in seen] == ["1", None]
    first, second = (span for span in recorded.spans if span.name == START)
    assert second.parent is None
    assert first.context.trace_id != second.context.trace_id
    assert not trace.get_current_span().get_span_context().is_valid


async def test_spans_end_with_the_block_and_there_are_none_before_it(autojump_clock):
    recorded = Recorded()
    async with served(module(echo), **recorded.arguments) as (server, client):
        await outputs_of(client, HELLO)
        async with recorded.traces.opened(Observed(modules=lambda: [server])):
            await outputs_of(client, HELLO)
        await outputs_of(client, HELLO)
    assert len(recorded.spans) == 3


async def test_a_decision_not_to_sample_is_kept_by_all(autojump_clock):
    recorded = Recorded()
    async with recorded.traces.opened(Observed()), two_modules(recorded, echo) as (client, sent):
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT.removesuffix("01") + "00"})
    assert recorded.spans == []
    assert sent[0]["traceparent"].startswith(f"00-{TRACE}-")
    assert sent[0]["traceparent"].endswith("-00")


async def test_the_share_of_traces_that_begin_here(autojump_clock):
    recorded = Recorded(traces_sample=0.0)
    async with traced(echo, recorded) as client:
        await outputs_of(client, HELLO)
        assert recorded.spans == []
        await outputs_of(client, HELLO, metadata={"traceparent": TRACEPARENT})
        assert len(recorded.spans) == 3


async def test_health_checks_begin_no_trace(autojump_clock):
    recorded = Recorded()
    async with (
        served(module(echo), **recorded.arguments) as (server, _),
        recorded.traces.opened(Observed()),
        rpc.open_channel("memory", connect=server._connect) as channel,
    ):
        await HealthStub(channel).check(HealthCheckRequest())
        assert recorded.spans == []
        await HealthStub(channel).check(HealthCheckRequest(), metadata={"traceparent": TRACEPARENT})
    assert recorded.tree() == {"Check served": CALLER}
