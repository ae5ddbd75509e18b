"""A session: its first and last message, its hooks, its failures, and how it is stopped. No gRPC, no sockets."""

from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio.errors import (
    CleanupFailedError,
    DkTrioError,
    InitializeFailedError,
    InvalidOutputError,
    JobStoppedError,
    JobTimeoutError,
    ModuleFailedError,
    SessionEndedError,
    SetupNotFoundError,
)
from dk_trio.lifecycle import Outcome, Reason, SessionOptions, State
from dk_trio.module import DataModel, EndOfStreamOutput, ModuleContext, ModuleStartInfoOutput, TrioModule
from dk_trio.module._output import output_dict
from dk_trio.module._system_messages import end_of_stream, module_start_info
from dk_trio.session import Session

from .sample import IDS, Message, Output, module_with, protocols_of, send_one, session_of

ROOT = {"protocol": "message", "text": "hello"}
DAY = 86400


class Hooks:
    """Hooks that record their calls."""

    def __init__(self) -> None:
        calls = self.calls = []

        async def initialize(self: Any, context: ModuleContext, setup_data: Any) -> None:
            calls.append("initialize")

        async def cleanup(self: Any) -> None:
            calls.append("cleanup")

        self.hooks = {"initialize": initialize, "cleanup": cleanup}


async def outcome_of(session: Session) -> Outcome:
    with trio.fail_after(DAY):
        return await session.run()


async def error_of(session: Session) -> DkTrioError:
    outcome = await outcome_of(session)
    assert outcome.error is not None
    return outcome.error


async def test_the_stream_of_a_job_that_succeeds(autojump_clock: object) -> None:
    hooks, outputs = Hooks(), []
    session = session_of(module_with(send_one, **hooks.hooks), ROOT, outputs, setup={"prefix": "> "})
    outcome = await outcome_of(session)
    assert (outcome.reason, outcome.error, session.state) == (Reason.COMPLETED, None, State.STOPPED)
    assert protocols_of(outputs) == ["module_start_info", "message", "end_of_stream"]
    assert outputs[1]["root"]["text"] == "> hello"
    start = outputs[0]
    assert start["annotations"] == outputs[-1]["annotations"] == {"role": "system"}
    assert {key: start["root"][key] for key in ("job_id", "mission_id", "setup_id", "setup_version_id")} == {
        "job_id": "j1",
        "mission_id": "missions:m",
        "setup_id": "setups:s",
        "setup_version_id": "setup_versions:v",
    }
    assert (start["root"]["module_name"], start["root"]["module_id"]) == ("Sample", "unknown")
    assert hooks.calls == ["initialize", "cleanup"]
    assert repr(session) == "<Session j1 of Sample, stopped: completed>"


async def test_thousands_of_sessions_share_the_names_of_their_attributes(autojump_clock: object) -> None:
    session = session_of(module_with(send_one), ROOT, [])
    await outcome_of(session)
    assert len(vars(session)) < 30, "CPython keeps those of an object with 30 in a table of 1.3 KiB, its own"


async def test_what_a_generator_yields_is_sent(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> Any:
        for index in range(3):
            yield {"protocol": "message", "i": index}

    outputs: list[Any] = []
    await outcome_of(session_of(module_with(handle), ROOT, outputs))
    assert outputs[1:-1] == [{"root": {"protocol": "message", "i": i}, "annotations": {}} for i in range(3)]


async def test_hooks_may_take_the_context(autojump_clock: object) -> None:
    seen: list[object] = []

    class Direct(TrioModule[DataModel[Message], Output]):
        async def run(self, input_data: Any, setup_data: Any, context: Any) -> None:
            seen.append(context)
            await context.send(Message(text=input_data.root.text))

        async def cleanup(self, context: Any) -> None:
            seen.append(context)

    outputs: list[Any] = []
    await outcome_of(session_of(Direct, ROOT, outputs))
    assert protocols_of(outputs) == ["module_start_info", "message", "end_of_stream"]
    assert isinstance(seen[0], ModuleContext)
    assert seen[0] is seen[1]


async def test_run_may_be_overridden_without_context(autojump_clock: object) -> None:
    class Direct(TrioModule[DataModel[Message], Output]):
        async def run(self, input_data: Any, setup_data: Any) -> None:
            await self.context.callbacks.send_message({"root": {"protocol": "message"}})

    outputs: list[Any] = []
    await outcome_of(session_of(Direct, ROOT, outputs))
    assert outputs[1] == {"root": {"protocol": "message"}}


async def fails(error: BaseException, outputs: list[Any], **hooks: Any) -> DkTrioError:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Message(text="before"))
        raise error

    return await error_of(session_of(module_with(handle, **hooks), ROOT, outputs))


async def test_an_authors_exception(autojump_clock: object) -> None:
    hooks, outputs = Hooks(), []
    error = ValueError("no such file")
    failure = await fails(error, outputs, **hooks.hooks)
    assert type(failure) is ModuleFailedError
    assert failure.message == "ValueError: no such file"
    assert failure.__cause__ is error
    assert protocols_of(outputs) == ["module_start_info", "message"]  # no end_of_stream
    assert hooks.calls == ["initialize", "cleanup"]


async def test_a_group_of_one_is_its_exception(autojump_clock: object) -> None:
    error = KeyError("x")
    failure = await fails(ExceptionGroup("nursery", [ExceptionGroup("inner", [error])]), [])
    assert failure.message == "KeyError: 'x'"
    assert failure.__cause__ is error


async def test_a_group_of_several_names_all(autojump_clock: object) -> None:
    failure = await fails(ExceptionGroup("nursery", [ValueError("a"), ExceptionGroup("b", [OSError()])]), [])
    assert failure.message == "2 errors: ValueError: a; OSError"


async def test_a_module_cannot_end_the_server(autojump_clock: object) -> None:
    assert (await fails(SystemExit(3), [])).message == "SystemExit: 3"
    in_a_nursery = BaseExceptionGroup("nursery", [SystemExit(3), ValueError("a")])
    assert (await fails(in_a_nursery, [])).message == "2 errors: SystemExit: 3; ValueError: a"
    assert (await fails(Panic("called unwrap() on None"), [])).message == "Panic: called unwrap() on None"


class Panic(BaseException):
    """As Rust extensions and asyncio's cancellation raise it: not an Exception."""


async def test_what_ends_the_process_is_no_failure_of_the_module(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        raise KeyboardInterrupt

    with trio.fail_after(DAY), pytest.raises(KeyboardInterrupt):
        await session_of(module_with(handle), ROOT, []).run()


async def test_a_panic_in_a_cancelled_nursery_does_not_pass_for_cancellation(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def panics() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Panic("on the way out")

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(panics)
            await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await session_of(module_with(handle), ROOT, []).run()
    assert scope.cancelled_caught
    assert "failed while it was cancelled" in caplog.text


async def test_a_call_of_the_module_that_failed(autojump_clock: object) -> None:
    error = GRPCError(Status.UNAVAILABLE, "nobody listens")
    assert (await fails(error, [])).message == "UNAVAILABLE: nobody listens"


async def test_a_constructor_that_fails(autojump_clock: object) -> None:
    hooks, outputs = Hooks(), []

    def init(self: Any) -> None:
        raise OSError("no")

    session = session_of(module_with(send_one, __init__=init, **hooks.hooks), ROOT, outputs)
    error = await error_of(session)
    assert isinstance(error, InitializeFailedError)
    assert error.message == "OSError: no"
    assert session.state is State.FAILED
    assert hooks.calls == []  # nothing began, nothing to clean up


async def test_an_author_may_choose_the_error(autojump_clock: object) -> None:
    error = SetupNotFoundError("there is no such thing")
    assert await fails(ExceptionGroup("nursery", [error]), []) is error


async def test_a_returned_value_is_not_lost_silently(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> Any:
        return Message(text="nobody would get this")

    error = await error_of(session_of(module_with(handle), ROOT, []))
    assert isinstance(error, InvalidOutputError)
    assert "handle returned a Message" in error.message
    assert "yield" in error.hint


async def test_initialize_fails(autojump_clock: object) -> None:
    hooks, outputs = Hooks(), []

    async def initialize(self: Any, context: Any, setup_data: Any) -> None:
        raise OSError("disk full")

    module = module_with(send_one, **hooks.hooks | {"initialize": initialize})
    error = await error_of(session_of(module, ROOT, outputs))
    assert isinstance(error, InitializeFailedError)
    assert "disk full" in error.message
    assert protocols_of(outputs) == ["module_start_info"]
    assert hooks.calls == ["cleanup"]  # initialize began


async def test_cleanup_fails_after_success(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        raise OSError("cannot flush")

    outputs: list[Any] = []
    error = await error_of(session_of(module_with(send_one, cleanup=cleanup), ROOT, outputs))
    assert isinstance(error, CleanupFailedError)
    assert "cannot flush" in error.message
    assert protocols_of(outputs) == ["module_start_info", "message"]


async def test_cleanup_fails_after_a_failure(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        raise OSError("cannot flush")

    assert (await fails(ValueError("first"), [], cleanup=cleanup)).message == "ValueError: first"


async def test_cleanup_after_the_handlers_end_is_bounded(autojump_clock: object) -> None:
    async def cleanup(self: Any) -> None:
        await trio.sleep_forever()

    outputs: list[Any] = []
    started = trio.current_time()
    options = SessionOptions(completion_timeout=70, cleanup_grace=7)
    outcome = await outcome_of(session_of(module_with(send_one, cleanup=cleanup), ROOT, outputs, options=options))
    assert outcome.reason is Reason.TIMEOUT
    assert isinstance(outcome.error, JobTimeoutError)
    assert "it took 70 s for cleanup and end_of_stream (DIGITALKIN_COMPLETION_TIMEOUT)" in outcome.error.message
    assert trio.current_time() - started == pytest.approx(70)
    assert protocols_of(outputs) == ["module_start_info", "message"]


async def sleeps(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await trio.sleep_forever()


async def test_cancel_from_outside_runs_cleanup_under_a_shield(autojump_clock: object) -> None:
    ended: list[float] = []

    async def cleanup(self: Any) -> None:
        await trio.sleep(3)
        ended.append(trio.current_time())

    outputs: list[Any] = []
    started = trio.current_time()
    with trio.fail_after(DAY), trio.move_on_after(5) as scope:
        await session_of(module_with(sleeps, cleanup=cleanup), ROOT, outputs).run()
    assert scope.cancelled_caught
    assert ended == [pytest.approx(started + 8)]
    assert protocols_of(outputs) == ["module_start_info"]


async def test_a_stop_cancels_the_handler(autojump_clock: object) -> None:
    hooks, outputs = Hooks(), []
    session = session_of(module_with(sleeps, **hooks.hooks), ROOT, outputs)

    async def stop() -> None:
        await trio.sleep(2)
        assert session.state is State.RUNNING
        assert session.stop(Reason.STOP_MODULE, "somebody asked")
        assert repr(session) == "<Session j1 of Sample, running: stop_module>"
        assert not session.stop(Reason.SHUTDOWN, "again")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        outcome = await outcome_of(session)
    assert outcome.reason is Reason.STOP_MODULE
    assert isinstance(outcome.error, JobStoppedError)
    assert outcome.error.message == "Job j1 was stopped: somebody asked."
    assert (outcome.waited, outcome.ran) == (0, pytest.approx(2))
    assert hooks.calls == ["initialize", "cleanup"]
    assert protocols_of(outputs) == ["module_start_info"]


async def test_what_a_stopped_module_raises_does_not_hide_the_stop(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    session = session_of(module_with(handle), ROOT, [])

    async def stop() -> None:
        await trio.sleep(1)
        session.stop(Reason.STOP_MODULE, "somebody asked")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        assert isinstance(await error_of(session), JobStoppedError)


async def test_a_job_that_is_stopped_before_it_begins(autojump_clock: object) -> None:
    hooks, outputs = Hooks(), []
    session = session_of(module_with(sleeps, **hooks.hooks), ROOT, outputs)
    session.stop(Reason.STOP_MODULE, "early")
    assert (await outcome_of(session)).reason is Reason.STOP_MODULE
    assert session.state is State.CANCELLED
    assert hooks.calls == outputs == []


async def test_several_tasks_may_send(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        async with trio.open_nursery() as nursery:
            for index in range(10):
                nursery.start_soon(context.send, {"protocol": "message", "i": index})

    outputs: list[Any] = []
    await outcome_of(session_of(module_with(handle), ROOT, outputs))
    assert sorted(output["root"]["i"] for output in outputs[1:-1]) == list(range(10))


async def test_sending_after_the_end(autojump_clock: object) -> None:
    kept: list[ModuleContext] = []

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        kept.append(context)

    outputs: list[Any] = []
    await outcome_of(session_of(module_with(handle), ROOT, outputs))
    with pytest.raises(SessionEndedError, match="Job j1 has ended"):
        await kept[0].send(Message())
    assert protocols_of(outputs)[-1] == "end_of_stream"


async def test_a_failed_delivery_is_raised_in_the_authors_code(autojump_clock: object) -> None:
    seen: list[BaseException] = []

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        try:
            await context.send(object())
        except InvalidOutputError as error:
            seen.append(error)
            raise

    error = await error_of(session_of(module_with(handle), ROOT, []))
    assert "An output is a object" in error.message
    assert len(seen) == 1


def test_outputs_take_their_shape_on_the_wire() -> None:
    root = {"protocol": "message"}
    whole = {"root": root}
    assert output_dict(whole) is whole  # not copied
    assert output_dict(root)["root"] is root
    assert output_dict(Message(text="a"))["root"]["text"] == "a"
    assert output_dict(Output(root=Message(text="a"), annotations={"k": "v"}))["annotations"] == {"k": "v"}


def test_the_messages_of_every_stream_are_those_of_their_models() -> None:
    info = module_start_info(IDS, module_id="modules:a", module_name="a")
    assert ModuleStartInfoOutput(**info["root"]).model_dump() == info["root"]
    assert list(info["root"]) == list(ModuleStartInfoOutput.model_fields)
    end = end_of_stream()
    assert EndOfStreamOutput(**end["root"]).model_dump() == end["root"]
    assert info["annotations"] == end["annotations"] == {"role": "system"}
