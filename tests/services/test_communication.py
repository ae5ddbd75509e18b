"""Calls from one module to another, in virtual time: every way to leave one ends the other job."""

import gc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.tools.neighbours import Found, Process, echo, hanging, process, refused, tool_module

from dk_trio import rpc
from dk_trio.errors import ModuleCallError
from dk_trio.extensions import MODULE_ID
from dk_trio.module import ModuleContext, RequestMetadata
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleInputResponse,
    ModuleServiceBase,
    StartModuleRequest,
    StartModuleResponse,
)
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.google.rpc import BadRequest, BadRequestFieldViolation
from dk_trio.services.communication import HOLDS, for_module
from dk_trio.services.registry import ModuleInfo

SEARCH = {"protocol": "search", "query": "cats"}
CALL = (SEARCH, "setups:tool", "missions:m")


def protocols(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["output"]["root"]["protocol"] for answer in answers]


async def test_answers_come_in_order_without_the_end_of_the_stream(autojump_clock: trio.abc.Clock) -> None:
    async with (
        process() as here,
        here.serving(tool_module(echo)),
        here.job.communication.start_module("tool.memory", 0, *CALL) as call,
    ):
        answers = [answer async for answer in call]
    assert protocols(answers) == ["module_start_info", "found"]
    assert {answer["success"] for answer in answers} == {True}
    assert {answer["job_id"] for answer in answers} == {answers[0]["output"]["root"]["job_id"]}
    assert answers[0]["output"]["root"]["mission_id"] == "missions:m"
    assert answers[0]["output"]["root"]["setup_id"] == "setups:tool"


async def test_the_iterator_calls_back_before_it_gives(autojump_clock: trio.abc.Clock) -> None:
    seen: list[dict[str, Any]] = []

    async def callback(answer: dict[str, Any]) -> None:
        seen.append(answer)

    async with process() as here, here.serving(tool_module(echo)):
        async for answer in here.job.communication.call_module("tool.memory", 0, *CALL, callback):
            assert seen[-1] is answer
        assert len(seen) == 2
        assert here.channels.statistics().leases == 0


async def test_a_callback_that_fails_ends_the_other_job(autojump_clock: trio.abc.Clock) -> None:
    async def callback(answer: dict[str, Any]) -> None:
        raise KeyError("mine")

    async with ended_jobs() as (here, ended):
        with pytest.raises(KeyError, match="mine"):
            async for _ in here.job.communication.call_module("tool.memory", 0, *CALL, callback):
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


async def test_calls_to_one_module_share_its_connection(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo)), trio.open_nursery() as nursery:

        async def call() -> None:
            async with here.job.communication.start_module("tool.memory", 0, *CALL) as answers:
                assert len([answer async for answer in answers]) == 2

        for _ in range(20):
            nursery.start_soon(call)
        await trio.sleep(1)
        assert here.connected == ["tool"]


# --- leaving ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def ended_jobs() -> AsyncIterator[tuple[Process, list[str]]]:
    """A tool whose jobs send once and then wait; how they ended."""
    ended: list[str] = []

    async def handle(input_data: Any, context: ModuleContext) -> None:
        try:
            await context.send(Found(text="first"))
            await trio.sleep(3600)
            ended.append("by itself")
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    async with process() as here, here.serving(tool_module(handle)) as server:
        yield here, ended
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().jobs.running == 0
        assert here.channels.statistics().leases == 0


async def test_leaving_the_block_cancels_the_other_job(autojump_clock: trio.abc.Clock) -> None:
    async with ended_jobs() as (here, ended):
        async with here.job.communication.start_module("tool.memory", 0, *CALL) as answers:
            async for answer in answers:
                if protocols([answer]) == ["found"]:
                    break
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


async def test_closing_the_iterator_cancels_the_other_job(autojump_clock: trio.abc.Clock) -> None:
    async with ended_jobs() as (here, ended):
        async with aclosing(here.job.communication.call_module("tool.memory", 0, *CALL)) as answers:
            await anext(answers)
            await anext(answers)
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


async def test_dropping_the_iterator_cancels_the_other_job(autojump_clock: trio.abc.Clock) -> None:
    async with ended_jobs() as (here, ended):
        async for answer in here.job.communication.call_module("tool.memory", 0, *CALL):
            if protocols([answer]) == ["found"]:
                break
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


async def test_an_iterator_that_is_never_asked_calls_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with ended_jobs() as (here, ended):
        here.job.communication.call_module("tool.memory", 0, *CALL)
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        assert here.connected == ended == []


async def test_cancelling_the_caller_cancels_the_other_job(autojump_clock: trio.abc.Clock) -> None:
    async with ended_jobs() as (here, ended):
        with trio.move_on_after(5) as scope:
            async for _ in here.job.communication.call_module("tool.memory", 0, *CALL):
                pass
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


async def test_an_error_between_two_answers_goes_on_as_it_was(autojump_clock: trio.abc.Clock) -> None:
    async with ended_jobs() as (here, ended):
        with pytest.raises(GRPCError, match="mine"):
            async with here.job.communication.start_module("tool.memory", 0, *CALL):
                await trio.sleep(1)
                raise GRPCError(Status.UNKNOWN, "mine")
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


# --- deadlines -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def told_deadlines() -> AsyncIterator[tuple[Process, list[float]]]:
    """A tool that notes how many seconds its caller has told it."""
    told: list[float] = []

    async def handle(input_data: Any, context: ModuleContext) -> None:
        told.append(round(trio.current_effective_deadline() - trio.current_time()))
        await trio.sleep(3600)

    async with process() as here, here.serving(tool_module(handle)):
        yield here, told


async def test_the_timeout_of_a_call_is_told_and_kept(autojump_clock: trio.abc.Clock) -> None:
    async with told_deadlines() as (here, told):
        began = trio.current_time()
        with pytest.raises(ModuleCallError, match="DEADLINE_EXCEEDED") as caught:
            async with here.job.communication.start_module("tool.memory", 0, *CALL, timeout=30) as answers:
                async for _ in answers:
                    pass
        assert trio.current_time() - began == pytest.approx(30, abs=1)
        assert told == [30]
        assert caught.value.status is Status.DEADLINE_EXCEEDED


async def test_the_own_callers_deadline_travels(autojump_clock: trio.abc.Clock) -> None:
    async with told_deadlines() as (here, told):
        with trio.move_on_after(20):
            async for _ in here.job.communication.call_module("tool.memory", 0, *CALL, timeout=30):
                pass
        assert told == [20]


# --- failures --------------------------------------------------------------------------------------------------------


async def call_all(communication: Any, address: str = "tool.memory", port: int = 0, *call: Any) -> None:
    async with communication.start_module(address, port, *(call or CALL)) as answers:
        async for _ in answers:
            pass


async def test_a_refused_connection_names_the_address(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here:
        with (
            here.known("gone", refused, address="10.1.1.1", port=7),
            pytest.raises(ModuleCallError, match=r"10\.1\.1\.1:7 ended with UNAVAILABLE.*connection refused") as got,
        ):
            await call_all(here.job.communication, "10.1.1.1", 7)
        assert got.value.status is Status.UNAVAILABLE
        assert isinstance(got.value.__cause__, GRPCError)
        assert here.channels.statistics().leases == 0


async def test_a_server_that_hangs_is_left_in_time(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here:
        with here.known("slow", hanging):
            began = trio.current_time()
            with pytest.raises(ModuleCallError, match="DEADLINE_EXCEEDED"):
                async with here.job.communication.start_module("slow.memory", 0, *CALL, timeout=3):
                    pass
            assert trio.current_time() - began == pytest.approx(3)
            assert here.channels.statistics().leases == 0


async def test_an_address_that_is_none_says_where_to_mend_it(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here:
        with pytest.raises(ModuleCallError, match="99999") as caught:
            await call_all(here.job.communication, "localhost", 99999)
        assert "registry" in caught.value.hint


async def test_the_other_modules_failure_is_an_internal_one_here(autojump_clock: trio.abc.Clock) -> None:
    async def handle(input_data: Any, context: ModuleContext) -> None:
        raise RuntimeError("no search engine")

    async with process() as here, here.serving(tool_module(handle)):
        with pytest.raises(ModuleCallError, match="no search engine") as caught:
            await call_all(here.job.communication)
        assert caught.value.status is Status.INTERNAL
        assert isinstance(caught.value.__cause__, GRPCError)


class Peer(ModuleServiceBase):
    """A server of other make."""

    def __init__(self, *responses: Any) -> None:
        self.responses = responses
        self.metadata: Any = None

    async def start_module(self, message: StartModuleRequest) -> AsyncIterator[StartModuleResponse]:
        for response in self.responses:
            if isinstance(response, Exception):
                raise response
            if response is None:
                await trio.sleep_forever()
            yield StartModuleResponse(success=True, job_id="j", output=Struct.from_dict(response))

    async def get_module_input(self, message: Any) -> GetModuleInputResponse:
        return GetModuleInputResponse(success=True, input_schema=Struct.from_dict({"llm": message.llm_format}))


@asynccontextmanager
async def peer(*responses: Any, interceptors: Any = ()) -> AsyncIterator[Process]:
    server = rpc.Server([Peer(*responses)], interceptors=interceptors)
    async with process() as here, trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve_stream, theirs)
            return ours

        with here.registry.serving(ModuleInfo(module_id="tool"), connect=connect):
            yield here
        nursery.cancel_scope.cancel()


FAILURE = {"code": "Error", "message": "it broke", "short_description": "Module execution failed"}
END = {"root": {"protocol": "end_of_stream"}}


async def test_what_the_other_side_refused_is_told(autojump_clock: trio.abc.Clock) -> None:
    violation = BadRequestFieldViolation(field="input.root.query", description="too short: ''")
    refusal = GRPCError(Status.INVALID_ARGUMENT, "no", [BadRequest(field_violations=[violation])])
    async with peer(refusal) as here:
        with pytest.raises(ModuleCallError) as caught:
            await call_all(here.job.communication)
    [told] = caught.value.violations
    assert (told.field, told.description) == ("called.input.root.query", "too short: ''")


async def test_a_failure_that_only_the_stream_tells_is_one(autojump_clock: trio.abc.Clock) -> None:
    async with peer(FAILURE) as here:
        with pytest.raises(ModuleCallError, match="it broke"):
            await call_all(here.job.communication)


async def test_a_stream_that_ends_well_without_its_last_message_has_ended(autojump_clock: trio.abc.Clock) -> None:
    async with peer({"root": {"protocol": "found"}}) as here:
        await call_all(here.job.communication)


@pytest.mark.parametrize("after", [None, GRPCError(Status.INTERNAL, "late")])
async def test_nothing_that_follows_the_end_of_the_stream_matters(autojump_clock: trio.abc.Clock, after: Any) -> None:
    async with peer(END, after) as here:
        began = trio.current_time()
        await call_all(here.job.communication)
        assert trio.current_time() - began <= 2


async def test_the_root_alone_is_an_input_too(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo)):
        await call_all(here.job.communication, "tool.memory", 0, {"root": SEARCH}, "setups:tool", "missions:m")


# --- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_it_is", [True, False])
async def test_metadata_arrives_whole(autojump_clock: trio.abc.Clock, as_it_is: bool) -> None:
    got: list[RequestMetadata] = []

    async def handle(input_data: Any, context: ModuleContext) -> None:
        got.append(context.request_metadata)

    pairs = [("tag", "a"), ("trace-bin", b"\x00\xff"), ("tag", "b"), ("user-agent", "me"), ("x-api-key", "k")]
    metadata = RequestMetadata(pairs)
    async with process() as here, here.serving(tool_module(handle)):
        sent = metadata if as_it_is else metadata.to_grpc_metadata()
        async with here.job.communication.start_module("tool.memory", 0, *CALL, metadata=sent) as answers:
            assert [answer async for answer in answers]
    assert got[0].getall("tag") == ["a", "b"]
    assert got[0]["trace-bin"] == b"\x00\xff"
    assert got[0].api_key == "k"
    assert "user-agent" not in got[0]


def test_metadata_of_a_request_keep_their_repeated_keys_and_an_id_that_no_header_holds_stays_away() -> None:
    class Passed:
        def to_grpc_metadata(self) -> list[tuple[str, str | bytes]]:
            return [("a", "1"), ("a", "2")]

    assert for_module("modules:m", Passed()) == [("a", "1"), ("a", "2"), (MODULE_ID, "modules:m")]
    assert list(for_module("modules:\u00e9", Passed())) == [("a", "1"), ("a", "2")]


async def test_nothing_is_passed_on_unless_it_is_given(autojump_clock: trio.abc.Clock) -> None:
    got: list[RequestMetadata] = []

    async def handle(input_data: Any, context: ModuleContext) -> None:
        got.append(context.request_metadata)

    async with process() as here, here.serving(tool_module(handle)):
        await call_all(here.job.communication)
    assert set(got[0]) == {HOLDS}  # which is ours


# --- schemas ---------------------------------------------------------------------------------------------------------


async def test_schemas_of_a_module(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here, here.serving(tool_module(echo)):
        schemas = await here.job.communication.get_module_schemas("tool.memory", 0)
        assert list(schemas) == ["input", "output", "setup", "secret", "cost"]
        assert "properties" in schemas["input"]
        for_models = await here.job.communication.get_module_schemas("tool.memory", 0, llm_format=True)
        assert "json_schema" in for_models["input"]
        assert here.channels.statistics().leases == 0


async def test_a_schema_that_a_server_does_not_implement_is_empty(autojump_clock: trio.abc.Clock) -> None:
    async with peer() as here:
        schemas = await here.job.communication.get_module_schemas("tool.memory", 0, True)
    assert schemas == {"input": {"llm": True}, "output": {}, "setup": {}, "secret": {}, "cost": {}}


async def test_schemas_of_a_server_that_hangs_fail_in_time(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here:
        with here.known("slow", hanging):
            with pytest.raises(ModuleCallError, match=r"slow\.memory:0 ended with DEADLINE_EXCEEDED"):
                await here.job.communication.get_module_schemas("slow.memory", 0, timeout=5)
            assert here.channels.statistics().leases == 0


async def test_schemas_of_nobody_fail(autojump_clock: trio.abc.Clock) -> None:
    async with process() as here:
        with here.known("gone", refused), pytest.raises(ModuleCallError, match="UNAVAILABLE"):
            await here.job.communication.get_module_schemas("gone.memory", 0)


async def test_schemas_are_not_asked_for_when_the_server_has_closed_its_channels(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process() as here, here.serving(tool_module(echo)):
        lease = await here.job.communication._lease("tool.memory", 0)
        monkeypatch.setattr(lease.channel, "closed", True)
        with pytest.raises(ModuleCallError, match="this server is shutting down"):
            await here.job.communication.get_module_schemas("tool.memory", 0)
        monkeypatch.undo()
        lease.release()
