"""StartModule of a module that fails: told at once and with its cause, in the stream and by the status."""

from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from dk_trio.errors import SetupNotFoundError
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus

from .sample import Message
from .service_kit import WAIT, assert_failed, begin, serving, start


def hook(error: BaseException) -> Any:
    """Any of the module's hooks: it raises."""

    async def raises(self: Any, *_: Any) -> None:
        raise error

    return raises


async def raising_handler(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send(Message(text="before"))
    if input_data.text == "fail":
        raise ValueError("no such file")


async def sends_no_json(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send({"protocol": "message", "text": object()})


OSERROR = OSError(28, "No space left on device")
NO_SPACE = "OSError: [Errno 28] No space left on device"

# Hooks of the module; then what its caller is told: the reason, the text, and the outputs before.
FAILURES = {
    "constructor": ({"__init__": lambda self: 1 / 0}, "INITIALIZE_FAILED", "ZeroDivisionError: division by zero", ""),
    "initialize": ({"initialize": hook(OSERROR)}, "INITIALIZE_FAILED", NO_SPACE, ""),
    "handler": ({"handle": hook(OSERROR)}, "MODULE_FAILED", NO_SPACE, ""),
    "handler after an output": ({"handle": raising_handler}, "MODULE_FAILED", "ValueError: no such file", "message"),
    "cleanup": ({"cleanup": hook(OSERROR)}, "CLEANUP_FAILED", NO_SPACE, "message"),
    "output": ({"handle": sends_no_json}, "INVALID_OUTPUT", "An output is not JSON", ""),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_module_that_fails(autojump_clock: object, kind: str) -> None:
    hooks, reason, message, outputs = FAILURES[kind]
    async with serving(**hooks) as (server, client):
        told = await start(client, "fail")
        assert_failed(told, Status.INTERNAL, reason, message, code="Error")
        assert told.protocols == ["module_start_info", *outputs.split()]
        assert told.seconds == 0
        (job_id,) = told.job_ids
        assert await client.jobs() == {job_id: ModuleStatus.FAILED}
        assert server.statistics().jobs.failed == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("initialize", "Error initializing module"),
        ("handler", "Module execution failed"),
        ("cleanup", "Error cleaning up module"),
    ],
)
async def test_the_words_that_existing_callers_look_for(autojump_clock: object, kind: str, words: str) -> None:
    async with serving(**FAILURES[kind][0]) as (_, client):
        told = await start(client)
    assert told.failure == {"code": "Error", "message": NO_SPACE, "short_description": words}


async def test_an_author_chooses_the_status(autojump_clock: object) -> None:
    error = SetupNotFoundError("There is no such index.", hint="Create it.")
    async with serving(handle=hook(error)) as (_, client):
        told = await start(client)
        assert_failed(told, Status.NOT_FOUND, "SETUP_NOT_FOUND", "There is no such index. Create it.")


@pytest.mark.parametrize("character", ["x", "é", "🜁"])
async def test_a_long_text_does_not_break_the_connection(autojump_clock: object, character: str) -> None:
    # What a status says travels in one header block, and clients close a connection for one that is too large.
    text = character * 300_000

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        if input_data.text == WAIT:
            await trio.sleep(10)
        else:
            raise ValueError(text)

    async with serving(handle=handle) as (_, client), trio.open_nursery() as nursery:
        bystander = await begin(nursery, client, WAIT)
        told = await start(client)
        assert (told.status, told.reason) == (Status.INTERNAL, "MODULE_FAILED")
        assert told.message.startswith(f"ValueError: {character * 100}")
        assert told.message.endswith(" more characters)")
        assert told.failure is not None
        assert told.failure["message"] == f"ValueError: {text}"  # the stream has room for it
        await bystander.told.ended.wait()
        assert bystander.told.status is Status.OK
