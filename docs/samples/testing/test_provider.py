import pytest
from grpclib import Status
from reminder import PATIENCE, Reminders

from dk_trio.testing import FakeProvider, serve_in_memory

TEA = {"protocol": "remind", "text": "tea", "after": 0}


@pytest.fixture
async def provider():
    async with FakeProvider() as provider:
        await provider.put_setup({}, module_id=Reminders)
        yield provider


async def test_a_refusal_that_lasts(provider, virtual_clock):
    provider.fail("StoreRecord", Status.PERMISSION_DENIED)
    async with serve_in_memory(Reminders, provider=provider) as served:
        result = await served.run_job(TEA)
    assert result.status is Status.PERMISSION_DENIED
    assert provider.calls["StoreRecord"] == 1


async def test_refusals_that_pass(provider, virtual_clock):
    provider.fail("StoreRecord", Status.UNAVAILABLE, times=20)
    async with serve_in_memory(Reminders, provider=provider) as served:
        result = await served.run_job(TEA)
    assert result.ok, result.error
    assert result.seconds > PATIENCE


async def test_a_reply_that_is_lost(provider, virtual_clock):
    provider.lose_reply("StoreRecord")
    async with serve_in_memory(Reminders, provider=provider) as served:
        result = await served.run_job(TEA)
    assert result.ok, result.error
    assert len(await provider.records("notes")) == 1  # and not stored twice


async def test_a_provider_that_is_slow(provider, virtual_clock):
    provider.delay("StoreRecord", 5)
    async with serve_in_memory(Reminders, provider=provider) as served:
        result = await served.run_job(TEA)
    assert result.seconds == pytest.approx(5)
