"""What variables change, from the environment to what a caller or a provider sees; where no other test shows it."""

from itertools import pairwise
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.sample import Input, Message, Output, module_class, module_with
from tests.module.served import outputs_of, served
from tests.module.service_kit import settings_of
from tests.signals.fake import exchange_with, start

from dk_trio.module import ModuleContext, SetupModel, TriggerHandler, TrioModule
from dk_trio.module.tools import ToolReference
from dk_trio.services.setup import SetupVersion
from dk_trio.services.strategy import BaseStrategy, ServicesStrategy
from dk_trio.settings import SignalSettings


def signals_of(**variables: object) -> SignalSettings:
    return settings_of(**variables).signals


@pytest.mark.parametrize(("size", "fetched"), [(0, "abab"), (1, "abab"), (2, "ab")])
async def test_setup_cache_max(autojump_clock: object, size: int, fetched: str) -> None:
    asked: list[str] = []

    class Source:
        async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
            asked.append(setup_id[-1])
            return SetupVersion(id="v", setup_id=setup_id, content={})

    async def does_nothing(self: Any, input_data: Any, setup_data: Any, context: Any) -> None: ...

    settings = settings_of(SETUP_CACHE_MAX=size)
    async with served(module_with(does_nothing), settings=settings, setups=Source()) as (_, client):
        for setup_id in "abab":
            await outputs_of(client, {"protocol": "message"}, setup_id=f"setups:{setup_id}")
    assert "".join(asked) == fetched


@pytest.mark.parametrize(("first", "ceiling", "expected"), [(0.5, 4, (0.5, 1, 2, 4, 4)), (3, 3, (3, 3, 3, 3, 3))])
async def test_initial_poll_interval_and_its_ceiling(
    autojump_clock: object, first: float, ceiling: float, expected: tuple[float, ...]
) -> None:
    settings = signals_of(SIGNAL_INITIAL_POLL_INTERVAL=first, SIGNAL_POLL_INTERVAL=ceiling)
    async with exchange_with(settings=settings) as (exchange, provider):
        with exchange.listen("a", lambda _: None):
            await trio.sleep(40)
        gaps = [after.at - before.at for before, after in pairwise(provider.polls)]
        for gap, base in zip(gaps, expected, strict=False):
            assert base <= gap <= base * 1.5 + 0.001


@pytest.mark.parametrize("timeout", [2, 20])
async def test_poll_timeout(autojump_clock: object, timeout: float) -> None:
    async with exchange_with(settings=signals_of(POLL_TIMEOUT=timeout), poll="hang") as (exchange, provider):
        with exchange.listen("a", lambda _: None):
            await trio.sleep(200)
        gaps = [after.at - before.at for before, after in pairwise(provider.polls)]
        assert timeout <= min(gaps)
        assert max(gaps) <= timeout + 1.6


@pytest.mark.parametrize(("retries", "backoff", "calls"), [(0, 1000, 1), (2, 1000, 3), (2, 50, 3)])
async def test_send_retries_and_backoff(autojump_clock: object, retries: int, backoff: int, calls: int) -> None:
    """What is retried after these is an outage, and told as one."""
    settings = signals_of(SIGNAL_SEND_RETRIES=retries, SIGNAL_SEND_BACKOFF_MS=backoff)
    async with exchange_with(settings=settings, send=Status.INTERNAL) as (exchange, provider):
        exchange.publish(start("a"))
        while exchange.health().outbound.ok:  # noqa: ASYNC110  nobody tells of it
            await trio.sleep(0.01)
        assert len(provider.sent) == calls
        for (before, after), base in zip(pairwise(provider.sent), (backoff, backoff * 2), strict=False):
            assert base <= (after.at - before.at) * 1000 <= base * 1.5 + 1
        provider.send = None


async def test_tool_resolve_timeout(autojump_clock: object) -> None:
    class Hanging(BaseStrategy):
        async def get_setup(self, setup_id: str) -> Any:
            await trio.sleep_forever()

    class Choosing(SetupModel):
        tools: ToolReference = ToolReference()

    services = {name: ServicesStrategy(local=Hanging) for name in ("registry", "communication")}
    module = module_class(TrioModule[Input, Output, Choosing], services_config_strategies=services)

    async def handle(self: Any, input_data: Any, setup_data: Any, context: ModuleContext) -> None:
        await context.send(Message())

    module.register(type("Handler", (TriggerHandler,), {"protocol": "message", "handle": handle}))
    form = {"tools": [{"setupId": "setups:tool", "triggers": {"search": True}}]}
    async with served(module, settings=settings_of(TOOL_RESOLVE_TIMEOUT=3)) as (_, client):
        began = trio.current_time()
        with pytest.raises(GRPCError) as caught:
            await client.config_setup(form, setup_id="setups:s")
        assert trio.current_time() - began == pytest.approx(3)
        assert "did not answer within 3 s" in str(caught.value.message)
