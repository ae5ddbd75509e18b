import pytest
import trio
from reminder import Reminders


@pytest.fixture
def dk_module():  # what is served; in a conftest.py for all test files beside it
    return Reminders


async def test_with_a_server(dk_server, virtual_clock):
    result = await dk_server.run_job({"text": "tea", "after": 60}, protocol="remind")
    assert [output["text"] for output in result.outputs] == ["tea!"]


async def test_with_a_client(dk_client, virtual_clock, assert_no_leaks):
    async with dk_client.start({"text": "tea", "after": 3600}, protocol="remind") as outputs:
        protocols = [output["root"]["protocol"] async for output in outputs]
    assert protocols == ["module_start_info", "reminder", "end_of_stream"]


async def test_with_a_provider(dk_provider, dk_server, virtual_clock):
    await dk_provider.put_setup({"sign": "?"}, module_id=Reminders)
    await dk_server.run_job({"text": "tea", "after": 60}, protocol="remind")
    await trio.sleep(1)  # signals are sent in batches
    assert [signal.action for signal in dk_provider.signals] == ["start", "stop"]
