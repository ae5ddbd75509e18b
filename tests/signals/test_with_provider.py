"""The exchange with a provider of ours: what one keeps, the other brings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from tests.provider.kit import Provided, provided

from dk_trio import rpc
from dk_trio.provider import task_manager
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals, Signal, SignalAction, inbox

from .fake import ack, start, stop


@asynccontextmanager
async def platform() -> AsyncIterator[tuple[RemoteSignals, RemoteSignals, Provided]]:
    """A server's exchange, that of somebody else, and the provider of both."""
    async with (
        provided() as given,
        given.another() as one,
        given.another() as two,
        RemoteSignals(one, SignalSettings(), random=Random(1)).opened() as ours,
        RemoteSignals(two, SignalSettings(flush_interval=0), random=Random(2)).opened() as theirs,
    ):
        yield ours, theirs, given


def cancel(task_id: str, action: SignalAction = SignalAction.CANCEL) -> Signal:
    return Signal(task_id=task_id, action=action)


class Job:
    """What a session does with signals."""

    def __init__(self, exchange: RemoteSignals, job_id: str) -> None:
        self.exchange = exchange
        self.job_id = job_id
        self.ended: list[float] = []
        self.over = trio.Event()

    def on_signal(self, signal: Signal) -> None:
        if signal.action is SignalAction.CANCEL and not self.over.is_set():
            self.ended.append(trio.current_time())
            self.over.set()
            self.exchange.publish(ack(self.job_id))

    async def run(self) -> None:
        with self.exchange.listen(self.job_id, self.on_signal):
            self.exchange.publish(start(self.job_id))
            await self.over.wait()
        self.exchange.publish(stop(self.job_id, "signal_service_cancel"))


async def test_a_cancel_arrives_within_milliseconds(autojump_clock: Any) -> None:
    """Of jobs of all ages, and while others begin and end."""
    async with platform() as (ours, theirs, _), trio.open_nursery() as nursery:
        jobs = [Job(ours, f"j{number}") for number in range(200)]
        asked: dict[str, float] = {}

        async def live(number: int, job: Job) -> None:
            await trio.sleep(number * 0.013)
            nursery.start_soon(job.run)
            await trio.sleep((number % 40) * 0.05)
            asked[job.job_id] = trio.current_time()
            await theirs.deliver(cancel(job.job_id))

        for number, job in enumerate(jobs):
            nursery.start_soon(live, number, job)
        for job in jobs:
            await job.over.wait()
        took = sorted(job.ended[0] - asked[job.job_id] for job in jobs)
        assert took[-1] < 0.1
        assert took[197] <= 0.05
        assert all(len(job.ended) == 1 for job in jobs)
        await trio.sleep(1)
        assert ours.health().pending == 0
        assert ours.statistics().inbound.polls < 1500


async def test_what_is_kept_is_what_was_said(autojump_clock: Any) -> None:
    async with platform() as (ours, theirs, given):
        with ours.listen("a", lambda _: ours.publish(ack("a"))):
            ours.publish(start("a"))
            await trio.sleep(1)
            await theirs.deliver(cancel("a"))
            await trio.sleep(1)
        await ours.deliver(stop("a", "signal_service_cancel"))
        polls = ours.statistics().inbound
        assert (polls.received, polls.failed_polls) == (1, 0)
        with ours.listen("a", pytest.fail):  # it was answered
            await trio.sleep(2)
        assert given.provider.statistics()


async def test_a_provider_that_goes_and_comes_back(autojump_clock: Any, caplog: Any) -> None:
    async with platform() as (ours, theirs, given), trio.open_nursery() as nursery:
        jobs = [Job(ours, f"j{number}") for number in range(50)]
        for job in jobs:
            nursery.start_soon(job.run)
        for _ in range(20):
            await trio.sleep(0.17)
            await given.cut()
        for job in jobs:
            await theirs.deliver(cancel(job.job_id))
        for job in jobs:
            await job.over.wait()
        assert all(len(job.ended) == 1 for job in jobs)
        await trio.sleep(2)
        statistics = ours.statistics().outbound
        assert (statistics.pending, statistics.lost, statistics.refused) == (0, 0, 0)
        assert statistics.delivered == 150


def test_a_poll_names_no_more_jobs_than_a_provider_takes() -> None:
    assert inbox.JOBS_AT_ONCE <= task_manager.JOBS_MAX


async def test_more_jobs_than_one_poll_names_take_turns(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "JOBS_AT_ONCE", 20)
    monkeypatch.setattr(task_manager, "JOBS_MAX", 20)
    async with platform() as (ours, theirs, _), trio.open_nursery() as nursery:
        jobs = [Job(ours, f"j{number}") for number in range(70)]
        for job in jobs:
            nursery.start_soon(job.run)
        await trio.sleep(5)
        for job in jobs[::23]:
            sent = trio.current_time()
            await theirs.deliver(cancel(job.job_id))
            await job.over.wait()
            assert trio.current_time() - sent < 4 * inbox.TURN  # four polls name all of them
            await trio.sleep(3)
        assert ours.health().inbound.ok
        await trio.sleep(100)
        assert ours.statistics().inbound.failed_polls == 0
        for job in jobs:
            if not job.ended:
                theirs.publish(cancel(job.job_id))
    assert [len(job.ended) for job in jobs] == [1] * 70


async def test_a_subscription_of_somebody_else(autojump_clock: Any) -> None:
    async with platform() as (ours, theirs, _):
        with theirs.subscribe("a") as stream:
            await ours.deliver(cancel("a", SignalAction.STOP))
            with trio.fail_after(2):
                assert (await stream.receive()).action is SignalAction.STOP


async def test_rpc_retries_of_the_channel_do_not_multiply_here_either(autojump_clock: Any) -> None:
    async with provided() as given:
        calls = 0

        async def connect() -> trio.abc.Stream:
            nonlocal calls
            calls += 1
            raise OSError("down")

        async with rpc.open_channel("memory", connect=connect) as channel:
            async with RemoteSignals(channel, SignalSettings(), close_timeout=0.5).opened() as exchange:
                exchange.publish(start("a"))
                await trio.sleep(60)
                assert not exchange.health().outbound.ok
            assert calls < 15  # of the connection's own backoff
        assert given.provider
