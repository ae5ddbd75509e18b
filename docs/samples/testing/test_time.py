import pytest
import trio
from grpclib import Status
from reminder import Reminders

from dk_trio import Settings
from dk_trio.settings import TaskSettings
from dk_trio.testing import run_job, serve_in_memory


async def test_a_callers_deadline(virtual_clock):
    result = await run_job(Reminders, {"text": "tea", "after": 3600}, protocol="remind", timeout=60)
    assert result.status is Status.DEADLINE_EXCEEDED
    assert result.seconds == pytest.approx(60)


async def test_jobs_wait_for_their_turn(virtual_clock):
    one_at_a_time = Settings(tasks=TaskSettings(max_concurrent_tasks=1, max_queued_tasks=10))
    ended = []

    async def remind(served, text):
        await served.run_job({"text": text, "after": 600}, protocol="remind")
        ended.append((text, trio.current_time()))

    async with serve_in_memory(Reminders, settings=one_at_a_time) as served, trio.open_nursery() as nursery:
        nursery.start_soon(remind, served, "tea")
        await trio.sleep(1)
        nursery.start_soon(remind, served, "coffee")
    assert ended == [("tea", 600), ("coffee", 1200)]
