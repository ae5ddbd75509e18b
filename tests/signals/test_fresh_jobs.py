"""Jobs that begin while a poll is held: they are asked for beside it."""

from math import inf
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio.signals import Signal

from .fake import exchange_with, request_for, start
from .test_inbox import quiet


async def test_a_fresh_job_is_cancelled_at_once(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        with exchange.listen("old", print):
            await quiet(2.3)
            for number in range(10):
                at: list[float] = []
                with exchange.listen(f"j{number}", lambda _, at=at: at.append(trio.current_time())):
                    asked = trio.current_time()
                    provider.ask(request_for(f"j{number}"))
                    await quiet(0.3)
                    assert at == [pytest.approx(asked, abs=0.011)]


async def test_a_job_that_is_no_longer_fresh_is_asked_for_with_the_others(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        at: list[float] = []
        with exchange.listen("old", print):
            await quiet(2.3)
            with exchange.listen("new", lambda _: at.append(trio.current_time())):
                await quiet(10.2)  # polls of both have come and gone
                asked = trio.current_time()
                provider.ask(request_for("new"))
                await quiet(5)
        assert at == [pytest.approx(asked, abs=0.011)]


@pytest.mark.parametrize("every", [0.2, 0.05, 0.012])
async def test_a_fresh_job_is_cancelled_at_once_although_others_begin_all_the_time(
    autojump_clock: Any, every: float
) -> None:
    async with exchange_with(holds=True) as (exchange, provider), trio.open_nursery() as nursery:
        took: list[float] = []

        async def job(number: int) -> None:
            asked = trio.current_time() + 0.002
            with exchange.listen(f"j{number}", lambda _: took.append(trio.current_time() - asked)):
                await trio.sleep(0.002)
                if number % 10 == 9:
                    provider.ask(request_for(f"j{number}"))
                await quiet(2)

        with exchange.listen("old", print):
            await quiet(2.3)
            for number in range(100):
                nursery.start_soon(job, number)
                await quiet(every)
    assert len(took) == 10
    assert max(took) < 0.02


async def test_a_poll_of_fresh_jobs_that_fails_is_not_tried_without_a_pause(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        with exchange.listen("old", print):
            await quiet(2.3)
            before = len(provider.polls)
            provider.poll_plan = [None, *[Status.RESOURCE_EXHAUSTED, None] * 50]
            for number in range(200):
                with exchange.listen(f"j{number}", print):
                    await quiet(0.001)
            assert len(provider.polls) - before < 80
        assert exchange.health().inbound.ok


async def test_a_path_is_known_to_work_although_only_polls_of_fresh_jobs_end(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        heard: list[Signal] = []
        with exchange.listen("old", print):
            await quiet(2.3)
            provider.poll = Status.INTERNAL
            while exchange.health().inbound.ok:
                await quiet(0.1)
            provider.poll = None
            while provider.polls[-1].ended != inf:
                await quiet(0.1)
            for number in range(10):
                with exchange.listen(f"j{number}", heard.append):
                    await quiet(0.3)
                    provider.ask(request_for(f"j{number}"))
                    await quiet(0.02)
                assert len(heard) == number + 1
                assert exchange.health().inbound.ok


async def test_a_poll_of_all_is_not_left_when_the_provider_does_not_hold_any_more(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        with exchange.listen("old", print):
            await quiet(0.5)
            provider.poll_plan = [0.4]
            while provider.poll_plan:
                await quiet(0.01)
            provider.holds = False
            with exchange.listen("new", print):
                await quiet(0.3)
                before = len(provider.polls)
                assert provider.polls[-2].ids == ["old"]
                assert provider.polls[-2].ended == inf
                assert provider.polls[-1].ids == ["new"]
                await quiet(0.3)
                assert len(provider.polls) > before
                assert exchange.statistics().inbound.restarts == 0


async def test_jobs_that_begin_together_share_one_new_poll(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        with exchange.listen("old", print):
            await quiet(2.5)
            before = len(provider.polls)
            async with trio.open_nursery() as nursery:

                async def job(number: int) -> None:
                    await trio.sleep(number * 0.0001)
                    with exchange.listen(f"j{number}", print):
                        await quiet(0.3)

                for number in range(200):
                    nursery.start_soon(job, number)
                await quiet(0.2)
                assert len(provider.polls) - before <= 4
                assert max(len(poll.ids) for poll in provider.polls[before:]) >= 200


async def test_a_provider_that_is_slow_gets_to_answer_although_jobs_begin_all_the_time(autojump_clock: Any) -> None:
    async with exchange_with(holds=True, poll=0.3) as (exchange, provider):
        heard: list[str] = []
        with exchange.listen("old", lambda signal: heard.append(signal.task_id)):
            await quiet(3)
            provider.ask(request_for("old"))
            for number in range(300):
                with exchange.listen(f"j{number}", print):
                    await quiet(0.01)
        assert heard == ["old"]


async def test_polls_of_a_provider_that_does_not_hold_are_never_left(autojump_clock: Any) -> None:
    async with exchange_with(poll=0.2) as (exchange, _):
        with exchange.listen("old", print):
            for number in range(100):
                with exchange.listen(f"j{number}", print):
                    await quiet(0.01)
        assert exchange.statistics().inbound.restarts == 0


async def test_jobs_that_began_before_it_was_known_that_polls_are_held(autojump_clock: Any) -> None:
    async with exchange_with(holds=True) as (exchange, provider):
        heard: list[float] = []
        with exchange.listen("a", print):
            exchange.publish(start("a"))
            await quiet(0.05)  # the first poll is out
            with exchange.listen("b", lambda _: heard.append(trio.current_time())):
                provider.ask(request_for("b"))
                await quiet(0.1)  # the reply to START tells
                assert len(heard) == 1
