"""Hours that pass in milliseconds: waits for a slot, timeouts, retries, polls, leases of time, in virtual time."""

import threading
from typing import Any

import pytest
import trio
import trio.testing
from grpclib import GRPCError, Status
from tests.module.sample import Message, module_with, send_one

from dk_trio import Settings
from dk_trio.settings import ChannelSettings, LifecycleSettings, SignalSettings, TaskSettings
from dk_trio.testing import FakeProvider, JobResult, run_job, serve_in_memory

MINUTE, HOUR = 60.0, 3600.0


def napping(seconds: float, **hooks: Any) -> Any:
    """A module whose jobs sleep, and then answer."""

    async def handle(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
        await trio.sleep(seconds)
        await context.send(Message(text="done"))

    return module_with(handle, **hooks)


async def test_an_hour_of_work_takes_an_hour_of_the_clock_alone(virtual_clock: trio.testing.MockClock) -> None:
    result = await run_job(napping(HOUR), {"text": "hi"}, protocol="message")
    assert (result.ok, result.seconds, result.typed(Message)[0].text) == (True, HOUR, "done")


async def test_jobs_wait_for_ten_minutes_in_the_queue_in_their_order(virtual_clock: trio.testing.MockClock) -> None:
    settings = Settings(tasks=TaskSettings(max_concurrent_tasks=1, max_queued_tasks=3))
    results: list[JobResult] = []
    async with serve_in_memory(napping(10 * MINUTE), settings=settings) as served:

        async def job() -> None:
            results.append(await served.run_job({"text": "hi"}, protocol="message"))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(job)
            await trio.sleep(5 * MINUTE)
            tasks = served.server.statistics().admission
            assert (tasks.running, tasks.queued) == (1, 3)
            refused = await served.run_job({"text": "one more"}, protocol="message")
    assert (refused.status, refused.seconds) == (Status.RESOURCE_EXHAUSTED, settings.tasks.admission_timeout)
    assert [result.ok for result in results] == [True] * 4
    assert [result.seconds for result in results] == [10 * MINUTE, 20 * MINUTE, 30 * MINUTE, 40 * MINUTE]


async def test_a_job_is_cancelled_when_its_time_is_over(virtual_clock: trio.testing.MockClock) -> None:
    cleaned: list[float] = []

    async def cleanup(self: Any) -> None:
        await trio.sleep(3)
        cleaned.append(trio.current_time())

    settings = Settings(lifecycle=LifecycleSettings(execution_timeout=2 * HOUR))
    began = trio.current_time()
    result = await run_job(napping(3 * HOUR, cleanup=cleanup), {"text": "hi"}, protocol="message", settings=settings)
    assert result.status is Status.DEADLINE_EXCEEDED
    assert "ran for 7200 s" in result.error
    assert (result.seconds, cleaned) == (2 * HOUR + 3, [began + 2 * HOUR + 3])


async def test_the_work_of_threads_takes_no_time(virtual_clock: trio.testing.MockClock) -> None:
    """Were the clock to jump meanwhile, the nearest deadline would end the job."""

    async def handle(self: Any, input_data: Message, setup_data: Any, context: Any) -> None:
        await trio.to_thread.run_sync(threading.Event().wait, 0.02)
        await context.send(Message(text="done"))

    settings = Settings(lifecycle=LifecycleSettings(execution_timeout=0.001))
    result = await run_job(module_with(handle), {"text": "hi"}, protocol="message", settings=settings)
    assert (result.ok, result.seconds) == (True, 0)


async def test_a_callers_deadline_ends_the_job(virtual_clock: trio.testing.MockClock) -> None:
    result = await run_job(napping(3 * HOUR), {"text": "hi"}, protocol="message", timeout=HOUR)
    assert (result.status, result.seconds) == (Status.DEADLINE_EXCEEDED, HOUR)


async def test_retries_wait_twice_as_long_each_time(virtual_clock: trio.testing.MockClock) -> None:
    module = module_with(send_one, metadata={"module_id": "modules:sample"})
    settings = Settings(channel=ChannelSettings(retry_max_attempts=4, retry_initial_backoff=2, retry_max_backoff=60))
    async with FakeProvider() as provider:
        await provider.put_setup({"prefix": "> "}, module_id=module)
        provider.fail("GetSetup", Status.UNAVAILABLE, times=3)
        result = await run_job(module, {"text": "hi"}, protocol="message", provider=provider, settings=settings)
    assert (result.ok, provider.calls["GetSetup"]) == (True, 4)
    assert 0.8 * 14 <= result.seconds <= 1.2 * 14, "2 s, 4 s and 8 s, give or take a fifth"


async def test_a_client_comes_back_when_its_connection_was_cut(virtual_clock: trio.testing.MockClock) -> None:
    results: list[JobResult] = []
    async with serve_in_memory(napping(HOUR)) as served, trio.open_nursery() as nursery:

        async def job() -> None:
            results.append(await served.run_job({"text": "hi"}, protocol="message"))

        nursery.start_soon(job)
        await trio.sleep(MINUTE)
        assert (served.connections, served.cut(), served.connections) == (1, 1, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert [result.status for result in results] == [Status.UNAVAILABLE]
        assert served.server.statistics().jobs.running == 0
        await job()
    assert [result.ok for result in results] == [False, True]


@pytest.mark.parametrize("action", ["cancel", "stop"])
async def test_a_signal_ends_a_job_within_a_poll(action: Any, virtual_clock: trio.testing.MockClock) -> None:
    module = napping(HOUR, metadata={"module_id": "modules:sample"})
    settings = Settings(signals=SignalSettings(poll_timeout=20, initial_poll_interval=5, poll_interval=60))
    async with (
        FakeProvider() as provider,
        serve_in_memory(module, provider=provider, settings=settings) as served,
    ):
        await provider.put_setup({}, module_id=module)
        async with served.client.start({"text": "hi"}, protocol="message") as outputs:
            await anext(outputs)
            await trio.sleep(10 * MINUTE)
            await provider.signal(outputs.job_id, action)
            asked = trio.current_time()
            with pytest.raises(GRPCError) as caught:
                await anext(outputs)
    assert caught.value.status in {Status.CANCELLED, Status.UNAVAILABLE}
    assert trio.current_time() - asked <= 60 + 20


async def test_signals_of_an_outage_arrive_after_it(virtual_clock: trio.testing.MockClock) -> None:
    module = napping(5 * MINUTE, metadata={"module_id": "modules:sample"})
    async with FakeProvider() as provider, serve_in_memory(module, provider=provider) as served:
        await provider.put_setup({}, module_id=module)
        async with served.client.start({"text": "hi"}, protocol="message") as outputs:
            await anext(outputs)
            async with provider.outage():
                assert [each["root"]["protocol"] async for each in outputs] == ["message", "end_of_stream"]
                await trio.sleep(5 * MINUTE)
        await trio.sleep(MINUTE)
        assert [task.action for task in provider.signals if task.task_id == outputs.job_id] == ["start", "stop"]


async def test_a_setup_is_fetched_anew_when_it_is_too_old(virtual_clock: trio.testing.MockClock) -> None:
    module = module_with(send_one, metadata={"module_id": "modules:sample"})
    settings = Settings(lifecycle=LifecycleSettings(setup_cache_ttl=HOUR))
    texts: list[str] = []
    async with (
        FakeProvider() as provider,
        serve_in_memory(module, provider=provider, settings=settings) as served,
    ):
        for prefix, wait in (("a", 0.0), ("b", HOUR / 2), ("c", HOUR)):
            await provider.put_setup({"prefix": prefix}, module_id=module)
            await trio.sleep(wait)
            texts += [each.text for each in (await served.run_job({"text": ""}, protocol="message")).typed(Message)]
    assert texts == ["a", "a", "c"]
