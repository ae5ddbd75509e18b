"""Work off the loop: both ways give the same answer, leave the loop free, and end with their job."""

import pytest
import trio
from tests.module.served import outputs_of, served

from .test_examples import load

EXAMPLE = load("examples/cpu_bound.py")
HOURS_OF_WORK = 10**9
PATIENCE = 30  # seconds of the real clock: threads and processes know no other


@pytest.mark.parametrize("protocol", ["thread", "process"])
async def test_primes_are_counted(protocol: str) -> None:
    with trio.fail_after(PATIENCE):
        async with served(EXAMPLE.Counter) as (_, client):
            outputs = await outputs_of(client, {"below": 5000}, protocol=protocol)
    assert [output["root"].get("count") for output in outputs] == [None, 669, None]


@pytest.mark.parametrize("protocol", ["thread", "process"])
async def test_others_go_on_and_a_cancelled_job_leaves_nothing_running(protocol: str) -> None:
    with trio.fail_after(PATIENCE):
        async with served(EXAMPLE.Counter) as (server, client):
            async with client.start({"below": HOURS_OF_WORK}, protocol=protocol) as outputs:
                await anext(outputs)
                await client.input_schema()
                assert server.statistics().jobs.running == 1
            assert not await server.drain(PATIENCE)
            assert EXAMPLE.CPUS.borrowed_tokens == 0
