"""The services of a job: made when they are used, flushed and closed after cleanup, however the job ends."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.sample import Message, module_with, protocols_of
from tests.module.served import outputs_of, served

from dk_trio.errors import InvalidFileError, ServiceError, Violation
from dk_trio.module import ModuleContext, SessionIds
from dk_trio.pb.google.rpc import BadRequest
from dk_trio.services.strategy import BaseStrategy, ServicesStrategy

EVENTS: list[str] = []


class Noted(BaseStrategy):
    def __init__(self, mission_id: str, setup_id: str, setup_version_id: str, *, job_id: str) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        EVENTS.append(f"made for {mission_id} {setup_id} {bool(job_id)}")

    async def close(self) -> None:
        await trio.sleep(1)
        EVENTS.append("closed")


@pytest.fixture(autouse=True)
def events() -> list[str]:
    EVENTS.clear()
    return EVENTS


def module_of(handle: Any, **hooks: Any) -> Any:
    return module_with(handle, services_config_strategies={"storage": ServicesStrategy(local=Noted)}, **hooks)


async def cleanup(self: Any) -> None:
    EVENTS.append("cleanup")


async def test_a_job_that_uses_none_makes_none(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        assert not context.uses_services

    async with served(module_of(handle)) as (_, client):
        await outputs_of(client, {"protocol": "message"})
    assert EVENTS == []


async def test_flush_and_close_come_after_cleanup_and_before_the_end(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        assert context.storage is context.storage

        async def flush() -> None:
            EVENTS.append("flush")
            await context.send(Message(text="from the flush"))

        context.at_end("history", flush)

    async with served(module_of(handle, cleanup=cleanup)) as (_, client):
        outputs = await outputs_of(client, {"protocol": "message"}, mission_id="missions:m", setup_id="setups:s")
    assert protocols_of(outputs) == ["module_start_info", "message", "end_of_stream"]
    assert EVENTS == ["made for missions:m setups:s True", "cleanup", "flush", "closed"]


@pytest.mark.parametrize("slow_cleanup", [False, True])
async def test_a_flush_survives_the_cancellation_of_the_job(autojump_clock: object, slow_cleanup: bool) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> AsyncIterator[Message]:
        async def flush() -> None:
            await trio.sleep(1)
            EVENTS.append("flushed")

        context.at_end("history", flush)
        yield Message()
        await trio.sleep_forever()

    async def cleanup(self: Any) -> None:
        if slow_cleanup:
            await trio.sleep_forever()  # takes all of its time, and is cancelled

    async with served(module_of(handle, cleanup=cleanup)) as (server, client):
        async with client.start({"protocol": "message"}) as outputs:
            await anext(outputs)
            await anext(outputs)
        await trio.sleep(60)
        assert server.statistics().jobs.running == 0
    assert EVENTS == ["flushed"]


async def test_a_flush_that_fails_fails_the_job(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        async def flush() -> None:
            raise OSError("disk full")

        context.at_end("history", flush)

    async with served(module_of(handle)) as (_, client):
        with pytest.raises(GRPCError, match="disk full") as caught:
            await outputs_of(client, {"protocol": "message"})
    assert caught.value.status is Status.INTERNAL


async def test_a_flush_that_hangs_is_cut_and_told(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        context.at_end("history", trio.sleep_forever)

    async with served(module_of(handle)) as (_, client):
        started = trio.current_time()
        with pytest.raises(GRPCError, match="took 300 s for cleanup"):
            await outputs_of(client, {"protocol": "message"})
        assert trio.current_time() - started == pytest.approx(300)


async def test_a_failed_job_closes_its_services_too(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        assert context.storage
        raise ValueError("no")

    async with served(module_of(handle, cleanup=cleanup)) as (_, client):
        with pytest.raises(GRPCError, match="ValueError: no"):
            await outputs_of(client, {"protocol": "message"})
    assert EVENTS[1:] == ["cleanup", "closed"]


async def test_what_a_service_refuses_reaches_the_caller_by_field(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        violation = Violation("files[0].name", "must not hold '..': '../x'")
        raise InvalidFileError("The name '../x' leaves its folder.", hint="Use a plain name.", violations=[violation])

    async with served(module_with(handle)) as (_, client):
        with pytest.raises(GRPCError, match="leaves its folder") as caught:
            await outputs_of(client, {"protocol": "message"})
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert caught.value.details is not None
        [refused] = [row for row in caught.value.details if isinstance(row, BadRequest)]
        assert [(row.field, row.description) for row in refused.field_violations] == [
            ("files[0].name", "must not hold '..': '../x'")
        ]


async def test_thousands_of_violations_fit_into_the_trailers(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        rows = [Violation(f"input.rows[{number}]", "é" * 100) for number in range(3000)]
        raise InvalidFileError("é" * 300, violations=rows)

    async with served(module_with(handle)) as (_, client):
        for _ in range(2):  # the connection lives on
            with pytest.raises(GRPCError) as caught:
                await outputs_of(client, {"protocol": "message"})
        assert caught.value.details is not None
        [refused] = [row for row in caught.value.details if isinstance(row, BadRequest)]
        assert refused.field_violations[0].field == "input.rows[0]"


def test_a_context_without_a_server_says_so() -> None:
    async def send(_: Any) -> None: ...

    ids = SessionIds(job_id="j", mission_id="m", setup_id="s", setup_version_id="v", timezone_name="Asia/Tokyo")
    context = ModuleContext(session=ids, send=send)
    assert str(context.session.timezone) == "Asia/Tokyo"
    with pytest.raises(ServiceError, match="made without a server"):
        _ = context.storage
    with pytest.raises(ServiceError, match="made without a server"):
        _ = context.task_manager
