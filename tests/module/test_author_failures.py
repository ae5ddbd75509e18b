"""Authors whose code raises, blocks, or sends when it must not: a clear message, and nobody is hurt."""

import itertools
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio import ModuleClient, ModuleServer, stalls
from dk_trio.errors import DkTrioError, SessionEndedError, SetupNotFoundError
from dk_trio.lifecycle import Reason

from .ends import begin
from .sample import Message, module_with, send_one, session_of
from .served import DAY, outputs_of, served
from .sinners import nothing, sinners, stubborn, waits


class Mute(Exception):
    def __str__(self) -> str:
        raise AttributeError("code")


class Panic(BaseException):
    pass


def nested(depth: int) -> BaseException:
    error: BaseException = ValueError("deep")
    for _ in range(depth):
        error = ExceptionGroup("level", [error, OSError()])
    return error


RAISED = [
    (ValueError("no such file"), "ValueError: no such file"),
    (ExceptionGroup("g", [ValueError("a"), OSError("b")]), "2 errors: ValueError: a; OSError: b"),
    (BaseExceptionGroup("g", [SystemExit(1), ValueError("a")]), "2 errors: SystemExit: 1; ValueError: a"),
    (SystemExit(2), "SystemExit: 2"),
    (GeneratorExit(), "GeneratorExit"),
    (Panic("unwrap on None"), "Panic: unwrap on None"),
    (StopAsyncIteration(), "StopAsyncIteration"),
    (Mute(), "Mute, which raises when it is asked for its text"),
    (FileNotFoundError("caf\udce9"), "FileNotFoundError: caf\\udce9"),
    (ValueError("zero\0 and ☃"), "ValueError: zero\0 and ☃"),
    (nested(500), "2 errors: "),
    (trio.BrokenResourceError("theirs"), "BrokenResourceError: theirs"),
    (trio.TooSlowError(), "TooSlowError"),
]


@pytest.mark.parametrize(("error", "text"), RAISED, ids=[type(error).__name__ for error, _ in RAISED])
async def test_whatever_is_raised_is_this_jobs_failure(autojump_clock: object, error: BaseException, text: str) -> None:
    async def raises(context: Any) -> None:
        await context.send(Message(text="before"))
        raise error

    async with sinners(raises, ends={Reason.FAILED: 1}) as world:
        job = await world.sin()
        assert job.status is Status.INTERNAL
        assert job.failure["message"].startswith(text)
        assert job.message.startswith(text)
        assert job.failure["code"] == "Error"
        assert job.protocols == ["module_start_info", "message"]
        assert world.hooks == ["initialize", "cleanup"]


class Forgetful(DkTrioError):
    def __init__(self) -> None:
        """Without the one of its base."""


class Odd(DkTrioError):
    status: Any = 404


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (SetupNotFoundError("no caf\udce9"), Status.NOT_FOUND, "no caf\\udce9"),
        (Forgetful(), Status.INTERNAL, ""),
        (Odd("unheard of"), Status.UNKNOWN, "the handler failed with an error that cannot be sent"),
    ],
)
@pytest.mark.parametrize("cleanup", [nothing, stubborn])
async def test_an_error_of_ours_that_an_author_makes(
    autojump_clock: object, error: DkTrioError, status: Status, text: str, cleanup: Any
) -> None:
    async def raises(context: Any) -> None:
        raise error

    async with sinners(raises, cleanup=cleanup, ends={Reason.FAILED: 1}) as world:
        job = await world.sin()
        assert (job.status, job.message) == (status, text)
        await trio.sleep(6000)  # even the stubborn one gives up


HOOKS = ("__init__", "initialize", "run", "cleanup")


@pytest.mark.parametrize("raising", [some for n in range(5) for some in itertools.combinations(HOOKS, n)], ids="-".join)
async def test_of_several_failures_the_first_is_told(autojump_clock: object, raising: tuple[str, ...]) -> None:
    def raises_in(hook: str) -> Any:
        def construct() -> None:
            raise ValueError(hook)

        async def sin(context: Any) -> None:
            construct()

        return (construct if hook == "__init__" else sin) if hook in raising else None

    first = next((hook for hook in HOOKS if hook in raising), None)
    async with sinners(
        raises_in("run") or nothing,
        construct=raises_in("__init__"),
        initialize=raises_in("initialize") or nothing,
        cleanup=raises_in("cleanup") or nothing,
        ends={Reason.FAILED if raising else Reason.COMPLETED: 1},
    ) as world:
        job = await world.sin()
        assert world.hooks == ([] if first == "__init__" else ["initialize", "cleanup"])
        if first is None:
            assert job.status is Status.OK
            return
        assert (job.status, job.message) == (Status.INTERNAL, f"ValueError: {first}")
        assert (
            job.failure["short_description"]
            == {
                "__init__": "Error initializing module",
                "initialize": "Error initializing module",
                "run": "Module execution failed",
                "cleanup": "Error cleaning up module",
            }[first]
        )


@pytest.mark.parametrize("way", ["stop", "deadline", "caller leaves"])
async def test_raising_because_it_was_cancelled_does_not_hide_why(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    async def raises(context: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise ValueError("was cancelled") from None

    reason, status = {
        "stop": (Reason.STOP_MODULE, Status.CANCELLED),
        "deadline": (Reason.DEADLINE, Status.DEADLINE_EXCEEDED),
        "caller leaves": (Reason.CLIENT_GONE, None),
    }[way]
    async with sinners(raises, ends={reason: 1}) as world:
        job = await world.begin(timeout=5 if way == "deadline" else None)
        if way == "stop":
            await world.client.stop(job.job_id)
        elif way == "caller leaves":
            job.caller.cancel()
        await job.ended.wait()
        assert job.status is status
        await trio.sleep(1)
    assert "ValueError: was cancelled" in caplog.text


# --- sending when nobody listens -----------------------------------------------------------------------------------


async def test_a_context_that_is_kept_sends_nothing_to_others(autojump_clock: object) -> None:
    kept: list[Any] = []

    async def keeps(context: Any) -> None:
        if kept:
            with pytest.raises(SessionEndedError, match="has ended; this output has nowhere to go"):
                await kept[0].send(Message(text="of another job"))
        kept.append(context)

    async with sinners(keeps, ends={Reason.COMPLETED: 2}) as world:
        for _ in range(2):
            assert (await world.sin()).protocols == ["module_start_info", "end_of_stream"]


async def test_a_system_task_that_sends_after_the_end(autojump_clock: object) -> None:
    raised: list[BaseException] = []

    async def spawns(context: Any) -> None:
        async def later() -> None:
            await context.send(Message(text="in time"))
            await trio.sleep(5)
            with pytest.raises(SessionEndedError) as caught:
                await context.send(Message(text="too late"))
            raised.append(caught.value)

        trio.lowlevel.spawn_system_task(later)
        await trio.sleep(1)

    async with sinners(spawns, ends={Reason.COMPLETED: 1}) as world:
        assert (await world.sin()).protocols == ["module_start_info", "message", "end_of_stream"]
        await trio.sleep(10)
    assert len(raised) == 1


async def test_nothing_is_sent_while_the_last_message_waits(autojump_clock: object) -> None:
    kept: list[Any] = []
    delivered: list[str] = []

    async def keeps(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        kept.append(context)

    async def deliver(output: dict[str, Any]) -> None:
        if output["root"]["protocol"] == "end_of_stream":
            await trio.sleep(10)  # for a slow reader
        delivered.append(output["root"]["protocol"])

    session = session_of(module_with(keeps), {"protocol": "message"}, [], deliver=deliver)
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await trio.sleep(5)
            with pytest.raises(SessionEndedError):
                await kept[0].send(Message(text="after the end"))
    assert delivered == ["module_start_info", "end_of_stream"]


@pytest.mark.parametrize("end", ["success", "failure", "stop"])
async def test_cleanup_may_send(autojump_clock: object, end: str) -> None:
    async def sin(context: Any) -> None:
        if end == "failure":
            raise ValueError("first")
        if end == "stop":
            await waits(context)

    async def says_goodbye(context: Any) -> None:
        await trio.sleep(2)
        await context.send(Message(text="goodbye"))

    reason, status = {
        "success": (Reason.COMPLETED, Status.OK),
        "failure": (Reason.FAILED, Status.INTERNAL),
        "stop": (Reason.STOP_MODULE, Status.CANCELLED),
    }[end]
    async with sinners(sin, cleanup=says_goodbye, ends={reason: 1}) as world:
        job = await (world.sin_until_stopped() if end == "stop" else world.sin())
        last = ["end_of_stream"] if end == "success" else []
        assert job.protocols == ["module_start_info", "message", *last]
        assert job.status is status


# --- the rest ----------------------------------------------------------------------------------------------------


async def test_a_module_with_a_method_of_our_name(autojump_clock: object) -> None:
    async with served(module_with(send_one, enter=lambda self: None)) as (module_server, client):
        async with trio.open_nursery() as nursery:
            job = await begin(nursery, client, {"protocol": "message"})
            await job.ended.wait()
        assert job.status is Status.INTERNAL
        assert "positional argument" in job.message
        assert module_server.statistics().jobs.failed == 1


async def test_blocking_the_loop_is_told(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mock_clock.rate = 1  # a socket cannot be waited for in a time that stands

    async def blocks(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Message())
        mock_clock.jump(50)  # as a call does that returns after so long
        await trio.sleep(stalls.EVERY)

    with trio.fail_after(1000):
        async with (
            ModuleServer(module_with(blocks)).running(port=0) as address,
            ModuleClient.connect(address) as client,
        ):
            outputs = await outputs_of(client, {"protocol": "message"})
    assert outputs[-1]["root"]["protocol"] == "end_of_stream"
    assert "the event loop was blocked for at least" in caplog.text
    assert "trio.to_thread.run_sync" in caplog.text
    assert "Jobs running: 1, [<Session " in caplog.text
