"""A provider that says when to come back is left alone for so long, in both directions."""

from datetime import timedelta
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio.pb.google.rpc import RetryInfo

from .fake import exchange_with, request_for, settled, start

WAYS: list[dict[str, Any]] = [
    {"trailers": {"grpc-retry-pushback-ms": "7000"}},
    {"details": [RetryInfo(retry_delay=timedelta(seconds=7))]},
]


@pytest.mark.parametrize("way", WAYS, ids=["trailer", "details"])
@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.INTERNAL])
async def test_signals_are_sent_when_it_says(autojump_clock: Any, way: dict[str, Any], status: Status) -> None:
    async with exchange_with(send_plan=[status] * 3, **way) as (exchange, provider):
        for number in range(50):
            exchange.publish(start(f"j{number}"))
        await settled(exchange)
        assert [sent.at for sent in provider.sent[:4]] == pytest.approx([0, 7, 14, 21], abs=0.15)
        assert len(provider.taken) == 50


@pytest.mark.parametrize("way", WAYS, ids=["trailer", "details"])
@pytest.mark.parametrize("holds", [False, True], ids=["plain", "holds"])
async def test_it_is_polled_when_it_says(autojump_clock: Any, way: dict[str, Any], holds: bool) -> None:
    plan = [Status.RESOURCE_EXHAUSTED] * 2
    async with exchange_with(poll_plan=plan, holds=holds, **way) as (exchange, provider):
        heard: list[str] = []
        with exchange.listen("a", lambda signal: heard.append(signal.task_id)):
            provider.ask(request_for("a"))
            await trio.sleep(13.9)
            assert ([poll.at for poll in provider.polls], heard) == (pytest.approx([0, 7], abs=1.7), [])
            await trio.sleep(1.8)
            assert heard == ["a"]


@pytest.mark.parametrize("way", WAYS, ids=["trailer", "details"])
async def test_jobs_that_begin_meanwhile_do_not_break_in(autojump_clock: Any, way: dict[str, Any]) -> None:
    """A second poll, for those who come while the first is held, is refused: neither it nor the first comes sooner."""
    async with exchange_with(holds=True, **way) as (exchange, provider):
        with exchange.listen("first", lambda _: None):
            await trio.sleep(0.1)
            provider.ask(request_for("first"))
            await trio.sleep(1)  # it is known now that polls are held, and one is
            provider.poll_plan = [Status.RESOURCE_EXHAUSTED]
            began, polls = trio.current_time(), len(provider.polls)
            for number in range(6):
                with exchange.listen(f"j{number}", lambda _: None):
                    await trio.sleep(1.1)
            assert len(provider.polls) == polls + 1
            heard: list[float] = []
            with exchange.listen("last", lambda _: heard.append(trio.current_time() - began)):
                provider.ask(request_for("last"))
                await trio.sleep(2)
            assert heard == pytest.approx([7], abs=0.1)


async def test_who_is_not_to_ask_again_asks_seldom(autojump_clock: Any) -> None:
    trailers = {"grpc-retry-pushback-ms": "-1"}
    async with exchange_with(send=Status.UNAVAILABLE, poll=Status.UNAVAILABLE, trailers=trailers) as (
        exchange,
        provider,
    ):
        heard: list[str] = []
        with exchange.listen("a", lambda signal: heard.append(signal.task_id)):
            exchange.publish(start("a"))
            await trio.sleep(60)
            assert len(provider.polls) <= 21
            assert len(provider.sent) <= 30
            provider.send = provider.poll = None
            provider.ask(request_for("a"))
            await settled(exchange)
            await trio.sleep(5)
            assert (heard, len(provider.taken)) == (["a"], 1)


async def test_nobody_is_left_alone_for_ever(autojump_clock: Any) -> None:
    plan = [Status.UNAVAILABLE]
    trailers = {"grpc-retry-pushback-ms": "999999999"}
    async with exchange_with(send_plan=list(plan), poll_plan=list(plan), trailers=trailers) as (exchange, provider):
        with exchange.listen("a", lambda _: None):
            exchange.publish(start("a"))
            await trio.sleep(65)
            assert [poll.at for poll in provider.polls[:2]] == pytest.approx([0, 60], abs=1)
            assert [sent.at for sent in provider.sent] == pytest.approx([0, 60], abs=0.2)
            assert len(provider.taken) == 1
