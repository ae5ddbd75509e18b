"""ModuleService through our own client: what the caller of StartModule and its relatives sees."""

from typing import Any

import jsonschema
import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, Settings
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    ModuleServiceStub,
    StartModuleResponse,
)
from dk_trio.pb.google.rpc import ErrorInfo
from dk_trio.routing import START_MODULE

from .sample import Message, Output, module_with, protocols_of, send_one
from .served import outputs_of, served


async def sleeps(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send(Message(text="begun"))
    await trio.sleep_forever()


async def failure_of(client: ModuleClient, data: dict[str, Any], **arguments: Any) -> tuple[GRPCError, Any]:
    """The error of a job, and what the stream said about it."""
    async with client.start(data, **arguments) as outputs:
        with pytest.raises(GRPCError) as caught:
            async for _ in outputs:
                pass
    return caught.value, outputs.failure


async def test_outputs_come_in_order(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> Any:
        for index in range(200):
            yield Output(root=Message(text=input_data.text, count=index))

    async with served(module_with(handle)) as (server, client):
        async with client.start({"protocol": "message", "text": "hi"}, mission_id="missions:m") as outputs:
            received = [output async for output in outputs]
            assert outputs.ended
            assert outputs.failure is None
        start = received[0]["root"]
        assert start["job_id"] == outputs.job_id
        assert len(outputs.job_id) == 36
        assert start["mission_id"] == "missions:m"
        assert start["setup_version_id"] == "setup_versions:default"
        assert [output["root"]["count"] for output in received[1:-1]] == list(range(200))
        assert received[-1]["root"]["protocol"] == "end_of_stream"
        statistics = server.statistics().jobs
        assert (statistics.succeeded, statistics.running, statistics.queued) == (1, 0, 0)


async def test_typed_outputs_leave_out_the_system_messages(autojump_clock: object) -> None:
    async with (
        served(module_with(send_one)) as (_, client),
        client.start({"text": "hi"}, protocol="message") as outputs,
    ):
        assert [output.root.text async for output in outputs.typed(Output)] == ["hi"]


async def test_an_authors_exception_is_internal(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(context.send, Message(text="before"))
            raise ValueError("no such file")

    async with served(module_with(handle)) as (server, client):
        error, failure = await failure_of(client, {"protocol": "message"})
        assert (error.status, error.message) == (Status.INTERNAL, "ValueError: no such file")
        assert error.details == [ErrorInfo(reason="MODULE_FAILED", domain="dk-trio")]
        assert failure == {
            "code": "Error",
            "message": "ValueError: no such file",
            "short_description": "Module execution failed",
        }
        assert server.statistics().jobs.failed == 1
    assert "no such file" in caplog.text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"root": {"protocol": "mesage"}}, "Unknown protocol 'mesage'; Sample knows message."),
        ({"root": "text"}, "root is 'text'"),
        ({"root": {"protocol": "message", "count": "many"}}, "count: input should be a valid integer"),
    ],
)
async def test_an_invalid_input(autojump_clock: object, data: dict[str, Any], message: str) -> None:
    async with served(module_with(send_one)) as (server, client):
        error, failure = await failure_of(client, data)
        assert error.status is Status.INVALID_ARGUMENT
        assert message in str(error.message)
        assert failure["message"] == error.message
        assert not server.statistics().jobs.ended


async def test_an_output_that_is_not_json(autojump_clock: object) -> None:
    raised: list[BaseException] = []

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        try:
            await context.send({"protocol": "message", "text": object()})
        except Exception as error:
            raised.append(error)
            raise

    async with served(module_with(handle)) as (_, client):
        error, _ = await failure_of(client, {"protocol": "message"})
    assert error.status is Status.INTERNAL
    assert "An output is not JSON" in str(error.message)
    assert "['text']" in str(error.message)
    assert len(raised) == 1  # where the author can see it


async def test_leaving_the_block_cancels_the_job(autojump_clock: object) -> None:
    ended = trio.Event()

    async def cleanup(self: Any) -> None:
        await trio.sleep(2)
        ended.set()

    async with served(module_with(sleeps, cleanup=cleanup)) as (server, client):
        async with client.start({"protocol": "message"}) as outputs:
            assert protocols_of([await anext(outputs), await anext(outputs)]) == ["module_start_info", "message"]
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().jobs.cancelled == 1
        assert server.statistics().jobs.running == 0


async def test_a_deadline_ends_the_job(autojump_clock: object) -> None:
    cleaned: list[float] = []

    async def cleanup(self: Any) -> None:
        cleaned.append(trio.current_time())

    async with served(module_with(sleeps, cleanup=cleanup)) as (server, client):
        started = trio.current_time()
        error, _ = await failure_of(client, {"protocol": "message"}, timeout=60)
        assert error.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - started == pytest.approx(60, abs=1)
        await trio.testing.wait_all_tasks_blocked()
        assert cleaned == [pytest.approx(started + 60, abs=1)]
        assert server.statistics().jobs.cancelled == 1


@pytest.mark.parametrize("prefix", ["", "jobs:"])
async def test_stop_module(autojump_clock: object, prefix: str) -> None:
    async with served(module_with(sleeps)) as (server, client), client.start({"protocol": "message"}) as outputs:
        await anext(outputs)
        await client.stop(prefix + outputs.job_id)
        with pytest.raises(GRPCError) as caught:
            async for _ in outputs:
                pass
        assert caught.value.status is Status.CANCELLED
        assert "was stopped: StopModule was called" in str(caught.value.message)
        assert outputs.failure is not None
        assert outputs.failure["short_description"] == "Job stopped"
        assert server.statistics().jobs.cancelled == 1


async def test_stop_module_of_an_unknown_job(autojump_clock: object) -> None:
    async with served(module_with(send_one)) as (_, client):
        with pytest.raises(GRPCError) as caught:
            await client.stop("jobs:nobody")
    assert (caught.value.status, caught.value.message) == (Status.NOT_FOUND, "Job jobs:nobody not found")


async def test_schemas(autojump_clock: object) -> None:
    async with served(module_with(send_one)) as (_, client):
        schema = await client.input_schema()
        assert {"Message", "Number"} <= set(schema["$defs"])
        assert "$ref" not in str((await client.input_schema(llm_format=True))["json_schema"]["properties"])
        output = await client.output_schema()
        assert {"Message", "ModuleStartInfoOutput", "EndOfStreamOutput"} <= set(output["$defs"])
    async with served(module_with(send_one, output_format=None)) as (_, client):
        with pytest.raises(GRPCError) as caught:
            await client.output_schema()
    assert caught.value.status is Status.UNIMPLEMENTED


async def test_every_message_of_a_stream_fits_the_published_schema(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Output(root=Message(text="a model")))
        await context.send(Message(text="a trigger"))
        await context.send({"protocol": "message", "text": "a dict"})

    async with served(module_with(handle)) as (_, client):
        schema = await client.output_schema()
        for output in await outputs_of(client, {"protocol": "message"}):
            jsonschema.validate(output, schema)
        jsonschema.validate({"root": {"protocol": "number", "value": 1}}, await client.input_schema())


async def test_the_caller_s_metadata(autojump_clock: object) -> None:
    seen: list[Any] = []

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        seen.append(context.request_metadata)

    async with served(module_with(handle)) as (_, client):
        await outputs_of(client, {"protocol": "message"}, metadata={"authorization": "Bearer t", "trace-bin": b"\x00"})
    assert seen[0].bearer_token == "t"
    assert seen[0]["trace-bin"] == b"\x00"


async def test_the_module_id_of_the_settings(autojump_clock: object) -> None:
    settings = Settings.from_environment({"DIGITALKIN_MODULE_ID": "modules:theirs"})
    async with served(module_with(send_one), settings=settings) as (_, client):
        outputs = await outputs_of(client, {"protocol": "message"})
    assert outputs[0]["root"]["module_id"] == "modules:theirs"


async def test_many_jobs_on_one_connection(autojump_clock: object) -> None:
    async with served(module_with(send_one)) as (server, client):
        results: dict[int, Any] = {}

        async def call(number: int) -> None:
            results[number] = await outputs_of(client, {"protocol": "message", "text": str(number)})

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(call, number)
        assert {number: outputs[1]["root"]["text"] for number, outputs in results.items()} == {
            number: str(number) for number in range(50)
        }
        assert len({outputs[0]["root"]["job_id"] for outputs in results.values()}) == 50
        assert server.statistics().jobs.succeeded == 50


async def test_a_slow_reader_holds_the_authors_send(autojump_clock: object) -> None:
    sent = 0

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        nonlocal sent
        for _ in range(200):
            await context.send({"protocol": "message", "text": "x" * 100_000})
            sent += 1

    async with served(module_with(handle)) as (_, client), client.start({"protocol": "message"}) as outputs:
        await anext(outputs)
        await trio.sleep(60)
        held = sent
        assert held < 100  # 20 MB were to be sent; windows and buffers hold a fraction
        await trio.sleep(60)
        assert sent == held
        count = 0
        async for output in outputs:
            count += output["root"]["protocol"] == "message"
        assert count == 200


async def test_input_that_is_no_struct_is_the_callers_fault(autojump_clock: object) -> None:
    class Bad:
        def SerializeToString(self) -> bytes:
            return b"\x0a\x03\x0a\x05x"  # `input`, three bytes long, whose first entry claims five

    async with served(module_with(send_one)) as (server, client):
        stub = ModuleServiceStub(client.channel)
        with pytest.raises(GRPCError) as caught:
            async for _ in stub._unary_stream(START_MODULE, Bad(), StartModuleResponse):
                pass
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert "not a valid google.protobuf.Struct" in str(caught.value.message)
        assert not server.statistics().jobs.ended
