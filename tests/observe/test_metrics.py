"""Metrics as a scraper sees them: names, numbers, formats; and what a scrape must not depend on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from prometheus_client.parser import text_string_to_metric_families
from tests.module.remote_kit import MISSION, REMOTE, echo, keep, module, wait
from tests.module.served import outputs_of, served

from dk_trio import ModuleClient, rpc
from dk_trio.errors import ListenError, MissingPackageError
from dk_trio.observe import Observed
from dk_trio.observe._metric_names import FOREIGN, METRICS
from dk_trio.observe.metrics import FRESH, Metrics
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StopModuleRequest, StopModuleResponse
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import GetSetupRequest, SetupServiceStub
from dk_trio.settings import ObserveSettings, ServerSettings, TaskSettings

from .watched import Watched, watched

SETTINGS = ObserveSettings(metrics_port=0)
MODULE = "Sample"


async def get(app: Any, path: str = "/metrics", *, method: str = "GET", accept: str = "") -> tuple[int, str, str]:
    """Status, content type and body of one request."""
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    headers = [(b"accept", accept.encode())] if accept else []
    await app({"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}, receive, send)
    kind = dict(told[0]["headers"]).get(b"content-type") or dict(told[0]["headers"]).get(b"Content-Type")
    return told[0]["status"], kind.decode(), b"".join(part["body"] for part in told[1:]).decode()


async def scrape(metrics: Metrics, observed: Observed) -> Samples:
    status, _, text = await get(metrics.app(observed))
    assert status == 200
    return Samples(text)


class Samples:
    """The numbers of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.rows = [sample for family in self.families.values() for sample in family.samples]

    def names(self) -> set[str]:
        return {sample.name for sample in self.rows}

    def value(self, name: str, **labels: str) -> float:
        found = [sample.value for sample in self.rows if sample.name == name and sample.labels == labels]
        assert len(found) == 1, (name, labels, [row for row in self.rows if row.name == name])
        return float(found[0])

    def labels(self, name: str) -> Iterator[dict[str, str]]:
        return (sample.labels for sample in self.rows if sample.name == name)


def documented() -> set[str]:
    return {series for metric in METRICS.values() for series in metric.series} | set(FOREIGN)


async def busy(here: Watched) -> None:
    """Do something of everything that leaves a trace in a label."""
    await outputs_of(here.client, {"protocol": "message", "text": "a"}, setup_id=here.setup_id, mission_id=MISSION)
    with pytest.raises(GRPCError, match="setup"):
        await SetupServiceStub(here.provider.channel).get_setup(GetSetupRequest())


async def test_a_scrape_has_the_documented_names_and_no_other(autojump_clock):
    metrics = Metrics(SETTINGS)
    async with watched(metrics, keep) as here:
        await busy(here)
        found = (await scrape(metrics, here.observed)).names()
    assert found - documented() == set()
    assert documented() - found == set()


async def test_types_labels_and_help_are_those_of_the_table(autojump_clock):
    metrics = Metrics(SETTINGS)
    async with watched(metrics, keep) as here:
        await busy(here)
        samples = await scrape(metrics, here.observed)
    for metric in METRICS.values():
        family = samples.families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.about)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels), sample


def test_names_follow_the_conventions_of_prometheus():
    for metric in METRICS.values():
        assert metric.name.startswith("dk_trio_")
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric
        assert metric.unit in {"", "seconds", "bytes"}
        assert metric.unit in metric.name
        assert metric.about.endswith(".")
        assert sorted(metric.buckets) == list(metric.buckets)
        assert bool(metric.buckets) == (metric.kind == "histogram")


async def test_jobs_are_counted_by_the_reason_of_their_end_and_timed(autojump_clock):
    async def handle(self, data, setup, context):
        await trio.sleep(data.count)
        if data.text:
            raise ValueError(data.text)

    metrics = Metrics(SETTINGS)
    async with served(module(handle), hooks=metrics.hooks) as (server, client):
        await outputs_of(client, {"protocol": "message", "count": 3})
        with pytest.raises(GRPCError):
            await outputs_of(client, {"protocol": "message", "text": "oh"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outputs_of, client, {"protocol": "message", "count": 9})
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        await trio.sleep(1)
        now = await scrape(metrics, Observed(modules=lambda: [server]))
    ended = partial(now.value, "dk_trio_jobs_ended_total", module=MODULE)
    assert [ended(reason=reason) for reason in ("completed", "failed", "client_gone", "timeout")] == [1, 1, 1, 0]
    seconds = partial(now.value, module=MODULE, reason="completed")
    assert seconds("dk_trio_job_duration_seconds_sum") == 3
    assert seconds("dk_trio_job_duration_seconds_bucket", le="2.5") == 0
    assert seconds("dk_trio_job_duration_seconds_bucket", le="5.0") == 1
    assert seconds("dk_trio_job_duration_seconds_bucket", le="+Inf") == 1
    assert now.value("dk_trio_job_outputs_sum", module=MODULE) == 4  # two of the first, one each of the others
    assert now.value("dk_trio_job_wait_seconds_count", module=MODULE) == 3


async def test_waits_and_refusals_of_a_full_server(autojump_clock):
    tasks = TaskSettings(max_concurrent_tasks=1, max_queued_tasks=1, admission_timeout=2)
    metrics = Metrics(SETTINGS)
    settings = replace(REMOTE, tasks=tasks)
    async with watched(metrics, wait, settings=settings) as here, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(GRPCError) as caught:
                await outputs_of(
                    here.client, {"protocol": "message"}, setup_id=here.setup_id, mission_id=MISSION, timeout=10
                )
            statuses.append(caught.value.status)

        statuses: list[Status] = []
        for _ in range(3):
            nursery.start_soon(start)
        await trio.sleep(1)
        full = await scrape(metrics, here.observed)
        await trio.sleep(5)
        later = await scrape(metrics, here.observed)
        nursery.cancel_scope.cancel()
    assert full.value("dk_trio_admission_slots") == full.value("dk_trio_admission_running") == 1
    assert full.value("dk_trio_admission_places") == full.value("dk_trio_admission_queued") == 1
    assert full.value("dk_trio_admission_at_gate") == 1
    assert full.value("dk_trio_jobs_running", module=MODULE) == 1
    assert full.value("dk_trio_jobs_queued", module=MODULE) == 2
    assert statuses == [Status.RESOURCE_EXHAUSTED]
    assert later.value("dk_trio_admission_rejected_total", at="gate") == 1
    assert later.value("dk_trio_jobs_ended_total", module=MODULE, reason="refused") == 1
    assert later.value("dk_trio_job_wait_seconds_sum", module=MODULE) == 2
    assert "dk_trio_job_duration_seconds_count" not in later.names()


async def test_rpcs_are_counted_by_method_and_code(autojump_clock):
    metrics = Metrics(SETTINGS)
    async with served(module(wait), interceptors=metrics.interceptors) as (server, client):
        with pytest.raises(GRPCError):
            await client.stop("nobody")
        with pytest.raises(GRPCError):
            await outputs_of(client, {"protocol": "message"}, timeout=4)
        await trio.testing.wait_all_tasks_blocked()
        now = await scrape(metrics, Observed(modules=lambda: [server]))
    service = "agentic_mesh_protocol.module.v1.ModuleService"
    handled = partial(now.value, "dk_trio_rpcs_handled_total", service=service)
    assert handled(method="StopModule", code="NOT_FOUND") == 1
    assert handled(method="StartModule", code="DEADLINE_EXCEEDED") == 1
    assert now.value("dk_trio_rpc_duration_seconds_sum", service=service, method="StartModule") == 4


async def test_no_caller_can_make_labels_grow(autojump_clock):
    metrics = Metrics(SETTINGS)
    async with served(module(echo), interceptors=metrics.interceptors, hooks=metrics.hooks) as (server, client):
        observed = Observed(modules=lambda: [server])
        await outputs_of(client, {"protocol": "message"})
        before = (await scrape(metrics, observed)).rows
        async with rpc.open_channel("memory", connect=server._connect) as channel:
            for number in range(20):
                with pytest.raises(GRPCError, match="no method"):
                    await channel.request(
                        f"/{number}/{number}", Cardinality.UNARY_UNARY, StopModuleRequest, StopModuleResponse
                    ).unary(StopModuleRequest())
                await outputs_of(client, {"protocol": "message"}, mission_id=f"missions:{number}")
        await trio.sleep(FRESH)
        after = (await scrape(metrics, observed)).rows
        assert len(before) == len(after)


async def test_bytes_and_connections_of_those_that_have_ended_still_count(autojump_clock):
    metrics = Metrics(SETTINGS)
    async with served(module(echo)) as (server, client):
        observed = Observed(modules=lambda: [server])
        await outputs_of(client, {"protocol": "message", "text": "x" * 10_000})
        async with rpc.open_channel("memory", connect=server._connect) as channel:
            await outputs_of(ModuleClient(channel), {"protocol": "message", "text": "x" * 10_000})
            await trio.sleep(FRESH)
            both = await scrape(metrics, observed)
        await trio.sleep(5)
        one = await scrape(metrics, observed)
    assert (both.value("dk_trio_connections"), one.value("dk_trio_connections")) == (2, 1)
    assert one.value("dk_trio_connections_started_total") == 2
    for name in ("dk_trio_received_bytes_total", "dk_trio_sent_bytes_total"):
        assert one.value(name) >= both.value(name) > 20_000


async def test_queries_signals_and_the_breaker_of_a_provider(autojump_clock):
    metrics = Metrics(SETTINGS)
    async with watched(metrics, keep) as here:
        await busy_and_settled(here)
        now = await scrape(metrics, here.observed)
    target = "provider:50051"
    assert now.value("dk_trio_queries_total", target=target) >= 2  # the setup, and the record
    assert now.value("dk_trio_breaker_open", target=target) == 0
    assert now.value("dk_trio_provider_connections", target=target) == 1
    assert now.value("dk_trio_signals_delivered_total") == now.value("dk_trio_provider_signals_received_total") == 2
    assert now.value("dk_trio_signals_pending") == 0


async def busy_and_settled(here: Watched) -> None:
    await outputs_of(here.client, {"protocol": "message", "text": "a"}, setup_id=here.setup_id, mission_id=MISSION)
    await trio.sleep(2)


async def test_two_servers_in_a_process_are_added_up_and_do_not_meet(autojump_clock):
    ours, theirs = Metrics(SETTINGS), Metrics(SETTINGS)
    async with (
        served(module(echo), interceptors=ours.interceptors, hooks=ours.hooks) as (first, client),
        served(module(echo), interceptors=theirs.interceptors, hooks=theirs.hooks) as (second, _),
    ):
        await outputs_of(client, {"protocol": "message"})
        both = await scrape(ours, Observed(modules=lambda: [first, second]))
        other = await scrape(theirs, Observed(modules=lambda: [second]))
    assert both.value("dk_trio_admission_slots") == 2 * other.value("dk_trio_admission_slots")
    assert both.value("dk_trio_jobs_ended_total", module=MODULE, reason="completed") == 1
    assert list(other.labels("dk_trio_jobs_ended_total")) == []


async def test_openmetrics_for_those_who_ask_for_it(autojump_clock):
    metrics = Metrics(SETTINGS)
    async with served(module(echo)) as (server, _):
        app = metrics.app(Observed(modules=lambda: [server]))
        accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        _, kind, text = await get(app, accept=accept)
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        _, kind, text = await get(app)
        assert kind.startswith("text/plain; version=")
        assert "# EOF" not in text


async def test_other_paths_and_methods_are_refused(autojump_clock):
    app = Metrics(SETTINGS).app(Observed())
    assert (await get(app, "/"))[0] == 404
    assert (await get(app, method="POST"))[0] == 405


async def test_a_server_that_is_full_or_drains_can_be_scraped(autojump_clock):
    metrics = Metrics(SETTINGS)
    settings = replace(REMOTE, server=ServerSettings(max_concurrent_rpcs=1))
    async with watched(metrics, wait, settings=settings) as here, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(GRPCError):
                await outputs_of(here.client, {"protocol": "message"}, setup_id=here.setup_id, mission_id=MISSION)

        nursery.start_soon(start)
        await trio.sleep(1)
        observed = Observed(modules=lambda: [here.server])
        full = await scrape(metrics, observed)
        assert full.value("dk_trio_rpcs_limit") == full.value("dk_trio_rpcs_running") == 1
        assert full.value("dk_trio_health", check="liveness") == 1
        nursery.start_soon(here.server.drain)
        await trio.sleep(1)
        now = await scrape(metrics, observed)
        assert now.value("dk_trio_draining") == 1
        assert now.value("dk_trio_health", check="readiness") == 0
        nursery.cancel_scope.cancel()


async def test_many_scrapes_at_once_ask_the_server_once(autojump_clock):
    metrics = Metrics(SETTINGS)
    asked = 0
    async with served(module(echo)) as (server, _):

        def modules():
            nonlocal asked
            asked += 1
            return [server]

        app = metrics.app(Observed(modules=modules))
        for _ in range(10):
            await get(app)
        assert asked == 1
        await trio.sleep(FRESH)
        await get(app)
        assert asked == 2


# -- the endpoint -----------------------------------------------------------------------------------------------------


async def http_get(address: str, path: str = "/metrics") -> bytes:
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        return b"".join([data async for data in stream])


async def test_the_endpoint_is_open_for_the_length_of_the_block_whatever_a_slow_scraper_does():
    metrics = Metrics(SETTINGS)
    with trio.fail_after(30):
        async with metrics.opened(Observed()):
            address = metrics.address
            host, _, port = address.rpartition(":")
            stuck = await trio.open_tcp_stream(host, int(port))  # and says nothing
            answer = await http_get(address)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"dk_trio_build_info{" in answer
            await stuck.aclose()
        assert metrics.address == ""
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(host, int(port))


async def test_a_port_that_is_in_use_is_named_with_its_variable():
    metrics = Metrics(SETTINGS)
    with trio.fail_after(30):
        async with metrics.opened(Observed()):
            port = int(metrics.address.rpartition(":")[2])
            with pytest.raises(ListenError, match=str(port)) as caught:
                async with Metrics(ObserveSettings(metrics_port=port)).opened(Observed()):
                    raise AssertionError("unreachable")
    assert "DIGITALKIN_METRICS_PORT" in caught.value.hint


def test_each_worker_has_a_port_of_its_own():
    assert Metrics(ObserveSettings(metrics_port=9100), worker=3)._port == 9103
    assert Metrics(ObserveSettings(metrics_port=0), worker=3)._port == 0  # any free one


def test_a_missing_package_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingPackageError) as caught:
        Metrics(SETTINGS)
    assert "prometheus-client" in caught.value.text
    assert "pip install 'dk-trio[metrics]'" in caught.value.text
