"""One line for each RPC: its code is what the caller was told, whatever has ended the call."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from multidict import MultiDict
from tests._pb.dk_trio.test.v1 import Message
from tests.module.sample import module_with
from tests.module.served import outputs_of, served
from tests.rpc.wire_client import WireClient, echo, serving

from dk_trio import ModuleClient, Settings, rpc
from dk_trio.log_context import CURRENT, MAX_ID
from dk_trio.observe import Observed
from dk_trio.observe._format import JsonFormat
from dk_trio.observe.access_log import MAX_PATH, AccessLog
from dk_trio.observe.logs import LogHandler, logging_to

from .recorded import HELLO, TRACE, TRACEPARENT, Recorded

LOGGER = "dk_trio.access"


@pytest.fixture(autouse=True)
def at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


def lines(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name == LOGGER]


def codes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.code for line in lines(caplog)]


async def fails(stream: rpc.ServerCall) -> None:
    await stream.recv_message()
    raise GRPCError(Status.NOT_FOUND, "no such thing")


async def breaks(stream: rpc.ServerCall) -> None:
    raise ValueError("a defect")


async def fails_in_a_nursery(stream: rpc.ServerCall) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, stream)


async def says_nothing(stream: rpc.ServerCall) -> None:
    await stream.recv_message()


async def sends_trailers(stream: rpc.ServerCall) -> None:
    await stream.send_trailing_metadata(status=Status.ABORTED)


async def waits(stream: rpc.ServerCall) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (echo, Status.OK),
        (fails, Status.NOT_FOUND),
        (fails_in_a_nursery, Status.NOT_FOUND),
        (breaks, Status.UNKNOWN),
        (says_nothing, Status.UNKNOWN),
        (sends_trailers, Status.ABORTED),
    ],
)
async def test_the_code_is_what_the_caller_is_told(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, handler: Any, code: Status
) -> None:
    async with serving(interceptors=[AccessLog()], unary=handler) as (client, _):
        call = await client.call("unary", Message())
        assert (await call.status())[0] is code
    assert codes(caplog) == [code.name]
    assert lines(caplog)[0].method == "/test.Service/unary"
    assert lines(caplog)[0].levelno == logging.INFO


@pytest.mark.parametrize(
    ("handler", "level"), [(echo, logging.DEBUG), (fails, logging.INFO), (says_nothing, logging.INFO)]
)
async def test_of_failures_alone_what_went_well_is_told_at_debug(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, handler: Any, level: int
) -> None:
    async with serving(interceptors=[AccessLog(failures=True)], unary=handler) as (client, _):
        await (await client.call("unary", Message())).status()
    assert [line.levelno for line in lines(caplog)] == [level]


async def test_how_long_a_call_took(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async def slow(stream: rpc.ServerCall) -> None:
        await trio.sleep(1.25)
        await stream.send_message(Message())

    async with serving(interceptors=[AccessLog()], unary=slow) as (client, _):
        await client.unary("unary")
    assert lines(caplog)[0].duration_ms == 1250


async def test_a_caller_that_leaves_has_cancelled(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(interceptors=[AccessLog()], unary=waits) as (client, _):
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await call.reset_by_client()
        await trio.testing.wait_all_tasks_blocked()
        assert codes(caplog) == ["CANCELLED"]


async def test_a_connection_that_is_lost_has_cancelled_its_calls(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(interceptors=[AccessLog()], unary=waits) as (client, _):
        await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
    assert codes(caplog) == ["CANCELLED"]


async def test_a_deadline(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(interceptors=[AccessLog()], unary=waits) as (client, _):
        call = await client.call("unary", Message(), timeout=5.0)
        assert (await call.status())[0] is Status.DEADLINE_EXCEEDED
    assert codes(caplog) == ["DEADLINE_EXCEEDED"]
    assert lines(caplog)[0].duration_ms == pytest.approx(5000)


async def test_a_shutdown(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(interceptors=[AccessLog()], unary=waits) as (client, server):
        call = await client.call("unary", Message())
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(1)
        assert (await call.status())[0] is Status.UNAVAILABLE
    assert codes(caplog) == ["UNAVAILABLE"]


async def test_a_refusal_of_another_interceptor(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def refuse(call: rpc.CallInfo) -> AsyncIterator[None]:
        if call.path:
            raise GRPCError(Status.UNAUTHENTICATED, "who are you?")
        yield

    async with serving(interceptors=[AccessLog(), refuse], unary=echo) as (client, _):
        call = await client.call("unary", Message())
        assert (await call.status())[0] is Status.UNAUTHENTICATED
    assert codes(caplog) == ["UNAUTHENTICATED"]


async def test_an_unknown_method_is_a_line_that_cannot_grow(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(interceptors=[AccessLog()], unary=echo) as (client, _):
        for path in ("/test.Service/other", "/" + "x" * 3000):
            call = await client.call(path, Message(), metadata={"x-request-id": "mine"})
            assert (await call.status())[0] is Status.UNIMPLEMENTED
    assert codes(caplog) == ["UNIMPLEMENTED"] * 2
    assert [line.method[:12] for line in lines(caplog)] == ["/test.Servic", "/xxxxxxxxxxx"]
    assert len(lines(caplog)[1].method) == MAX_PATH + 3


async def test_a_call_that_finds_no_room(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    options = rpc.ServerOptions(max_concurrent_rpcs=1)
    async with serving(options, interceptors=[AccessLog()], unary=waits, unary_more=echo) as (client, _):
        await client.call("unary", Message())
        call = await client.call("unary_more", Message(), timeout=3.0)
        assert (await call.status())[0] is Status.RESOURCE_EXHAUSTED
        assert [(line.method, line.code) for line in lines(caplog)] == [
            ("/test.Service/unary_more", "RESOURCE_EXHAUSTED")
        ]


async def test_metadata_that_cannot_be_read_is_no_reason_to_fail_a_refusal(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    unreadable = {"fields": [(b"x-bin", b"!")]}
    async with serving(interceptors=[AccessLog()], client=unreadable, unary=echo) as (client, _):
        call = await client.call("unary_none", Message())
        assert (await call.status())[0] is Status.UNIMPLEMENTED
    assert codes(caplog) == ["UNIMPLEMENTED"]


async def request_ids(client: WireClient, *given: str | None) -> list[str]:
    return [
        (await (await client.call("unary", Message(), metadata={"x-request-id": name} if name else {})).answer()).text
        for name in given
    ]


async def test_request_ids(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    """The caller's, if a line can hold it; else one of ours, which a module passes on as if it had been given."""
    seen = []

    async def handler(stream: rpc.ServerCall) -> None:
        seen.append(stream.metadata.get("x-request-id"))
        await stream.send_message(Message(text=CURRENT.get()["request"]))

    async with serving(interceptors=[AccessLog()], unary=handler) as (client, _):
        bound = await request_ids(client, "req-1", None, None, "x" * 101)
    assert bound[0] == "req-1"
    assert len(set(bound)) == 4
    assert all(len(name) < 30 for name in bound)
    assert seen[:3] == bound[:3]
    assert not CURRENT.get()


@pytest.mark.parametrize(
    ("path", "code", "level"),
    [
        ("/grpc.health.v1.Health/Check", Status.OK, logging.DEBUG),
        ("/grpc.health.v1.Health/Check", Status.NOT_FOUND, logging.INFO),
        ("/agentic_mesh_protocol.task_manager.v1.TaskManagerService/GetSignals", Status.CANCELLED, logging.DEBUG),
        ("/agentic_mesh_protocol.task_manager.v1.TaskManagerService/SendSignals", Status.OK, logging.INFO),
    ],
)
def test_what_machines_ask_all_day_is_for_debugging(
    caplog: pytest.LogCaptureFixture, path: str, code: Status, level: int
) -> None:
    AccessLog().refused(call_of(path), code)
    assert [line.levelno for line in lines(caplog)] == [level]


def call_of(path: str = "/test.Service/unary", *, request: str | bytes = "r") -> rpc.CallInfo:
    peer = rpc.Peer(trio.testing.memory_stream_pair()[0])
    metadata: MultiDict[str | bytes] = MultiDict({"x-request-id": request})
    return rpc.CallInfo(path=path, cardinality=None, metadata=metadata, deadline=1e9, peer=peer, side="server")


async def answer(self: object, data: object, setup: object, context: Any) -> None:
    logging.getLogger("author").info("here")
    await context.send({"root": {"protocol": "message", "text": context.request_metadata["x-request-id"]}})


@contextmanager
def in_a_file(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Our handlers alone, as in a server; what they have written is in the list when the block has ended."""
    root = logging.getLogger()
    others, root.handlers = root.handlers, []
    settings = Settings()
    settings = replace(settings, observe=replace(settings.observe, log_file=path / "a.log", log_format="json"))
    written: list[dict[str, Any]] = []
    try:
        with logging_to(settings, stream=io.StringIO()):
            yield written
    finally:
        root.handlers = others
    written += [json.loads(line) for line in (path / "a.log").read_text(encoding="ascii").splitlines()]


async def job(client: ModuleClient) -> list[dict[str, Any]]:
    return await outputs_of(
        client, {"text": "x"}, protocol="message", setup_id='setups:"\n\x1b[2J', mission_id="missions:ä"
    )


async def test_a_job_and_its_call_have_the_same_ids(autojump_clock: object, tmp_path: Path) -> None:
    log = AccessLog()
    with in_a_file(tmp_path) as written:
        async with served(module_with(answer), interceptors=log.interceptors, hooks=log.hooks) as (_, client):
            outputs = await job(client)
    author, access = written[-2:]
    ids = {name: access[name] for name in ("request", "job", "mission", "setup")}
    assert ids == {
        "request": outputs[1]["root"]["text"],
        "job": outputs[0]["root"]["job_id"],
        "mission": "missions:ä",
        "setup": 'setups:"\n\x1b[2J',
    }
    assert {name: author[name] for name in ids} == ids
    assert author["message"] == "here"
    assert access["logger"] == LOGGER
    assert access["level"] == "info"
    assert access["message"] == "StartModule OK"
    assert access["method"] == "/agentic_mesh_protocol.module.v1.ModuleService/StartModule"
    assert access["code"] == "OK"
    assert access["duration_ms"] >= 0
    assert access["peer"] == "unknown"


async def test_ids_of_millions_of_characters_are_cut_in_every_line(autojump_clock: object, tmp_path: Path) -> None:
    log = AccessLog()
    with in_a_file(tmp_path) as written:
        async with served(module_with(answer), interceptors=log.interceptors, hooks=log.hooks) as (_, client):
            await outputs_of(client, HELLO, mission_id="missions:" + 1_000_000 * "7", setup_id="setups:1")
    author, access = written[-2:]
    assert author["mission"] == access["mission"] == ("missions:" + 1_000_000 * "7")[:MAX_ID]


async def test_a_call_that_is_traced_says_so_and_the_next_one_does_not(autojump_clock: object, tmp_path: Path) -> None:
    log, traces = AccessLog(), Recorded().traces
    around: Any = {"interceptors": [*log.interceptors, *traces.interceptors], "hooks": [*log.hooks, *traces.hooks]}
    with in_a_file(tmp_path) as written:
        async with (
            served(module_with(answer), **around) as (server, client),
            traces.opened(Observed(modules=lambda: [server])),
        ):
            for sampled in ("01", "00"):
                await outputs_of(client, HELLO, metadata={"traceparent": f"{TRACEPARENT[:-2]}{sampled}"})
    assert [line.get("trace") for line in written if line["logger"] == LOGGER] == [TRACE, None]


def test_a_request_id_that_a_line_cannot_hold_is_replaced(tmp_path: Path) -> None:
    log = AccessLog()
    with in_a_file(tmp_path) as written:
        for given in ("a\tb", "a\x1b[2J", b"bytes", ""):
            log.refused(call_of(request=given), Status.UNIMPLEMENTED)
    assert [line["request"].partition("-")[2] for line in written] == ["1", "2", "3", "4"]


def test_what_callers_choose_is_escaped(tmp_path: Path) -> None:
    with in_a_file(tmp_path) as written:
        AccessLog().refused(call_of('/a"\n\\é', request='"\\é'), Status.UNIMPLEMENTED)
    [line] = written
    assert (line["method"], line["request"], line["code"]) == ('/a"\n\\é', '"\\é', "UNIMPLEMENTED")


def test_names_of_methods_that_callers_invent_are_not_kept(tmp_path: Path) -> None:
    log = AccessLog()
    with in_a_file(tmp_path) as written:
        for number in range(1500):
            log.refused(call_of(f"/x/{number}"), Status.UNIMPLEMENTED)
        [handler, _] = cast("list[LogHandler]", logging.getLogger().handlers)
        assert isinstance(handler.form, JsonFormat)
        assert len(handler.form.middles) <= 1000
    assert [line["method"] for line in written] == [f"/x/{number}" for number in range(1500)]
