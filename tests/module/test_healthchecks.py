"""Health checks as inputs: answered without a job, by probes that have a deadline, with numbers that are counted."""

from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from pydantic import BaseModel
from tests.module.sample import Input, Output, module_class, module_with, protocols_of, send_one
from tests.module.served import outputs_of, served

from dk_trio import DataModel, Settings, SetupModel, TrioModule
from dk_trio.module._system_messages import end_of_stream
from dk_trio.services.strategy import BaseStrategy, ServicesStrategy
from dk_trio.settings import TaskSettings

ONE_SLOT = Settings(tasks=TaskSettings(max_concurrent_tasks=1, task_wait_timeout=5))


class Demanding(SetupModel):
    needed: str


def answer(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    assert protocols_of(outputs)[0] == "module_start_info"
    assert protocols_of(outputs)[2:] == ["end_of_stream"]
    assert outputs[2].keys() == end_of_stream().keys()
    output = outputs[1]
    for key, value in output["root"].items():  # callers of the existing SDK look for the fields at the top
        assert output[key] == value
    root: dict[str, Any] = output["root"]
    return root


async def wait(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
    await trio.sleep(100)


async def test_ping_is_answered(autojump_clock: object) -> None:
    async with served(module_with(send_one)) as (_, client):
        root = answer(await outputs_of(client, {"protocol": "healthcheck_ping"}))
    assert (root["status"], root["latency_ms"]) == ("pong", 0)


async def test_a_full_server_answers_and_counts_its_jobs(autojump_clock: object) -> None:
    async with (
        served(module_with(wait, name="waiter"), settings=ONE_SLOT) as (_, client),
        trio.open_nursery() as nursery,
    ):
        await trio.sleep(7)
        nursery.start_soon(outputs_of, client, {"protocol": "message"})
        await trio.testing.wait_all_tasks_blocked()
        root = answer(await outputs_of(client, {"protocol": "healthcheck_status"}, mission_id="missions:a"))
        assert (root["module_name"], root["module_status"], root["active_jobs"]) == ("waiter", "RUNNING", 1)
        assert root["uptime_seconds"] == pytest.approx(7)
        assert root["metadata"]["mission_id"] == "missions:a"
        nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint_if_cancelled()


async def test_neither_a_setup_nor_the_authors_code_is_needed(autojump_clock: object) -> None:
    async def initialize(self: Any, context: Any, setup_data: Any) -> None:
        raise AssertionError("initialize ran")

    module = module_class(TrioModule[Input, Output, Demanding], run=wait, initialize=initialize)
    async with served(module) as (_, client):
        assert answer(await outputs_of(client, {"protocol": "healthcheck_ping"}))["status"] == "pong"


async def test_each_service_is_probed_with_a_deadline_of_its_own(autojump_clock: object) -> None:
    class Well(BaseStrategy):
        pass

    class Ill(BaseStrategy):
        async def check_health(self) -> None:
            raise OSError("disk on fire")

    class Slow(BaseStrategy):
        async def check_health(self) -> None:
            await trio.sleep(1000)

    class Silent:
        def __init__(self, mission_id: str, setup_id: str, setup_version_id: str) -> None:
            pass

    kinds = {"storage": Ill, "filesystem": Well, "registry": Slow, "identity": Silent}
    strategies = {name: ServicesStrategy(local=kind) for name, kind in kinds.items()}
    async with served(module_with(send_one, services_config_strategies=strategies)) as (_, client):
        started = trio.current_time()
        root = answer(await outputs_of(client, {"protocol": "healthcheck_services"}))
        assert trio.current_time() - started == pytest.approx(2)
    found = {row["name"]: (row["status"], row["message"]) for row in root["services"]}
    assert found == {
        "storage": ("unhealthy", "OSError: disk on fire"),
        "filesystem": ("healthy", None),
        "registry": ("unhealthy", "no answer within 2 s"),
        "identity": ("unknown", "its strategy has no check_health"),
        "cost": ("unknown", "not configured"),
        "user_profile": ("unknown", "not configured"),
    }
    assert root["overall_status"] == "degraded"


@pytest.mark.parametrize(("ill", "overall"), [((), "healthy"), (("storage", "registry"), "unhealthy")])
async def test_the_overall_status(autojump_clock: object, ill: tuple[str, ...], overall: str) -> None:
    class Ill(BaseStrategy):
        async def check_health(self) -> None:
            raise OSError

    strategies = {
        name: ServicesStrategy(local=Ill if name in ill else BaseStrategy) for name in ("storage", "registry")
    }
    async with served(module_with(send_one, services_config_strategies=strategies)) as (_, client):
        root = answer(await outputs_of(client, {"protocol": "healthcheck_services"}))
    assert root["overall_status"] == overall


@pytest.mark.parametrize("protocol", [[], {}, ["healthcheck_ping"], 3, True])
async def test_a_protocol_that_is_no_text_is_refused(autojump_clock: object, protocol: Any) -> None:
    async def run(self: Any, input_data: Any, setup_data: Any) -> None: ...

    loose = module_class(TrioModule[DataModel[Any], Any, SetupModel], run=run)
    for module in (module_with(send_one), loose):
        async with served(module) as (_, client):
            if module is loose:
                await outputs_of(client, {"protocol": protocol})
                continue
            with pytest.raises(GRPCError) as caught:
                await outputs_of(client, {"protocol": protocol})
            assert caught.value.status is Status.INVALID_ARGUMENT


async def test_a_protocol_that_is_no_text_is_refused_by_a_module_that_names_none(autojump_clock: object) -> None:
    class Free(BaseModel):
        count: int

    async def run(self: Any, input_data: Any, setup_data: Any) -> None: ...

    async with served(module_class(TrioModule[DataModel[Free], Any, SetupModel], run=run)) as (_, client):
        with pytest.raises(GRPCError, match="count") as caught:
            await outputs_of(client, {"protocol": [], "count": "many"})
    assert caught.value.status is Status.INVALID_ARGUMENT
