"""Hundreds of jobs with services, in virtual time: nothing is left of them, and the last costs as much as the first."""

import gc
from collections import Counter

import pytest
import trio
import trio.testing
from tests.cli import keeper_module
from tests.cli.keeper_module import Keeper

from dk_trio import ModuleClient, Settings
from dk_trio.module import ModuleContext
from dk_trio.services.config import JobServices
from dk_trio.services.local.cost import DefaultCost
from dk_trio.services.local.storage import DefaultStorage

from .served import served

ROUND = 100
LEFT = 20  # of a round, the callers that leave before they have read the end
OF_A_JOB = (ModuleContext, JobServices, DefaultStorage, DefaultCost)


async def round_of_jobs(client: ModuleClient, first: int) -> None:
    limiter = trio.CapacityLimiter(40)

    async def job(number: int) -> None:
        root = {"protocol": "keep", "number": number}
        async with limiter, client.start({"root": root}, mission_id=f"missions:{number}") as outputs:
            async for _ in outputs:
                if number - first < LEFT:
                    await trio.sleep(5)  # those who leave at once and many at a time are not served any more
                    return

    async with trio.open_nursery() as nursery:
        for number in range(first, first + ROUND):
            nursery.start_soon(job, number)
    await trio.testing.wait_all_tasks_blocked()


def tasks() -> int:
    return sum(1 for _ in gc.get_objects() if isinstance(_, trio.lowlevel.Task))


def of_jobs() -> list[object]:
    gc.collect()
    return [it for it in gc.get_objects() if isinstance(it, OF_A_JOB)]


async def test_nothing_is_left_of_jobs_and_the_last_costs_no_more_than_the_first(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "FILE_SIZE", 100)
    statements = 0
    before = of_jobs()  # what other tests have left in the errors that they expected; held, so that it stays
    known = {id(it) for it in before}

    def count(_: str) -> None:
        nonlocal statements
        statements += 1

    async with served(Keeper, settings=Settings()) as (server, client):
        await round_of_jobs(client, 0)
        database = server.platform.database
        await database.open()
        database._connections._writer.set_trace_callback(count)
        rounds = []
        for first in range(ROUND, 4 * ROUND, ROUND):
            statements = 0
            await round_of_jobs(client, first)
            left = Counter(type(it).__name__ for it in of_jobs() if id(it) not in known)
            rounds.append((statements, tasks(), dict(left)))
        assert rounds == [rounds[0]] * 3
        assert rounds[0][2] == {}
        assert rounds[0][0] > ROUND
        statistics = server.statistics()
        assert (statistics.jobs.running, statistics.jobs.queued, statistics.channels.leases) == (0, 0, 0)
        assert sum(statistics.jobs.ended.values()) == 4 * ROUND
