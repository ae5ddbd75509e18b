"""Signals of jobs by way of a provider: start and stop, cancels, outages."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.testing
from grpclib import GRPCError, Status
from tests.provider.kit import provided

from dk_trio import ModuleClient, ModuleServer, rpc
from dk_trio.signals import Signal

from .remote_kit import (
    MISSION,
    REMOTE,
    Network,
    doze,
    echo,
    module,
    remote,
    signal,
    stored_setup,
    told,
    wait,
    wall_clock,
)
from .served import outputs_of


async def test_a_job_tells_start_and_stop(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(echo) as (_, client, network, setup_id):
        outputs = await outputs_of(client, {}, protocol="message", setup_id=setup_id, mission_id=MISSION)
        await trio.sleep(1)
        tasks = await told(network)
    job_id = outputs[0]["root"]["job_id"]
    assert [(task.task_id, task.action, task.cancellation_reason) for task in tasks] == [
        (job_id, "start", "none"),
        (job_id, "stop", "completed"),
    ]


@pytest.mark.parametrize("action", ["cancel", "stop"])
async def test_a_signal_at_the_provider_ends_the_job_at_once(
    autojump_clock: trio.testing.MockClock, action: str
) -> None:
    async with remote(wait) as (_, client, network, setup_id):
        with pytest.raises(GRPCError) as caught:
            async with client.start({}, protocol="message", setup_id=setup_id, mission_id=MISSION) as outputs:
                async for output in outputs:
                    if output["root"]["protocol"] == "message":
                        await trio.sleep(3)  # a poll is held
                        # A clock that is an hour behind fools nobody.
                        await signal(network, outputs.job_id, action, at=datetime.now(UTC) - timedelta(hours=1))
                        sent_at = trio.current_time()
        assert caught.value.status is Status.CANCELLED
        assert trio.current_time() - sent_at < 0.05
        await trio.sleep(1)
        tasks = await told(network)
    told_of = [(task.action, task.cancellation_reason) for task in tasks]
    reason = f"signal_service_{action}"
    assert told_of == [("start", "none"), (action, "none"), (f"ack_{action}", reason), ("stop", reason)]


async def test_stop_module_and_signals_agree(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(wait) as (_, client, network, setup_id):
        with pytest.raises(GRPCError) as caught:
            async with client.start({}, protocol="message", setup_id=setup_id, mission_id=MISSION) as outputs:
                async for output in outputs:
                    if output["root"]["protocol"] == "message":
                        await client.stop(outputs.job_id)
        assert caught.value.status is Status.CANCELLED
        await trio.sleep(1)
        tasks = await told(network)
    actions = [task.action for task in tasks]
    assert actions == ["start", "ack_stop", "stop"]  # as after a stop signal: nothing stays pending at the provider
    assert {task.cancellation_reason for task in tasks[1:]} == {"signal_service_stop"}


async def test_stop_module_does_not_need_the_provider(autojump_clock: trio.testing.MockClock) -> None:
    async with remote(wait) as (_, client, network, setup_id):
        with pytest.raises(GRPCError) as caught:
            async with client.start({}, protocol="message", setup_id=setup_id) as outputs:
                async for output in outputs:
                    if output["root"]["protocol"] == "message":
                        await network.fail()
                        asked_at = trio.current_time()
                        await client.stop(outputs.job_id)
        assert caught.value.status is Status.CANCELLED
        assert trio.current_time() - asked_at < 0.05


@pytest.mark.parametrize("seconds", [5, 60, 600])
async def test_an_outage_cancels_no_job_and_loses_no_signal(
    autojump_clock: trio.testing.MockClock, seconds: int
) -> None:
    jobs = 40
    ended: Counter[str] = Counter()
    async with remote(doze) as (_, client, network, setup_id):
        await outputs_of(client, {}, protocol="message", setup_id=setup_id)  # the setup is cached

        async def run(number: int) -> None:
            await trio.sleep(number / 10)  # some start before the outage, most within
            data = {"count": number * seconds // jobs}
            outputs = await outputs_of(client, data, protocol="message", setup_id=setup_id, mission_id=MISSION)
            ended[outputs[1]["root"]["text"]] += 1

        async with trio.open_nursery() as nursery:
            for number in range(jobs):
                nursery.start_soon(run, number)
            await trio.sleep(1)
            await network.fail()
            await trio.sleep(seconds)
            network.heal()
        await trio.sleep(30)
        tasks = await told(network)
    assert ended == {"awake": jobs}
    by_job: dict[str, list[str]] = {}
    for task in tasks:
        by_job.setdefault(task.task_id, []).append(task.action)
    assert len(by_job) == jobs + 1
    assert {tuple(dict.fromkeys(actions)) for actions in by_job.values()} == {("start", "stop")}


async def test_signals_that_wait_are_sent_when_the_server_stops(autojump_clock: trio.testing.MockClock) -> None:
    async with provided(now=wall_clock) as provider:
        network = Network(provider)
        setup_id = await stored_setup(provider, {})
        server = ModuleServer(module(echo), settings=REMOTE, provider=network.connect)
        async with server.opened(), trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                return ours

            async with rpc.open_channel("memory", connect=connect) as channel:
                await outputs_of(ModuleClient(channel), {}, protocol="message", setup_id=setup_id)
            nursery.cancel_scope.cancel()
        assert [task.action for task in await told(network)] == ["start", "stop"]


async def test_authors_can_watch_signals(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[Signal] = []
    async with remote(echo) as (server, client, _, setup_id):
        with server.signals.observe(seen.append):
            await outputs_of(client, {}, protocol="message", setup_id=setup_id)
    assert [one.action for one in seen] == ["start", "stop"]
