"""Strategies, flushes and fetchers that sin: their own call is hurt, and neither another one nor the server."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import ModuleClient, ModuleServer, Settings
from dk_trio.lifecycle import Reason, SessionOptions
from dk_trio.module import Dynamic, ModuleContext, SetupModel, TriggerHandler, TrioModule
from dk_trio.module.tools import ToolReference
from dk_trio.services.strategy import BaseStrategy, ServicesStrategy
from dk_trio.session import ABANDON_AFTER
from dk_trio.settings import LifecycleSettings, ServicesSettings

from .ends import begin
from .sample import Input, Message, Output, module_class, module_with
from .served import DAY, outputs_of, served
from .sinners import stubborn

PEACE = {"protocol": "message", "text": "peace"}
USE = {"protocol": "message", "text": "use"}
CHECK = {"protocol": "healthcheck_services"}
OPTIONS = SessionOptions(completion_timeout=20)
GRACE = OPTIONS.cleanup_grace

Sin = Callable[[], Awaitable[None]]


class PanicError(BaseException):
    """What an extension that is not written in Python may raise."""


async def exits() -> None:
    await trio.lowlevel.checkpoint()
    sys.exit(3)


async def panics() -> None:
    raise PanicError("at the disco")


async def exits_in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exits)
        nursery.start_soon(trio.sleep, DAY)


async def leaves_a_nursery_open() -> None:
    nursery = await trio.open_nursery().__aenter__()
    nursery.start_soon(trio.sleep, 5)


async def leaves_a_scope_open() -> None:
    trio.CancelScope().__enter__()


async def hangs() -> None:
    await trio.sleep(DAY / 2)


async def swallows() -> None:
    with pytest.raises(trio.Cancelled):
        await trio.sleep(DAY / 2)


async def goes_on() -> None:
    repents = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stubborn, None, repents)
        with trio.CancelScope(shield=True):
            await trio.sleep(300)
        repents.set()


FAIL = [exits, panics, exits_in_a_nursery, leaves_a_nursery_open]
LINGER = [hangs, swallows, goes_on]
SINS = [*FAIL, *LINGER, leaves_a_scope_open]  # the last does no harm to whoever has a task of its own


def method(sin: Sin) -> Any:
    async def sinful(self: Any) -> None:
        await sin()

    return sinful


def raising(error: type[BaseException]) -> Any:
    def init(self: Any, *ids: str) -> None:
        raise error("at once")

    return init


def module_of(handle: Any, **methods: Any) -> Any:
    """A module whose storage has these methods; a job of `PEACE` does nothing but wait."""

    async def run(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        if input_data.text == "peace":
            await trio.sleep(10)
            await context.send(Message(text="in peace"))
        else:
            await handle(context)

    storage = type("Sinful", (BaseStrategy,), methods)
    return module_with(run, services_config_strategies={"storage": ServicesStrategy(local=storage)})


async def uses(context: ModuleContext) -> None:
    assert context.storage is context.storage


@asynccontextmanager
async def beside(module: Any, **arguments: Any) -> AsyncIterator[tuple[ModuleServer, ModuleClient]]:
    """Serve a module and, on the same connection, a job that must not notice anything. At the end nothing is left."""
    async with (
        served(module, session_options=OPTIONS, **arguments) as (server, client),
        trio.open_nursery() as nursery,
    ):
        before = await begin(nursery, client, PEACE)
        yield server, client
        for job in (before, await begin(nursery, client, PEACE)):
            await job.ended.wait()
            assert (job.status, job.protocols[1:]) == (Status.OK, ["message", "end_of_stream"])
        await trio.sleep(700)
        now = server.statistics()
        assert (now.jobs.running, now.admission.admitted, now.rpc.rpcs) == (0, 0, 0)
        assert server._servicer.health_checks.late == set()


async def storage_of(client: ModuleClient) -> dict[str, Any]:
    """What a health check says of the storage."""
    root = (await outputs_of(client, CHECK))[1]["root"]
    row: dict[str, Any] = next(row for row in root["services"] if row["name"] == "storage")
    return row


# --- health checks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sin", FAIL)
async def test_a_check_that_fails_is_the_services_failure(autojump_clock: object, sin: Sin) -> None:
    async with beside(module_of(uses, check_health=method(sin))) as (_, client):
        assert (await storage_of(client))["status"] == "unhealthy"


@pytest.mark.parametrize("error", [SystemExit, PanicError, ValueError])
async def test_a_constructor_that_raises_is_the_services_failure(autojump_clock: object, error: Any) -> None:
    async with beside(module_of(uses, __init__=raising(error))) as (_, client):
        assert await storage_of(client) == {
            "name": "storage",
            "status": "unhealthy",
            "message": f"{error.__name__}: at once",
        }
        with pytest.raises(GRPCError, match=f"{error.__name__}: at once"):
            await outputs_of(client, USE)


@pytest.mark.parametrize("sin", LINGER)
async def test_a_check_that_does_not_end_is_answered_in_time_and_not_begun_again(
    autojump_clock: object, sin: Sin
) -> None:
    calls = 0

    async def check_health(self: Any) -> None:
        nonlocal calls
        calls += 1
        await sin()

    async with beside(module_of(uses, check_health=check_health)) as (server, client):
        for _ in range(3):
            began = trio.current_time()
            assert (await storage_of(client))["message"] == "no answer within 2 s"
            assert trio.current_time() - began < 3
        await trio.testing.wait_all_tasks_blocked()
        going_on = sin is goes_on
        assert (calls, server.statistics().rpc.rpcs) == ((1, 2) if going_on else (3, 1))  # the bystander's is one


@pytest.mark.parametrize("sin", SINS)
async def test_the_close_after_a_check_hurts_nobody(autojump_clock: object, sin: Sin) -> None:
    async with beside(module_of(uses, check_health=method(trio.lowlevel.checkpoint), close=method(sin))) as (_, client):
        assert (await storage_of(client))["status"] == "healthy"


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sin", SINS)
async def test_a_flush_that_sins_fails_its_job_and_takes_nobodys_turn(autojump_clock: object, sin: Sin) -> None:
    events: list[str] = []

    async def works() -> None:
        await trio.sleep(1)
        events.append("flushed")

    async def close(self: Any) -> None:
        await trio.sleep(1)
        events.append("closed")

    async def handle(context: ModuleContext) -> None:
        assert context.storage is not None
        context.at_end("sins", sin)
        context.at_end("works", works)

    async with beside(module_of(handle, close=close)) as (_, client), trio.open_nursery() as nursery:
        began = trio.current_time()
        job = await begin(nursery, client, USE)
        await job.ended.wait()
        failed = Status.OK if sin is leaves_a_scope_open else Status.INTERNAL
        assert job.status is (Status.DEADLINE_EXCEEDED if sin in LINGER else failed)
        assert trio.current_time() - began < 20 + GRACE + ABANDON_AFTER + 1
        await trio.sleep(700)
    assert events == ["flushed", "closed"]


@pytest.mark.parametrize("sin", SINS)
async def test_a_close_that_sins_takes_nobodys_turn(autojump_clock: object, sin: Sin) -> None:
    closed: list[str] = []

    class Good(BaseStrategy):
        async def close(self) -> None:
            await trio.sleep(1)
            closed.append("registry")

    async def handle(context: ModuleContext) -> None:
        assert all((context.storage, context.registry))

    module = module_of(handle, close=method(sin))
    module.services_config_strategies["registry"] = ServicesStrategy(local=Good)
    async with beside(module) as (_, client), trio.open_nursery() as nursery:
        job = await begin(nursery, client, USE)
        await job.ended.wait()
        # What has been written is written: only a job that cannot end is told.
        assert job.status is (Status.DEADLINE_EXCEEDED if sin in LINGER else Status.OK)
    assert closed == ["registry"]


@pytest.mark.parametrize("sin", LINGER)
async def test_after_a_cancellation_flush_and_close_are_cut_soon(autojump_clock: object, sin: Sin) -> None:
    async def handle(context: ModuleContext) -> None:
        assert context.storage is not None
        context.at_end("sins", sin)
        await trio.sleep_forever()

    async with beside(module_of(handle, close=method(sin))) as (server, client), trio.open_nursery() as nursery:
        job = await begin(nursery, client, USE)
        await client.stop(job.job_id)
        began = trio.current_time()
        await job.ended.wait()
        assert job.status is Status.CANCELLED
        assert trio.current_time() - began <= GRACE + ABANDON_AFTER + 0.1
        assert server.statistics().jobs.ended.get(Reason.FAILED) is None


# --- schemas ----------------------------------------------------------------------------------------------------------


def form_of(fetch: Any, **arguments: Any) -> Any:
    async def good() -> list[str]:
        return ["good"]

    class Setup(SetupModel):
        sins: Annotated[str, Dynamic(enum=fetch, **arguments)] = ""
        works: Annotated[str, Dynamic(enum=good)] = ""

    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        await trio.sleep(10)
        await context.send(Message())

    module = module_class(TrioModule[Input, Output, Setup])
    module.register(type("Handler", (TriggerHandler,), {"protocol": "message", "handle": handle}))
    return module


@pytest.mark.parametrize("sin", [*FAIL, hangs])
async def test_a_fetcher_that_sins_has_no_value(autojump_clock: object, sin: Sin) -> None:
    async with beside(form_of(sin)) as (_, client):
        fields = (await client.config_setup_schema())["properties"]
        assert "enum" not in fields["sins"]
        assert "enum" in fields["sins"]["x-dynamic-errors"]
        assert fields["works"]["enum"] == ["good"]


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("error", [SystemExit, PanicError])
async def test_a_plain_fetcher_that_raises_has_no_value(
    autojump_clock: object, error: type[BaseException], in_thread: bool
) -> None:
    def fetch() -> list[str]:
        raise error("at once")

    # The clock does not wait for the thread, but this long.
    async with beside(form_of(fetch, in_thread=in_thread, timeout=1000)) as (_, client):
        fields = (await client.config_setup_schema())["properties"]
        assert "enum" in fields["sins"]["x-dynamic-errors"]
        assert fields["works"]["enum"] == ["good"]


# --- the end of the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["check_health", "fetcher"])
async def test_a_drain_does_not_wait_for_ever_for_what_is_no_job(autojump_clock: object, where: str) -> None:
    module = form_of(goes_on) if where == "fetcher" else module_of(uses, check_health=method(goes_on))
    async with served(module) as (server, client), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(GRPCError) as caught:
                await client.config_setup_schema()
            assert caught.value.status is Status.UNAVAILABLE

        if where == "fetcher":
            nursery.start_soon(call)
            await trio.sleep(1)
        else:
            await storage_of(client)
        began = trio.current_time()
        assert await server.drain(1) == ["1 health checks or schemas"]
        assert trio.current_time() - began < 20
        await trio.sleep(700)
        assert await server.drain(0) == []


# --- configuration ----------------------------------------------------------------------------------------------------


HARMLESS: dict[str, set[Any]] = {
    "run_config_setup": {leaves_a_scope_open},
    "get_setup": {hangs, swallows},  # the author has done without the tool
    "flush": {swallows, leaves_a_scope_open},
    "close": {*FAIL, swallows, leaves_a_scope_open},  # nothing is lost
}
"""What a configuration can do with, by where it happens."""


class Choosing(SetupModel):
    tools: ToolReference = ToolReference()


@pytest.mark.parametrize("sin", SINS)
@pytest.mark.parametrize("where", HARMLESS)
async def test_a_configuration_that_sins_hurts_nobody(autojump_clock: object, where: str, sin: Sin) -> None:
    closed: list[str] = []

    class Strategy(BaseStrategy):
        async def get_setup(self, setup_id: str) -> Any:
            if where == "get_setup":
                await sin()

        async def close(self) -> None:
            closed.append("closed")
            if where == "close":
                await sin()

    async def run_config_setup(self: Any, context: ModuleContext, config_setup_data: Any) -> Any:
        if where == "flush":
            context.at_end("sins", sin)
        if where == "run_config_setup":
            await sin()
        config_setup_data.tools.selected_tools.clear()  # it does without
        return config_setup_data

    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        await trio.sleep(10)
        await context.send(Message())

    services = {name: ServicesStrategy(local=Strategy) for name in ("registry", "communication")}
    module = module_class(
        TrioModule[Input, Output, Choosing],
        services_config_strategies=services,
        run_config_setup=run_config_setup,
    )
    module.register(type("Handler", (TriggerHandler,), {"protocol": "message", "handle": handle}))
    settings = Settings(
        lifecycle=LifecycleSettings(config_setup_timeout=20), services=ServicesSettings(tool_resolve_timeout=5)
    )
    form = {"tools": [{"setupId": "setups:tool", "triggers": {"search": True}}]}
    async with beside(module, settings=settings) as (_, client):
        began = trio.current_time()
        try:
            await client.config_setup(form, setup_id="setups:s")
        except GRPCError as error:
            assert sin not in HARMLESS[where]
            assert error.status is (Status.INTERNAL if trio.current_time() - began < 20 else Status.DEADLINE_EXCEEDED)
        else:
            assert sin in HARMLESS[where]
        assert trio.current_time() - began <= 20 + ABANDON_AFTER
    assert closed == ["closed", "closed"]
