"""Outages of a provider of ours that keeps its signals on disk, and begins again from there."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from tests.provider.kit import provided

from dk_trio import rpc
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import Task
from dk_trio.settings import SignalSettings
from dk_trio.signals import RemoteSignals

from .fake import start, stop
from .test_with_provider import Job, cancel

JOBS = 60


def kept(directory: Path) -> dict[str, list[str]]:
    """What is on the disk of each job, in its order."""
    said: dict[str, list[str]] = {}
    with closing(sqlite3.connect(directory / "dk-trio.sqlite3")) as database:
        for (message,) in database.execute("SELECT message FROM signals ORDER BY place"):
            task = Task.parse(message)
            said.setdefault(task.task_id, []).append(task.action)
    return said


class Platform:
    """A provider that can be away, and the place from which jobs are asked to end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.present: Any = None

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.present is None:
            raise OSError("nobody listens")
        stream: trio.abc.Stream = await self.present()
        return stream

    @asynccontextmanager
    async def there(self) -> AsyncIterator[RemoteSignals]:
        async with provided(directory=self.directory) as given, given.another() as channel:
            self.present = given.connect
            try:
                async with RemoteSignals(channel, SignalSettings(flush_interval=0), random=Random(2)).opened() as asks:
                    yield asks
            finally:
                self.present = None


@pytest.mark.parametrize("seconds", [5, 60, 600])
async def test_an_outage_with_a_restart_from_disk(virtual_clock: Any, tmp_path: Path, seconds: int) -> None:
    """Jobs begin, end and are asked to end before, during and after it."""
    platform = Platform(tmp_path)
    ended_well: list[str] = []

    async def live(exchange: RemoteSignals, number: int) -> None:
        await trio.sleep(number * (seconds + 20) / JOBS)
        job = Job(exchange, f"j{number}")
        with exchange.listen(job.job_id, job.on_signal):
            exchange.publish(start(job.job_id))
            with trio.move_on_after(seconds / 10 * (number % 7) + 1):
                await job.over.wait()
        exchange.publish(stop(job.job_id, "signal_service_cancel" if job.ended else "completed"))
        ended_well.append(job.job_id)

    async def end(asks: RemoteSignals, ours: RemoteSignals, nursery: trio.Nursery, job_id: str) -> None:
        job = Job(ours, job_id)
        nursery.start_soon(job.run)
        await trio.sleep(1)
        asked = trio.current_time()
        await asks.deliver(cancel(job_id))
        await job.over.wait()
        assert trio.current_time() - asked < 0.05

    with trio.fail_after(7200):
        async with (
            rpc.open_channel("platform", connect=platform.connect, random=Random(1)) as channel,
            RemoteSignals(channel, SignalSettings(), random=Random(1)).opened() as ours,
            trio.open_nursery() as nursery,
        ):
            for number in range(JOBS):
                nursery.start_soon(live, ours, number)
            waiting = Job(ours, "waiting")
            nursery.start_soon(waiting.run)
            async with platform.there() as asks:
                await trio.sleep(5)
                await end(asks, ours, nursery, "before")
            await trio.sleep(seconds)
            assert not ours.health().outbound.ok
            async with platform.there() as asks:
                await trio.sleep(13)  # DIGITALKIN_GRPC_MAX_RECONNECT_MS, give or take a fifth
                assert (ours.health().outbound.ok, ours.health().inbound.ok) == (True, True)
                await asks.deliver(cancel("waiting"))
                await end(asks, ours, nursery, "after")
                await trio.sleep(seconds + 20)
    assert len(ended_well) == JOBS
    statistics = ours.statistics().outbound
    assert (statistics.pending, statistics.lost, statistics.refused) == (0, 0, 0)
    said = kept(tmp_path)
    for job_id in ("before", "waiting", "after"):
        actions = [action for action in said.pop(job_id) if action != "cancel"]
        assert actions == ["start", "ack_cancel", "stop"]
    assert said == {f"j{number}": ["start", "stop"] for number in range(JOBS)}
