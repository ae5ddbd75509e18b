"""A module that does what its input's text says, and callers that note all that they are told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ConfigSetupModuleRequest, ModuleServiceStub, StartModuleRequest
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion as SetupVersionMessage
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.google.rpc import ErrorInfo, RetryInfo
from dk_trio.services.setup import SetupVersion

from .sample import Message, module_with
from .served import served

GO, WAIT = "go", "wait"


async def does_as_told(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await context.send(Message(text=setup_data.prefix + input_data.text))
    if input_data.text == WAIT:
        await trio.sleep_forever()


def settings_of(**variables: object) -> Settings:
    """Settings of the environment; names without their `DIGITALKIN_`."""
    return Settings.from_environment({f"DIGITALKIN_{name}": str(value) for name, value in variables.items()})


def settings_for(*, slots: int = 1, **variables: object) -> Settings:
    return settings_of(MAX_CONCURRENT_TASKS=slots, **variables)


@dataclass
class Told:
    """What the caller of one RPC was told, and how long it took."""

    protocols: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    job_ids: set[str] = field(default_factory=set)
    failure: dict[str, Any] | None = None
    """The message inside the stream that says what went wrong."""
    status: Status = Status.OK
    message: str = ""
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """Of the ErrorInfo."""
    retry_after: float | None = None
    seconds: float = 0.0
    ended: trio.Event = field(default_factory=trio.Event)

    def note(self, error: GRPCError) -> None:
        self.status, self.message = error.status, str(error.message)
        for detail in error.details or ():
            if isinstance(detail, ErrorInfo):
                assert detail.domain == "dk-trio"
                self.reason, self.facts = detail.reason, dict(detail.metadata)
            elif isinstance(detail, RetryInfo):
                self.retry_after = detail.retry_delay.total_seconds()


async def start(client: ModuleClient, text: str = GO, *, told: Told | None = None, **arguments: Any) -> Told:
    """Call StartModule with the generated stub, so that nothing of the responses is hidden."""
    told = told or Told()
    root = arguments.pop("root", {"protocol": "message", "text": text})
    request = StartModuleRequest(
        input=Struct.from_dict({"root": root}),
        setup_id=arguments.pop("setup_id", "setups:s"),
        mission_id="missions:m",
    )
    started = trio.current_time()
    try:
        async for response in ModuleServiceStub(client.channel).start_module(request, **arguments):
            output = response.output.to_dict()
            told.successes.append(response.success)
            told.job_ids.add(response.job_id)
            if response.success:
                told.protocols.append(output["root"]["protocol"])
                told.texts.append(output["root"].get("text", ""))
            else:
                told.failure = output
    except GRPCError as error:
        told.note(error)
    finally:
        told.seconds = trio.current_time() - started
        told.ended.set()
    return told


async def told_of(call: Awaitable[object]) -> Told:
    """What the caller of a unary RPC was told."""
    told = Told()
    started = trio.current_time()
    try:
        await call
    except GRPCError as error:
        told.note(error)
    told.seconds = trio.current_time() - started
    return told


@dataclass
class Job:
    """A job in a task of its own."""

    client: ModuleClient
    job_id: str
    told: Told
    scope: trio.CancelScope


async def begin(nursery: trio.Nursery, client: ModuleClient, text: str = WAIT, **arguments: Any) -> Job:
    """Start a job and return when nothing goes on any more: it runs, waits for a slot, or has ended."""
    job = Job(client, "", Told(), trio.CancelScope())
    before = set(await client.jobs())

    async def run() -> None:
        with job.scope:
            await start(client, text, told=job.told, **arguments)

    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    job.job_id = next(iter(set(await client.jobs()) - before), "")
    return job


class Source:
    """Setups whose answers take `delay` seconds, or fail."""

    def __init__(self, content: dict[str, Any] | None = None, *, delay: float = 0) -> None:
        self.content = content or {}
        self.delay = delay
        self.failure: Callable[[], BaseException] | None = None
        self.asked: list[str] = []

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        self.asked.append(setup_id)
        number = len(self.asked)
        await trio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure()
        return SetupVersion(id=f"setup_versions:{number}", setup_id=setup_id, content=self.content)


@asynccontextmanager
async def serving(
    *, settings: Settings | None = None, setups: Any = None, strict_setup: bool = False, **hooks: Any
) -> AsyncIterator[tuple[ModuleServer, ModuleClient]]:
    """Serve a module that does as it is told; at the end nothing may be left of any job.

    Args:
        settings: Of the server.
        setups: Where setups come from.
        strict_setup: See `ModuleServer`.
        hooks: Of the module class.
    """
    module = module_with(hooks.pop("handle", does_as_told), **hooks)
    async with served(module, settings=settings, setups=setups, strict_setup=strict_setup) as (server, client):
        yield server, client
        await trio.testing.wait_all_tasks_blocked()
        statistics = server.statistics()
        assert (statistics.jobs.running, statistics.jobs.queued) == (0, 0)
        assert (statistics.admission.admitted, statistics.admission.queued, statistics.admission.at_gate) == (0, 0, 0)
        assert statistics.rpc.rpcs == 0


FORM = {"prefix": "> "}


def configure(client: ModuleClient, content: dict[str, Any] = FORM, **fields: Any) -> Awaitable[Any]:
    """ConfigSetupModule with the generated stub; the fields are those of the setup's version."""
    version = SetupVersionMessage(**({"id": "setup_versions:7", "setup_id": "setups:s", "version": "7"} | fields))
    request = ConfigSetupModuleRequest(
        setup_version=version, content=Struct.from_dict(content), mission_id="missions:m"
    )
    return ModuleServiceStub(client.channel).config_setup_module(request)


async def sleeps(self: Any, context: Any, config_setup_data: Any) -> Any:
    await trio.sleep_forever()


async def goes_on(self: Any, context: Any, config_setup_data: Any) -> Any:
    """A `run_config_setup` that minds no cancellation."""
    with trio.CancelScope(shield=True):
        await trio.sleep(1000)
    return config_setup_data


def assert_refused(told: Told, status: Status, reason: str, message: str) -> None:
    """A refused request has no job: one message that says so, without an id, and the status."""
    assert_failed(told, status, reason, message)
    assert told.protocols == []
    assert told.job_ids == {""}


def assert_failed(told: Told, status: Status, reason: str, message: str, *, code: str = "") -> None:
    """The stream and the status tell the same failure; `code` is that of the stream, if it is another."""
    assert (told.status, told.reason) == (status, reason)
    assert message in told.message
    assert told.failure is not None
    assert told.failure.keys() == {"code", "message", "short_description"}
    assert told.failure["code"] == (code or reason)
    assert told.failure["message"] == told.message
    assert told.failure["short_description"]
    assert "end_of_stream" not in told.protocols
    assert told.successes == [True] * len(told.protocols) + [False]
    assert len(told.job_ids) == 1


def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.getMessage() for record in caplog.records)
