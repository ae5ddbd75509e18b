"""One job, and one call of a handler: what a test of an author gets back, and what the author is told."""

import traceback
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import trio
import trio.testing
from grpclib import Status
from pydantic import BaseModel
from tests.module.sample import Message, Number, module_with

from dk_trio.errors import (
    InvalidInputError,
    InvalidOutputError,
    InvalidSetupError,
    ModuleDefinitionError,
    ServiceError,
)
from dk_trio.module import DataModel, DataTrigger, ModuleContext, SetupModel, ToolModule, TriggerHandler
from dk_trio.testing import MemoryContext, assert_no_leaks, context_in_memory, run_handler, run_job


class Shout(DataTrigger):
    protocol: Literal["shout"] = "shout"
    text: str
    times: int = 1


class Word(DataTrigger):
    protocol: Literal["word"] = "word"
    text: str


class Setup(SetupModel):
    end: str = "!"


class Note(BaseModel):
    text: str


class OnShout(TriggerHandler[Shout, Setup, Word]):
    protocol = "shout"

    async def handle(self, input_data: Shout, setup_data: Setup, context: ModuleContext) -> AsyncIterator[Word]:
        for word in input_data.text.split() * input_data.times:
            await trio.sleep(60)
            yield Word(text=word.upper() + setup_data.end)


class Shouter(ToolModule[DataModel[Shout], DataModel[Word], Setup]):
    services_config_params = {"storage": {"config": {"notes": Note}}}


Shouter.register(OnShout)


def texts(outputs: list[dict[str, Any]]) -> list[str]:
    return [output["text"] for output in outputs]


# -- jobs ---------------------------------------------------------------------------------------------------------


async def test_a_job_tells_outputs_status_and_time(virtual_clock: trio.testing.MockClock) -> None:
    result = await run_job(Shouter, {"text": "a b"}, protocol="shout", setup={"end": "?"}, mission_id="missions:x")
    assert (result.ok, result.status, result.error, result.failure) == (True, Status.OK, "", None)
    assert (texts(result.outputs), result.seconds) == (["A?", "B?"], 120)
    assert [word.text for word in result.typed(Word)] == ["A?", "B?"]
    first, *_, last = result.messages
    assert (first["root"]["mission_id"], first["root"]["job_id"]) == ("missions:x", result.job_id)
    assert last["root"]["protocol"] == "end_of_stream"
    assert "status=<Status.OK" in repr(result)
    assert "module_start_info" not in repr(result)


async def test_the_protocol_may_be_left_out_where_there_is_one(virtual_clock: trio.testing.MockClock) -> None:
    assert texts((await run_job(Shouter, {"root": {"text": "a", "protocol": "shout"}})).outputs) == ["A!"]
    assert texts((await run_job(Shouter, {"text": "a"})).outputs) == ["A!"]


async def test_a_failed_job_tells_what_it_had_sent_and_why_it_failed(
    virtual_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
        await context.send(Message(text="before"))
        raise LookupError("no such word")

    result = await run_job(module_with(fail), {"text": "hi"}, protocol="message")
    assert (texts(result.outputs), result.ok, result.status) == (["before"], False, Status.INTERNAL)
    assert "LookupError: no such word" in result.error
    assert result.failure is not None
    assert "no such word" in result.failure["message"]
    assert "in fail\n" in caplog.text  # the author's own lines


async def test_a_refused_job_tells_why(virtual_clock: trio.testing.MockClock) -> None:
    result = await run_job(Shouter, {"times": 1})
    assert (result.status, result.job_id, result.outputs) == (Status.INVALID_ARGUMENT, "", [])
    assert "root.text: field required" in result.error


async def test_metadata_and_deadline_go_with_the_call(virtual_clock: trio.testing.MockClock) -> None:
    async def tell(self: Any, input_data: Message, setup_data: Any, context: ModuleContext) -> None:
        await context.send(Message(text=str(context.request_metadata["x-who"])))
        await trio.sleep(3600)

    result = await run_job(module_with(tell), {"text": "hi"}, protocol="message", metadata={"x-who": "me"}, timeout=5)
    assert (texts(result.outputs), result.status, result.seconds) == (["me"], Status.DEADLINE_EXCEEDED, 5)


# -- handlers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [None, Shouter])
@pytest.mark.parametrize("data", [{"text": "a b"}, {"root": {"text": "a b"}}, Shout(text="a b")])
@pytest.mark.parametrize("setup", [{"end": "?"}, Setup(end="?")])
async def test_a_handler_is_called_with_one_input(
    data: Any, setup: Any, module: Any, virtual_clock: trio.testing.MockClock
) -> None:
    outputs = await run_handler(OnShout, data, setup=setup, module=module)
    assert [Word.model_validate(output).text for output in outputs] == ["A?", "B?"]


async def test_an_input_may_be_whole(virtual_clock: trio.testing.MockClock) -> None:
    assert texts(await run_handler(OnShout, DataModel[Shout](root=Shout(text="a")))) == ["A!"]


class OnSend(TriggerHandler[Shout]):
    protocol = "shout"

    async def handle(self, input_data: Shout, setup_data: SetupModel, context: ModuleContext) -> None:
        await context.callbacks.send_message({"protocol": "word", "text": input_data.text})
        await context.send(DataModel(root=Word(text="2"), annotations={"role": "x"}))


async def test_a_handler_may_send(virtual_clock: trio.testing.MockClock) -> None:
    assert texts(await run_handler(OnSend, {"text": "1"})) == ["1", "2"]


class OnFail(TriggerHandler[Shout]):
    protocol = "shout"

    async def handle(self, input_data: Shout, setup_data: SetupModel, context: ModuleContext) -> None:
        async with trio.open_nursery():
            raise LookupError(input_data.text)


async def test_what_a_handler_raises_comes_out_as_it_is_with_its_lines() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await run_handler(OnFail, {"text": "mine"})
    (error,) = caught.value.exceptions
    assert isinstance(error, LookupError)
    assert "raise LookupError(input_data.text)" in "".join(traceback.format_exception(error))


async def test_inputs_and_setups_are_checked_as_by_a_server() -> None:
    with pytest.raises(InvalidInputError, match=r"root\.text: field required"):
        await run_handler(OnShout, {})
    with pytest.raises(InvalidSetupError, match="end"):
        await run_handler(OnShout, {"text": "a"}, setup={"end": 3})
    with pytest.raises(ValueError, match="the input says protocol 'word' and the argument says 'shout'"):
        await run_handler(OnShout, {"text": "a", "protocol": "word"})


async def test_a_handler_of_another_module_is_refused() -> None:
    with pytest.raises(ModuleDefinitionError, match="OnSend is no handler of Shouter") as caught:
        await run_handler(OnSend, {"text": "a"}, module=Shouter)
    assert "@Shouter.register" in caught.value.__notes__[0]


async def test_a_handler_that_is_not_complete_is_refused() -> None:
    class NoInput(TriggerHandler):
        protocol = "shout"

        async def handle(self, input_data: Any, setup_data: Any, context: Any) -> None: ...

    with pytest.raises(ModuleDefinitionError, match=r"has no input type: .*NoInput"):
        await run_handler(NoInput, {})
    with pytest.raises(ModuleDefinitionError, match="which is not a TriggerHandler"):
        await run_handler(Shouter, {})  # type: ignore[arg-type]


async def test_outputs_that_a_caller_could_not_get_are_refused() -> None:
    class Bad(TriggerHandler[Shout]):
        protocol = "shout"

        async def handle(self, input_data: Shout, setup_data: SetupModel, context: ModuleContext) -> Any:
            if input_data.times == 1:
                await context.send({"value": object()})
            return 3

    with pytest.raises(InvalidOutputError, match="not JSON"):
        await run_handler(Bad, {"text": ""})
    with pytest.raises(InvalidOutputError, match="returned a int"):
        await run_handler(Bad, {"text": "", "times": 2})


# -- contexts -----------------------------------------------------------------------------------------------------


class OnNote(TriggerHandler[Shout, Setup]):
    protocol = "shout"

    async def handle(self, input_data: Shout, setup_data: Setup, context: ModuleContext) -> None:
        assert context.request_metadata.get("x-who", "me") == "me"
        await context.storage.store("notes", "1", {"text": context.helpers.spell(input_data.text)})
        await context.send(Word(text=context.session.mission_id))


class Keeper(ToolModule[DataModel[Shout | Number], DataModel[Word], Setup]):
    services_config_params = {"storage": {"config": {"notes": Note}}}


Keeper.register(OnNote)


async def test_a_context_is_prepared_and_looked_at(virtual_clock: trio.testing.MockClock) -> None:
    async with context_in_memory(Keeper, mission_id="missions:x", metadata={"x-who": "me"}) as context:
        context.helpers.spell = str.upper
        for text in ("a", "b"):
            assert texts(await run_handler(OnNote, {"text": text}, module=Keeper, context=context)) == ["missions:x"]
            if text == "a":
                await context.storage.remove("notes", "1")
        record = await context.storage.read("notes", "1")
        assert record is not None
        assert record.data == Note(text="B")
    assert texts(context.outputs) == ["missions:x", "missions:x"]
    assert isinstance(context, MemoryContext)


async def test_services_that_want_parameters_say_so_without_a_module() -> None:
    async with context_in_memory() as context:
        context.helpers.spell = str.upper
        with pytest.raises(ServiceError, match="a handler without a module uses storage") as caught:
            await run_handler(OnNote, {"text": "a"}, context=context)
    assert "services_config_params" in caught.value.__notes__[0]


async def test_what_waits_to_be_written_is_written_at_the_end(virtual_clock: trio.testing.MockClock) -> None:
    events: list[str] = []

    async def flush() -> None:
        await trio.sleep(1)
        events.append("flushed")

    with assert_no_leaks():
        async with context_in_memory(Keeper) as context:
            context.at_end("k", flush)
            events.append("over")
    assert events == ["over", "flushed"]


async def test_a_cancelled_context_closes(virtual_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1):
        async with context_in_memory(Keeper) as context:
            await context.storage.store("notes", "1", {"text": "x"})
            await trio.sleep_forever()
    assert trio.current_time() == 1
